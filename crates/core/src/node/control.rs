//! The control protocol's place in the node: its packets in and out, and what it is told.
//!
//! Between control addresses nothing passes but its packets, and those pass on every session. Its
//! messages are made and understood elsewhere. Source: docs/spec.md, "Suites".

use super::Node;
use super::shared::Shared;
use crate::counters::DropReason;
use crate::peer::{Peer, PeerKey};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use wiremesh_wire::Now;
use wiremesh_wire::address::{CONTROL_NET, CONTROL_PORT};
use wiremesh_wire::ip::{self, IPV6_HEADER_LEN, IPV6_UDP_HEADER_LEN};

/// The first four bytes of the control addresses, and which of their bits count: every packet is
/// held against them.
const CONTROL_FRONT: (u32, u32) = {
    let IpAddr::V6(address) = CONTROL_NET.addr() else {
        panic!("control addresses are IPv6");
    };
    assert!(CONTROL_NET.prefix() <= 32);
    let mask = u32::MAX << (32 - CONTROL_NET.prefix());
    ((address.to_bits() >> 96) as u32, mask)
};

/// Whether a packet comes from or goes to a control address, by its IPv6 header alone.
#[inline]
pub(super) fn touches_control(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<IPV6_HEADER_LEN>() else {
        return false;
    };
    let (front, mask) = CONTROL_FRONT;
    let is_control = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_be_bytes(bytes) & mask == front
    };
    header[0] >> 4 == 6 && (is_control(8) || is_control(24))
}

impl Shared {
    /// Takes a packet that touches a control address: one of the control protocol is understood,
    /// everything else is dropped.
    pub(super) fn open_control(&mut self, now: Now, peer: &mut Peer, packet: &[u8]) {
        let from = SocketAddr::new(peer.control.into(), CONTROL_PORT);
        let to = SocketAddr::new(self.control_address.into(), CONTROL_PORT);
        match ip::parse_udp(packet) {
            Ok(udp) if udp.source == from && udp.destination == to => {
                self.handle_control(now, peer, &packet[udp.payload]);
            }
            _ => self.counters.drop_for(DropReason::ControlOnly),
        }
    }

    /// Sends one message of the control protocol on the session that the peer proved last; `false`
    /// if there is none, or no room. Nothing waits for a session.
    pub(super) fn seal_control(&mut self, now: Now, peer: &mut Peer, payload: &[u8]) -> bool {
        let packet_len = IPV6_UDP_HEADER_LEN + payload.len();
        let link = peer.link.as_deref();
        let Some(on) = link.and_then(|link| link.sessions.youngest(now.instant)) else {
            return false;
        };
        if packet_len > self.mtu_bytes || self.transmits.len() >= self.limits.transmits_max {
            return false;
        }
        let from = (self.control_address, CONTROL_PORT);
        let to = (peer.control, CONTROL_PORT);
        let mut datagram = Vec::with_capacity(packet_len + 64);
        let what = self.padded(on, packet_len);
        let sealed = self.seal(now, peer, what, &mut datagram, |packet| {
            packet[IPV6_UDP_HEADER_LEN..].copy_from_slice(payload);
            ip::emit_ipv6_udp(packet, from, to, payload.len(), 0);
            true
        });
        sealed.is_ok_and(|path| self.push_transmit(path, datagram))
    }
}

/// For tests: what the control protocol does to a node.
#[doc(hidden)]
impl Node {
    pub fn test_send_control(&mut self, now: Now, key: PeerKey, payload: &[u8]) -> bool {
        let peer = self.peers.of(key);
        peer.is_some_and(|peer| self.shared.seal_control(now, peer, payload))
    }

    pub fn test_initiate_for_upgrade(&mut self, now: Now, key: PeerKey) {
        if let Some(peer) = self.peers.of(key) {
            self.shared.initiate_for_upgrade(now, peer);
        }
    }

    pub fn test_speaks_control(&mut self, key: PeerKey, expects_initiation: bool) {
        if let Some(peer) = self.peers.of(key) {
            peer.speaks_control = true;
            peer.expects_initiation = expects_initiation;
        }
    }
}
