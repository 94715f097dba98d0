//! A configured pace: what is urgent overtakes, and nobody waits for what does not come.
#![allow(clippy::unwrap_used)]

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{builder, in_time, plain_node, until};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wiremesh::{EgressConfig, Node, PeerConfig, Priority, UdpSendError, UdpSocket};

const PROTOCOL: &str = "test-egress/1";

async fn paced(rate_bits: u64) -> Node {
    let config = EgressConfig {
        rate_bits: Some(rate_bits),
        ..EgressConfig::default()
    };
    builder().egress(config).bind().await.unwrap()
}

/// Sends until a datagram has to wait; gives what becomes of that one after `meanwhile`.
async fn held_back(
    socket: &UdpSocket,
    to: SocketAddr,
    meanwhile: impl FnOnce(),
) -> Result<(), UdpSendError> {
    loop {
        let mut send = pin!(socket.send_to_with(Priority::Bulk, &[0; 1_000], to));
        let sent = tokio::select! {
            biased;
            sent = &mut send => Some(sent),
            () = std::future::ready(()) => None,
        };
        match sent {
            Some(sent) => sent.unwrap(),
            None => {
                meanwhile();
                return in_time(send).await;
            }
        }
    }
}

async fn with_a_slow_peer() -> (Node, UdpSocket, SocketAddr) {
    let (node, silent) = (paced(8_000).await, plain_node().await);
    let peer = node.add_peer(PeerConfig::new(silent.id())).unwrap();
    let to = SocketAddr::new(peer.address(), 7);
    let socket = node.udp_socket(0).unwrap();
    (node, socket, to)
}

#[tokio::test]
async fn who_waits_for_a_peer_that_is_removed_is_told() {
    let (node, socket, to) = with_a_slow_peer().await;
    let id = node.status().peers[0].node_id;
    let ended = held_back(&socket, to, || assert!(node.remove_peer(id))).await;
    assert!(matches!(ended, Err(UdpSendError::NoRoute(_))), "{ended:?}");
}

#[tokio::test]
async fn who_waits_in_a_node_that_is_closed_is_told() {
    let (node, socket, to) = with_a_slow_peer().await;
    let ended = held_back(&socket, to, || drop(node)).await;
    assert!(matches!(ended, Err(UdpSendError::Closed)), "{ended:?}");
}

#[tokio::test]
async fn who_waits_goes_on_at_once_without_a_pace() {
    let (node, socket, to) = with_a_slow_peer().await;
    let ended = held_back(&socket, to, || node.set_egress_rate(None).unwrap()).await;
    assert!(ended.is_ok(), "{ended:?}");
}

/// A node that counts what it reads.
async fn counting() -> (Node, Arc<AtomicUsize>) {
    let (node, count) = (builder().protocol(PROTOCOL), Arc::new(AtomicUsize::new(0)));
    let node = node.bind().await.unwrap();
    let (serving, counting) = (node.clone(), Arc::clone(&count));
    tokio::spawn(async move {
        let connection = serving.accept().await.unwrap();
        let mut stream = connection.accept_uni().await.unwrap();
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
            counting.fetch_add(chunk.bytes.len(), Ordering::Relaxed);
        }
    });
    (node, count)
}

fn sending(
    node: &Node,
    to: &Node,
    class: Priority,
    len: usize,
) -> impl Future<Output = ()> + use<> {
    let (node, ticket) = (node.clone(), to.ticket());
    async move {
        let connection = node.connect(ticket, PROTOCOL).await.unwrap();
        let mut stream = connection.open_uni_with(class).await.unwrap();
        // The test may be over before all is sent.
        if stream.write_all(&vec![7; len]).await.is_ok() {
            let _ = stream.finish();
            let _ = stream.stopped().await;
        }
    }
}

#[tokio::test]
async fn an_urgent_stream_overtakes_bulk_for_another_peer() {
    const LEN: usize = 200_000;
    let node = paced(10_000_000).await;
    let ((slow, bulk), (fast, urgent)) = (counting().await, counting().await);
    tokio::spawn(sending(&node, &slow, Priority::Bulk, 20 * LEN));
    until("bulk flows", || bulk.load(Ordering::Relaxed) > LEN / 4).await;
    tokio::spawn(sending(&node, &fast, Priority::Urgent, LEN));
    until("urgent flows", || urgent.load(Ordering::Relaxed) > LEN / 10).await;
    let before = bulk.load(Ordering::Relaxed);
    until("urgent is there", || urgent.load(Ordering::Relaxed) == LEN).await;
    let meanwhile = bulk.load(Ordering::Relaxed) - before;
    // As many bytes as the urgent stream, if they took turns.
    assert!(
        meanwhile < LEN / 2,
        "{meanwhile} bytes of bulk went beside it"
    );
    let egress = node.status().egress;
    let [first, _, last] = egress.classes;
    assert_eq!(egress.rate_bits, Some(10_000_000));
    assert!(first.packets > 100 && last.packets > 30, "{egress:?}");
}
