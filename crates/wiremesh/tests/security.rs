//! Attacks of peers and strangers that must come to nothing. DESIGN section 6.
//!
//! Whether something did not happen is not waited for: the attacker sends a marker after it, and
//! what the node has not done when it echoes the marker, it does not do.

#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_quic.rs"]
mod raw_quic;

use nodes::{ECHO, builder, echo_node, exchange, in_time, introduce, pattern, plain_node, until};
use raw::{Raw, dropped, serve_markers, udp};
use raw_quic::RawQuic;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use wiremesh::{Admission, ConnectError, Connection, Node};
use wiremesh_wire::address::{CONTROL_PORT, STREAM_PORT, overlay_address};
use wiremesh_wire::ip;

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// A node that keeps what it accepts, and echoes markers.
async fn victim() -> Node {
    let node = builder().protocol(ECHO).bind().await.expect("binds");
    serve_markers(&node);
    node
}

/// Whether the node still does its work.
async fn still_works(node: &Node) {
    let friend = plain_node().await;
    introduce(&friend, node);
    let ping = friend.ping(node.address(), 56, Duration::from_secs(20));
    ping.await.expect("a reply");
    friend.close().await;
}

#[tokio::test]
async fn a_spoofed_inner_source_is_dropped() {
    in_time(async {
        let node = victim().await;
        let socket = node.udp_socket(5_000).expect("free");
        let friend = plain_node().await;
        introduce(&node, &friend);
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let to = at(raw.theirs(), 5_000);
        let sources = [
            overlay_address(&friend.id()),
            overlay_address(&node.id()),
            Ipv6Addr::LOCALHOST,
            "2001:db8::1".parse().expect("an address"),
        ];
        for source in sources {
            raw.inject_udp(at(source, 5_000), to, b"spoofed").await;
        }
        raw.settle().await;
        assert_eq!(dropped(&node, "source-not-allowed"), sources.len() as u64);
        let own = at(raw.own(), 5_000);
        raw.inject_udp(own, to, b"honest").await;
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).await.expect("it is open");
        assert_eq!((&buffer[..len], from), (&b"honest"[..], own));
    })
    .await;
}

/// Receives the one stream of a connection.
async fn receive(connection: &Connection) -> Vec<u8> {
    let mut stream = connection.accept_uni().await.expect("a stream comes");
    stream.read_to_end(1_000).await.expect("it ends")
}

#[tokio::test]
async fn a_stolen_connection_id_is_worth_nothing() {
    in_time(async {
        let node = victim().await;
        let mut honest = Raw::connected(&node, [1; 32]).await;
        let mut thief = Raw::connected(&node, [2; 32]).await;
        let mut quic = RawQuic::new(&honest, [3; 32], ECHO);
        quic.connect(&mut honest).await;
        let connection = node.accept().await.expect("it is there");
        assert_eq!(connection.peer(), honest.id());

        // The client's next packet, whole and fresh, comes from another peer.
        quic.write(b"to be delivered once");
        let stolen = quic.payloads();
        assert!(!stolen.is_empty());
        let to = at(thief.theirs(), STREAM_PORT);
        let before = connection.stats().frame_rx.stream;
        for payload in &stolen {
            // From its own address: quinn knows the connection by its id, but not the address.
            thief
                .inject_udp(at(thief.own(), STREAM_PORT), to, payload)
                .await;
            // From the client's address: the tunnel does not let it through.
            thief
                .inject_udp(at(honest.own(), STREAM_PORT), to, payload)
                .await;
        }
        // Once the thief's own connection is there, quinn has looked at what came before it.
        let mut own = RawQuic::new(&thief, [4; 32], ECHO);
        own.connect(&mut thief).await;
        thief.settle().await;
        assert_eq!(dropped(&node, "source-not-allowed"), stolen.len() as u64);
        assert_eq!(connection.stats().frame_rx.stream, before);
        assert_eq!(
            connection.remote_address().ip(),
            IpAddr::V6(honest.own()),
            "the connection did not move"
        );

        // The same packets from where they belong are good.
        for payload in &stolen {
            honest
                .inject_udp(at(honest.own(), STREAM_PORT), to, payload)
                .await;
        }
        assert_eq!(receive(&connection).await, b"to be delivered once");
    })
    .await;
}

