//! How nodes, connections and sockets begin and end.

#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_quic.rs"]
mod raw_quic;

use nodes::{ECHO, builder, echo_node, exchange, in_time, introduce, pattern, plain_node, until};
use raw::Raw;
use raw_quic::RawQuic;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wiremesh::quinn::{ConnectionError, IdleTimeout};
use wiremesh::{BindError, Endpoint, Node, UdpBindError, UdpSendError};

fn is_free(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind(address).is_ok()
}

/// What a peer is told when the other side ends.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("not told, but {other:?}"),
    }
}

#[tokio::test]
async fn closing_a_node_tells_the_peers_and_frees_the_port() {
    in_time(async {
        let (server, client) = (builder().protocol(ECHO).bind(), plain_node());
        let (server, client) = (server.await.expect("binds"), client.await);
        let address = client.listen_addresses()[0];
        let connection = client.connect(&server.ticket(), ECHO).await;
        let connection = connection.expect("connects");
        let accepted = server.accept().await.expect("it is there");
        let socket = client.udp_socket(0).expect("a free port");
        client.close().await;
        assert_eq!(reason(&accepted.closed().await), "closed");
        assert!(matches!(
            connection.closed().await,
            ConnectionError::LocallyClosed
        ));
        // Whatever handles are left: the node is over.
        assert!(is_free(address));
        assert!(client.accept().await.is_none());
        assert!(socket.recv_from(&mut [0; 10]).await.is_err());
        let to = SocketAddr::new(server.address(), 7);
        assert_eq!(socket.send_to(b"x", to).await, Err(UdpSendError::Closed));
        let late = client.udp_socket(0).expect("a free port");
        assert!(late.recv_from(&mut [0; 10]).await.is_err());
        client.close().await;
        assert!(client.listen_addresses().is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_last_handle_ends_the_node() {
    in_time(async {
        let server = builder().protocol(ECHO).bind().await.expect("binds");
        let client = plain_node().await;
        let address = client.listen_addresses()[0];
        let peer = introduce(&client, &server);
        // Kept for reuse by the peer handle, which must not keep the node for ever.
        let connection = peer.connection(ECHO).await.expect("connects");
        let accepted = server.accept().await.expect("it is there");
        drop(client);
        drop(connection);
        exchange_uni(&peer.connection(ECHO).await.expect("open"), &accepted).await;
        drop(peer);
        assert_eq!(reason(&accepted.closed().await), "");
        until("the port is free", || is_free(address)).await;
    })
    .await;
}

async fn exchange_uni(from: &wiremesh::Connection, to: &wiremesh::Connection) {
    let mut send = from.open_uni().await.expect("open");
    send.write_all(b"still here").await.expect("open");
    send.finish().expect("once");
    let mut recv = to.accept_uni().await.expect("open");
    assert_eq!(recv.read_to_end(100).await.expect("all"), b"still here");
}

#[tokio::test]
async fn an_idle_node_ends_at_once() {
    in_time(async {
        let node = plain_node().await;
        let address = node.listen_addresses()[0];
        assert!(!is_free(address));
        drop(node);
        assert!(is_free(address));
    })
    .await;
}

#[tokio::test]
async fn a_node_can_be_dropped_outside_its_runtime() {
    let node = plain_node().await;
    let address = node.listen_addresses()[0];
    std::thread::spawn(move || drop(node))
        .join()
        .expect("no panic");
    until("the port is free", || is_free(address)).await;
}

#[tokio::test]
async fn ports_inside_the_tunnel_are_given_back() {
    in_time(async {
        let node = plain_node().await;
        let first = node.udp_socket(5_000).expect("free");
        assert_eq!(
            node.udp_socket(5_000).err(),
            Some(UdpBindError::InUse(5_000))
        );
        for port in [2_707, 2_708] {
            let error = node.udp_socket(port).err();
            assert_eq!(error, Some(UdpBindError::Reserved(port)));
        }
        drop(first);
        let second = node.udp_socket(5_000).expect("given back");
        // quinn holds it until its endpoint is gone.
        let socket = second.into_quinn().expect("a socket");
        assert!(node.udp_socket(5_000).is_err());
        drop(socket);
        node.udp_socket(5_000).expect("given back");
    })
    .await;
}

#[tokio::test]
async fn both_families_are_spoken() {
    in_time(async {
        let server = Node::builder()
            .listen("127.0.0.1:0".parse().expect("an address"))
            .listen("[::1]:0".parse().expect("an address"))
            .protocol(ECHO)
            .admission(wiremesh::Admission::AllowAll {
                provisional_max: 10,
            })
            .bind()
            .await;
        let server = match server {
            Ok(server) => server,
            Err(error) => return eprintln!("skipped: this host has no IPv6 loopback: {error}"),
        };
        nodes::serve_echo(&server);
        for way in server.listen_addresses() {
            let client = Node::builder()
                .listen(SocketAddr::new(way.ip(), 0))
                .bind()
                .await
                .expect("binds");
            let ticket = nodes::ticket_through(&server, way);
            let connection = client.connect(&ticket, ECHO).await.expect("connects");
            assert_eq!(connection.path().endpoint, Some(way));
            exchange(&connection, pattern(200_000, 1)).await;
            client.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_ticket_of_a_wildcard_node_can_be_used() {
    in_time(async {
        let anyone = wiremesh::Admission::AllowAll {
            provisional_max: 10,
        };
        let server = Node::builder().protocol(ECHO).admission(anyone).bind();
        let server = server.await.expect("binds");
        nodes::serve_echo(&server);
        let ticket = server.ticket();
        assert!(!ticket.endpoints.is_empty());
        for endpoint in &ticket.endpoints {
            let Endpoint::Address(address) = endpoint else {
                panic!("an address, not {endpoint}");
            };
            assert!(!address.ip().is_unspecified() && address.port() != 0);
            let listens = |local: &SocketAddr| {
                local.port() == address.port() && local.is_ipv4() == address.is_ipv4()
            };
            assert!(server.listen_addresses().iter().any(listens), "{address}");
        }
        // As a person passes it on.
        let ticket: wiremesh::Ticket = ticket.to_string().parse().expect("a ticket");
        let client = Node::builder().bind().await.expect("binds");
        let connection = client.connect(&ticket, ECHO).await.expect("connects");
        exchange(&connection, pattern(10_000, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn connections_live_through_a_minute_of_silence() {
    in_time(async {
        let server = echo_node().await;
        let mut raw = Raw::connected(&server, [1; 32]).await;
        let mut quic = RawQuic::new(&raw, [2; 32], ECHO);
        quic.connect(&mut raw).await;
        // From here on the client's clock is turned by hand, and nothing reaches it.
        let silent_since = Instant::now();
        let mut now = silent_since;
        let mut lost = None;
        for _ in 0..10_000 {
            // Lost on the way.
            let _ = quic.payloads_at(now);
            lost = quic.lost();
            if lost.is_some() {
                break;
            }
            now = quic
                .connection
                .poll_timeout()
                .expect("it ends some time")
                .max(now);
            quic.connection.handle_timeout(now);
        }
        assert_eq!(lost, Some(quinn_proto::ConnectionError::TimedOut));
        let lived = now - silent_since;
        assert!(lived >= Duration::from_secs(60), "{lived:?}");
    })
    .await;
}

#[tokio::test]
async fn settings_that_break_early_data_are_refused() {
    let mut short = wiremesh::default_transport();
    let idle = IdleTimeout::try_from(Duration::from_secs(59)).expect("in range");
    short.max_idle_timeout(Some(idle));
    let mut narrow = wiremesh::default_transport();
    narrow.stream_receive_window(1_000u32.into());
    for transport in [short, narrow] {
        let error = builder().transport(transport).bind().await;
        let error = error.expect_err("less than peers assume");
        assert!(matches!(error, BindError::Transport(_)), "{error}");
    }
    let error = builder().mtu(1_279).bind().await.expect_err("too small");
    assert!(matches!(error, BindError::Mtu(1_279)), "{error}");
    let error = builder().protocol("").bind().await.expect_err("no name");
    assert!(matches!(error, BindError::Protocols(_)), "{error}");
    let taken = plain_node().await;
    let address = taken.listen_addresses()[0];
    let error = Node::builder().listen(address).bind().await;
    assert!(matches!(error, Err(BindError::Sockets(_))));
}
