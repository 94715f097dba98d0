//! Replacing the sockets while tasks wait for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wiremesh_udp::{DropReason, RecvBatch, SendError, Transmit, UdpSockets};

const LIMIT: Duration = Duration::from_secs(10);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn send(from: &UdpSockets, destination: SocketAddr, contents: &[u8]) {
    let transmit = Transmit {
        destination,
        source: None,
        ecn: 0,
        segment_size: None,
        contents,
    };
    from.try_send(&transmit).expect("loopback has room");
}

async fn receive(sockets: &UdpSockets) -> (Vec<u8>, SocketAddr) {
    let mut batch = RecvBatch::new(1);
    let received = tokio::time::timeout(LIMIT, sockets.recv(&mut batch)).await;
    received
        .expect("a datagram arrives")
        .expect("the socket works");
    let datagram = batch.datagrams_mut().next().expect("the batch is filled");
    (datagram.data.to_vec(), datagram.source)
}

#[tokio::test]
async fn traffic_flows_on_after_a_rebind() {
    let node = UdpSockets::bind_any(0).expect("a free port exists");
    let peer = UdpSockets::bind(&[loopback()]).expect("loopback binds");
    let addresses = node.local_addresses();
    let node_address = SocketAddr::from(([127, 0, 0, 1], addresses[0].port()));
    for round in 0..5 {
        send(&peer, node_address, &[round]);
        let (data, source) = receive(&node).await;
        assert_eq!(
            (data.as_slice(), source),
            (&[round][..], peer.local_addresses()[0])
        );
        send(&node, source, &[round]);
        assert_eq!(receive(&peer).await, (vec![round], node_address));
        let rebound = node.rebind().expect("the port is free");
        assert!(rebound.same_port);
        assert_eq!(node.local_addresses(), addresses);
    }
    assert_eq!(node.counters().received_datagrams, 5);
}

#[tokio::test]
async fn waiting_tasks_go_on_with_the_new_sockets() {
    let node = Arc::new(UdpSockets::bind(&[loopback()]).expect("loopback binds"));
    let peer = UdpSockets::bind(&[loopback()]).expect("loopback binds");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { receive(&node).await.0 })
        })
        .collect();
    // Lets each task reach its wait on the old socket.
    tokio::task::yield_now().await;
    node.rebind_to(&[loopback()]).expect("loopback binds");
    for number in 0..3 {
        send(&peer, node.local_addresses()[0], &[number]);
    }
    let mut got = Vec::new();
    for task in waiting {
        got.extend(task.await.expect("the task does not panic"));
    }
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2]);
}

#[tokio::test]
async fn a_failed_rebind_is_survived_and_the_next_one_revives() {
    let node = Arc::new(UdpSockets::bind(&[loopback()]).expect("loopback binds"));
    let peer = UdpSockets::bind(&[loopback()]).expect("loopback binds");
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { receive(&node).await.0 }
    });
    tokio::task::yield_now().await;
    // TEST-NET-3: no host owns it.
    let foreign = SocketAddr::from(([203, 0, 113, 77], 0));
    node.rebind_to(&[foreign])
        .expect_err("the address is not ours");
    assert!(node.local_addresses().is_empty());
    let destination = peer.local_addresses()[0];
    let lost = Transmit {
        destination,
        source: None,
        ecn: 0,
        segment_size: None,
        contents: b"lost",
    };
    let result = node.try_send(&lost);
    assert!(
        matches!(result, Err(SendError::Dropped(DropReason::NoSocket))),
        "{result:?}"
    );
    node.writable()
        .await
        .expect("nothing blocks without sockets");
    node.rebind_to(&[loopback()]).expect("loopback binds");
    send(&peer, node.local_addresses()[0], b"back");
    assert_eq!(waiting.await.expect("the task does not panic"), b"back");
}

#[tokio::test]
async fn a_port_taken_meanwhile_is_replaced_by_another() {
    let node = UdpSockets::bind(&[loopback()]).expect("loopback binds");
    let before = node.local_addresses()[0];
    // TEST-NET-3: closes the old socket without opening another.
    let foreign = SocketAddr::from(([203, 0, 113, 77], 0));
    node.rebind_to(&[foreign])
        .expect_err("the address is not ours");
    let _thief = std::net::UdpSocket::bind(before).expect("the port is free");
    node.rebind_to(&[before])
        .expect_err("an explicit port is not replaced");
    let rebound = node.rebind().expect("another port is free");
    assert!(!rebound.same_port);
    assert_ne!(node.local_addresses()[0].port(), before.port());
}
