//! A file from one node to another, in one stream.
//!
//! ```sh
//! cargo run -p wiremesh --example file                     # both sides here, on loopback
//! cargo run -p wiremesh --example file -- send FILE        # prints a ticket, serves one receiver
//! cargo run -p wiremesh --example file -- receive TICKET FILE
//! ```
//!
//! It is an example: no resuming, no hash. The program `wiremesh send` has both.

use std::error::Error;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use wiremesh::{Admission, Node, NodeBuilder, Ticket};

const PROTOCOL: &str = "example-file/1";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => both_sides().await,
        ["send", file] => {
            let node = sender(Node::builder()).await?;
            println!("{}", node.ticket());
            send(&node, Path::new(file)).await
        }
        ["receive", ticket, file] => {
            let node = Node::builder().bind().await?;
            receive(&node, &ticket.parse()?, Path::new(file)).await
        }
        _ => Err("usage: file [send FILE | receive TICKET FILE]".into()),
    }
}

async fn sender(builder: NodeBuilder) -> Result<Node, Box<dyn Error>> {
    let anyone = Admission::AllowAll { provisional_max: 8 };
    Ok(builder.protocol(PROTOCOL).admission(anyone).bind().await?)
}

/// Waits for a receiver and sends it the length and then the file.
async fn send(node: &Node, path: &Path) -> Result<(), Box<dyn Error>> {
    let connection = node.accept().await.ok_or("the node was closed")?;
    let mut file = tokio::fs::File::open(path).await?;
    let len = file.metadata().await?.len();
    let mut stream = connection.open_uni().await?;
    stream.write_all(&len.to_be_bytes()).await?;
    // quinn's streams are AsyncRead and AsyncWrite: everything of tokio works on them.
    tokio::io::copy(&mut file, &mut stream).await?;
    stream.finish()?;
    // The receiver closes when it has everything.
    let reason = connection.closed().await;
    println!("sender: {len} bytes sent, the receiver said: {reason}");
    node.close().await;
    Ok(())
}

/// Receives the file beside its final name and renames it when it is whole.
async fn receive(node: &Node, ticket: &Ticket, path: &Path) -> Result<(), Box<dyn Error>> {
    let connection = node.connect(ticket, PROTOCOL).await?;
    let mut stream = connection.accept_uni().await?;
    let mut len = [0; 8];
    stream.read_exact(&mut len).await?;
    let len = u64::from_be_bytes(len);
    let part = path.with_extension("part");
    let mut file = tokio::fs::File::create(&part).await?;
    let received = tokio::io::copy(&mut stream, &mut file).await?;
    file.flush().await?;
    if received != len {
        return Err(format!("{received} bytes came instead of {len}").into());
    }
    tokio::fs::rename(&part, path).await?;
    connection.close(0u32.into(), b"thank you");
    println!("receiver: {received} bytes in {}", path.display());
    node.close().await;
    Ok(())
}

async fn both_sides() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("wiremesh-example-file-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (original, copy) = (dir.join("original"), dir.join("copy"));
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    std::fs::write(&original, &content)?;

    let loopback = "127.0.0.1:0".parse()?;
    let node = sender(Node::builder().listen(loopback)).await?;
    let ticket = node.ticket();
    println!("sender: ticket {ticket}");
    let client = Node::builder().listen(loopback).bind().await?;
    tokio::try_join!(send(&node, &original), receive(&client, &ticket, &copy))?;
    assert!(std::fs::read(&copy)? == content, "the copy is the original");
    std::fs::remove_dir_all(&dir)?;
    println!("the copy is the original");
    Ok(())
}
