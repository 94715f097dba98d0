//! How a node scales: handshakes per second on one core, and what a million peers cost.
//!
//! `cargo run --release -p wiremesh-core --example scale [-- [--peers N] [--json]]`, about a minute
//! and 1 GiB. One thread; times are medians of rounds, so that other load moves them little.

#[path = "scale/handshakes.rs"]
mod handshakes;
#[path = "cost/heap.rs"]
mod heap;
#[path = "scale/peers.rs"]
mod peers;
#[path = "cost/report.rs"]
mod report;

use report::Report;
use std::net::SocketAddr;
use wiremesh_core::{Limits, Node, NodeConfig};
use wiremesh_wire::{Instant, Now, SecretKey, UnixTime};

const PEERS: usize = 1_000_000;

/// Time at the start of everything.
fn start() -> Now {
    let unix = UnixTime::from_secs_nanos(1_700_000_000, 0);
    Now::new(Instant::from_nanos(1_000_000_000), unix)
}

/// The address of a peer.
fn address(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 51_820))
}

fn secret(number: u32) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_bytes(bytes)
}

/// A node that never asks for cookies, for so many peers.
fn hub(peers_max: usize) -> Node {
    let mut config = NodeConfig::new(secret(0));
    config.limits = Limits {
        peers_max: u32::try_from(peers_max).expect("a peer's index has 32 bits"),
        handshakes_per_second_max: u32::MAX,
        ..Limits::default()
    };
    Node::new(config, [1; 32], start()).expect("no policy")
}

/// The number after `--peers`.
fn wanted_peers() -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--peers");
    let number = arguments.nth(1);
    number.map_or(PEERS, |n| n.parse().expect("--peers takes a number"))
}

fn main() {
    let mut report = Report::default();
    handshakes::measure(&mut report);
    peers::measure(&mut report, wanted_peers());
    report.print();
}
