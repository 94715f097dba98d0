//! Streams without IP and UDP headers inside the tunnel, between nodes with real sockets: that
//! they are used, by whom they are not, what they are good for, and what an attacker makes of them.
//! docs/spec.md section 4.1.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_quic.rs"]
mod raw_quic;

use bare::Bare;
use nodes::{
    ECHO, builder, exchange, in_time, introduce, pattern, serve_echo, ticket_through, until,
};
use raw::{Raw, dropped, serve_markers};
use raw_quic::RawQuic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wiremesh::{Connection, Node, NodeBuilder, NodeStatus};
use wiremesh_testkit::impair::{Impair, ImpairConfig, LinkConfig};
use wiremesh_udp::{RecvBatch, Transmit, UdpSockets};

async fn echo(builder: NodeBuilder) -> Node {
    let node = builder.protocol(ECHO).bind().await.expect("binds");
    serve_echo(&node);
    node
}

async fn connect(client: &Node, server: &Node) -> Connection {
    let connection = client.connect(&server.ticket(), ECHO).await;
    connection.expect("connects")
}

fn uses_bare_streams(node: &Node, other: &Node) -> bool {
    let peer = node.peer(other.id()).expect("it is a peer");
    peer.status().expect("it is there").bare_streams
}

fn counted(node: &Node) -> (u64, u64) {
    let NodeStatus {
        bare_sent,
        bare_received,
        ..
    } = node.status();
    (bare_sent, bare_received)
}

