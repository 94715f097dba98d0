//! How a node scales: handshakes per second on one core, and what a million peers cost.
//!
//! `cargo run --release -p wiremesh-core --example scale [-- [--peers N] [--json]]`, about a minute
//! and 1 GiB. One thread; times are medians of rounds, so that other load moves them little.

#[path = "scale/far.rs"]
mod far;
#[path = "scale/handshakes.rs"]
mod handshakes;
#[path = "cost/heap.rs"]
mod heap;
#[path = "scale/peers.rs"]
mod peers;
#[path = "cost/report.rs"]
mod report;

use report::Report;

const PEERS: usize = 1_000_000;

/// The number after `--peers`.
fn wanted_peers() -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--peers");
    let number = arguments.nth(1);
    number.map_or(PEERS, |n| n.parse().expect("--peers takes a number"))
}

fn main() {
    let mut report = Report::default();
    handshakes::measure(&mut report);
    // In this order: what is freed before does not count as resident, and slows what comes after.
    peers::measure(&mut report, wanted_peers());
    handshakes::measure_sessions(&mut report);
    report.print();
}
