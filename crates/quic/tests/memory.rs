//! Heap bytes of an idle connection, counted.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::alloc::System;
use std::time::Duration;

use pair::{Node, Pair, provider};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wiremesh_quic::{Provider, at_least_assumed, default_transport};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections measured at once, so that the endpoint's own part is small.
const CONNECTIONS: usize = 64;
/// What an idle connection may take in quinn-proto at the server, out of 64 KiB for everything.
const IDLE_BYTES_MAX: usize = 40 * 1_024;

fn live() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes per idle connection that go when the server goes.
fn idle_bytes(server: &Provider) -> usize {
    let client = provider(1);
    let config = client.client_config(&["p"]).unwrap();
    let mut pair = Pair::new(&client, server, &["p"]);
    for _ in 0..CONNECTIONS {
        pair.connect(config.clone());
    }
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server.connections.len(), CONNECTIONS);
    let other = Node::new(client.endpoint_config(), None, "[::1]:1");
    let before = live();
    drop(std::mem::replace(&mut pair.server, other));
    (before - live()) / CONNECTIONS
}

#[test]
fn idle_connection_stays_within_its_budget() {
    let default = idle_bytes(&provider(2));
    println!(
        "{} bytes in the connection type",
        size_of::<quinn_proto::Connection>()
    );
    println!("default settings: {default} bytes per idle connection at the server");
    for (bidi, uni) in [(16u32, 16u32), (100, 100), (256, 256), (1_024, 100)] {
        let mut config = default_transport();
        config
            .max_concurrent_bidi_streams(bidi.into())
            .max_concurrent_uni_streams(uni.into());
        let server = Provider::new([2; 32], at_least_assumed(config).unwrap());
        println!("{bidi} + {uni} streams: {} bytes", idle_bytes(&server));
    }
    assert!(default <= IDLE_BYTES_MAX, "{default} bytes");
}
