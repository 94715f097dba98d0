//! A peer that is killed and started again.

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{ECHO, introduce, plain_node, serve_echo};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use wiremesh::{Admission, Node, NodeBuilder, SecretKey};

/// How long the peer is away: by then a handshake is tried every 5 s, and QUIC has doubled the time
/// between its probes to 15 s. It would look again 31 s after the peer went away.
const AWAY: Duration = Duration::from_secs(17);
const BACK_WITHIN: Duration = Duration::from_secs(10);

fn server(key: &SecretKey, port: u16) -> NodeBuilder {
    let admission = Admission::AllowAll { provisional_max: 8 };
    let address = ([127, 0, 0, 1], port).into();
    let builder = Node::builder().secret_key(key.clone()).listen(address);
    builder.protocol(ECHO).admission(admission)
}

/// In a runtime of its own, so that it can end as a killed process does: in silence.
fn run(builder: NodeBuilder) -> (Runtime, Node) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let node = runtime.block_on(async {
        let node = builder.bind().await.expect("it starts");
        serve_echo(&node);
        node
    });
    (runtime, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_learn_at_once_that_their_peer_is_back() {
    let key = SecretKey::from_bytes([7; 32]);
    let first = server(&key, 0);
    let (runtime, node) = std::thread::spawn(|| run(first)).join().expect("it runs");
    let port = node.listen_addresses()[0].port();
    let client = plain_node().await;
    let peer = introduce(&client, &node);
    let connection = peer.connection(ECHO).await.expect("it is there");
    let (mut send, mut recv) = connection.open_bi().await.expect("open");
    send.write_all(b"before").await.expect("sent");
    recv.read_exact(&mut [0; 6]).await.expect("it comes back");

    let killed = Instant::now();
    runtime.shutdown_background();
    drop(node);
    send.write_all(b"into the void")
        .await
        .expect("it is queued");
    tokio::time::sleep(AWAY).await;
    let second = server(&key, port);
    let (runtime, node) = std::thread::spawn(|| run(second)).join().expect("it runs");

    let ended = tokio::time::timeout(BACK_WITHIN, connection.closed()).await;
    println!(
        "the old connection ended after {:?}: {ended:?}",
        killed.elapsed()
    );
    assert!(ended.is_ok(), "it still waits for its peer");
    let (mut send, mut recv) = peer.open_bi(ECHO).await.expect("a new connection");
    send.write_all(b"after").await.expect("sent");
    recv.read_exact(&mut [0; 5]).await.expect("it comes back");
    drop((client, node));
    runtime.shutdown_background();
}
