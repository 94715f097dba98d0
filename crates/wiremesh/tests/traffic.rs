//! Streams and datagrams in numbers: many connections, many streams, slow readers.

#[path = "support/nodes.rs"]
mod nodes;

use bytes::Bytes;
use nodes::{
    ECHO, builder, echo_node, exchange, in_time, introduce, pattern, plain_node, serve_echo,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use wiremesh::quinn::SendDatagramError;
use wiremesh::{Connection, Node, UdpSendError};
use wiremesh_quic::{SEND_WINDOW_BYTES, STREAM_RECEIVE_WINDOW_BYTES};

/// A connection with both of its ends.
async fn both_ends() -> (Node, Node, Connection, Connection) {
    let server = builder().protocol(ECHO).bind().await.expect("binds");
    let client = plain_node().await;
    let connection = client.connect(&server.ticket(), ECHO).await;
    let accepted = server.accept().await.expect("it is there");
    (server, client, connection.expect("connects"), accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_connections_from_five_nodes_at_once() {
    in_time(async {
        let server = echo_node().await;
        let mut tasks = JoinSet::new();
        for node in 0..5 {
            let client = plain_node().await;
            for connection in 0..10 {
                let (client, ticket) = (client.clone(), server.ticket());
                tasks.spawn(async move {
                    let made = client.connect(&ticket, ECHO).await.expect("connects");
                    exchange(&made, pattern(20_000, node * 10 + connection)).await;
                    made
                });
            }
        }
        let connections = tasks.join_all().await;
        assert_eq!(connections.len(), 50);
        assert_eq!(server.status().peers.len(), 5);
        // The second handshake of each is under the preshared key that the first one carried.
        assert_eq!(server.status().handshakes, 10, "one tunnel per node");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_small_streams() {
    in_time(async {
        let (server, client) = (echo_node().await, plain_node().await);
        let connection = client.connect(&server.ticket(), ECHO).await;
        let connection = connection.expect("connects");
        let mut tasks = JoinSet::new();
        for stream in 0..2_000 {
            // Opening waits while the peer permits no more: the bound is QUIC's.
            let connection = connection.clone();
            tasks.spawn(async move { exchange(&connection, pattern(100, stream)).await });
        }
        tasks.join_all().await;
    })
    .await;
}

#[tokio::test]
async fn datagrams_have_a_size_that_fits() {
    in_time(async {
        let (_server, _client, connection, accepted) = both_ends().await;
        let max = connection.max_datagram_size().expect("they are on");
        assert!(max >= 1_000, "{max}");
        for len in [0, 1, max] {
            let data = Bytes::from(pattern(len, 1));
            connection.send_datagram(data.clone()).expect("it fits");
            assert_eq!(accepted.read_datagram().await.expect("it comes"), data);
        }
        let long = Bytes::from(vec![0; 2_000]);
        assert_eq!(
            connection.send_datagram(long),
            Err(SendDatagramError::TooLarge)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_stream_overtakes_bulk() {
    in_time(async {
        let (_server, _client, connection, accepted) = both_ends().await;
        let mut bulk = connection.open_uni().await.expect("open");
        bulk.set_priority(-5).expect("open");
        assert_eq!(bulk.priority(), Ok(-5));
        let writer = tokio::spawn(async move {
            bulk.write_all(&pattern(20_000_000, 1)).await.expect("read");
            bulk.finish().expect("once");
        });
        let mut bulk = accepted.accept_uni().await.expect("it comes");
        bulk.read_exact(&mut vec![0; 1_000_000])
            .await
            .expect("much more comes");
        let mut urgent = connection.open_uni().await.expect("open");
        urgent.set_priority(5).expect("open");
        urgent.write_all(b"now").await.expect("open");
        urgent.finish().expect("once");
        let late = async {
            let mut urgent = accepted.accept_uni().await.expect("it comes");
            urgent.read_to_end(10).await.expect("all")
        };
        // The bulk goes on being read, and is not done when the urgent one is.
        let rest = bulk.read_to_end(20_000_000);
        tokio::pin!(rest, late);
        tokio::select! {
            biased;
            now = &mut late => assert_eq!(now, b"now"),
            _ = &mut rest => panic!("the urgent stream came last"),
        }
        assert_eq!(rest.await.expect("all").len(), 19_000_000);
        writer.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_writer_back() {
    in_time(async {
        let (_server, _client, connection, accepted) = both_ends().await;
        let mut send = connection.open_uni().await.expect("open");
        let data = pattern(64 * 1_024, 1);
        let mut written = 0;
        // A write that takes longer than this waits for the reader.
        while let Ok(result) =
            tokio::time::timeout(Duration::from_millis(500), send.write(&data)).await
        {
            written += result.expect("open");
        }
        let bound = u64::from(STREAM_RECEIVE_WINDOW_BYTES) + SEND_WINDOW_BYTES;
        assert!(written as u64 <= bound, "{written} of {bound}");
        let mut recv = accepted.accept_uni().await.expect("it comes");
        let reader = tokio::spawn(async move { recv.read_to_end(1 << 30).await });
        send.write_all(b"the end").await.expect("read now");
        send.finish().expect("once");
        let read = reader.await.expect("no panic").expect("all");
        assert_eq!(read.len(), written + 7);
        assert!(read.ends_with(b"the end"));
    })
    .await;
}

#[tokio::test]
async fn what_nobody_reads_from_a_udp_port_is_dropped() {
    in_time(async {
        let (one, two) = (plain_node().await, plain_node().await);
        introduce(&one, &two);
        introduce(&two, &one);
        let unread = one.udp_socket(5_000).expect("free");
        let socket = two.udp_socket(5_000).expect("free");
        let to = SocketAddr::new(one.address(), 5_000);
        let payload = pattern(socket.payload_max(), 1);
        let mut sent = 0;
        while unread.dropped() == 0 {
            socket.send_to(&payload, to).await.expect("a route");
            sent += 1;
            tokio::task::yield_now().await;
            assert!(sent < 100_000, "memory grows without bound");
        }
        // What was taken can still be read, and the port goes on.
        let mut buffer = vec![0; 2_000];
        let (len, _) = unread.recv_from(&mut buffer).await.expect("open");
        assert!(buffer[..len] == payload);
    })
    .await;
}

#[tokio::test]
async fn several_tasks_read_from_one_udp_port() {
    in_time(async {
        let (one, two) = (plain_node().await, plain_node().await);
        introduce(&one, &two);
        introduce(&two, &one);
        let socket = std::sync::Arc::new(one.udp_socket(5_000).expect("free"));
        let mut readers = JoinSet::new();
        for _ in 0..4 {
            let socket = socket.clone();
            readers.spawn(async move {
                let mut buffer = [0; 10];
                let (len, _) = socket.recv_from(&mut buffer).await.expect("open");
                buffer[..len].to_vec()
            });
        }
        tokio::task::yield_now().await;
        let sender = two.udp_socket(0).expect("a free port");
        let to = SocketAddr::new(one.address(), 5_000);
        for n in 0..4 {
            sender.send_to(&[n], to).await.expect("a route");
        }
        let mut read = readers.join_all().await;
        read.sort();
        assert_eq!(read, [[0], [1], [2], [3]]);
    })
    .await;
}

#[tokio::test]
async fn a_udp_datagram_that_cannot_leave_is_an_error() {
    in_time(async {
        let (one, two) = (plain_node().await, plain_node().await);
        introduce(&one, &two);
        let socket = one.udp_socket(0).expect("a free port");
        let to = SocketAddr::new(two.address(), 7);
        let max = socket.payload_max();
        assert_eq!(max, 1_372);
        let long = socket.send_to(&vec![0; max + 1], to).await;
        assert_eq!(long, Err(UdpSendError::TooLong { len: max + 1, max }));
        let stranger = SocketAddr::new(plain_node().await.address(), 7);
        let error = socket.send_to(b"x", stranger).await;
        assert_eq!(error, Err(UdpSendError::NoRoute(stranger.ip())));
        let v4 = SocketAddr::from(([10, 0, 0, 1], 7));
        let error = socket.send_to(b"x", v4).await;
        assert_eq!(error, Err(UdpSendError::NoSource(v4.ip())));
    })
    .await;
}

#[tokio::test]
async fn a_peer_cannot_send_as_the_node_itself() {
    in_time(async {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
        let net = |text: &str| text.parse::<wiremesh::IpNet>().expect("a prefix");
        let (ours, further) = (ip("10.0.0.2"), ip("10.0.0.1"));
        let node = builder()
            .address(ours, net("10.0.0.2/32"))
            .address(further, net("10.0.0.1/32"));
        let node = node.bind().await.expect("binds");
        let peer = builder().address(ours, net("10.0.0.2/32"));
        let peer = peer.bind().await.expect("binds");
        // A network in which our own address is, as stock configurations have it.
        let knows = |other: &Node, allowed: &str| wiremesh::PeerConfig {
            endpoints: other.ticket().endpoints.clone(),
            allowed_ips: vec![net(allowed)],
            ..wiremesh::PeerConfig::new(other.id())
        };
        node.add_peer(knows(&peer, "10.0.0.0/24")).expect("new");
        peer.add_peer(knows(&node, "10.0.0.1/32")).expect("new");
        let port = node.udp_socket(5_000).expect("free");
        let from = peer.udp_socket(0).expect("free");
        let sent = from.send_to(b"spoofed", SocketAddr::new(further, 5_000));
        sent.await.expect("sent");
        let sent = from.send_to(b"honest", SocketAddr::new(node.address(), 5_000));
        sent.await.expect("sent");
        let mut buffer = [0; 100];
        let (len, source) = port.recv_from(&mut buffer).await.expect("open");
        assert_eq!(
            (&buffer[..len], source.ip()),
            (&b"honest"[..], peer.address())
        );
        let dropped = node.status().dropped;
        assert!(
            dropped.contains(&("a peer sent from our own address", 1)),
            "{dropped:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_grow_to_what_a_path_of_9_000_bytes_carries() {
    in_time(async {
        // With WireGuard's 32 bytes, and UDP and IPv6 around that.
        const MTU: u16 = 9_000 - 32 - 48;
        let server = builder().protocol(ECHO).mtu(MTU).bind().await;
        let server = server.expect("binds");
        serve_echo(&server);
        let client = builder().mtu(MTU).bind().await.expect("binds");
        let connection = client.connect(&server.ticket(), ECHO).await;
        let connection = connection.expect("connects");
        // A probe goes with each step of the search.
        while connection.path().mtu_bytes < MTU - 20 {
            exchange(&connection, pattern(100_000, 1)).await;
        }
        assert!(connection.path().mtu_bytes <= MTU);
        exchange(&connection, pattern(1_000_000, 2)).await;
    })
    .await;
}
