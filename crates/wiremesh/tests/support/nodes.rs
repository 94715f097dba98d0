//! Nodes on loopback, for tests.
#![allow(dead_code)] // each test takes what it needs

use std::net::SocketAddr;
use std::time::Duration;
use wiremesh::{Admission, Connection, Endpoint, Node, NodeBuilder, PeerConfig, Ticket};

/// The protocol of [`echo_node`].
pub const ECHO: &str = "test-echo/1";

/// No test needs this long; it ends one that hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a node on IPv4 loopback that admits everyone.
pub fn builder() -> NodeBuilder {
    Node::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .admission(Admission::AllowAll {
            provisional_max: 100,
        })
}

/// A node that speaks nothing itself.
pub async fn plain_node() -> Node {
    builder().bind().await.expect("loopback can be bound")
}

/// A node that gives back what comes on a bidirectional stream.
pub async fn echo_node() -> Node {
    let node = builder().protocol(ECHO).bind().await.expect("binds");
    serve_echo(&node);
    node
}

/// Answers all connections of a node, which goes on as long as the node does.
pub fn serve_echo(node: &Node) {
    let node = node.clone();
    tokio::spawn(async move {
        while let Some(connection) = node.accept().await {
            tokio::spawn(echo_streams(connection));
        }
    });
}

/// Gives back what comes on the bidirectional streams of a connection, piece by piece.
pub async fn echo_streams(connection: Connection) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024, true).await {
                if send.write_chunk(chunk.bytes).await.is_err() {
                    return;
                }
            }
            // Fails only when the peer is gone.
            let _ = send.finish();
        });
    }
}

/// Sends data on a new stream and checks that the same comes back.
pub async fn exchange(connection: &Connection, data: Vec<u8>) {
    let (mut send, mut recv) = connection.open_bi().await.expect("the connection is open");
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        send.write_all(&sent).await.expect("the peer reads");
        send.finish().expect("once");
    });
    let back = recv.read_to_end(data.len() + 1).await.expect("an answer");
    writer.await.expect("no panic");
    assert!(
        back == data,
        "{} bytes came back damaged",
        back.len().min(data.len())
    );
}

/// Bytes that show where they belong.
pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            // xorshift32
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// The ticket of a node, with another way there.
pub fn ticket_through(node: &Node, way: SocketAddr) -> Ticket {
    let mut ticket = node.ticket();
    ticket.endpoints = vec![Endpoint::Address(way)];
    ticket
}

/// Makes `to` a configured peer of `node`.
pub fn introduce(node: &Node, to: &Node) -> wiremesh::Peer {
    let mut config = PeerConfig::new(to.id());
    config.endpoints = to.ticket().endpoints.clone();
    node.add_peer(config).expect("a new peer")
}

/// Waits until `condition` holds, looking at it again whenever other tasks had their turn.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let looked = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, looked).await;
    in_time.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Ends a test that hangs.
pub async fn in_time<T>(test: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, test).await;
    result.expect("the test ends in time")
}
