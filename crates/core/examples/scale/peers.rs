//! Peers that are configured and silent: memory, time to add, time to find.

use crate::far::{Numbers, address, hub, hub_with, start};
use crate::heap;
use crate::report::Report;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant as Clock;
use wiremesh_core::{ControlConfig, Node, PeerConfig};
use wiremesh_wire::NodeId;
use wiremesh_wire::address::overlay_address;

/// Sizes of the table in which peers are looked up, beside the largest.
const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
const LOOKUPS: usize = 200_000;
const ROUNDS: usize = 5;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.map_or(0, |pages: usize| pages * 4096)
}

fn fill(node: &mut Node, ids: &[NodeId]) {
    for (number, id) in ids.iter().enumerate() {
        let mut config = PeerConfig::new(*id);
        config.endpoint = Some(address(number as u32));
        node.add_peer(start(), config).expect("a new peer");
    }
}

/// Adds all figures.
pub fn measure(report: &mut Report, count: usize) {
    let mut numbers = Numbers(1);
    let ids: Vec<NodeId> = (0..count).map(|_| numbers.node_id()).collect();
    let mut add = |name: &str, value, unit| report.add("configured peers", name, value, unit);

    let resident_before = resident();
    let mut node = hub(count);
    let began = Clock::now();
    let (held, ()) = heap::held_by(|| fill(&mut node, &ids));
    let each = |total: f64| total / count as f64;
    add("peers", count as f64, "");
    add(
        "to add one",
        each(began.elapsed().as_secs_f64() * 1e6),
        "us",
    );
    add("heap of one", each(held as f64), "B");
    let resident = resident().saturating_sub(resident_before);
    add("resident memory of one", each(resident as f64), "B");
    // Nothing is due, so an idle node is never woken.
    let wakes = f64::from(u8::from(node.poll_timeout().is_some()));
    add("deadlines while idle", wakes, "");

    measure_control(report, &ids);
    for size in SIZES.into_iter().filter(|size| *size < count) {
        let mut small = hub(size);
        fill(&mut small, &ids[..size]);
        measure_lookups(report, &small, &ids[..size]);
    }
    measure_lookups(report, &node, &ids);
    drop(node);
    let mut node = hub(count);
    fill(&mut node, &ids);
    let began = Clock::now();
    for id in &ids {
        let key = node.peer_by_id(id).expect("known");
        node.remove_peer(key);
    }
    let us = began.elapsed().as_secs_f64() * 1e6;
    report.add("configured peers", "to remove one", us / count as f64, "us");
}

/// The same with the control protocol, which does nothing before the first session either.
fn measure_control(report: &mut Report, ids: &[NodeId]) {
    let ids = &ids[..ids.len().min(100_000)];
    let mut node = hub_with(ids.len(), Some(ControlConfig::default()));
    let began = Clock::now();
    let (held, ()) = heap::held_by(|| fill(&mut node, ids));
    let us = began.elapsed().as_secs_f64() * 1e6;
    let mut add = |name: &str, total: f64, unit| {
        let each = total / ids.len() as f64;
        report.add("configured peers", name, each, unit);
    };
    add("with the control protocol: to add one", us, "us");
    add("with the control protocol: heap of one", held as f64, "B");
}

fn measure_lookups(report: &mut Report, node: &Node, ids: &[NodeId]) {
    let mut numbers = Numbers(2);
    let chosen: Vec<NodeId> = (0..LOOKUPS)
        .map(|_| ids[(numbers.next() % ids.len() as u64) as usize])
        .collect();
    let addresses: Vec<IpAddr> = chosen.iter().map(|id| overlay_address(id).into()).collect();
    let by_id = fastest_ns(|| chosen.iter().all(|id| node.peer_by_id(id).is_some()));
    let by_address = fastest_ns(|| {
        let mut all = addresses.iter();
        all.all(|address| node.peer_by_address(*address).is_some())
    });
    let size = ids.len();
    let mut add = |name: &str, value| report.add("to find one of so many peers", name, value, "ns");
    add(&format!("{size}: by key"), by_id);
    add(&format!("{size}: by overlay address"), by_address);
}

/// The time of one lookup in the best round of all of them.
fn fastest_ns(mut all: impl FnMut() -> bool) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let began = Clock::now();
        assert!(black_box(all()), "every peer is known");
        began.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
    });
    times.fold(f64::INFINITY, f64::min)
}