#[tokio::test]
async fn streams_are_reached_from_the_stream_port_only() {
    in_time(async {
        let node = victim().await;
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let hello = RawQuic::new(&raw, [3; 32], ECHO).payloads();
        let stream_port = at(raw.theirs(), STREAM_PORT);
        for (from, to) in [
            (at(raw.own(), 5_000), stream_port),
            (at(raw.own(), CONTROL_PORT), stream_port),
            (at(raw.own(), 0), stream_port),
            (at(raw.own(), STREAM_PORT), at(raw.theirs(), CONTROL_PORT)),
        ] {
            raw.inject_udp(from, to, &hello[0]).await;
        }
        assert_eq!(raw.settle().await, Vec::<Vec<u8>>::new(), "no answer");
        // The same bytes from the right port make a connection.
        let from = at(raw.own(), STREAM_PORT);
        raw.inject_udp(from, stream_port, &hello[0]).await;
        let connection = node.accept().await.expect("it is there");
        assert_eq!(connection.peer(), raw.id());
    })
    .await;
}

#[tokio::test]
async fn the_control_port_and_foreign_addresses_are_silent() {
    in_time(async {
        let node = victim().await;
        let friend = plain_node().await;
        introduce(&node, &friend);
        let socket = node.udp_socket(5_000).expect("free");
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let destinations = [
            at(raw.theirs(), CONTROL_PORT),
            at(overlay_address(&friend.id()), 5_000),
            at(overlay_address(&raw.id()), 5_000),
            at(Ipv6Addr::LOCALHOST, 5_000),
            at("ff02::1".parse().expect("an address"), 5_000),
        ];
        let own = at(raw.own(), 5_000);
        for to in destinations {
            raw.inject_udp(own, to, b"not for you").await;
        }
        // An echo request to somebody else is not answered either.
        let mut echo = vec![0; 100];
        let (source, foreign) = (raw.own().into(), overlay_address(&friend.id()).into());
        let len = ip::emit_echo(&mut echo, true, source, foreign, 1, 1, b"x");
        raw.inject(&echo[..len]).await;
        assert_eq!(raw.settle().await, Vec::<Vec<u8>>::new());
        let to = at(raw.theirs(), 5_000);
        raw.inject_udp(own, to, b"for you").await;
        let mut buffer = [0; 100];
        let (len, _) = socket.recv_from(&mut buffer).await.expect("it is open");
        assert_eq!(&buffer[..len], b"for you", "the others never arrived");
    })
    .await;
}

#[tokio::test]
async fn a_stranger_gets_silence_whatever_it_sends() {
    in_time(async {
        let node = Node::builder()
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
            .admission(Admission::AllowList)
            .protocol(ECHO)
            .bind()
            .await
            .expect("binds");
        let address = node.listen_addresses()[0];
        let mut raw = Raw::new(&node, [1; 32]).await;
        raw.handshake().await;
        // A QUIC client hello as transport data of a session that is not there, and in the clear.
        let hello = RawQuic::new(&raw, [3; 32], ECHO).payloads().remove(0);
        let to = at(raw.theirs(), STREAM_PORT);
        let packet = udp(at(raw.own(), STREAM_PORT), to, &hello);
        let data = [&[4, 0, 0, 0][..], &[7; 12], &packet, &[0; 16]].concat();
        for datagram in [&data, &packet, &hello] {
            raw.socket.send_to(datagram, address).await.expect("sent");
        }
        until("all of it was looked at", || {
            let count = |reason| dropped(&node, reason);
            count("not-admitted") == 1 && count("unknown-index") == 1 && count("malformed") == 2
        })
        .await;
        let mut buffer = [0; 2_000];
        assert!(raw.socket.try_recv(&mut buffer).is_err(), "no answer");
        assert!(node.status().peers.is_empty(), "no state");
        assert_eq!(node.status().refusals[0].node_id, raw.id());
    })
    .await;
}