#[tokio::test]
async fn two_nodes_use_them_and_find_that_more_fits() {
    in_time(async {
        let (server, client) = (echo(builder()).await, echo(builder()).await);
        let connection = connect(&client, &server).await;
        exchange(&connection, pattern(1_000_000, 1)).await;
        assert_eq!(
            connection.path().mtu_bytes,
            1_420,
            "all of the tunnel's MTU"
        );
        for (node, other) in [(&client, &server), (&server, &client)] {
            assert!(uses_bare_streams(node, other));
            let (sent, received) = counted(node);
            assert!(sent > 100 && received > 700, "{sent} {received}");
            assert_eq!(dropped(node, "bare-not-agreed"), 0);
            assert_eq!(dropped(node, "no-fixed-bit"), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn beside_a_node_without_them_streams_keep_their_headers() {
    in_time(async {
        for (first, second) in [(true, false), (false, true), (false, false)] {
            let server = echo(builder().bare_streams(first)).await;
            let client = echo(builder().bare_streams(second)).await;
            let connection = connect(&client, &server).await;
            exchange(&connection, pattern(300_000, 1)).await;
            assert!(connection.path().mtu_bytes <= 1_372);
            let back = connect(&server, &client).await;
            exchange(&back, pattern(300_000, 2)).await;
            for (node, other) in [(&client, &server), (&server, &client)] {
                assert!(!uses_bare_streams(node, other));
                assert_eq!(counted(node), (0, 0));
            }
        }
    })
    .await;
}

/// A path of so many bytes between two nodes.
fn narrow(server: &Node, mtu_bytes: usize) -> Impair {
    let link = LinkConfig {
        mtu_bytes: Some(mtu_bytes),
        ..LinkConfig::default()
    };
    let config = ImpairConfig::new(server.listen_addresses()[0]).with_link(link);
    Impair::start(config).expect("the relay starts")
}

/// What IPv6 leaves of a path of 1,280, with the 28 bytes of IPv4 and UDP in front of it.
const IPV6_MINIMUM: usize = 1_280 - 48 + 28;

#[tokio::test]
async fn a_path_of_1280_carries_streams() {
    in_time(async {
        let server = echo(builder()).await;
        let client = echo(builder()).await;
        let relay = narrow(&server, IPV6_MINIMUM);
        let ticket = ticket_through(&server, relay.local_addr());
        let began = std::time::Instant::now();
        let connection = client.connect(&ticket, ECHO).await.expect("connects");
        // The first flight waited for the agreement, and did not have to be sent again.
        assert!(began.elapsed() < Duration::from_millis(900));
        exchange(&connection, pattern(500_000, 1)).await;
        assert_eq!(connection.path().mtu_bytes, 1_200);
    })
    .await;
}

#[tokio::test]
async fn with_their_headers_streams_do_not_fit_a_path_of_1280() {
    in_time(async {
        let server = echo(builder().bare_streams(false)).await;
        let client = builder().connect_timeout(Duration::from_millis(1_500));
        let client = client.bind().await.expect("binds");
        let relay = narrow(&server, IPV6_MINIMUM);
        let ticket = ticket_through(&server, relay.local_addr());
        let failed = client.connect(&ticket, ECHO).await;
        failed.expect_err("QUIC's smallest packet does not fit");
        assert!(relay.stats().to_target.too_large > 0);
    })
    .await;
}

#[tokio::test]
async fn no_datagram_is_longer_than_the_tunnels_mtu_allows() {
    in_time(async {
        for bare in [true, false] {
            let server = echo(builder().mtu(1_280).bare_streams(bare)).await;
            let client = echo(builder().mtu(1_280)).await;
            // 28 bytes of IPv4 and UDP and 32 of WireGuard around an inner packet.
            let relay = narrow(&server, 28 + 32 + 1_280);
            let ticket = ticket_through(&server, relay.local_addr());
            let connection = client.connect(&ticket, ECHO).await.expect("connects");
            exchange(&connection, pattern(1_000_000, 1)).await;
            let expected = if bare { 1_280 } else { 1_232 };
            let found = usize::from(connection.path().mtu_bytes);
            // The search ends within 20 bytes of the limit.
            assert!(found <= expected && found > expected - 20, "{found}");
            let stats = relay.stats();
            assert_eq!(stats.to_target.too_large + stats.to_client.too_large, 0);
        }
    })
    .await;
}

/// Passes datagrams on with the ECN codepoint that they came with, and counts those from the
/// client that have one.
struct EcnRelay {
    address: std::net::SocketAddr,
    marked: Arc<AtomicU64>,
    unmarked: Arc<AtomicU64>,
}

impl EcnRelay {
    /// `change` is asked for each codepoint; it says what the datagram leaves with.
    fn start(server: &Node, change: impl Fn(u8) -> u8 + Send + 'static) -> Self {
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let sockets = UdpSockets::bind(&[loopback]).expect("a free port");
        let address = sockets.local_addresses()[0];
        let (marked, unmarked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let target = server.listen_addresses()[0];
        let counts = (Arc::clone(&marked), Arc::clone(&unmarked));
        tokio::spawn(async move {
            let mut batch = RecvBatch::default();
            let mut client = None;
            while sockets.recv(&mut batch).await.is_ok() {
                for datagram in batch.datagrams_mut() {
                    let (from, ecn) = (datagram.source, datagram.ecn);
                    let to = if from == target { client } else { Some(target) };
                    if from != target {
                        client = Some(from);
                        // Not those of handshakes and of the exchange.
                        let count = if ecn == 0 { &counts.1 } else { &counts.0 };
                        count.fetch_add(u64::from(datagram.data.len() > 1_200), Ordering::Relaxed);
                    }
                    let transmit = Transmit {
                        destination: to.expect("the client came first"),
                        source: None,
                        ecn: change(ecn),
                        segment_size: None,
                        contents: datagram.data,
                    };
                    // A full socket loses it.
                    let _ = sockets.try_send(&transmit);
                }
            }
        });
        Self {
            address,
            marked,
            unmarked,
        }
    }

    fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.marked), read(&self.unmarked))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecn_stays_valid_in_both_forms() {
    in_time(async {
        for bare in [true, false] {
            let server = echo(builder().bare_streams(bare)).await;
            let client = echo(builder()).await;
            let relay = EcnRelay::start(&server, |ecn| ecn);
            let ticket = ticket_through(&server, relay.address);
            let connection = client.connect(&ticket, ECHO).await.expect("connects");
            exchange(&connection, pattern(200_000, 1)).await;
            let (marked, unmarked) = relay.counts();
            exchange(&connection, pattern(200_000, 2)).await;
            let (more, still_unmarked) = relay.counts();
            assert!(more > marked + 100, "bare {bare}: {marked} {more}");
            // Quinn has found nothing wrong, or it would have stopped to mark.
            assert_eq!(still_unmarked, unmarked, "bare {bare}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn congestion_that_a_router_notes_reaches_the_streams() {
    in_time(async {
        for bare in [true, false] {
            let server = echo(builder().bare_streams(bare)).await;
            let client = echo(builder()).await;
            let relay = EcnRelay::start(&server, |ecn| if ecn == 0 { 0 } else { 0b11 });
            let ticket = ticket_through(&server, relay.address);
            let connection = client.connect(&ticket, ECHO).await.expect("connects");
            exchange(&connection, pattern(100_000, 1)).await;
            let events = connection.stats().path.congestion_events;
            assert!(events > 0, "bare {bare}");
        }
    })
    .await;
}

async fn victim() -> Node {
    let node = builder().protocol(ECHO).bind().await.expect("binds");
    serve_markers(&node);
    node
}

#[tokio::test]
async fn whoever_has_not_agreed_on_them_reaches_nothing_with_them() {
    in_time(async {
        let node = victim().await;
        // A node that has not announced them, at the level that it needs.
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let hello = RawQuic::new(&raw, [3; 32], ECHO).payloads().remove(0);
        raw.engine.test_send_bare_streams(raw.peer);
        raw.inject_bare(&hello).await;
        raw.settle().await;
        assert_eq!(dropped(&node, "bare-not-agreed"), 1);

        // A key without a protocol, on a session below the gate.
        let mut stranger = Bare::connected(&node, [2; 32]).await;
        let peers = || node.status().peers.len();
        until("the stranger is there", || peers() == 2).await;
        for first in [0x80, 0xbf, 0xc3, 0xff] {
            stranger.inject(&[first; 1_200]).await;
        }
        until("all were looked at", || {
            dropped(&node, "bare-not-agreed") == 5
        })
        .await;
        assert_eq!(node.status().bare_received, 0);

        // The same packet is a connection where it belongs.
        let mut quic = RawQuic::new(&raw, [4; 32], ECHO);
        quic.connect(&mut raw).await;
        assert_eq!(node.accept().await.expect("it is there").peer(), raw.id());
    })
    .await;
}

#[tokio::test]
async fn a_peer_cannot_speak_for_another() {
    in_time(async {
        let node = victim().await;
        let mut honest = Raw::with_bare_streams(&node, [1; 32]).await;
        let mut thief = Raw::with_bare_streams(&node, [2; 32]).await;
        let mut quic = RawQuic::new(&honest, [3; 32], ECHO);
        quic.connect(&mut honest).await;
        let connection = node.accept().await.expect("it is there");
        assert_eq!(connection.peer(), honest.id());
        assert!(node.status().bare_sent > 0, "it speaks so to both");

        quic.write(b"to be delivered once");
        let stolen = quic.payloads();
        assert!(!stolen.is_empty());
        let before = connection.stats().frame_rx.stream;
        for payload in &stolen {
            thief.inject_bare(payload).await;
        }
        // Once the thief's own connection is there, quinn has looked at what came before it.
        let mut own = RawQuic::new(&thief, [4; 32], ECHO);
        own.connect(&mut thief).await;
        assert_eq!(node.accept().await.expect("it is there").peer(), thief.id());
        thief.settle().await;
        assert_eq!(connection.stats().frame_rx.stream, before);
        let remote = connection.remote_address().ip();
        assert_eq!(
            remote,
            std::net::IpAddr::from(honest.own()),
            "it did not move"
        );

        // The same packets from where they belong are good.
        for payload in &stolen {
            honest.inject_bare(payload).await;
        }
        let mut stream = connection.accept_uni().await.expect("a stream comes");
        let told = stream.read_to_end(100).await.expect("it ends");
        assert_eq!(told, b"to be delivered once");
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_comes_back_without_them_is_talked_to_with_headers() {
    in_time(async {
        let key = || wiremesh::SecretKey::from_bytes([9; 32]);
        let client = echo(builder()).await;
        for bare in [true, false, true] {
            let server = echo(builder().secret_key(key()).bare_streams(bare)).await;
            if client.peer(server.id()).is_none() {
                introduce(&client, &server);
            }
            let connection = connect(&client, &server).await;
            exchange(&connection, pattern(100_000, 1)).await;
            assert_eq!(uses_bare_streams(&client, &server), bare);
            assert_eq!(uses_bare_streams(&server, &client), bare);
            server.close().await;
        }
        assert_eq!(dropped(&client, "bare-not-agreed"), 0);
    })
    .await;
}
