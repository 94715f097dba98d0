//! Two nodes for `bench/priority`: one sends urgent messages beside bulk, the other tells how long
//! each was under way.
//!
//! Owns the keys, which everybody knows, the clock, and what is printed: one line of JSON. The times
//! are of one clock, so both ends must run on one machine.

mod carry;
mod clock;
mod receive;

use serde_json::json;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;
use wiremesh::{EgressConfig, Endpoint, Node, NodeStatus, PeerConfig};
use wiremesh::{Priority, SecretKey, node_id};

const USAGE: &str = "\
priority_probe receive LISTEN SENDER CARRIER
priority_probe send LISTEN RECEIVER CARRIER PACE LOAD MESSAGES

CARRIER   stream | topic | sctp
PACE      none | bits per second
LOAD      idle | bulk
MESSAGES  how many of each kind";

const PROTOCOL: &str = "priority-probe/1";
const TOPIC: &str = "priority-probe";
const SCTP_PORT: u16 = 5000;
/// Longer than slow start.
const WARM_UP: Duration = Duration::from_secs(4);
/// What is under way at the end still counts.
const LINGER: Duration = Duration::from_secs(1);
const RECEIVER: [u8; 32] = [0x52; 32];
const SENDER: [u8; 32] = [0x53; 32];

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", listen, sender, carrier] => {
            let pace = EgressConfig::default();
            let node = node(RECEIVER, listen.parse()?, SENDER, sender.parse()?, pace).await?;
            println!("{}", receive::until_closed(&node, carrier).await?);
            node.close().await;
            Ok(())
        }
        ["send", listen, receiver, carrier, pace, load, messages] => {
            let pace = pace_of(pace)?;
            let node = node(SENDER, listen.parse()?, RECEIVER, receiver.parse()?, pace).await?;
            let is_loaded = match load {
                "idle" => false,
                "bulk" => true,
                _ => return Err(USAGE.into()),
            };
            send(&node, carrier, is_loaded, messages.parse()?).await?;
            println!("{}", egress(&node.status()));
            node.close().await;
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// A node that knows the other one and nobody else.
async fn node(
    secret: [u8; 32],
    listen: SocketAddr,
    other: [u8; 32],
    at: SocketAddr,
    pace: EgressConfig,
) -> Outcome<Node> {
    let node = Node::builder()
        .secret_key(SecretKey::from_bytes(secret))
        .listen(listen)
        .protocol(PROTOCOL)
        .egress(pace)
        .bind()
        .await?;
    let mut peer = PeerConfig::new(node_id(&SecretKey::from_bytes(other))?);
    peer.endpoints.push(Endpoint::Address(at));
    node.add_peer(peer)?;
    Ok(node)
}

fn pace_of(word: &str) -> Outcome<EgressConfig> {
    let rate_bits = match word {
        "none" => None,
        rate => Some(rate.parse()?),
    };
    Ok(EgressConfig {
        rate_bits,
        ..EgressConfig::default()
    })
}

async fn send(node: &Node, carrier: &str, is_loaded: bool, messages: u32) -> Outcome {
    let receiver = node_id(&SecretKey::from_bytes(RECEIVER))?;
    let connection = node.connect(receiver, PROTOCOL).await?;
    match carrier {
        "stream" => carry::on_streams(&connection, is_loaded, messages).await,
        "topic" => carry::on_topic(node, &connection, is_loaded, messages).await,
        "sctp" => carry::on_sctp(node, receiver, is_loaded, messages).await,
        word => Err(format!("no carrier is called {word}").into()),
    }?;
    // The other end prints its figures when it hears of it.
    connection.close(0u32.into(), b"done");
    sleep(LINGER).await;
    Ok(())
}

fn egress(status: &NodeStatus) -> serde_json::Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let classes = Priority::ALL.map(|class| {
        let figures = status.egress.classes[class.index()];
        json!({
            "class": class.name(),
            "packets": figures.packets,
            "bytes": figures.bytes,
            "p50_ms": ms(figures.p50),
            "p99_ms": ms(figures.p99),
            "max_ms": ms(figures.max),
            "expired": figures.expired,
            "dropped": figures.dropped,
        })
    });
    json!({ "rate_bits": status.egress.rate_bits, "classes": classes })
}
