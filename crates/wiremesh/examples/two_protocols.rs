//! Two protocols on one node: `upper/1` answers in capitals, `ticks/1` sends ticks.
//!
//! ```sh
//! cargo run -p wiremesh --example two_protocols   # both sides here, on loopback
//! ```
//!
//! A connection speaks one protocol; both connections of this client share one tunnel. A `Peer`
//! handle keeps one connection per protocol and makes a new one when it is gone.

use std::error::Error;
use std::time::Duration;
use wiremesh::{Admission, ConnectError, Connection, Node};

const UPPER: &str = "upper/1";
const TICKS: &str = "ticks/1";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let loopback = "127.0.0.1:0".parse()?;
    let server = Node::builder()
        .listen(loopback)
        .protocol(UPPER)
        .protocol(TICKS)
        .admission(Admission::AllowAll {
            provisional_max: 100,
        })
        .bind()
        .await?;
    let ticket = server.ticket();
    tokio::spawn(serve(server.clone()));

    let client = Node::builder().listen(loopback).bind().await?;

    // By ticket, as one connects for the first time.
    let ticks = client.connect(&ticket, TICKS).await?;
    let mut stream = ticks.accept_uni().await?;
    let mut tick = [0; 1];
    for expected in 0..5 {
        stream.read_exact(&mut tick).await?;
        assert_eq!(tick[0], expected);
    }
    println!("{TICKS}: five ticks from {}", ticks.peer());

    // By peer handle: reconnects by itself when the connection was lost.
    let peer = client.peer(server.id()).ok_or("connected just now")?;
    for text in ["one tunnel", "many connections"] {
        let (mut send, mut recv) = peer.open_bi(UPPER).await?;
        send.write_all(text.as_bytes()).await?;
        send.finish()?;
        let answer = recv.read_to_end(1_000).await?;
        assert_eq!(answer, text.to_uppercase().as_bytes());
        println!("{UPPER}: {}", String::from_utf8_lossy(&answer));
    }
    // One tunnel: a handshake to agree on a post-quantum key, and one with it.
    assert_eq!(client.status().handshakes, 2);

    // A protocol that the server does not speak.
    match client.connect(&ticket, "lower/1").await {
        Err(ConnectError::Streams(reason)) => println!("lower/1: refused: {reason}"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    client.close().await;
    server.close().await;
    Ok(())
}

/// Hands each connection to what speaks its protocol.
async fn serve(node: Node) {
    while let Some(connection) = node.accept().await {
        match connection.protocol() {
            UPPER => drop(tokio::spawn(upper(connection))),
            _ => drop(tokio::spawn(ticks(connection))),
        }
    }
}

async fn upper(connection: Connection) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let Ok(text) = recv.read_to_end(1_000).await else {
            continue;
        };
        let answer = String::from_utf8_lossy(&text).to_uppercase();
        if send.write_all(answer.as_bytes()).await.is_ok() {
            // Fails only when the client reset the stream.
            let _ = send.finish();
        }
    }
}

async fn ticks(connection: Connection) {
    let Ok(mut stream) = connection.open_uni().await else {
        return;
    };
    // Small messages that are worth more than bulk: sent before streams of lower priority.
    let _ = stream.set_priority(10);
    for tick in 0..=u8::MAX {
        if stream.write_all(&[tick]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
