//! A program that uses the library in any of its modes: a node with peers, an echo of streams, and
//! answers to questions over a Unix socket.
//!
//! It owns the node and nothing else. When the interface is taken away it starts the node anew, as
//! an application does that wants to go on.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::timeout;
use wiremesh::{
    BindError, Connection, EgressConfig, Endpoint, HostInterface, Node, NodeId, PeerConfig,
};

const USAGE: &str = "mode_node FILE SOCKET    FILE has lines of the form key=value; peer=ID ENDPOINT KIND [PSK] may be repeated";
const PROTOCOL: &str = "interop-echo/1";
const QUESTION_MAX: Duration = Duration::from_secs(60);

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, socket] = &words[..] else {
        return Err(USAGE.into());
    };
    let text = std::fs::read_to_string(file)?;
    // Left by one that was killed.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    loop {
        let node = start(&text).await?;
        println!("up: {}", node.id());
        tokio::select! {
            () = node.interface_lost() => println!("the interface is lost"),
            ended = answer_all(&listener, &node) => return ended,
            () = echo_all(&node) => {}
        }
        node.close().await;
    }
}

async fn start(text: &str) -> Outcome<Node> {
    let lines = || text.lines().filter_map(|line| line.split_once('='));
    let settings: HashMap<&str, &str> = lines().collect();
    let setting = |key: &str| settings.get(key).copied().ok_or(format!("no {key}"));
    let mut builder = Node::builder()
        .secret_key(setting("secret_key")?.parse()?)
        .port(setting("port")?.parse()?)
        .protocol(PROTOCOL)
        .state_dir(setting("state_dir")?);
    let interface = || -> Outcome<HostInterface> {
        Ok(HostInterface::new(setting("interface")?).helper(setting("helper")?))
    };
    builder = match setting("mode")? {
        "rootless" => builder,
        "tun" => builder.tun(interface()?),
        "kernel" => builder.kernel(interface()?),
        word => return Err(format!("mode={word}").into()),
    };
    if let Some(rate) = settings.get("egress_rate") {
        builder = builder.egress(EgressConfig {
            rate_bits: Some(rate.parse()?),
            ..EgressConfig::default()
        });
    }
    let node = builder.bind().await.map_err(|error| match &error {
        BindError::Interface(why) => format!("{why}; fix: {}", why.fix()),
        _ => error.to_string(),
    })?;
    for (_, words) in lines().filter(|(key, _)| *key == "peer") {
        add(&node, &words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(node)
}

fn add(node: &Node, words: &[&str]) -> Outcome {
    let [id, endpoint, kind, psk @ ..] = words else {
        return Err("peer=ID ENDPOINT KIND [PSK]".into());
    };
    let mut peer = PeerConfig::new(id.parse()?);
    peer.endpoints.push(Endpoint::Address(endpoint.parse()?));
    peer.stock = *kind == "stock";
    if let [psk] = psk {
        peer.preshared_key = psk.parse()?;
    }
    node.add_peer(peer)?;
    Ok(())
}

/// Writes back what comes on any stream.
async fn echo_all(node: &Node) {
    while let Some(connection) = node.accept().await {
        tokio::spawn(async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    // Whoever breaks it off has no use for the rest.
                    let _ = tokio::io::copy(&mut receive, &mut send).await;
                    let _ = send.finish();
                });
            }
        });
    }
}

async fn answer_all(listener: &UnixListener, node: &Node) -> Outcome {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move {
            let mut question = String::new();
            if stream.read_to_string(&mut question).await.is_ok() {
                let answer = match timeout(QUESTION_MAX, answer(&node, &question)).await {
                    Ok(Ok(text)) => text,
                    Ok(Err(error)) => format!("error: {error}"),
                    Err(_) => "error: it takes too long".to_owned(),
                };
                // Whoever asked may be gone.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    }
}

async fn answer(node: &Node, question: &str) -> Outcome<String> {
    match question.split(' ').collect::<Vec<_>>()[..] {
        ["ping", address, seconds] => {
            let (to, patience) = (address.parse::<IpAddr>()?, seconds.parse()?);
            let time = node.ping(to, 56, Duration::from_secs(patience)).await?;
            Ok(format!("{time:?}"))
        }
        ["echo", id, bytes, seconds] => {
            let patience = Duration::from_secs(seconds.parse()?);
            timeout(patience, echo(node, id.parse()?, bytes.parse()?)).await?
        }
        ["psk", id, key] => {
            let peer = node.peer(id.parse()?).ok_or("no such peer")?;
            peer.set_preshared_key(key.parse()?, 0);
            Ok("set".to_owned())
        }
        ["remove", id] => Ok(node.remove_peer(id.parse()?).to_string()),
        ["add", ref words @ ..] => add(node, words).map(|()| "added".to_owned()),
        ["status"] => Ok(status(node)),
        _ => Err("not a question".into()),
    }
}

/// Sends bytes to a peer on a stream of the connection with it and takes them back.
async fn echo(node: &Node, id: NodeId, count: usize) -> Outcome<String> {
    let peer = node.peer(id).ok_or("no such peer")?;
    let connection: Connection = peer.connection(PROTOCOL).await?;
    if connection.peer() != id {
        return Err("it is somebody else's connection".into());
    }
    let data: Vec<u8> = (0..count).map(|at| (at % 251) as u8).collect();
    let (mut send, mut receive) = connection.open_bi().await?;
    let write = async {
        send.write_all(&data).await?;
        send.finish()?;
        Outcome::Ok(())
    };
    let read = async { Ok(receive.read_to_end(count + 1).await?) };
    let ((), back) = tokio::try_join!(write, read)?;
    match back == data {
        true => Ok(format!("{count} bytes")),
        false => Err(format!("{} other bytes came back", back.len()).into()),
    }
}

fn status(node: &Node) -> String {
    let status = node.status();
    let peers: Vec<_> = status
        .peers
        .iter()
        .map(|peer| {
            serde_json::json!({
                "node_id": peer.node_id.to_string(),
                "endpoint": peer.endpoint.map(|endpoint| endpoint.to_string()),
                "state": format!("{:?}", peer.state),
                "level": peer.level.map(|level| level.to_string()),
                "reason": peer.reason,
            })
        })
        .collect();
    let dropped: HashMap<_, _> = status.dropped.into_iter().collect();
    serde_json::json!({
        "node_id": status.node_id.to_string(),
        "addresses": status.addresses,
        "peers": peers,
        "dropped": dropped,
    })
    .to_string()
}