#[tokio::test]
async fn malformed_packets_are_dropped() {
    in_time(async {
        let node = victim().await;
        let socket = node.udp_socket(5_000).expect("free");
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let from = at(raw.own(), 5_000);
        let good = udp(from, at(raw.theirs(), 5_000), b"payload");
        // A source port of its own shows which mutilations were let through.
        for len in 0..good.len() {
            raw.inject(&good[..len]).await;
        }
        for index in 0..good.len() {
            let mut damaged = good.clone();
            damaged[index] ^= 0xff;
            raw.inject(&damaged).await;
        }
        for version in 0..16 {
            let mut bytes = pattern(80, version);
            bytes[0] = (version as u8) << 4 | 5;
            raw.inject(&bytes).await;
        }
        raw.inject(&vec![0x60; 40_000]).await;
        let large = udp(from, at(raw.theirs(), STREAM_PORT), &vec![0; 60_000]);
        raw.inject(&large).await;
        raw.settle().await;
        assert!(dropped(&node, "not-ip") > 50);
        // Left are those in whose header something changed that means nothing to us: the traffic
        // class, the flow label, the hop limit. Their payload is what it was.
        let mut buffer = [0; 100];
        raw.inject_udp(from, at(raw.theirs(), 5_000), b"last").await;
        loop {
            let (len, source) = socket.recv_from(&mut buffer).await.expect("open");
            assert_eq!(source, from);
            if &buffer[..len] == b"last" {
                break;
            }
            assert_eq!(&buffer[..len], b"payload");
        }
        still_works(&node).await;
    })
    .await;
}

#[tokio::test]
async fn noise_on_the_udp_port_changes_nothing() {
    in_time(async {
        let node = victim().await;
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let address = node.listen_addresses()[0];
        for seed in 0..2_000 {
            let mut datagram = pattern(seed as usize % 300, seed);
            if let Some(first) = datagram.first_chunk_mut::<4>() {
                *first = [(seed % 6) as u8, 0, 0, 0];
            }
            raw.socket.send_to(&datagram, address).await.expect("sent");
            if seed % 100 == 0 {
                // Bounds what waits in the node's socket, so that none of it is lost there.
                raw.settle().await;
            }
        }
        raw.settle().await;
        assert_eq!(node.status().peers.len(), 1);
        still_works(&node).await;
    })
    .await;
}

