//! Heap bytes of a connection, idle and used, counted.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::alloc::System;
use std::time::Duration;

use pair::{Node, ONE_WAY, Pair, provider, read, send};
use quinn_proto::Dir;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wiremesh_quic::{Provider, at_least_assumed, default_transport};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections measured at once, so that the endpoint's own part is small.
const CONNECTIONS: usize = 32;
/// Streams of a kind in a used connection, one after the other; more change nothing.
const STREAMS: usize = 500;
const REQUEST_BYTES: usize = 200;
const RESPONSE_BYTES: usize = 2_000;
/// What a connection may take in quinn-proto at the server, out of 64 KiB for everything.
const IDLE_BYTES_MAX: usize = 20 * 1_024;
const USED_BYTES_MAX: usize = 56 * 1_024;

fn live() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What a connection does [`STREAMS`] times.
type Use = fn(&mut Pair);

/// Bytes per connection that go when the server goes, after all of `uses`.
fn bytes_per_connection(server: &Provider, uses: &[Use]) -> usize {
    let client = provider(1);
    let config = client.client_config(&["p"]).unwrap();
    let mut pair = Pair::new(&client, server, &["p"]);
    for _ in 0..CONNECTIONS {
        pair.connect(config.clone());
    }
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server.connections.len(), CONNECTIONS);
    for one_use in uses {
        for _ in 0..STREAMS {
            one_use(&mut pair);
        }
    }
    pair.run_for(Duration::from_secs(5));
    pair.trace = Vec::new();
    let other = Node::new(client.endpoint_config(), None, "[::1]:1");
    let before = live();
    drop(std::mem::replace(&mut pair.server, other));
    (before - live()) / CONNECTIONS
}

/// One request and its response on each connection, read to the end by both.
fn request(pair: &mut Pair) {
    let connections = pair.client.connections.values_mut();
    let streams: Vec<_> = connections
        .map(|connection| send(connection, &[1; REQUEST_BYTES]))
        .collect();
    pair.run_for(ONE_WAY * 2);
    for connection in pair.server.connections.values_mut() {
        let id = connection.streams().accept(Dir::Bi).unwrap();
        assert_eq!(read(connection, id).len(), REQUEST_BYTES);
        let mut stream = connection.send_stream(id);
        assert_eq!(stream.write(&[2; RESPONSE_BYTES]), Ok(RESPONSE_BYTES));
        stream.finish().unwrap();
    }
    pair.run_for(ONE_WAY * 2);
    for (connection, id) in pair.client.connections.values_mut().zip(streams) {
        assert_eq!(read(connection, id).len(), RESPONSE_BYTES);
    }
    pair.run_for(ONE_WAY * 2);
}

/// One unidirectional stream to the server on each connection, read to the end.
fn notify(pair: &mut Pair) {
    for connection in pair.client.connections.values_mut() {
        let id = connection.streams().open(Dir::Uni).unwrap();
        let mut stream = connection.send_stream(id);
        assert_eq!(stream.write(&[3; REQUEST_BYTES]), Ok(REQUEST_BYTES));
        stream.finish().unwrap();
    }
    pair.run_for(ONE_WAY * 2);
    for connection in pair.server.connections.values_mut() {
        let id = connection.streams().accept(Dir::Uni).unwrap();
        assert_eq!(read(connection, id).len(), REQUEST_BYTES);
    }
    pair.run_for(ONE_WAY * 2);
}

fn with_streams(bidi: u32, uni: u32) -> Provider {
    let mut config = default_transport();
    config
        .max_concurrent_bidi_streams(bidi.into())
        .max_concurrent_uni_streams(uni.into());
    Provider::new([2; 32], at_least_assumed(config).unwrap())
}

// One test, since a second thread would count into the same heap.
#[test]
fn connection_stays_within_its_budget() {
    println!(
        "{} bytes in the connection type",
        size_of::<quinn_proto::Connection>()
    );
    let uses: [&[Use]; 3] = [&[], &[request], &[request, notify]];
    let [idle, requests, both] = uses.map(|uses| bytes_per_connection(&provider(2), uses));
    println!("default settings: {idle} bytes idle, {requests} after requests, {both} after both");
    for (bidi, uni) in [(16, 16), (64, 64), (192, 128)] {
        let server = with_streams(bidi, uni);
        let [idle, requests, both] = uses.map(|uses| bytes_per_connection(&server, uses));
        println!("{bidi} + {uni} streams: {idle} idle, {requests} after requests, {both} both");
    }
    assert!(idle <= IDLE_BYTES_MAX, "{idle} bytes idle");
    assert!(
        requests <= USED_BYTES_MAX,
        "{requests} bytes after requests"
    );
}
