//! Equal seeds give equal bytes.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use pair::{End, Pair, Sent, provider, receive, send};

/// A run with data both ways, a refused connection and enough packets for a key update.
fn run(client: u8, server: u8) -> Vec<Sent> {
    let (client, server) = (provider(client), provider(server));
    let mut pair = Pair::new(&client, &server, &["p"]);
    pair.connect(client.client_config(&["p"]).unwrap());
    for round in 0..40u8 {
        if let Some(connection) = pair.client.connections.values_mut().next() {
            send(connection, &vec![round; 50 * usize::from(round)]);
        }
        pair.run_for(Duration::from_millis(130));
        while let Some(data) = receive(pair.server.only()) {
            send(pair.server.only(), &data);
        }
    }
    pair.connect(client.client_config(&["q"]).unwrap());
    pair.run_for(Duration::from_secs(100));
    pair.trace
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let (one, two) = (run(1, 2), run(1, 2));
    assert!(one.len() > 100, "{} datagrams", one.len());
    assert_eq!(one.len(), two.len());
    for (index, (one, two)) in one.iter().zip(&two).enumerate() {
        assert_eq!(one, two, "datagram {index}");
    }
}

#[test]
fn seeds_change_identifiers_only() {
    let (one, two) = (run(1, 2), run(3, 4));
    assert_ne!(one, two);
    // The order and the set of parameters do not depend on the seed, so lengths agree.
    let handshake = |trace: &[Sent]| {
        let mut first = trace.iter().filter(|sent| sent.from == End::Client);
        first.next().map(|sent| sent.bytes.len())
    };
    assert_eq!(handshake(&one), handshake(&two));
}

#[test]
fn connections_of_one_provider_have_different_identifiers() {
    let client = provider(1);
    let mut pair = Pair::new(&client, &provider(2), &["p"]);
    pair.connect(client.client_config(&["p"]).unwrap());
    pair.connect(client.clone().client_config(&["p"]).unwrap());
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.server.connected.len(), 2);
    // Bytes 6..26 of a first packet are the destination id that the client invented.
    let mut ids: Vec<_> = pair
        .trace
        .iter()
        .take(2)
        .map(|sent| sent.bytes[6..26].to_vec())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 2);
}
