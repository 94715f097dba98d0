//! A program that embeds the library the way an application does: a node with one stock peer, an
//! echo on a UDP port inside the tunnel, and questions over a Unix socket.
//!
//! It owns the node and nothing else; settings that the command line program does not offer are
//! proven with it.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use wiremesh::{Endpoint, IpNet, Node, PeerConfig, UdpSocket};

const USAGE: &str = "\
embedded serve FILE SOCKET             runs a node; FILE has lines of the form key=value
embedded ask SOCKET ping ADDRESS SECONDS
embedded ask SOCKET status";

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", file, socket] => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(serve(&std::fs::read_to_string(file)?, socket))
        }
        ["ask", socket, ..] => ask(socket, &words[2..].join(" ")),
        _ => Err(USAGE.into()),
    }
}

fn ask(socket: &str, question: &str) -> Outcome {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(question.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    if answer.starts_with("error") {
        Err("it said no".into())
    } else {
        Ok(())
    }
}

async fn serve(text: &str, socket: &str) -> Outcome {
    let settings: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let setting = |key: &str| settings.get(key).copied().ok_or(format!("no {key}"));
    let peer_v4: IpNet = setting("peer_address")?.parse()?;
    let mut builder = Node::builder()
        .secret_key(setting("secret_key")?.parse()?)
        .port(setting("port")?.parse()?)
        .state_dir(setting("state_dir")?)
        .address(setting("address")?.parse()?, peer_v4);
    if let Ok(limit) = setting("handshakes_per_second_max") {
        builder = builder.handshakes_per_second_max(limit.parse()?);
    }
    if let Ok(seconds) = setting("rotate_after_seconds") {
        builder = builder.rotate_after(Duration::from_secs(seconds.parse()?));
    }
    let node = builder.bind().await?;
    let mut peer = PeerConfig::new(setting("peer")?.parse()?);
    peer.stock = setting("suites").is_err();
    peer.allowed_ips.push(peer_v4);
    if let Ok(psk) = setting("preshared_key") {
        peer.preshared_key = psk.parse()?;
    }
    if let Ok(endpoint) = setting("endpoint") {
        peer.endpoints.push(Endpoint::Address(endpoint.parse()?));
    }
    node.add_peer(peer)?;
    tokio::spawn(echo(node.udp_socket(setting("echo_port")?.parse()?)?));
    let listener = UnixListener::bind(socket)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move {
            let mut question = String::new();
            if stream.read_to_string(&mut question).await.is_ok() {
                let answer = answer(&node, &question).await;
                // Whoever asked may be gone.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    }
}

async fn echo(socket: UdpSocket) {
    let mut datagram = vec![0; 65_536];
    while let Ok((len, source)) = socket.recv_from(&mut datagram).await {
        // Lost like any datagram; the sender sends again.
        let _ = socket.send_to(&datagram[..len], source).await;
    }
}

async fn answer(node: &Node, question: &str) -> String {
    match question.split(' ').collect::<Vec<_>>()[..] {
        ["ping", address, seconds] => match (address.parse::<IpAddr>(), seconds.parse()) {
            (Ok(address), Ok(seconds)) => {
                match node.ping(address, 56, Duration::from_secs(seconds)).await {
                    Ok(time) => format!("{time:?}"),
                    Err(error) => format!("error: {error}"),
                }
            }
            _ => "error: not an address and a number".to_owned(),
        },
        ["status"] => {
            let peers: Vec<_> = node
                .status()
                .peers
                .iter()
                .map(|peer| {
                    serde_json::json!({
                        "node_id": peer.node_id.to_string(),
                        "endpoint": peer.endpoint.map(|endpoint| endpoint.to_string()),
                        "state": format!("{:?}", peer.state),
                        "reason": peer.reason,
                        "level": peer.level.map(|level| level.to_string()),
                        "psk_epoch": peer.psk_epoch,
                    })
                })
                .collect();
            let dropped: HashMap<_, _> = node.status().dropped.into_iter().collect();
            serde_json::json!({ "peers": peers, "dropped": dropped }).to_string()
        }
        _ => "error: not a question".to_owned(),
    }
}
