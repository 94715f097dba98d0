//! Packets that came out of the tunnel: to the streams, to a UDP port, or answered.
//!
//! Owns the table of bound ports and of pings under way. Streams are reached only from the
//! address that the tunnel's key owns; the control port is closed to everyone else's data.

use crate::port::{Addressing, PortQueue, lock};
use crate::raw_socket::RawQueues;
use crate::tunnel::{State, Tunnel};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use wiremesh_core::PeerKey;
use wiremesh_wire::Now;
use wiremesh_wire::address::{CONTROL_PORT, STREAM_PORT};
use wiremesh_wire::ip::{self, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP};

/// Ports given out when port 0 is asked for.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Bytes that wait in one bound port.
const PORT_BYTES_MAX: usize = 4 << 20;
/// The ECN codepoint "congestion experienced" (RFC 3168).
const CONGESTION_EXPERIENCED: u8 = 0b11;

/// Which ping: the address asked, identifier and sequence number.
pub(crate) type PingKey = (IpAddr, u16, u16);

/// Bound ports and pings.
#[derive(Default)]
pub(crate) struct Ports {
    bound: Mutex<HashMap<u16, Arc<PortQueue>>>,
    pings: Mutex<HashMap<PingKey, oneshot::Sender<()>>>,
    pub(crate) raw: RawQueues,
    /// Packets that a peer sent as if they were ours.
    pub(crate) spoofed: AtomicU64,
    /// What found the queue full of a port or protocol that is bound no more.
    overflowed_before: AtomicU64,
    /// Echo requests that came while the socket had enough to send.
    unanswered: AtomicU64,
}

/// A ping that waits for its answer; forgotten when dropped.
pub(crate) struct Pong<'a> {
    ports: &'a Ports,
    key: PingKey,
    pub(crate) receiver: oneshot::Receiver<()>,
}

impl Drop for Pong<'_> {
    fn drop(&mut self) {
        lock(&self.ports.pings).remove(&self.key);
    }
}

/// Why a port cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortTaken {
    /// 2707 and 2708 belong to the node.
    Reserved,
    /// Somebody has it.
    InUse,
}

impl Ports {
    pub(crate) fn bind(&self, port: u16) -> Result<(u16, Arc<PortQueue>), PortTaken> {
        if port == CONTROL_PORT || port == STREAM_PORT {
            return Err(PortTaken::Reserved);
        }
        let mut bound = lock(&self.bound);
        let port = match port {
            0 => EPHEMERAL.clone().find(|port| !bound.contains_key(port)),
            port => Some(port).filter(|port| !bound.contains_key(port)),
        };
        let port = port.ok_or(PortTaken::InUse)?;
        let queue = Arc::new(PortQueue::new(PORT_BYTES_MAX));
        bound.insert(port, Arc::clone(&queue));
        Ok((port, queue))
    }

    pub(crate) fn release(&self, port: u16) {
        let released = lock(&self.bound).remove(&port);
        released.iter().for_each(|queue| self.retire(queue));
    }

    /// Goes on counting what a queue has dropped.
    pub(crate) fn retire(&self, queue: &PortQueue) {
        self.overflowed_before
            .fetch_add(queue.dropped(), Ordering::Relaxed);
    }

    /// Echo requests that were not answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Datagrams and packets that found the queue of their port or protocol full.
    pub(crate) fn overflowed(&self) -> u64 {
        let bound = lock(&self.bound);
        let bound: u64 = bound.values().map(|queue| queue.dropped()).sum();
        bound + self.raw.dropped() + self.overflowed_before.load(Ordering::Relaxed)
    }

    /// Waits for the answer to a ping for as long as the result is kept.
    pub(crate) fn expect_pong(&self, key: PingKey) -> Pong<'_> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.pings).insert(key, sender);
        Pong {
            ports: self,
            key,
            receiver,
        }
    }

    /// Pings under way.
    #[cfg(test)]
    fn pings(&self) -> usize {
        lock(&self.pings).len()
    }

    /// Ends all bound ports.
    pub(crate) fn close(&self) {
        lock(&self.bound).values().for_each(|queue| queue.close());
        self.raw.close();
        lock(&self.pings).clear();
    }
}

