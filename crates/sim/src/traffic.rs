//! Application traffic: numbered packets, some of them lying about their source.
//!
//! Owns their form. Whether they arrive as they should is for [`crate::check`] to say.

use crate::check::{AppPacket, Check};
use crate::host::lan_of;
use crate::link::MS;
use crate::options::{Mutation, Rule};
use crate::trace::{Note, digest};
use crate::world::{Action, Simulation};
use std::net::{IpAddr, Ipv4Addr};
use wiremesh_core::Transmit;
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::ip;

const PORT: u16 = 7;
/// In front of what is sent as a bare stream packet; taken off where it arrives.
const QUIC_SHORT_HEADER: u8 = 0x5a;
const IPV6_HEADERS: usize = 48;
const IPV4_HEADERS: usize = 28;

impl Simulation {
    /// Some host has a packet for one of its partners.
    pub(crate) fn on_traffic(&mut self, host: usize) -> Check {
        if self.time >= self.chaos_end {
            return Ok(());
        }
        let gap = self.random.between(MS, 2 * self.traffic_gap);
        self.after(gap, Action::Traffic(host));
        let partners: Vec<usize> = self.hosts[host].wanted.keys().copied().collect();
        if partners.is_empty() || self.hosts[host].sleep.is_some() {
            return Ok(());
        }
        let to = partners[self.random.index(partners.len())];
        let forged = self.random.permille(40);
        let len = match self.random.below(4) {
            0 => self.random.between(8, 1_373),
            _ => self.random.between(8, 200),
        };
        self.send_packet(host, to, len as usize, forged)?;
        self.checker
            .check_epochs(host, &self.hosts[host], self.time)
    }

    /// Gives one packet to the node of `from`; tells its number if the node took it.
    pub(crate) fn send_packet(
        &mut self,
        from: usize,
        to: usize,
        payload_len: usize,
        forged: bool,
    ) -> Result<Option<usize>, (Rule, String)> {
        let number = self.checker.packets.len();
        let packet = self.make_packet(number, (from, to), payload_len, forged);
        self.checker.packets.push(AppPacket {
            from,
            to,
            digest: digest(&packet),
            forged,
            delivered: false,
        });
        if forged && self.options.mutation == Some(Mutation::IgnoreAllowedIps) {
            let sender = self.hosts[from].id;
            self.checker.on_received(to, sender, &packet)?;
        }
        let taken = self.offer((from, to), packet, forged)?;
        self.trace.note(
            self.time,
            from,
            Note::Said(format_args!("packet {number} to {to}: {taken}")),
        );
        self.sent += u64::from(taken);
        self.drain(from)?;
        Ok(taken.then_some(number))
    }

    fn offer(
        &mut self,
        (from, to): (usize, usize),
        packet: Vec<u8>,
        forged: bool,
    ) -> Result<bool, (Rule, String)> {
        let (time, to_id) = (self.time, self.hosts[to].id);
        let host = &mut self.hosts[from];
        let now = host.now(time);
        // Half of what can be sealed at once takes the short way.
        let ready = host
            .node
            .peer_by_id(&to_id)
            .filter(|key| host.node.is_ready(now, *key));
        if let Some(key) = ready.filter(|_| self.random.permille(500)) {
            let mut datagram = Vec::new();
            // What lies about its source needs a header to lie in.
            let bare =
                !forged && packet.len().is_multiple_of(2) && host.node.takes_bare_streams(key);
            let sealed = if bare {
                let packet = [&[QUIC_SHORT_HEADER], &packet[..]].concat();
                host.node
                    .seal_stream_packet(now, key, &packet, &mut datagram)
            } else {
                let fill = |out: &mut [u8]| out.copy_from_slice(&packet);
                host.node
                    .seal_packet(now, key, packet.len(), &mut datagram, fill)
            };
            if let Ok(path) = sealed {
                let transmit = Transmit {
                    path,
                    datagram,
                    ecn: 0,
                };
                self.on_transmit(from, transmit)?;
            }
            return Ok(sealed.is_ok());
        }
        Ok(host.node.handle_packet(now, packet).is_ok())
    }

    fn make_packet(
        &mut self,
        number: usize,
        (from, to): (usize, usize),
        payload_len: usize,
        forged: bool,
    ) -> Vec<u8> {
        let liar = (from + 1) % self.hosts.len();
        let source = if forged { liar } else { from };
        let strangers = self.hosts[to].wanted.get(&from).is_none_or(|w| w.stranger)
            || self.hosts[from].wanted.get(&to).is_none_or(|w| w.stranger);
        let number = (number as u64).to_le_bytes();
        if !strangers && self.random.permille(200) {
            let mut bytes = vec![0; IPV4_HEADERS + payload_len];
            bytes[IPV4_HEADERS..IPV4_HEADERS + 8].copy_from_slice(&number);
            let ends = (in_lan(source), in_lan(to));
            ip::emit_ipv4_udp(&mut bytes, (ends.0, PORT), (ends.1, PORT), payload_len, 0);
            return bytes;
        }
        let mut bytes = vec![0; IPV6_HEADERS + payload_len];
        bytes[IPV6_HEADERS..IPV6_HEADERS + 8].copy_from_slice(&number);
        let (source, to) = (self.hosts[source].id, self.hosts[to].id);
        let ends = (overlay_address(&source), overlay_address(&to));
        ip::emit_ipv6_udp(&mut bytes, (ends.0, PORT), (ends.1, PORT), payload_len, 0);
        bytes
    }
}

fn in_lan(host: usize) -> Ipv4Addr {
    match lan_of(host).addr() {
        IpAddr::V4(net) => Ipv4Addr::from(u32::from(net) | 1),
        IpAddr::V6(_) => unreachable!("the network of a host is an IPv4 one"),
    }
}
