//! `wiremesh demo`: a small network in one process, to see that it works and how fast.
//!
//! Owns the story that it tells. The nodes are ordinary ones: real UDP sockets on loopback, real
//! handshakes, and nothing between them but their tickets.

mod topic;

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::table::{Cell, Table};
use crate::term::Style;
use crate::transfer::Meter;
use crate::{node, say, units};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wiremesh::quinn::{RecvStream, SendStream};
use wiremesh::{Admission, Connection, Node};

const PROTOCOL: &str = "wiremesh-demo/1";

/// First byte of a stream: everything is sent back.
const ECHO: u8 = 1;

/// First byte of a stream: everything is hashed, and the hash is sent back.
const HASH: u8 = 2;

const CHUNK_BYTES: usize = 256 * 1024;

/// Round trips that are measured on each link; the least counts.
const ROUND_TRIPS: usize = 20;

/// A node and its connection to the hub.
struct Link {
    node: Node,
    connection: Connection,
    round_trip: Duration,
    moved: Option<(u64, Duration)>,
}

pub async fn run(args: &DemoArgs) -> Result<(), Failure> {
    tokio::select! {
        result = demo(args) => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    }
}

async fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let others = args.nodes - 1;
    say::note(format!(
        "Starting {} nodes in this process, each with a fresh WireGuard key and its own UDP socket \
         on loopback.",
        args.nodes
    ));
    let guests = Admission::AllowAll {
        provisional_max: others.into(),
    };
    let hub = start(Node::builder().protocol(PROTOCOL).admission(guests)).await?;
    let ticket = hub.ticket();
    say::note(format!(
        "Node 1 is {}. Its ticket, which is all that the others know:",
        hub.id()
    ));
    say::note(format!("  {ticket}"));
    tokio::spawn(answer_all(hub.clone()));

    let mut links = Vec::new();
    for _ in 0..others {
        let node = start(Node::builder()).await?;
        let connection = node.connect(&ticket, PROTOCOL).await;
        let connection = connection.map_err(failed("connecting"))?;
        let round_trip = measure(&connection).await?;
        links.push(Link {
            node,
            connection,
            round_trip,
            moved: None,
        });
    }
    let link_count = units::count(others.into(), "node has", "nodes have");
    say::note(format!(
        "{link_count} made a WireGuard handshake with node 1, and opened QUIC streams inside the \
         tunnel."
    ));

    let bytes = args.mib << 20;
    say::note(format!(
        "Now node 2 sends {} to node 1:",
        units::bytes(bytes)
    ));
    if let Some(first) = links.first_mut() {
        first.moved = Some((bytes, bulk(&first.connection, bytes).await?));
    }
    say::note("");
    say::print(table(&links).draw(Style::stdout()))?;
    say::note("");
    let nodes = std::iter::once(&hub).chain(links.iter().map(|link| &link.node));
    topic::run(&nodes.collect::<Vec<_>>()).await?;
    tell_the_end(&links, begun);
    for link in &links {
        link.connection.close(0u32.into(), b"done");
    }
    hub.close().await;
    Ok(())
}

async fn start(builder: wiremesh::NodeBuilder) -> Result<Node, Failure> {
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    node::bind(builder.listen(loopback)).await
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::runtime(format!("{what} failed: {error}"))
}

async fn answer_all(node: Node) {
    while let Some(connection) = node.accept().await {
        tokio::spawn(async move {
            while let Ok((send, receive)) = connection.accept_bi().await {
                // The asking side sees what went wrong.
                tokio::spawn(answer(send, receive));
            }
        });
    }
}

async fn answer(mut send: SendStream, mut receive: RecvStream) -> Option<()> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await.ok()?;
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = receive.read_chunk(CHUNK_BYTES, true).await.ok()? {
        if kind[0] == ECHO {
            send.write_all(&chunk.bytes).await.ok()?;
        } else {
            hasher.update(&chunk.bytes);
        }
    }
    if kind[0] == HASH {
        send.write_all(hasher.finalize().as_bytes()).await.ok()?;
    }
    send.finish().ok()
}