impl Tunnel {
    /// Takes one packet from `peer`; its source is among the peer's allowed IPs.
    pub(crate) fn handle_inbound(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        packet: &mut [u8],
        outer_ecn: u8,
    ) {
        let Ok(header) = ip::parse(packet) else {
            return;
        };
        // A peer may have a network in which our own address is. What comes from that is trusted
        // as a program of this host is, and the host's kernel does not look in IPv6.
        if !self.plain && self.addresses.contains(header.source) {
            self.ports.spoofed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let ours = !self.plain && self.addresses.contains(header.destination);
        let taken = ours
            && match header.protocol {
                PROTOCOL_UDP => self.handle_udp(state, peer, packet, outer_ecn),
                PROTOCOL_ICMP | PROTOCOL_ICMPV6 => self.handle_icmp(state, now, peer, packet),
                _ => self.ports.raw.push(&header, packet),
            };
        if let Some(device) = self.plane.device.as_ref().filter(|_| !taken) {
            if outer_ecn == CONGESTION_EXPERIENCED {
                ip::mark_congestion(packet);
            }
            device.deliver(packet);
        }
    }

    /// Gives a datagram to the streams or to a bound port; `false` if it is for neither.
    fn handle_udp(&self, state: &mut State, peer: PeerKey, packet: &[u8], outer_ecn: u8) -> bool {
        let Ok(udp) = ip::parse_udp(packet) else {
            return false;
        };
        // A router on the way marks the outer packet; the mark belongs to the inner one
        // (RFC 6040, section 4.2), if that says that its sender understands marks.
        let ecn = match outer_ecn {
            CONGESTION_EXPERIENCED if udp.ecn != 0 => CONGESTION_EXPERIENCED,
            _ => udp.ecn,
        };
        let from = Addressing {
            source: udp.source,
            destination: udp.destination.ip(),
            ecn,
        };
        let payload = &packet[udp.payload];
        let waker = match udp.destination.port() {
            STREAM_PORT => {
                let owned = state.engine.overlay_address_of(peer).map(IpAddr::V6);
                let expected = owned.map(|address| SocketAddr::new(address, STREAM_PORT));
                let ours = udp.destination.ip() == self.addresses.overlay;
                if !ours || expected != Some(udp.source) {
                    return true;
                }
                state.last_words.forget(peer);
                self.streams.push(from, payload)
            }
            CONTROL_PORT => return true,
            port => {
                let Some(queue) = lock(&self.ports.bound).get(&port).cloned() else {
                    return false;
                };
                queue.push(from, payload)
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Takes a QUIC packet that came without IP and UDP headers from the stream port of `peer`. What
    /// says ECN is the outer header, with the mark of the sender or of a router.
    pub(crate) fn handle_stream(
        &self,
        state: &mut State,
        peer: PeerKey,
        packet: &[u8],
        outer_ecn: u8,
    ) {
        let Some(source) = state.engine.overlay_address_of(peer) else {
            return;
        };
        let from = Addressing {
            source: SocketAddr::new(source.into(), STREAM_PORT),
            destination: self.addresses.overlay.into(),
            ecn: outer_ecn,
        };
        state.last_words.forget(peer);
        if let Some(waker) = self.streams.push(from, packet) {
            waker.wake();
        }
    }

    /// Answers an echo request, unless the host does, and tells who waits for a reply; `false` if
    /// the packet is neither.
    fn handle_icmp(&self, state: &mut State, now: Now, peer: PeerKey, packet: &mut [u8]) -> bool {
        // A peer that asks faster than the socket sends is not answered.
        if self.plane.device.is_none() && ip::turn_echo_request_into_reply(packet) {
            if state.outbox.is_full() {
                self.ports.unanswered.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            let reply = &*packet;
            let fill = |out: &mut [u8]| out.copy_from_slice(reply);
            self.seal(state, now, peer, reply.len(), 0, fill);
            return true;
        }
        let Some(echo) = ip::parse_echo(packet).filter(|echo| !echo.request) else {
            return false;
        };
        let key = (echo.source, echo.ident, echo.seq);
        let waiting = lock(&self.ports.pings).remove(&key);
        waiting.is_some_and(|sender| {
            // The one who waited may be gone.
            let _ = sender.send(());
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_that_nobody_waits_for_is_forgotten() {
        let ports = Ports::default();
        let pong = ports.expect_pong(([127, 0, 0, 1].into(), 1, 2));
        assert_eq!(ports.pings(), 1);
        drop(pong);
        assert_eq!(ports.pings(), 0);
    }

    #[test]
    fn the_nodes_ports_and_bound_ports_are_taken() {
        let ports = Ports::default();
        assert_eq!(ports.bind(CONTROL_PORT).err(), Some(PortTaken::Reserved));
        assert_eq!(ports.bind(STREAM_PORT).err(), Some(PortTaken::Reserved));
        let (first, _) = ports.bind(0).expect("all are free");
        assert_eq!(ports.bind(first).err(), Some(PortTaken::InUse));
        ports.release(first);
        assert!(ports.bind(first).is_ok());
    }
}
