//! UDP inside the tunnel: what runs over UDP runs over WireGuard, unchanged.
//!
//! ```sh
//! cargo run -p wiremesh --example udp_wrapper   # both sides here, on loopback
//! ```
//!
//! First plain datagrams: an echo on UDP port 7. Then a second QUIC stack of its own on port 4433,
//! an ordinary `quinn::Endpoint` whose socket is the tunnel. This one takes the null-crypto
//! provider, since the tunnel encrypts already; one with TLS works just as well.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use wiremesh::quinn::{self, Endpoint};
use wiremesh::{Node, PeerConfig, UdpSocket};
use wiremesh_quic::{CheckedTransport, Provider};

const ECHO_PORT: u16 = 7;
const QUIC_PORT: u16 = 4433;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (one, two) = two_nodes().await?;
    datagrams(&one, &two).await?;
    second_quic(&one, &two).await?;
    one.close().await;
    two.close().await;
    Ok(())
}

/// Two nodes that know each other, as two WireGuard configurations would say it.
async fn two_nodes() -> Result<(Node, Node), Box<dyn Error>> {
    let loopback = "127.0.0.1:0".parse()?;
    let one = Node::builder().listen(loopback).bind().await?;
    let two = Node::builder().listen(loopback).bind().await?;
    let mut config = PeerConfig::new(one.id());
    config.endpoints = one.ticket().endpoints.clone();
    two.add_peer(config)?;
    // It comes to us, so its endpoint need not be known.
    one.add_peer(PeerConfig::new(two.id()))?;
    Ok((one, two))
}

async fn datagrams(one: &Node, two: &Node) -> Result<(), Box<dyn Error>> {
    let server = one.udp_socket(ECHO_PORT)?;
    tokio::spawn(echo(server));
    let client = two.udp_socket(0)?;
    let to = SocketAddr::new(one.address(), ECHO_PORT);
    let mut buffer = vec![0; client.payload_max()];
    for text in ["first", "second"] {
        client.send_to(text.as_bytes(), to).await?;
        let (len, from) = client.recv_from(&mut buffer).await?;
        assert_eq!((&buffer[..len], from), (text.as_bytes(), to));
        println!("datagram echoed by {from}: {text}");
    }
    Ok(())
}

/// An echo server as one writes it for any UDP socket.
async fn echo(socket: UdpSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut buffer = vec![0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..len], from).await?;
    }
}

async fn second_quic(one: &Node, two: &Node) -> Result<(), Box<dyn Error>> {
    // A seed is secret and used once; a program takes it from the operating system.
    let server = endpoint(one.udp_socket(QUIC_PORT)?, [1; 32])?;
    let client = endpoint(two.udp_socket(0)?, [2; 32])?;
    let address = server.local_addr()?;
    let server_task = tokio::spawn(async move {
        let connection = server.accept().await.ok_or("closed")?.await?;
        let (mut send, mut recv) = connection.accept_bi().await?;
        tokio::io::copy(&mut recv, &mut send).await?;
        send.finish()?;
        connection.closed().await;
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    });
    let connection = client.connect(address, "one")?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"a second QUIC stack").await?;
    send.finish()?;
    let answer = recv.read_to_end(1_000).await?;
    assert_eq!(answer, b"a second QUIC stack");
    println!("QUIC from {address}: {}", String::from_utf8_lossy(&answer));
    connection.close(0u32.into(), b"done");
    client.wait_idle().await;
    server_task.await?.map_err(|error| error.to_string())?;
    Ok(())
}

/// quinn as its documentation has it, but for the socket and the crypto provider.
fn endpoint(socket: UdpSocket, seed: [u8; 32]) -> Result<Endpoint, Box<dyn Error>> {
    let provider = Provider::new(seed, CheckedTransport::default());
    let mut endpoint = Endpoint::new_with_abstract_socket(
        provider.endpoint_config(),
        Some(provider.server_config(&["example-udp/1"])?),
        socket.into_quinn()?,
        Arc::new(quinn::TokioRuntime),
    )?;
    endpoint.set_default_client_config(provider.client_config(&["example-udp/1"])?);
    Ok(endpoint)
}
