//! Peers: handles that outlive connections, restarts, keys, and everything that connecting refuses.

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{
    ECHO, builder, echo_node, exchange, in_time, introduce, pattern, plain_node, serve_echo,
    ticket_through, until,
};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use wiremesh::{
    AddPeerError, ConnectError, Endpoint, Level, Node, NodeBuilder, PeerConfig, PresharedKey,
    SecretKey, SecurityError, SuiteId, Ticket,
};

/// A server that can be started again: its key and its port.
struct Restartable {
    secret: [u8; 32],
    address: SocketAddr,
}

impl Restartable {
    async fn first(secret: [u8; 32]) -> (Self, Node) {
        let mut this = Self {
            secret,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let node = this.start().await;
        this.address = node.listen_addresses()[0];
        (this, node)
    }

    async fn start(&self) -> Node {
        let node = self.builder().bind().await.expect("the port is free");
        serve_echo(&node);
        node
    }

    fn builder(&self) -> NodeBuilder {
        Node::builder()
            .secret_key(SecretKey::from_bytes(self.secret))
            .listen(self.address)
            .protocol(ECHO)
            .admission(wiremesh::Admission::AllowAll {
                provisional_max: 10,
            })
    }
}

#[tokio::test]
async fn a_peer_handle_reconnects_after_the_peer_was_restarted() {
    in_time(async {
        let (server, first) = Restartable::first([1; 32]).await;
        let client = plain_node().await;
        let peer = introduce(&client, &first);
        let before = peer.connection(ECHO).await.expect("connects");
        exchange(&before, pattern(10_000, 1)).await;
        assert_eq!(
            peer.connection(ECHO).await.expect("open").stable_id(),
            before.stable_id(),
            "it is reused while it lives"
        );
        first.close().await;
        before.closed().await;

        let second = server.start().await;
        let (mut send, mut recv) = peer.open_bi(ECHO).await.expect("connects again");
        send.write_all(b"again").await.expect("open");
        send.finish().expect("once");
        assert_eq!(recv.read_to_end(100).await.expect("an answer"), b"again");
        let after = peer.connection(ECHO).await.expect("open");
        assert_ne!(after.stable_id(), before.stable_id());
        second.close().await;
    })
    .await;
}

#[test]
fn connecting_to_a_peer_that_crashed_and_came_back_takes_no_timeout() {
    let here = tokio::runtime::Runtime::new().expect("a runtime");
    // The server has a runtime of its own, which dies without a word.
    let there = tokio::runtime::Runtime::new().expect("a runtime");
    let (server, first) = there.block_on(Restartable::first([1; 32]));
    here.block_on(in_time(async {
        let client = plain_node().await;
        let before = client.connect(&first.ticket(), ECHO).await;
        exchange(&before.expect("connects"), pattern(10_000, 1)).await;
        std::thread::spawn(move || {
            there.shutdown_timeout(Duration::from_secs(5));
            drop(first);
        })
        .join()
        .expect("no panic");
        let second = server.start().await;
        let ticket = second.ticket();
        let began = std::time::Instant::now();
        // The client has a session that the server no longer knows.
        let after = client.connect(&ticket, ECHO).await.expect("connects");
        exchange(&after, pattern(10_000, 1)).await;
        assert!(began.elapsed() < Duration::from_secs(12), "not by timeout");
    }));
}

#[tokio::test]
async fn a_new_ticket_leads_to_a_peer_that_came_back_elsewhere() {
    in_time(async {
        let (mut server, first) = Restartable::first([1; 32]).await;
        let client = plain_node().await;
        let before = client.connect(&first.ticket(), ECHO).await;
        exchange(&before.expect("connects"), pattern(10_000, 1)).await;
        // Kept, so that the port differs.
        let old = server.address;
        server.address.set_port(0);
        let second = server.start().await;
        first.close().await;
        assert_ne!(second.listen_addresses()[0], old);
        let began = std::time::Instant::now();
        let after = client.connect(&second.ticket(), ECHO).await;
        exchange(&after.expect("connects"), pattern(10_000, 1)).await;
        assert!(began.elapsed() < Duration::from_secs(12), "not by timeout");
    })
    .await;
}

#[tokio::test]
async fn a_stranger_to_whom_we_connect_is_a_stranger_no_more() {
    in_time(async {
        let (one, two) = (echo_node().await, echo_node().await);
        one.connect(&two.ticket(), ECHO).await.expect("connects");
        let provisional = || two.status().peers[0].provisional;
        assert!(provisional(), "it came in by itself");
        two.connect(&one.ticket(), ECHO).await.expect("connects");
        assert!(!provisional(), "it stays when its session ends");
    })
    .await;
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_connection() {
    in_time(async {
        let (server, client) = (echo_node().await, plain_node().await);
        let peer = introduce(&client, &server);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let peer = peer.clone();
            tasks.spawn(async move { peer.connection(ECHO).await.expect("connects").stable_id() });
        }
        let ids = tasks.join_all().await;
        assert!(ids.iter().all(|id| *id == ids[0]));
    })
    .await;
}

/// Makes each a stock WireGuard peer of the other.
fn introduce_as_stock(one: &Node, two: &Node) -> [wiremesh::Peer; 2] {
    [(one, two), (two, one)].map(|(node, to)| {
        let mut config = PeerConfig::new(to.id());
        config.stock = true;
        config.endpoints = to.ticket().endpoints.clone();
        node.add_peer(config).expect("a new peer")
    })
}

#[tokio::test]
async fn a_preshared_key_changes_in_place() {
    in_time(async {
        let (one, two) = (plain_node().await, plain_node().await);
        // With others the nodes agree on keys by themselves.
        let [there, back] = introduce_as_stock(&one, &two);
        let epoch = |peer: &wiremesh::Peer| peer.status().and_then(|s| s.psk_epoch);
        let ping = || one.ping(two.address(), 8, Duration::from_secs(20));
        ping().await.expect("a reply");
        assert_eq!(epoch(&there), Some(0));
        let psk = PresharedKey::from_bytes([7; 32]);
        there.set_preshared_key(psk.clone(), 5);
        // The other side does not have it yet: the session stays and goes on working.
        there.rekey();
        ping().await.expect("a reply");
        assert_eq!(epoch(&there), Some(0));
        back.set_preshared_key(psk, 5);
        back.rekey();
        until("both use the new key", || {
            epoch(&there) == Some(5) && epoch(&back) == Some(5)
        })
        .await;
        ping().await.expect("a reply");
    })
    .await;
}

#[tokio::test]
async fn different_preshared_keys_do_not_connect() {
    in_time(async {
        let server = echo_node().await;
        let client = builder()
            .connect_timeout(Duration::from_millis(700))
            .bind()
            .await
            .expect("binds");
        let peer = introduce(&client, &server);
        peer.set_preshared_key(PresharedKey::from_bytes([1; 32]), 0);
        let error = peer.connection(ECHO).await.expect_err("keys differ");
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
    })
    .await;
}

/// Saves a timestamp floor of the year 2170, as a node leaves it that ran with a clock far ahead.
fn floor_far_ahead(dir: &Path) {
    let seconds = 0x4000_0000_0000_000a_u64 + 6_311_433_600;
    let text = format!("{seconds:016x}{:08x}\n", 0);
    std::fs::write(dir.join("timestamp"), text).expect("a directory of ours");
}

#[tokio::test]
async fn a_state_directory_keeps_a_node_welcome_when_its_clock_went_back() {
    in_time(async {
        let dir = tempfile::tempdir().expect("a directory");
        floor_far_ahead(dir.path());
        let server = echo_node().await;
        let client = || {
            builder()
                .secret_key(SecretKey::from_bytes([5; 32]))
                .connect_timeout(Duration::from_millis(1_500))
        };
        for _ in 0..2 {
            let node = client().state_dir(dir.path()).bind().await.expect("binds");
            let connection = node.connect(&server.ticket(), ECHO).await;
            exchange(&connection.expect("welcome"), pattern(1_000, 1)).await;
            node.close().await;
        }
        // Without what it remembers it is as if its clock had gone back.
        let forgetful = client().bind().await.expect("binds");
        let error = forgetful.connect(&server.ticket(), ECHO).await;
        let error = error.expect_err("its timestamps are old");
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
        let dropped = server.status().dropped;
        let replayed = dropped.iter().any(|(why, _)| *why == "handshake-replayed");
        assert!(replayed, "{dropped:?}");
    })
    .await;
}

#[tokio::test]
async fn a_damaged_state_directory_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("timestamp"), "yesterday").expect("ours");
    let error = builder().state_dir(dir.path()).bind().await;
    let error = error.expect_err("it cannot be read").to_string();
    assert!(error.contains("timestamp"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_said_at_once() {
    in_time(async {
        let node = plain_node().await;
        let other = echo_node().await;

        let error = node.connect(node.id(), ECHO).await.expect_err("itself");
        assert!(matches!(error, ConnectError::OwnKey));
        let error = node.connect(&node.ticket(), ECHO).await.expect_err("same");
        assert!(matches!(error, ConnectError::OwnKey));

        let error = node.connect(other.id(), ECHO).await.expect_err("unknown");
        assert!(matches!(error, ConnectError::NoEndpoint(id) if id == other.id()));
        let nowhere = Ticket::new(other.id());
        let error = node.connect(&nowhere, ECHO).await.expect_err("no address");
        assert!(matches!(error, ConnectError::NoEndpoint(id) if id == other.id()));

        let elsewhere = builder().network("elsewhere").bind().await.expect("binds");
        let error = node.connect(&elsewhere.ticket(), ECHO).await;
        let error = error.expect_err("another network");
        assert!(matches!(error, ConnectError::OtherNetwork { .. }));

        for name in ["", &"x".repeat(256)] {
            let error = node.connect(&other.ticket(), name).await;
            let error = error.expect_err("not a protocol name");
            assert!(matches!(error, ConnectError::Protocol(_)), "{error}");
        }
        node.close().await;
        let error = node
            .connect(&other.ticket(), ECHO)
            .await
            .expect_err("closed");
        assert!(matches!(error, ConnectError::Closed), "{error}");
    })
    .await;
}

#[tokio::test]
async fn nodes_that_name_each_other_plain_have_streams_at_once() {
    in_time(async {
        let (node, other) = (plain_node().await, echo_node().await);
        for (own, peer) in [(&node, &other), (&other, &node)] {
            let config = PeerConfig {
                endpoints: peer.ticket().endpoints.clone(),
                stock: true,
                streams: true,
                ..PeerConfig::new(peer.id())
            };
            own.add_peer(config).expect("a new peer");
        }
        let connection = node.connect(other.id(), ECHO).await.expect("connects");
        exchange(&connection, pattern(10_000, 1)).await;
        let status = node.peer(other.id()).expect("there").status();
        assert_eq!(status.expect("there").level, Some(Level::Classical));
        assert_eq!(node.status().handshakes, 1, "nothing was agreed on");
    })
    .await;
}

#[tokio::test]
async fn a_stock_peer_speaks_no_streams() {
    in_time(async {
        let (node, stock) = (plain_node().await, plain_node().await);
        let [peer, _] = introduce_as_stock(&node, &stock);
        let again = node.add_peer(PeerConfig::new(stock.id()));
        assert_eq!(again.err(), Some(AddPeerError::Exists));
        let error = node.connect(stock.id(), ECHO).await.expect_err("stock");
        assert!(matches!(error, ConnectError::StockPeer(_)));
        let error = node
            .connect(&stock.ticket(), ECHO)
            .await
            .expect_err("stock");
        assert!(matches!(error, ConnectError::StockPeer(_)));
        // It answers ping, at L1.
        let ping = node.ping(stock.address(), 8, Duration::from_secs(20));
        ping.await.expect("a reply");
        let status = peer.status().expect("it is there");
        assert_eq!(status.level, Some(Level::Classical));
        assert_eq!(status.suite, Some(SuiteId::WIREGUARD));
        assert!(status.stock && status.waiting.is_none() && status.last_rotation.is_none());
        let error = peer.require(Level::PostQuantum).await;
        assert_eq!(error, Err(SecurityError::StockPeer(stock.id())));
        node.ping(stock.address(), 8, Duration::from_secs(20))
            .await
            .expect("nothing was changed");
    })
    .await;
}

#[tokio::test]
async fn a_dead_address_gives_no_answer() {
    in_time(async {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let silent = socket.local_addr().expect("bound");
        let gone = plain_node().await;
        let node = builder()
            .connect_timeout(Duration::from_millis(300))
            .bind()
            .await
            .expect("binds");
        let error = node.connect(&ticket_through(&gone, silent), ECHO).await;
        let Err(ConnectError::NoAnswer { endpoint, waited }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(endpoint, Some(silent));
        assert_eq!(waited, Duration::from_millis(300));
        // Nothing listens at all: the system says so, which is not the peer's word.
        drop(socket);
        let error = node.connect(&ticket_through(&gone, silent), ECHO).await;
        assert!(matches!(error, Err(ConnectError::NoAnswer { .. })));
    })
    .await;
}

#[tokio::test]
async fn of_many_candidates_the_one_that_answers_is_used() {
    in_time(async {
        let (server, client) = (echo_node().await, plain_node().await);
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut ticket = ticket_through(&server, silent.local_addr().expect("bound"));
        ticket.endpoints.extend(server.ticket().endpoints.clone());
        let connection = client.connect(&ticket, ECHO).await.expect("connects");
        let used = connection.path().endpoint;
        assert_eq!(used, server.listen_addresses().first().copied());
    })
    .await;
}

#[tokio::test]
async fn a_host_name_is_looked_up_when_connecting() {
    in_time(async {
        let (server, client) = (echo_node().await, plain_node().await);
        let port = server.listen_addresses()[0].port();
        let mut config = PeerConfig::new(server.id());
        let host = format!("localhost:{port}").parse().expect("an endpoint");
        assert!(matches!(host, Endpoint::Host(..)));
        config.endpoints = vec![host];
        let peer = client.add_peer(config).expect("a new peer");
        let connection = peer.connection(ECHO).await.expect("connects");
        exchange(&connection, pattern(1_000, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn both_sides_may_connect_at_once() {
    in_time(async {
        for round in 0..10 {
            let (one, two) = (echo_node().await, echo_node().await);
            let (there, back) = (introduce(&one, &two), introduce(&two, &one));
            let (there, back) = tokio::join!(there.connection(ECHO), back.connection(ECHO));
            exchange(&there.expect("connects"), pattern(5_000, round)).await;
            exchange(&back.expect("connects"), pattern(5_000, round)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_removed_peer_is_gone_and_may_come_back() {
    in_time(async {
        let (server, client) = (echo_node().await, plain_node().await);
        let peer = introduce(&client, &server);
        peer.connection(ECHO).await.expect("connects");
        assert!(client.remove_peer(server.id()));
        assert!(!client.remove_peer(server.id()));
        assert!(client.peer(server.id()).is_none());
        assert!(peer.status().is_none());
        let error = client.connect(server.id(), ECHO).await.expect_err("gone");
        assert!(matches!(error, ConnectError::NoEndpoint(_)));
        let peer = introduce(&client, &server);
        let connection = peer.connection(ECHO).await.expect("connects anew");
        exchange(&connection, pattern(1_000, 1)).await;
    })
    .await;
}
