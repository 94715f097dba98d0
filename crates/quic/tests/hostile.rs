//! Changed packets: the tag does not cover what is before it, so nothing may panic on what gets
//! through.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use pair::{End, Fate, Node, Pair, receive, send};
use proptest::prelude::*;
use quinn_proto::{ConnectionError, Dir};

/// A change to a datagram: whose, which, where, what.
#[derive(Clone, Debug)]
struct Change {
    from: End,
    number: usize,
    offset: usize,
    bytes: Vec<u8>,
    /// Whether the bytes take the place of those there, or are added without carry.
    replace: bool,
}

impl Change {
    fn apply(&self, datagram: &mut [u8]) {
        let offset = self.offset % datagram.len();
        for (there, byte) in datagram[offset..].iter_mut().zip(&self.bytes) {
            *there = if self.replace { *byte } else { *there ^ byte };
        }
    }
}

/// Runs a connection with traffic both ways under `changes`; it may fail, but must come to an end.
/// Tells whether it failed.
fn survive(changes: Vec<Change>) -> bool {
    let mut pair = Pair::begun();
    pair.network = Box::new(move |from, number, bytes| {
        for change in changes
            .iter()
            .filter(|c| c.from == from && c.number == number)
        {
            change.apply(bytes);
        }
        Fate::Deliver
    });
    send(pair.client.only(), b"early");
    for round in 0..3u8 {
        pair.run_for(Duration::from_millis(300));
        exchange(&mut pair.client, round);
        exchange(&mut pair.server, round);
    }
    pair.run_for(Duration::from_secs(400));
    for end in [&pair.client, &pair.server] {
        assert!(
            end.connections.is_empty(),
            "a connection outlives its idle timeout"
        );
    }
    let ends = [&pair.client, &pair.server];
    let failed = ends.iter().flat_map(|end| &end.lost);
    let mut failed = failed.map(|(_, error)| error).chain(&pair.server.refused);
    failed.any(|error| *error != ConnectionError::TimedOut)
}

/// Reads all there is and sends a stream and a datagram, where the connection lets us.
fn exchange(node: &mut Node, round: u8) {
    for connection in node.connections.values_mut() {
        while receive(connection).is_some() {}
        if connection.is_closed() || connection.is_handshaking() {
            continue;
        }
        if let Some(id) = connection.streams().open(Dir::Bi) {
            let _ = connection.send_stream(id).write(&[round; 2_000]);
            let _ = connection.send_stream(id).finish();
        }
        let _ = connection.datagrams().send(vec![round; 100].into(), true);
    }
}

#[test]
fn changed_byte_anywhere_in_a_handshake_datagram_never_panics() {
    assert!(!survive(Vec::new()));
    let mut failed = 0;
    // Initial datagrams are mostly padding, which the properties below cover.
    for (from, number) in [
        (End::Client, 0),
        (End::Client, 1),
        (End::Server, 0),
        (End::Server, 1),
    ] {
        for offset in 0..320 {
            for value in [0x01, 0x40, 0xff] {
                let bytes = vec![value];
                let change = Change {
                    from,
                    number,
                    offset,
                    bytes,
                    replace: false,
                };
                failed += usize::from(survive(vec![change]));
            }
        }
    }
    // The changes do reach the state machines.
    assert!(failed > 500, "{failed} of 3,840 connections failed");
}

fn change(
    offset: std::ops::Range<usize>,
    bytes: impl Strategy<Value = Vec<u8>>,
    replace: bool,
) -> impl Strategy<Value = Change> {
    (any::<bool>(), 0usize..24, offset, bytes).prop_map(move |(server, number, offset, bytes)| {
        let from = if server { End::Server } else { End::Client };
        Change {
            from,
            number,
            offset,
            bytes,
            replace,
        }
    })
}

/// Bytes that are often a frame type or a small length.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => 0u8..0x32, 1 => any::<u8>()], 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // Proptest finds no place for its file beside an integration test; it prints the input.
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn changed_bytes_in_any_datagrams_never_panic(
        changes in prop::collection::vec(
            change(0..1_400, prop::collection::vec(1u8..=255, 1), false),
            1..40,
        ),
    ) {
        survive(changes);
    }

    #[test]
    fn arbitrary_frames_in_real_packets_never_panic(
        // Behind a short header (9 bytes and the packet number), or behind a long one.
        changes in prop::collection::vec(
            prop_oneof![change(10..14, frames(), true), change(24..64, frames(), true)],
            1..12,
        ),
    ) {
        survive(changes);
    }

    #[test]
    fn arbitrary_datagrams_never_panic(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_400), 1..8),
        established in any::<bool>(),
    ) {
        let mut pair = if established { Pair::connected() } else { Pair::begun() };
        pair.run_for(Duration::from_millis(10));
        let (now, client, server) = (pair.now, pair.client.address, pair.server.address);
        for bytes in &datagrams {
            pair.server.handle(now, client, bytes);
            pair.client.handle(now, server, bytes);
        }
        pair.run_for(Duration::from_secs(400));
    }
}
