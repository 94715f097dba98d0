//! Echo: what a client writes to a stream comes back on it.
//!
//! ```sh
//! cargo run -p wiremesh --example echo                  # both sides here, on loopback
//! cargo run -p wiremesh --example echo -- serve         # prints a ticket and waits
//! cargo run -p wiremesh --example echo -- TICKET hello  # sends "hello" to it
//! ```

use std::error::Error;
use wiremesh::{Admission, Node, Ticket};

/// Client and server must name the same protocol, as with ALPN.
const PROTOCOL: &str = "example-echo/1";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => both_sides().await,
        ["serve"] => {
            let node = server(Node::builder()).await?;
            println!("{}", node.ticket());
            serve(node).await;
            Ok(())
        }
        [ticket, text] => {
            let node = Node::builder().bind().await?;
            println!("{}", ask(&node, &ticket.parse()?, text).await?);
            node.close().await;
            Ok(())
        }
        _ => Err("usage: echo [serve | TICKET TEXT]".into()),
    }
}

/// A node that speaks the protocol. Its key is made here and forgotten at the end.
async fn server(builder: wiremesh::NodeBuilder) -> Result<Node, Box<dyn Error>> {
    let anyone = Admission::AllowAll {
        provisional_max: 1_000,
    };
    Ok(builder.protocol(PROTOCOL).admission(anyone).bind().await?)
}

/// Answers every stream of every connection.
async fn serve(node: Node) {
    while let Some(connection) = node.accept().await {
        println!("server: {} connected", connection.peer());
        tokio::spawn(async move {
            // Ends when the client closes the connection.
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                tokio::spawn(async move { tokio::io::copy(&mut recv, &mut send).await });
            }
        });
    }
}

/// Sends a text and gives the answer.
async fn ask(node: &Node, ticket: &Ticket, text: &str) -> Result<String, Box<dyn Error>> {
    let connection = node.connect(ticket, PROTOCOL).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(text.as_bytes()).await?;
    send.finish()?;
    let answer = recv.read_to_end(64 * 1024).await?;
    let path = connection.path();
    println!(
        "client: answer from {} at {}, round trip {:?}",
        connection.peer(),
        path.endpoint.map_or("nowhere".into(), |at| at.to_string()),
        path.rtt,
    );
    Ok(String::from_utf8(answer)?)
}

async fn both_sides() -> Result<(), Box<dyn Error>> {
    let loopback = "127.0.0.1:0".parse()?;
    let node = server(Node::builder().listen(loopback)).await?;
    let ticket = node.ticket();
    println!("server: ticket {ticket}");
    tokio::spawn(serve(node.clone()));

    let client = Node::builder().listen(loopback).bind().await?;
    let answer = ask(&client, &ticket, "hello through the tunnel").await?;
    assert_eq!(answer, "hello through the tunnel");
    println!("client: {answer}");
    client.close().await;
    node.close().await;
    Ok(())
}
