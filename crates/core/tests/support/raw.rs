//! A WireGuard peer of one node, made from the handshake alone: it seals whatever a test wants.
//!
//! Owns its keys and one session. It never reads what the node sends but the response.

use crate::net::{Net, Sent, packet, secret};
use std::net::{Ipv6Addr, SocketAddr};
use wiremesh_core::{Path, PeerConfig, PeerKey};
use wiremesh_noise::{LocalIdentity, RemoteIdentity, Sealer, create_initiation};
use wiremesh_wire::ip;
use wiremesh_wire::{HandshakeResponse, NodeId, PresharedKey, Tai64n};

/// The peer. It talks to host 0.
pub struct Raw {
    pub id: NodeId,
    pub key: PeerKey,
    addr: SocketAddr,
    sealer: Sealer,
}

impl Raw {
    /// Makes host 0 and this peer of it, with a session.
    pub fn connect(net: &mut Net) -> Raw {
        net.add(|_| ());
        let local = LocalIdentity::new(secret(99)).expect("a valid secret key");
        let addr = SocketAddr::from(([203, 0, 113, 9], 9));
        let (now, node_id) = (net.now, net.id(0));
        let config = PeerConfig::new(local.node_id());
        let key = net.hosts[0].node.add_peer(now, config).expect("a new peer");

        let remote = RemoteIdentity::new(&local, node_id);
        let timestamp = Tai64n::from_unix(now.unix);
        let (initiation, pending) = create_initiation(&local, &remote, [3; 32], 7, timestamp);
        net.deliver(addr, 0, &initiation.emit());
        let response = net.last(0, Sent::is_response).bytes;
        let response = response.as_slice().try_into().expect("92 bytes");
        let response = HandshakeResponse::parse(response).expect("a response");
        let psk = PresharedKey::default();
        let keys = pending.consume_response(&local, &response, &psk);
        let (sealer, _) = keys.expect("a true response").split();
        let mut raw = Raw {
            id: local.node_id(),
            key,
            addr,
            sealer,
        };
        raw.send(net, &[]);
        assert!(net.hosts[0].node.path_of(raw.key) == Some(Path::to(addr)));
        raw
    }

    /// A datagram with this packet inside.
    pub fn sealed(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; 16 + packet.len().next_multiple_of(16) + 16];
        datagram[16..16 + packet.len()].copy_from_slice(packet);
        self.sealer.seal(&mut datagram).expect("few datagrams");
        datagram
    }

    /// Sends a packet; the node gets it at once.
    pub fn send(&mut self, net: &mut Net, packet: &[u8]) {
        let datagram = self.sealed(packet);
        net.deliver(self.addr, 0, &datagram);
    }

    /// Sends data between the overlay addresses.
    pub fn send_data(&mut self, net: &mut Net, payload: &[u8]) {
        let packet = packet(&self.id, &net.id(0), payload);
        self.send(net, &packet);
    }
}

/// A UDP packet between any addresses and ports.
pub fn udp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ip::IPV6_UDP_HEADER_LEN];
    bytes.extend_from_slice(payload);
    ip::emit_ipv6_udp(&mut bytes, from, to, payload.len(), 0);
    bytes
}
