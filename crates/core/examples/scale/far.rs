//! What examples share: nodes with counted keys, and the far side of a handshake.

use std::net::SocketAddr;
use wiremesh_core::{
    Admission, ControlConfig, Limits, Node, NodeConfig, Path, PeerConfig, PeerKey,
};
use wiremesh_noise::{
    InitiatorHandshake, LocalIdentity, RemoteIdentity, Sealer, create_initiation, open_initiation,
};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{
    HandshakeInitiation, HandshakeResponse, Instant, Message, NodeId, Now, PresharedKey, SecretKey,
    Tai64n, UnixTime, ip,
};

/// Time at the start of everything.
pub fn start() -> Now {
    let unix = UnixTime::from_secs_nanos(1_700_000_000, 0);
    Now::new(Instant::from_nanos(1_000_000_000), unix)
}

/// The address of a peer.
pub fn address(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 51_820))
}

pub fn secret(number: u32) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_bytes(bytes)
}

/// A node that never asks for cookies, for so many peers; plain WireGuard.
pub fn hub(peers_max: usize) -> Node {
    hub_with(peers_max, None)
}

/// The same, and how it takes part in the control protocol.
pub fn hub_with(peers_max: usize, control: Option<ControlConfig>) -> Node {
    let mut config = NodeConfig::new(secret(0));
    config.control = control;
    config.limits = Limits {
        peers_max: u32::try_from(peers_max).expect("a peer's index has 32 bits"),
        handshakes_per_second_max: u32::MAX,
        ..Limits::default()
    };
    Node::new(config, [1; 32], start()).expect("a good policy")
}

/// The far side of a handshake.
pub struct Far {
    pub local: LocalIdentity,
    hub: RemoteIdentity,
    pub number: u32,
}

impl Far {
    pub fn new(number: u32, hub: NodeId) -> Self {
        let local = LocalIdentity::new(secret(number)).expect("a valid key");
        let hub = RemoteIdentity::new(&local, hub);
        Self { local, hub, number }
    }

    pub fn initiate(&self, now: Now) -> (Vec<u8>, InitiatorHandshake) {
        let mut ephemeral = [9; 32];
        ephemeral[..8].copy_from_slice(&now.instant.as_nanos().to_le_bytes());
        ephemeral[8..12].copy_from_slice(&self.number.to_le_bytes());
        let time = Tai64n::from_unix(now.unix);
        let (message, pending) =
            create_initiation(&self.local, &self.hub, ephemeral, self.number, time);
        (message.emit().to_vec(), pending)
    }

    /// The first transport data, which confirms the session: a keepalive; and what seals more.
    pub fn confirm(&self, pending: &InitiatorHandshake, response: &[u8]) -> (Vec<u8>, Sealer) {
        let Ok(Message::Response(response)) = Message::parse(response) else {
            panic!("not a response");
        };
        let keys = pending.consume_response(&self.local, &response, &PresharedKey::default());
        let (mut sealer, _) = keys.expect("a true response").split();
        let mut keepalive = vec![0; 32];
        sealer.seal(&mut keepalive).expect("the first one");
        (keepalive, sealer)
    }

    pub fn answer(&self, initiation: &HandshakeInitiation) -> HandshakeResponse {
        let opened = open_initiation(&self.local, initiation).expect("a true initiation");
        let proven = opened.authenticate(&self.hub).expect("a true initiation");
        let response = proven.respond(&PresharedKey::default(), &[5; 32], self.number);
        response.expect("a true initiation").0
    }
}

/// A node that lets everybody in.
pub fn open_hub(provisional_max: u32) -> Node {
    let mut config = NodeConfig::new(secret(0));
    config.limits.handshakes_per_second_max = u32::MAX;
    config.admission = Admission::AllowAll { provisional_max };
    Node::new(config, [1; 32], start()).expect("no policy")
}

/// Lets the node take a datagram and gives the last one that it sends.
pub fn deliver(hub: &mut Node, now: Now, number: u32, datagram: &mut [u8]) -> Option<Vec<u8>> {
    hub.handle_datagram(now, Path::to(address(number)), datagram);
    while hub.poll_event().is_some() {}
    let sent = std::iter::from_fn(|| hub.poll_transmit());
    sent.last().map(|transmit| transmit.datagram)
}

pub fn add(hub: &mut Node, far: &Far) -> PeerKey {
    let mut config = PeerConfig::new(far.local.node_id());
    config.endpoint = Some(address(far.number));
    hub.add_peer(start(), config).expect("a new peer")
}

/// Makes a session that the far side began, and confirms it.
pub fn connect(hub: &mut Node, now: Now, far: &Far) -> Sealer {
    let (mut initiation, pending) = far.initiate(now);
    let response = deliver(hub, now, far.number, &mut initiation).expect("a response");
    let (mut keepalive, sealer) = far.confirm(&pending, &response);
    deliver(hub, now, far.number, &mut keepalive);
    sealer
}

/// A UDP packet of so many bytes.
pub fn packet(from: &NodeId, to: &NodeId, len: usize) -> Vec<u8> {
    let mut packet = vec![7; len];
    let (from, to) = ((overlay_address(from), 7), (overlay_address(to), 7));
    ip::emit_ipv6_udp(&mut packet, from, to, len - ip::IPV6_UDP_HEADER_LEN, 0);
    packet
}

pub fn sealed(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; 16 + packet.len().next_multiple_of(16) + 16];
    datagram[16..16 + packet.len()].copy_from_slice(packet);
    sealer.seal(&mut datagram).expect("few datagrams");
    datagram
}

/// A sequence that looks random (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Half of all numbers are points of the curve.
    pub fn node_id(&mut self) -> NodeId {
        loop {
            let mut bytes = [0; 32];
            for word in bytes.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes());
            }
            bytes[31] &= 0x7f;
            if let Ok(id) = NodeId::from_bytes(&bytes) {
                return id;
            }
        }
    }
}
