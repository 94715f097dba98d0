//! Two nodes on loopback with a TCP each.
#![allow(dead_code)] // each test takes what it needs

#[path = "../../../wiremesh/tests/support/nodes.rs"]
pub mod nodes;

use nodes::{builder, plain_node};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wiremesh::{Endpoint, Node, PeerConfig};
use wiremesh_tcp::{Tcp, TcpConfig, TcpListener, TcpStream};
use wiremesh_testkit::impair::{Impair, ImpairConfig, LinkConfig};

/// Two nodes; `a` knows where `b` is.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    pub a_tcp: Tcp,
    pub b_tcp: Tcp,
    pub relay: Option<Impair>,
}

impl Pair {
    pub async fn new() -> Self {
        Self::with_config(TcpConfig::default()).await
    }

    pub async fn with_config(config: TcpConfig) -> Self {
        Self::make(config, None).await
    }

    /// With a bad network in between.
    pub async fn impaired(link: LinkConfig, seed: u64) -> Self {
        let config = TcpConfig {
            // WireGuard repeats what it lost of a handshake after 5 s, and may lose that too.
            connect_timeout: Duration::from_secs(30),
            ..TcpConfig::default()
        };
        Self::make(config, Some((link, seed))).await
    }

    async fn make(config: TcpConfig, link: Option<(LinkConfig, u64)>) -> Self {
        let (a, b) = (plain_node().await, plain_node().await);
        let mut way = b.listen_addresses()[0];
        let relay = link.map(|(link, seed)| {
            let config = ImpairConfig::new(way).with_link(link).with_seed(seed);
            let relay = Impair::start(config).expect("the relay starts");
            way = relay.local_addr();
            relay
        });
        introduce(&a, &b, way);
        let tcp = |node: &Node| Tcp::with_config(node, config.clone()).expect("TCP is free");
        Self {
            a_tcp: tcp(&a),
            b_tcp: tcp(&b),
            a,
            b,
            relay,
        }
    }

    /// A connection from `a` to `b`, and both of its ends.
    pub async fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let to = SocketAddr::new(self.b.address(), listener.port());
        // Who cannot connect says so at once, and nobody waits for it to be accepted.
        let connect = async { self.a_tcp.connect(to).await.expect("connects") };
        let accept = async { listener.accept().await.expect("is accepted") };
        tokio::join!(connect, accept)
    }
}

/// Tells `a` where `b` is.
pub fn introduce(a: &Node, b: &Node, way: SocketAddr) {
    let mut peer = PeerConfig::new(b.id());
    peer.endpoints = vec![Endpoint::Address(way)];
    a.add_peer(peer).expect("a new peer");
}

/// Two nodes with IPv4 addresses inside the tunnel, 10.9.0.1 and 10.9.0.2.
pub async fn ipv4_pair() -> (Node, Node) {
    let net = || "10.9.0.0/24".parse().expect("a prefix");
    let node = async |host: u8| {
        let node = builder()
            .address([10, 9, 0, host].into(), net())
            .bind()
            .await;
        node.expect("binds")
    };
    let (a, b) = (node(1).await, node(2).await);
    for (node, other, host) in [(&a, &b, 2), (&b, &a, 1)] {
        let mut peer = PeerConfig::new(other.id());
        peer.endpoints = vec![Endpoint::Address(other.listen_addresses()[0])];
        peer.allowed_ips = vec![format!("10.9.0.{host}/32").parse().expect("a prefix")];
        node.add_peer(peer).expect("a new peer");
    }
    (a, b)
}

/// Writes everything and closes our side.
pub async fn write_all(stream: &mut (impl AsyncWrite + Unpin), data: &[u8]) {
    stream.write_all(data).await.expect("the peer reads");
    stream.shutdown().await.expect("open until now");
}

/// Reads until the peer closes its side.
pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut data = Vec::new();
    stream
        .read_to_end(&mut data)
        .await
        .expect("an end in order");
    data
}
