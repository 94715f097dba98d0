//! `wiremesh demo`: a star of nodes in this process, over real UDP sockets on loopback.
//!
//! Owns the story that it tells and the table at its end. Everything it shows was measured.

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::table::{Cell, Table};
use crate::term::Style;
use crate::transfer::Meter;
use crate::units;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wiremesh::{Admission, Connection, Node};

/// The protocol that the demo's nodes speak.
const PROTOCOL: &str = "wiremesh-demo/1";
/// What is sent, over and over; the receiver compares every byte with it.
const BLOCK_BYTES: usize = 256 * 1024;
/// How much each link carries before the big transfer.
const GREETING_BYTES: u64 = 1 << 20;

/// One link of the star, seen from its outer end.
struct Link {
    node: Node,
    connection: Connection,
    rtt: Duration,
    bytes: u64,
    bytes_per_second: f64,
}

/// Runs the demo.
///
/// # Errors
///
/// A node that cannot start or connect, or data that arrives changed.
pub async fn run(args: &DemoArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    println!(
        "Starting {} nodes in this process: each makes a WireGuard key and opens UDP sockets on \
         loopback. No root is needed.",
        args.nodes
    );
    let hub = start_node(u32::from(args.nodes)).await?;
    tokio::spawn(serve(hub.clone()));
    let ticket = hub.ticket();
    println!("The first one, {}, hands out this ticket:\n  {ticket}", hub.id());
    println!("The others connect with it (a star), by WireGuard handshakes and QUIC inside.");
    let mut links = Vec::new();
    for _ in 1..args.nodes {
        let node = start_node(1).await?;
        let connection = node.connect(&ticket, PROTOCOL).await.map_err(failed("connect"))?;
        links.push(Link { node, connection, rtt: Duration::MAX, bytes: 0, bytes_per_second: 0.0 });
    }
    let silent = Arc::new(Meter::default());
    for link in &mut links {
        link.rtt = round_trip(&link.node, &hub).await?;
        transfer(link, GREETING_BYTES, &silent).await?;
    }
    println!(
        "All {} links are up after {}. Now {} go from the second node to the first.",
        links.len(),
        units::span(begun.elapsed()),
        units::bytes(args.mib << 20)
    );
    let meter = Arc::new(Meter::default());
    meter.begin(1, args.mib << 20);
    meter.file("data");
    let progress = Progress::start(Arc::clone(&meter));
    let sent = transfer(&mut links[0], args.mib << 20, &meter).await;
    progress.finish().await;
    sent?;
    print!("\n{}", table(&links).draw(Style::stdout()));
    println!("\n{}", summary(&links, args, begun.elapsed()));
    for link in &links {
        link.connection.close(0u32.into(), b"done");
    }
    hub.close().await;
    Ok(())
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::runtime(format!("{what}: {error}"))
}

async fn start_node(strangers: u32) -> Result<Node, Failure> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Node::builder()
        .listen(loopback)
        .protocol(PROTOCOL)
        .admission(Admission::AllowAll { provisional_max: strangers })
        .bind()
        .await
        .map_err(failed("start a node"))
}

fn block() -> Vec<u8> {
    (0..BLOCK_BYTES as u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect()
}

/// Accepts connections and their streams; answers each with the number of right bytes.
async fn serve(node: Node) {
    while let Some(connection) = node.accept().await {
        tokio::spawn(async move {
            while let Ok((mut send, recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let right = check(recv).await;
                    // A peer that is gone does not need the answer.
                    let _ = send.write_all(&right.to_be_bytes()).await;
                    let _ = send.finish();
                });
            }
        });
    }
}

/// Reads to the end, and counts the bytes up to the first that is not as it should be.
async fn check(mut recv: wiremesh::quinn::RecvStream) -> u64 {
    let expected = block();
    let mut right = 0u64;
    let mut buffer = vec![0; BLOCK_BYTES];
    while let Ok(Some(len)) = recv.read(&mut buffer).await {
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let at = (right % BLOCK_BYTES as u64) as usize;
            let part = rest.len().min(BLOCK_BYTES - at);
            if rest[..part] != expected[at..at + part] {
                return right;
            }
            right += part as u64;
            rest = &rest[part..];
        }
    }
    right
}

async fn round_trip(node: &Node, hub: &Node) -> Result<Duration, Failure> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let time = node.ping(hub.address(), 56, Duration::from_secs(2)).await;
        best = best.min(time.map_err(failed("ping"))?);
    }
    Ok(best)
}

async fn transfer(link: &mut Link, bytes: u64, meter: &Meter) -> Result<(), Failure> {
    let block = block();
    let (mut send, mut recv) = link.connection.open_bi().await.map_err(failed("open a stream"))?;
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK_BYTES as u64);
        send.write_all(&block[..part as usize]).await.map_err(failed("send"))?;
        meter.moved(part);
        left -= part;
    }
    send.finish().map_err(failed("finish the stream"))?;
    let mut right = [0; 8];
    recv.read_exact(&mut right).await.map_err(failed("read the answer"))?;
    if u64::from_be_bytes(right) != bytes {
        return Err(Failure::runtime("the data arrived changed; this is a bug: please report it"));
    }
    link.bytes += bytes;
    link.bytes_per_second = bytes as f64 / begun.elapsed().as_secs_f64();
    Ok(())
}

fn table(links: &[Link]) -> Table {
    let header = ["LINK", "PEER", "ENDPOINT", "HANDSHAKE", "ROUND TRIP", "BYTES", "THROUGHPUT"];
    let mut table = Table::new(&header);
    for (number, link) in links.iter().enumerate() {
        let status = link.node.peer(link.connection.peer()).and_then(|peer| peer.status());
        let endpoint = status.as_ref().and_then(|status| status.endpoint);
        let handshake = status.as_ref().and_then(|status| status.handshake_time);
        let listens = link.node.listen_addresses().first().map(|a| a.port()).unwrap_or(0);
        table.row(vec![
            Cell::text(format!("{} -> 1", number + 2)),
            Cell::text(short(&link.node.id().to_string())),
            Cell::text(match endpoint {
                Some(endpoint) => format!("{listens} -> {endpoint}"),
                None => "-".into(),
            }),
            Cell::number(handshake.map_or("-".into(), units::span)),
            Cell::number(units::span(link.rtt)),
            Cell::number(units::bytes(link.bytes)),
            Cell::number(units::rate(link.bytes_per_second)),
        ]);
    }
    table
}

/// The first characters of a key: enough to tell eight apart.
fn short(id: &str) -> String {
    format!("{}...", &id[..10])
}

fn summary(links: &[Link], args: &DemoArgs, took: Duration) -> String {
    let gigabits = links[0].bytes_per_second * 8.0 / 1e9;
    format!(
        "What happened: {} WireGuard tunnels were set up over UDP on loopback, by {} nodes that know \
         each other only by public key. Inside them ran QUIC without a second encryption. {} went \
         through one of them at {gigabits:.1} Gbit/s, both ends in this process; every byte was \
         compared. It all took {}.",
        links.len(),
        args.nodes,
        units::bytes(args.mib << 20),
        units::span(took),
    )
}
