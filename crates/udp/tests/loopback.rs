//! Real sockets on loopback: offload both ways, both families, pinned sources, refusals.
//!
//! Nothing here needs a network, a privilege or a pause; time limits only turn a hang into a
//! failure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use wiremesh_udp::{
    BindError, DropReason, RecvBatch, SOCKETS_MAX, SendError, Transmit, UdpConfig, UdpSockets,
};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

fn bind(address: &str) -> UdpSockets {
    UdpSockets::bind(&[address.parse().expect("valid address")]).expect("loopback binds")
}

fn bind_without_offload(address: &str) -> UdpSockets {
    let config = UdpConfig {
        segmentation_offload: false,
        ..UdpConfig::default()
    };
    let address = address.parse().expect("valid address");
    UdpSockets::bind_with(&[address], config).expect("loopback binds")
}

fn to(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit {
        destination,
        source: None,
        ecn: 0,
        segment_size: None,
        contents,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Got {
    data: Vec<u8>,
    source: SocketAddr,
    local: Option<IpAddr>,
    ecn: u8,
}

async fn receive(sockets: &UdpSockets, count: usize) -> Vec<Got> {
    let mut batch = RecvBatch::default();
    let mut got = Vec::new();
    let all = async {
        while got.len() < count {
            sockets.recv(&mut batch).await.expect("the socket works");
            got.extend(batch.datagrams_mut().map(|d| Got {
                data: d.data.to_vec(),
                source: d.source,
                local: d.local,
                ecn: d.ecn,
            }));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .expect("all datagrams arrive");
    got
}

/// Segments of 1,000 bytes with their number in front, the last one of 10 bytes.
fn numbered(count: usize) -> Vec<u8> {
    let mut contents = Vec::new();
    for number in 0..count {
        let length = if number + 1 == count { 10 } else { 1000 };
        contents.extend((0..length).map(|_| number as u8));
    }
    contents
}

async fn batch_arrives_in_order(sender: &UdpSockets, receiver: &UdpSockets) {
    let destination = receiver.local_addresses()[0];
    let contents = numbered(100);
    let transmit = Transmit {
        segment_size: Some(1000),
        ..to(destination, &contents)
    };
    let sent = sender.try_send(&transmit).expect("loopback has room");
    assert_eq!(sent.datagrams, 100);
    let got = receive(receiver, 100).await;
    for (number, datagram) in got.iter().enumerate() {
        let length = if number == 99 { 10 } else { 1000 };
        assert_eq!(datagram.data, vec![number as u8; length]);
        assert_eq!(datagram.source, sender.local_addresses()[0]);
        assert_eq!(datagram.local, Some(destination.ip()));
    }
    assert_eq!(sender.counters().sent_datagrams, 100);
    assert_eq!(sender.counters().sent_bytes, 99_010);
    assert_eq!(receiver.counters().received_datagrams, 100);
    assert_eq!(receiver.counters().received_bytes, 99_010);
}

#[tokio::test]
async fn a_batch_arrives_as_datagrams_in_order_over_ipv4() {
    batch_arrives_in_order(&bind(V4), &bind(V4)).await;
}

#[tokio::test]
async fn a_batch_arrives_as_datagrams_in_order_over_ipv6() {
    batch_arrives_in_order(&bind(V6), &bind(V6)).await;
}

#[tokio::test]
async fn a_batch_arrives_the_same_without_offload() {
    let sender = bind_without_offload(V4);
    assert_eq!(sender.max_segments(), 1);
    batch_arrives_in_order(&sender, &bind(V4)).await;
    assert_eq!(sender.counters().sent_batches, 100);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn offload_carries_many_datagrams_per_call_both_ways() {
    let (sender, receiver) = (bind(V4), bind(V4));
    assert!(
        sender.max_segments() > 1,
        "this kernel has segmentation offload"
    );
    batch_arrives_in_order(&sender, &receiver).await;
    assert_eq!(sender.counters().sent_batches, 2);
    assert!(receiver.counters().received_batches <= 4);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_coalesced_buffer_can_be_taken_without_copying() {
    let (sender, receiver) = (bind(V4), bind(V4));
    let contents = numbered(20);
    let destination = receiver.local_addresses()[0];
    let transmit = Transmit {
        segment_size: Some(1000),
        ..to(destination, &contents)
    };
    sender.try_send(&transmit).expect("loopback has room");
    let mut batch = RecvBatch::new(2);
    receiver.recv(&mut batch).await.expect("the socket works");
    let buffer = batch.buffers_mut().next().expect("something arrived");
    assert_eq!(buffer.stride, 1000);
    assert_eq!(buffer.source, sender.local_addresses()[0]);
    let index = buffer.index;
    let pointer = buffer.data.as_ptr();
    let taken = batch.take_buffer(index).expect("the buffer is filled");
    assert_eq!(taken.as_ptr(), pointer);
    assert_eq!(taken, contents);
}

#[tokio::test]
async fn both_families_share_a_port_and_answer_from_it() {
    let server = UdpSockets::bind_any(0).expect("a free port exists");
    let addresses = server.local_addresses();
    let port = addresses[0].port();
    assert!(addresses.iter().all(|address| address.port() == port));
    for (client, host) in [(bind(V4), "127.0.0.1"), (bind(V6), "::1")] {
        let host: IpAddr = host.parse().expect("valid address");
        let server_address = SocketAddr::new(host, port);
        client
            .try_send(&to(server_address, b"question"))
            .expect("loopback has room");
        let question = &receive(&server, 1).await[0];
        assert_eq!(question.source, client.local_addresses()[0]);
        assert_eq!(question.local, Some(host));
        let answer = Transmit {
            source: question.local,
            ..to(question.source, b"answer")
        };
        let sent = server.try_send(&answer).expect("loopback has room");
        assert!(!sent.source_rejected);
        let answer = &receive(&client, 1).await[0];
        assert_eq!(answer.source, server_address);
    }
}

#[tokio::test]
async fn sockets_are_served_in_turn() {
    let server = UdpSockets::bind_any(0).expect("a free port exists");
    let port = server.local_addresses()[0].port();
    let (v4, v6) = (bind_without_offload(V4), bind_without_offload(V6));
    for number in 0..20 {
        let contents = [number];
        v4.try_send(&to(SocketAddr::from(([127, 0, 0, 1], port)), &contents))
            .expect("has room");
        let loopback = SocketAddr::new("::1".parse().expect("valid address"), port);
        v6.try_send(&to(loopback, &contents)).expect("has room");
    }
    let mut batch = RecvBatch::new(1);
    let mut ipv6 = Vec::new();
    for _ in 0..4 {
        server.recv(&mut batch).await.expect("the socket works");
        ipv6.extend(batch.datagrams_mut().next().map(|d| d.source.is_ipv6()));
    }
    assert_eq!(
        ipv6.iter().filter(|&&is_ipv6| is_ipv6).count(),
        2,
        "{ipv6:?}"
    );
}

#[tokio::test]
async fn an_ipv4_mapped_destination_is_sent_as_ipv4() {
    let server = UdpSockets::bind_any(0).expect("a free port exists");
    let client = UdpSockets::bind_any(0).expect("a free port exists");
    let port = server.local_addresses()[0].port();
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().expect("valid address"), port);
    client
        .try_send(&to(mapped, b"hello"))
        .expect("loopback has room");
    let got = &receive(&server, 1).await[0];
    assert!(got.source.is_ipv4());
    assert_eq!(got.local, Some(Ipv4Addr::LOCALHOST.into()));
}

#[tokio::test]
async fn ecn_bits_arrive() {
    for address in [V4, V6] {
        let (sender, receiver) = (bind(address), bind(address));
        for ecn in 0..4 {
            let transmit = Transmit {
                ecn,
                ..to(receiver.local_addresses()[0], b"x")
            };
            sender.try_send(&transmit).expect("loopback has room");
            assert_eq!(receive(&receiver, 1).await[0].ecn, ecn);
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_pinned_source_is_used() {
    let sender = UdpSockets::bind(&["0.0.0.0:0".parse().expect("valid")]).expect("binds");
    let receiver = bind(V4);
    let source: IpAddr = [127, 0, 0, 2].into();
    let transmit = Transmit {
        source: Some(source),
        ..to(receiver.local_addresses()[0], b"x")
    };
    let sent = sender.try_send(&transmit).expect("loopback has room");
    assert!(!sent.source_rejected);
    assert_eq!(receive(&receiver, 1).await[0].source.ip(), source);
}

/// Some systems answer a stale source with the same error as broken offload.
async fn stale_source_is_harmless(any: &str, loopback: &str, foreign: &str) {
    let (sender, receiver) = (bind(any), bind(loopback));
    let segments = sender.max_segments();
    let contents = numbered(5);
    let transmit = Transmit {
        source: Some(foreign.parse().expect("valid address")),
        segment_size: Some(1000),
        ecn: 2,
        ..to(receiver.local_addresses()[0], &contents)
    };
    let sent = sender.try_send(&transmit).expect("sent without the source");
    assert!(sent.source_rejected);
    assert_eq!(sent.datagrams, 5);
    assert!(
        receive(&receiver, 5)
            .await
            .iter()
            .all(|datagram| datagram.ecn == 2)
    );
    assert_eq!(sender.max_segments(), segments);
    assert_eq!(sender.counters().sources_rejected, 1);
    assert_eq!(sender.counters().dropped_total(), 0);
    let batches = sender.counters().sent_batches;
    sender
        .try_send(&Transmit {
            source: None,
            ..transmit
        })
        .expect("loopback has room");
    assert!(
        receive(&receiver, 5)
            .await
            .iter()
            .all(|datagram| datagram.ecn == 2)
    );
    let calls = if segments > 1 { 1 } else { 5 };
    assert_eq!(sender.counters().sent_batches, batches + calls);
}

#[tokio::test]
async fn a_stale_ipv4_source_is_reported_and_costs_neither_offload_nor_ecn() {
    // TEST-NET-3: no host owns it.
    stale_source_is_harmless("0.0.0.0:0", V4, "203.0.113.77").await;
    // A multicast source is an invalid argument on every system.
    stale_source_is_harmless("0.0.0.0:0", V4, "224.0.0.1").await;
}

#[tokio::test]
async fn a_stale_ipv6_source_is_reported_and_costs_neither_offload_nor_ecn() {
    // The documentation prefix: no host owns it.
    stale_source_is_harmless("[::]:0", V6, "2001:db8::77").await;
}

#[tokio::test]
async fn unreachable_destinations_do_not_kill_the_socket() {
    let (sender, receiver) = (bind(V4), bind(V4));
    let gone = bind(V4).local_addresses()[0];
    for _ in 0..50 {
        // Nobody listens there any more; whether the system tells is its choice.
        match sender.try_send(&to(gone, b"x")) {
            Ok(_) | Err(SendError::Dropped(DropReason::Refused)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let too_large = vec![0; 65_508];
    let result = sender.try_send(&to(receiver.local_addresses()[0], &too_large));
    assert!(
        matches!(result, Err(SendError::Dropped(DropReason::TooLarge))),
        "{result:?}"
    );
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    let result = sender.try_send(&to(broadcast, b"x"));
    assert!(matches!(result, Err(SendError::Dropped(_))), "{result:?}");
    let other_family = SocketAddr::new("::1".parse().expect("valid address"), 9);
    let result = sender.try_send(&to(other_family, b"x"));
    assert!(
        matches!(result, Err(SendError::Dropped(DropReason::NoSocket))),
        "{result:?}"
    );
    let portless = SocketAddr::from(([127, 0, 0, 1], 0));
    let result = sender.try_send(&to(portless, b"x"));
    assert!(matches!(
        result,
        Err(SendError::Dropped(DropReason::InvalidDestination))
    ));

    let counters = sender.counters();
    assert_eq!(counters.dropped(DropReason::TooLarge), 1);
    assert_eq!(counters.dropped(DropReason::NoSocket), 1);
    assert_eq!(counters.dropped(DropReason::InvalidDestination), 1);
    sender
        .try_send(&to(receiver.local_addresses()[0], b"alive"))
        .expect("loopback has room");
    assert_eq!(receive(&receiver, 1).await[0].data, b"alive");
    receiver
        .try_send(&to(sender.local_addresses()[0], b"back"))
        .expect("loopback has room");
    assert_eq!(receive(&sender, 1).await[0].data, b"back");
}

#[tokio::test]
async fn writable_is_ready_at_once_when_nothing_blocked() {
    bind(V4).writable().await.expect("the runtime runs");
}

#[tokio::test]
async fn granted_buffers_are_reported() {
    let sockets = UdpSockets::bind_any(0).expect("a free port exists");
    for sizes in sockets.buffer_sizes() {
        assert!(sizes.send_bytes >= 64 * 1024, "{sizes:?}");
        assert!(sizes.receive_bytes >= 64 * 1024, "{sizes:?}");
    }
}

#[tokio::test]
async fn bad_address_lists_are_refused() {
    assert!(matches!(UdpSockets::bind(&[]), Err(BindError::NoAddresses)));
    let address: SocketAddr = V4.parse().expect("valid address");
    let many = [address; SOCKETS_MAX + 1];
    assert!(matches!(
        UdpSockets::bind(&many),
        Err(BindError::TooManyAddresses)
    ));
    let taken = bind(V4).local_addresses()[0];
    let _holder = std::net::UdpSocket::bind(taken).expect("the port is free again");
    let error = UdpSockets::bind(&[taken]).expect_err("the port is taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[test]
fn binding_outside_a_runtime_is_an_error_and_no_panic() {
    let address = V4.parse().expect("valid address");
    assert!(matches!(
        UdpSockets::bind(&[address]),
        Err(BindError::NoRuntime)
    ));
}
