//! Connections between two nodes on loopback: how they begin, carry data and end.

#[path = "support/pair.rs"]
mod pair;

use pair::nodes::{in_time, pattern, plain_node, until};
use pair::{Pair, introduce, ipv4_pair, read_all, write_all};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use wiremesh::{RawBindError, RawSendError};
use wiremesh_tcp::{ConnectError, ListenError, Tcp, TcpConfig, TcpError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_both_ways_and_each_side_closes_its_own() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, mut theirs) = pair.connect(&listener).await;
        assert_eq!(theirs.peer_addr(), ours.local_addr());
        assert_eq!(theirs.peer_addr().ip(), pair.a.address());
        let (question, answer) = (pattern(3_000_000, 1), pattern(2_000_000, 2));
        let asked = async {
            write_all(&mut ours, &question).await;
            // Our side is closed; theirs goes on.
            read_all(&mut ours).await
        };
        let answered = async {
            let got = read_all(&mut theirs).await;
            write_all(&mut theirs, &answer).await;
            got
        };
        let (got_answer, got_question) = tokio::join!(asked, answered);
        assert!(got_question == question && got_answer == answer);
        let late = theirs.write_all(b"x").await.expect_err("closed");
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        drop((ours, theirs));
        // B closed last: it has nothing to wait for, A waits for stray packets.
        until("B forgets", || pair.b_tcp.connections() == 0).await;
        assert_eq!(pair.a_tcp.connections(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv4_addresses_of_the_nodes_work_too() {
    in_time(async {
        let (a, b) = ipv4_pair().await;
        let tcp = |node| Tcp::new(node).expect("TCP is free");
        let (a_tcp, b_tcp) = (tcp(&a), tcp(&b));
        let listener = b_tcp.listen(0).expect("free");
        let to = SocketAddr::from(([10, 9, 0, 2], listener.port()));
        let (ours, theirs) = tokio::join!(a_tcp.connect(to), listener.accept());
        let (mut ours, mut theirs) = (ours.expect("connects"), theirs.expect("accepted"));
        assert_eq!(theirs.peer_addr().ip().to_string(), "10.9.0.1");
        let data = pattern(500_000, 3);
        let (got, ()) = tokio::join!(read_all(&mut theirs), write_all(&mut ours, &data));
        assert!(got == data);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_connect_learns_why() {
    in_time(async {
        let config = TcpConfig {
            connect_timeout: Duration::from_millis(300),
            ..TcpConfig::default()
        };
        let pair = Pair::with_config(config).await;
        let to = SocketAddr::new(pair.b.address(), 81);
        let refused = pair.a_tcp.connect(to).await.expect_err("nobody listens");
        assert_eq!(refused, ConnectError::Refused(to));
        let nowhere: SocketAddr = "[fd77:6d00::1]:80".parse().expect("an address");
        let no_route = pair.a_tcp.connect(nowhere).await.expect_err("no peer's");
        assert_eq!(no_route, ConnectError::NoRoute(nowhere.ip()));
        let zero = SocketAddr::new(pair.b.address(), 0);
        let bad = pair.a_tcp.connect(zero).await.expect_err("no port");
        assert_eq!(bad, ConnectError::BadAddress(zero));
        pair.b.close().await;
        let silent = pair.a_tcp.connect(to).await.expect_err("no answer");
        assert!(matches!(silent, ConnectError::TimedOut { .. }), "{silent}");
        pair.a.close().await;
        let closed = pair.a_tcp.connect(to).await.expect_err("closed");
        assert_eq!(closed, ConnectError::Closed);
        assert_eq!(
            pair.a_tcp.listen(80).expect_err("closed"),
            ListenError::Closed
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_told_after_what_came_before_it() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, mut theirs) = pair.connect(&listener).await;
        theirs.write_all(b"last words").await.expect("open");
        let mut buffer = [0; 10];
        ours.read_exact(&mut buffer).await.expect("they arrive");
        theirs.reset();
        let error = ours.read(&mut buffer).await.expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let error = ours.write(b"x").await.expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let error = theirs.read(&mut buffer).await.expect_err("by ourselves");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_arrives_although_the_stream_is_dropped() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, mut theirs) = pair.connect(&listener).await;
        let data = pattern(400_000, 4);
        ours.write_all(&data).await.expect("it fits the buffer");
        drop(ours);
        assert!(read_all(&mut theirs).await == data);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_nobody_reads_is_answered_with_a_reset() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, theirs) = pair.connect(&listener).await;
        drop(theirs);
        let ended = async {
            while ours.write_all(&[0; 1_000]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        ended.await;
        until("both forget", || pair.b_tcp.connections() == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    in_time(async {
        let config = TcpConfig {
            receive_bytes: 10_000,
            send_bytes: 10_000,
            ..TcpConfig::default()
        };
        let pair = Pair::with_config(config).await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, mut theirs) = pair.connect(&listener).await;
        let data = pattern(200_000, 5);
        let sent = data.clone();
        let mut writer = tokio::spawn(async move { write_all(&mut ours, &sent).await });
        let stopped = tokio::time::timeout(Duration::from_millis(300), &mut writer).await;
        assert!(stopped.is_err(), "20 kB of buffers do not take 200 kB");
        assert!(read_all(&mut theirs).await == data);
        writer.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_noticed() {
    in_time(async {
        let config = TcpConfig {
            silence_max: Duration::from_secs(1),
            ..TcpConfig::default()
        };
        let pair = Pair::with_config(config).await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, _theirs) = pair.connect(&listener).await;
        // Idle, but there: nothing happens.
        let quiet = tokio::time::timeout(Duration::from_millis(2_500), ours.read_u8()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        pair.b.close().await;
        let error = ours.read_u8().await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_node_ends_everything() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let (mut ours, _theirs) = pair.connect(&listener).await;
        let (read, accepted, ()) = tokio::join!(ours.read_u8(), listener.accept(), async {
            pair.a.close().await;
            pair.b.close().await;
        });
        assert_eq!(read.expect_err("closed").kind(), ErrorKind::NotConnected);
        assert_eq!(
            accepted.expect_err("closed").kind(),
            ErrorKind::NotConnected
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_old_ones_make_room() {
    in_time(async {
        let config = TcpConfig {
            connections_max: 3,
            ..TcpConfig::default()
        };
        let pair = Pair::with_config(config).await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let to = SocketAddr::new(pair.b.address(), 80);
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(pair.connect(&listener).await);
        }
        let error = pair.a_tcp.connect(to).await.expect_err("the fourth");
        assert_eq!(error, ConnectError::TooMany(3));
        // A closes first and waits for stray packets, which gives way to a new connection.
        for (mut ours, mut theirs) in open {
            ours.shutdown().await.expect("open");
            assert!(read_all(&mut theirs).await.is_empty());
            drop(theirs);
            assert!(read_all(&mut ours).await.is_empty());
        }
        until("B forgets", || pair.b_tcp.connections() == 0).await;
        assert_eq!(pair.a_tcp.connections(), 3);
        pair.connect(&listener).await;
        assert_eq!(pair.a_tcp.connections(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_listener_resets_who_waits_and_frees_the_port() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        assert_eq!(
            pair.b_tcp.listen(80).expect_err("taken"),
            ListenError::InUse(80)
        );
        let to = SocketAddr::new(pair.b.address(), 80);
        let mut waiting = pair.a_tcp.connect(to).await.expect("the backlog takes it");
        drop(listener);
        let error = waiting.read_u8().await.expect_err("never accepted");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let refused = pair.a_tcp.connect(to).await.expect_err("nobody listens");
        assert_eq!(refused, ConnectError::Refused(to));
        assert!(pair.b_tcp.listen(80).is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once() {
    in_time(async {
        let pair = Pair::new().await;
        let listener = pair.b_tcp.listen(80).expect("free");
        let server = tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        let to = SocketAddr::new(pair.b.address(), 80);
        let mut clients = JoinSet::new();
        for n in 0..100 {
            let tcp = pair.a_tcp.clone();
            clients.spawn(async move {
                let stream = tcp.connect(to).await.expect("connects");
                let (mut read, mut write) = tokio::io::split(stream);
                let data = pattern(30_000, n);
                let (got, ()) = tokio::join!(read_all(&mut read), write_all(&mut write, &data));
                assert!(got == data, "connection {n}");
            });
        }
        while let Some(done) = clients.join_next().await {
            done.expect("the data is intact");
        }
        server.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocol_is_claimed_once_and_the_nodes_own_never() {
    in_time(async {
        let node = plain_node().await;
        for protocol in [1, 17, 58, 44] {
            let error = node.raw_socket(protocol).expect_err("the node's own");
            assert_eq!(error, RawBindError::Reserved(protocol));
        }
        let tcp = Tcp::new(&node).expect("free");
        let taken = Tcp::new(&node).expect_err("taken");
        assert!(
            matches!(taken, TcpError::Claim(RawBindError::InUse(6))),
            "{taken}"
        );
        drop(tcp);
        until("it is free again", || Tcp::new(&node).is_ok()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_socket_sends_only_its_own_packets_from_our_addresses() {
    in_time(async {
        let (a, b) = (plain_node().await, plain_node().await);
        introduce(&a, &b, b.listen_addresses()[0]);
        let (ours, theirs) = (
            a.raw_socket(99).expect("free"),
            b.raw_socket(99).expect("free"),
        );
        let packet = |protocol: u8, source: std::net::IpAddr| {
            let mut packet = vec![0; 45];
            packet[0] = 0x60;
            packet[5] = 5;
            packet[6] = protocol;
            let octets = |ip| match ip {
                std::net::IpAddr::V6(ip) => ip.octets(),
                std::net::IpAddr::V4(_) => unreachable!("overlay addresses are IPv6"),
            };
            packet[8..24].copy_from_slice(&octets(source));
            packet[24..40].copy_from_slice(&octets(b.address()));
            packet[40..].copy_from_slice(b"hello");
            packet
        };
        let good = packet(99, a.address());
        let wrong = ours.send(&packet(98, a.address())).await;
        assert_eq!(wrong, Err(RawSendError::NotAPacket));
        let longer = [&good[..], b"!"].concat();
        assert_eq!(ours.send(&longer).await, Err(RawSendError::NotAPacket));
        let foreign = ours.send(&packet(99, b.address())).await;
        assert_eq!(foreign, Err(RawSendError::NoSource(b.address())));
        ours.send(&good).await.expect("goes");
        let mut buffer = [0; 100];
        let len = theirs.recv(&mut buffer).await.expect("arrives");
        assert_eq!(&buffer[..len], &good[..]);
        assert_eq!(
            theirs.try_send_all([&good[..]].into_iter()),
            1,
            "lost, not stuck"
        );
        b.close().await;
        let closed = theirs.recv(&mut buffer).await.expect_err("closed");
        assert_eq!(closed.kind(), ErrorKind::NotConnected);
    })
    .await;
}
