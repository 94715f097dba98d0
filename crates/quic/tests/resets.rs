//! Stateless resets: real ones are known, and nothing else passes for one.
//!
//! The reset token is the end of a packet (RFC 9000 section 10.3.1), so these tests make packets
//! whose frames end in a token: by loss, which has NEW_CONNECTION_ID frames sent again at the end
//! of a packet, and by application data.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::sync::Arc;
use std::time::Duration;

use pair::{End, Fate, Node, ONE_WAY, Pair, provider, receive, send};
use quinn_proto::ConnectionError;
use quinn_proto::crypto::HmacKey;
use wiremesh_quic::{PACKET_TAG, ResetKey};

/// Connections of one run; without the tag one in ten or more is reset.
const CONNECTIONS: usize = 50;
const CLIENT_KEY: [u8; 32] = [8; 32];
const SERVER_KEY: [u8; 32] = [9; 32];

/// Loses one datagram in five, both ways, as `seed` decides.
fn lose_a_fifth(pair: &mut Pair, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    pair.network = Box::new(move |_, _, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match (state >> 32) % 5 {
            0 => Fate::Drop,
            _ => Fate::Deliver,
        }
    });
}

#[test]
fn idle_connections_outlive_loss() {
    for seed in 1..=6u8 {
        let client = provider(seed);
        let mut pair = Pair::new(&client, &provider(100 + seed), &["p"]);
        lose_a_fifth(&mut pair, seed.into());
        for _ in 0..CONNECTIONS {
            pair.connect(client.client_config(&["p"]).unwrap());
        }
        pair.run_for(Duration::from_secs(30));
        for node in [&pair.client, &pair.server] {
            assert_eq!(node.lost, [], "seed {seed}");
            assert_eq!(node.connected.len(), CONNECTIONS, "seed {seed}");
        }
    }
}

/// A node with a reset key that outlives it; `seed` decides everything else.
fn node(seed: u8, end: End) -> Node {
    let (key, address) = match end {
        End::Client => (CLIENT_KEY, "[fd77:6d00::1]:2708"),
        End::Server => (SERVER_KEY, "[fd77:6d00::2]:2708"),
    };
    let provider = provider(seed);
    let mut config = provider.endpoint_config();
    config.reset_key(Arc::new(ResetKey::new(key)));
    let serves = provider.server_config(&["p"]).unwrap();
    Node::new(config, Some(serves), address)
}

/// A connection between two nodes with known reset keys.
fn with_known_keys() -> Pair {
    let mut pair = Pair::new(&provider(1), &provider(2), &["p"]);
    pair.client = node(1, End::Client);
    pair.server = node(2, End::Server);
    pair.connect(provider(1).client_config(&["p"]).unwrap());
    pair.run_until_connected();
    pair.run_for(Duration::from_secs(1));
    pair
}

fn at(pair: &mut Pair, end: End) -> &mut Node {
    match end {
        End::Client => &mut pair.client,
        End::Server => &mut pair.server,
    }
}

fn other(end: End) -> End {
    match end {
        End::Client => End::Server,
        End::Server => End::Client,
    }
}

/// The reset token of `end` for the connection id that its peer sends to now.
fn token(pair: &Pair, end: End) -> Vec<u8> {
    let mut to_end = pair.trace.iter().rev().filter(|sent| sent.from != end);
    let last = &to_end.next().unwrap().bytes;
    assert_eq!(last[0] & 0xc0, 0x40, "a short header");
    let key = match end {
        End::Client => CLIENT_KEY,
        End::Server => SERVER_KEY,
    };
    let mut signature = [0; 32];
    ResetKey::new(key).sign(&last[1..9], &mut signature);
    signature[..16].to_vec()
}

#[test]
fn application_data_that_ends_in_the_token_is_data() {
    let mut pair = with_known_keys();
    for from in [End::Client, End::Server] {
        let token = token(&pair, from);
        let data = [&[7; 40], &token[..]].concat();
        let already_sent = pair.trace.len();
        // Quinn puts an acknowledgement behind the frames of the first packet of each burst.
        for _ in 0..3 {
            send(at(&mut pair, from).only(), &data);
            pair.run_for(Duration::from_millis(1));
        }
        for _ in 0..3 {
            let datagram = data.clone().into();
            let mut datagrams = at(&mut pair, from).only().datagrams();
            datagrams.send(datagram, true).unwrap();
            pair.run_for(Duration::from_millis(1));
        }
        pair.run_for(Duration::from_secs(1));

        let end = [&token[..], &[PACKET_TAG]].concat();
        let sent = pair.trace[already_sent..].iter();
        let dangerous = sent.filter(|sent| sent.from == from && sent.bytes.ends_with(&end));
        assert!(dangerous.count() >= 5, "packets of the {from:?}");
        let receiver = at(&mut pair, other(from)).only();
        for _ in 0..3 {
            assert_eq!(receive(receiver).as_ref(), Some(&data));
            assert_eq!(receiver.datagrams().recv().as_deref(), Some(&data[..]));
        }
    }
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
}

#[test]
fn restarted_node_resets_its_peers_connection() {
    for restarted in [End::Client, End::Server] {
        let mut pair = with_known_keys();
        let token = token(&pair, restarted);
        assert_ne!(token.last(), Some(&PACKET_TAG));
        *at(&mut pair, restarted) = node(3, restarted);
        let peer = other(restarted);
        send(at(&mut pair, peer).only(), &[0; 100]);
        assert!(pair.run_until(ONE_WAY * 4, |pair| !at(pair, peer).lost.is_empty()));
        assert_eq!(at(&mut pair, peer).lost[0].1, ConnectionError::Reset);
        let reset = pair.trace.last().unwrap();
        assert!(reset.from == restarted && reset.bytes.ends_with(&token));
    }
}

#[test]
fn reset_with_an_unknown_token_is_no_packet() {
    let mut pair = with_known_keys();
    let mut from_client = pair
        .trace
        .iter()
        .rev()
        .filter(|sent| sent.from == End::Client);
    // The header of a real packet with another packet number; behind it bytes that would close the
    // connection if they were frames.
    let mut bytes = from_client.next().unwrap().bytes[..10].to_vec();
    bytes[9] = bytes[9].wrapping_add(1);
    bytes.extend([0x1c; 16]);
    let (now, from) = (pair.now, pair.client.address);
    assert!(pair.server.handle(now, from, &bytes).is_empty());
    pair.run_for(Duration::from_secs(1));
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
}
