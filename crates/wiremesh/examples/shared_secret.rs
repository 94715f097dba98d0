//! Admission by a shared secret: whoever knows it comes in, under any key.
//!
//! The proof is a keyed hash over both node ids. Nobody else can use it: another node has another
//! id, and so needs another proof. The secret should be a long one, since the host of a false
//! ticket could try short ones against the proof that it is shown.
//!
//! ```sh
//! cargo run -p wiremesh --example shared_secret    # both sides here, on loopback
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh::{Admission, ConnectError, Node, NodeBuilder, NodeId, Target};

const PROTOCOL: &str = "example-club/1";
const SECRET: &str = "correct horse battery staple, and some more words";

/// What `guest` shows to `host`.
fn proof(secret: &str, guest: NodeId, host: NodeId) -> blake3::Hash {
    let key = blake3::derive_key("example shared_secret.rs v1", secret.as_bytes());
    let ids = [*guest.as_bytes(), *host.as_bytes()].concat();
    blake3::keyed_hash(&key, &ids)
}

fn loopback() -> NodeBuilder {
    Node::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .connect_timeout(Duration::from_secs(2))
}

/// A node that lets in whoever knows the secret. Until a guest has shown its proof, nothing but
/// the agreement on a suite passes; a guest that is refused leaves no trace.
async fn club() -> Result<Node, Box<dyn Error>> {
    let admission = Admission::proof(|request| {
        let expected = proof(SECRET, request.node_id(), request.host());
        let shown = <[u8; 32]>::try_from(request.proof()).map(blake3::Hash::from);
        // Hashes are compared in constant time. A request that is dropped is a refusal.
        if shown.is_ok_and(|shown| shown == expected) {
            request.admit();
        }
    });
    let node = loopback().protocol(PROTOCOL).admission(admission);
    let node = node.bind().await?;
    let members = node.clone();
    tokio::spawn(async move {
        while let Some(connection) = members.accept().await {
            println!("club: welcome, {}", connection.peer());
            tokio::spawn(async move {
                let (mut send, mut recv) = connection.accept_bi().await.ok()?;
                tokio::io::copy(&mut recv, &mut send).await.ok()?;
                send.finish().ok()?;
                connection.closed().await;
                Some(())
            });
        }
    });
    Ok(node)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let club = club().await?;
    let ticket = club.ticket();

    let friend = loopback().bind().await?;
    let shown = proof(SECRET, friend.id(), ticket.node_id);
    let target = Target::from(&ticket).with_proof(*shown.as_bytes());
    let connection = friend.connect(target, PROTOCOL).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"is this the club?").await?;
    send.finish()?;
    let answer = recv.read_to_end(100).await?;
    let level = connection.security().level;
    println!("friend: {} ({level})", String::from_utf8(answer)?);

    // Somebody who has seen the friend's proof, and nobody else's.
    let thief = loopback().bind().await?;
    let target = Target::from(&ticket).with_proof(*shown.as_bytes());
    match thief.connect(target, PROTOCOL).await {
        Err(error @ ConnectError::Security { .. } | error @ ConnectError::NoAnswer { .. }) => {
            println!("thief: {error}");
        }
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    assert!(club.peer(thief.id()).is_none());

    friend.close().await;
    club.close().await;
    Ok(())
}