#[tokio::test]
async fn floods_of_one_peer_leave_the_node_working() {
    in_time(async {
        let node = victim().await;
        let unread = node.udp_socket(5_000).expect("free");
        let mut raw = Raw::connected(&node, [1; 32]).await;
        let mut echo = vec![0; 200];
        let (source, destination) = (raw.own().into(), raw.theirs().into());
        let len = ip::emit_echo(&mut echo, true, source, destination, 1, 1, &[0; 56]);
        let own = at(raw.own(), 5_000);
        let empty = udp(own, at(raw.theirs(), 5_000), b"");
        for round in 0..300 {
            for _ in 0..50 {
                raw.inject(&echo[..len]).await;
                for _ in 0..3 {
                    raw.inject(&empty).await;
                }
            }
            if round % 10 == 0 {
                while raw.socket.try_recv(&mut [0; 2_000]).is_ok() {}
            }
        }
        still_works(&node).await;
        let mut buffer = [0; 10];
        let (len, from) = unread.recv_from(&mut buffer).await.expect("open");
        assert_eq!((len, from), (0, own));
    })
    .await;
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    in_time(async {
        let node = victim().await;
        let greedy = plain_node().await;
        let mut held = Vec::new();
        let refusal = loop {
            match greedy.connect(&node.ticket(), ECHO).await {
                Ok(connection) => held.push((connection, node.accept().await)),
                Err(ConnectError::Streams(reason)) => break reason,
                Err(error) => panic!("{error}"),
            }
            assert!(held.len() <= 256);
        };
        assert_eq!(held.len(), 256, "{refusal}");
        still_works(&node).await;
        // Another peer is not concerned, and room comes back.
        let other = plain_node().await;
        let connected = other.connect(&node.ticket(), ECHO).await;
        connected.expect("it has its own bound");
        held.clear();
        // The node learns of the closed connections when their last packets come.
        let connection = loop {
            if let Ok(connection) = greedy.connect(&node.ticket(), ECHO).await {
                break connection;
            }
        };
        drop(connection);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_always_demands_cookies_still_connects() {
    in_time(async {
        let node = builder()
            .protocol(ECHO)
            .handshakes_per_second_max(0)
            .bind()
            .await
            .expect("binds");
        nodes::serve_echo(&node);
        let client = plain_node().await;
        let connection = client.connect(&node.ticket(), ECHO).await;
        exchange(&connection.expect("connects"), pattern(10_000, 1)).await;
        assert!(dropped(&node, "cookie-demanded") >= 1);
    })
    .await;
}

#[tokio::test]
async fn admission_bounds_strangers() {
    in_time(async {
        let node = Node::builder()
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
            .admission(Admission::AllowAll { provisional_max: 2 })
            .bind()
            .await
            .expect("binds");
        let mut inside = Vec::new();
        for secret in 1..=2 {
            inside.push(Raw::connected(&node, [secret; 32]).await);
        }
        let mut third = Raw::new(&node, [3; 32]).await;
        third.handshake().await;
        until("it was turned away", || {
            dropped(&node, "limit-reached") == 1
        })
        .await;
        assert_eq!(node.status().peers.len(), 2);
        assert!(third.socket.try_recv(&mut [0; 200]).is_err(), "silence");
    })
    .await;
}

#[tokio::test]
async fn the_question_about_a_stranger_may_use_the_node_and_may_panic() {
    in_time(async {
        let known: std::sync::Arc<std::sync::OnceLock<Node>> = Default::default();
        let handle = known.clone();
        let admission = Admission::ask(move |request| {
            let node = handle.get().expect("set before anyone asks");
            assert!(node.status().refusals.is_empty(), "the second one");
            if request.source().ip().is_loopback() && node.peer(request.node_id()).is_none() {
                drop(request);
            }
        });
        let node = Node::builder()
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
            .admission(admission)
            .bind()
            .await
            .expect("binds");
        assert!(known.set(node.clone()).is_ok());
        let mut first = Raw::new(&node, [1; 32]).await;
        first.handshake().await;
        until("refused", || node.status().refusals.len() == 1).await;
        // The callback panics now, which refuses the stranger and hurts nobody else.
        let mut second = Raw::new(&node, [2; 32]).await;
        second.handshake().await;
        until("refused", || node.status().refusals.len() == 2).await;
        let friend = plain_node().await;
        introduce(&node, &friend);
        introduce(&friend, &node);
        let ping = friend.ping(node.address(), 0, Duration::from_secs(20));
        ping.await.expect("the node lives");
    })
    .await;
}

#[tokio::test]
async fn nobody_reaches_a_port_that_is_not_bound() {
    in_time(async {
        let node = echo_node().await;
        serve_markers(&node);
        let mut raw = Raw::connected(&node, [1; 32]).await;
        for port in [0, 1, 22, 5_000, 65_535] {
            let (from, to) = (at(raw.own(), 1), at(raw.theirs(), port));
            raw.inject_udp(from, to, b"anyone?").await;
        }
        assert_eq!(raw.settle().await, Vec::<Vec<u8>>::new());
    })
    .await;
}