async fn measure(connection: &Connection) -> Result<Duration, Failure> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(failed("a stream"))?;
    send.write_all(&[ECHO]).await.map_err(failed("a stream"))?;
    let mut least = Duration::MAX;
    for number in 0..ROUND_TRIPS as u64 {
        let sent = Instant::now();
        send.write_all(&number.to_le_bytes())
            .await
            .map_err(failed("a stream"))?;
        let mut back = [0; 8];
        receive
            .read_exact(&mut back)
            .await
            .map_err(failed("a stream"))?;
        if back != number.to_le_bytes() {
            return Err(Failure::runtime(
                "a stream gave back something else than was sent",
            ));
        }
        least = least.min(sent.elapsed());
    }
    send.finish().map_err(failed("a stream"))?;
    Ok(least)
}

/// Sends bytes and compares the hashes of both sides; gives the time until the hash was back.
async fn bulk(connection: &Connection, bytes: u64) -> Result<Duration, Failure> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(failed("a stream"))?;
    let meter = Arc::new(Meter::default());
    meter.begin(1, bytes);
    let progress = Progress::start(Arc::clone(&meter));
    let begun = Instant::now();
    let mut hasher = blake3::Hasher::new();
    let mut data = vec![0u8; CHUNK_BYTES];
    send.write_all(&[HASH]).await.map_err(failed("sending"))?;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(CHUNK_BYTES as u64);
        // No two chunks are equal.
        data[..8].copy_from_slice(&left.to_le_bytes());
        let chunk = &data[..usize::try_from(length).unwrap_or(CHUNK_BYTES)];
        hasher.update(chunk);
        send.write_all(chunk).await.map_err(failed("sending"))?;
        meter.moved(length);
        left -= length;
    }
    send.finish().map_err(failed("sending"))?;
    let hash = receive.read_to_end(64).await.map_err(failed("sending"))?;
    let took = begun.elapsed();
    meter.file_done();
    progress.finish().await;
    if hash != hasher.finalize().as_bytes() {
        return Err(Failure::runtime(
            "the two sides have different hashes of what was sent",
        ));
    }
    Ok(took)
}

fn table(links: &[Link]) -> Table {
    let mut table = Table::new(&[
        "LINK",
        "PEER",
        "ENDPOINT",
        "HANDSHAKE",
        "ROUND TRIP",
        "BYTES",
        "THROUGHPUT",
    ]);
    for (index, link) in links.iter().enumerate() {
        let status = link
            .node
            .peer(link.connection.peer())
            .and_then(|peer| peer.status());
        let handshake = status.as_ref().and_then(|status| status.handshake_time);
        let bytes = status
            .as_ref()
            .map_or(0, |status| status.rx_bytes + status.tx_bytes);
        let endpoint = link
            .node
            .listen_addresses()
            .first()
            .map(ToString::to_string);
        let throughput = link
            .moved
            .map(|(bytes, took)| units::rate(bytes as f64 / took.as_secs_f64().max(1e-9)));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let short: String = link.node.id().to_string().chars().take(10).collect();
        table.row(vec![
            Cell::text(format!("{} - 1", index + 2)),
            Cell::text(format!("{short}…")),
            Cell::text(or_dash(endpoint)),
            Cell::number(or_dash(handshake.map(units::span))),
            Cell::number(units::span(link.round_trip)),
            Cell::number(units::bytes(bytes)),
            Cell::number(or_dash(throughput)),
        ]);
    }
    table
}

fn tell_the_end(links: &[Link], begun: Instant) {
    let speed = links.iter().find_map(|link| link.moved).map(|(bytes, took)| {
        let gigabits = bytes as f64 * 8.0 / took.as_secs_f64().max(1e-9) / 1e9;
        format!(
            "{} arrived in {} ({gigabits:.2} Gbit/s), and the BLAKE3 hashes of both sides are equal.",
            units::bytes(bytes),
            units::span(took)
        )
    });
    say::note("");
    say::note(speed.unwrap_or_default());
    say::note(format!(
        "Every byte was encrypted once, by WireGuard, and carried by QUIC inside it. No root, no \
         interface, no certificate. It took {} in all.",
        units::span(begun.elapsed())
    ));
    say::note("Next: wiremesh send FILE on one host, wiremesh receive TICKET on another.");
}
