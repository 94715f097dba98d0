//! A peer made of the handshake alone, without an engine: it seals whatever it likes, also what no
//! engine of ours would.
#![allow(dead_code)] // each test takes what it needs

use std::time::Duration;
use tokio::net::UdpSocket;
use wiremesh::{Node, NodeId, PresharedKey, SecretKey};
use wiremesh_noise::{
    InitiatorHandshake, LocalIdentity, Opener, RemoteIdentity, Sealer, create_initiation,
};
use wiremesh_wire::{Message, Tai64n, TransportDataHeader, UnixTime};

const TAG_BYTES: usize = 16;

pub struct Bare {
    pub socket: UdpSocket,
    pub id: NodeId,
    sealer: Sealer,
    _opener: Opener,
}

impl Bare {
    /// The node id of a secret.
    pub fn id(secret: [u8; 32]) -> NodeId {
        wiremesh::node_id(&SecretKey::from_bytes(secret)).expect("a valid key")
    }

    /// Handshakes with a node, without a preshared key, and confirms the session.
    pub async fn connected(node: &Node, secret: [u8; 32]) -> Self {
        let (socket, local, state) = knock(node, secret).await;
        let mut buffer = [0; 2_000];
        let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer));
        let len = received.await.expect("an answer").expect("loopback");
        let Ok(Message::Response(response)) = Message::parse(&buffer[..len]) else {
            panic!("a handshake response");
        };
        let keys = state.consume_response(&local, &response, &PresharedKey::default());
        let (sealer, opener) = keys.expect("it is for us").split();
        let mut bare = Self {
            socket,
            id: local.node_id(),
            sealer,
            _opener: opener,
        };
        bare.inject(&[]).await;
        bare
    }

    /// Sends an initiation and waits for nothing.
    pub async fn unanswered(node: &Node, secret: [u8; 32]) -> UdpSocket {
        knock(node, secret).await.0
    }

    /// Sends any bytes as an authenticated packet; none are a keepalive.
    pub async fn inject(&mut self, packet: &[u8]) {
        let padded = packet.len().next_multiple_of(16);
        let mut datagram = vec![0; TransportDataHeader::LEN + padded + TAG_BYTES];
        datagram[TransportDataHeader::LEN..][..packet.len()].copy_from_slice(packet);
        self.sealer.seal(&mut datagram).expect("a short test");
        self.socket.send(&datagram).await.expect("loopback");
    }
}

/// Sends an initiation.
async fn knock(node: &Node, secret: [u8; 32]) -> (UdpSocket, LocalIdentity, InitiatorHandshake) {
    let local = LocalIdentity::new(SecretKey::from_bytes(secret)).expect("a valid key");
    let remote = RemoteIdentity::new(&local, node.id());
    let now = Tai64n::from_unix(UnixTime::from_secs_nanos(1_700_000_000, 0));
    let (initiation, state) = create_initiation(&local, &remote, [77; 32], 1, now);
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = node.listen_addresses()[0];
    socket.connect(address).await.expect("loopback");
    socket.send(&initiation.emit()).await.expect("loopback");
    (socket, local, state)
}
