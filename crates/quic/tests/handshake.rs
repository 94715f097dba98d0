//! The handshake between two quinn endpoints: negotiation, refusal, loss, foreign packets.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::sync::Arc;
use std::time::Duration;

use pair::{End, Fate, ONE_WAY, Pair, protocol, provider, receive, send};
use quinn_proto::{ConnectionError, TransportErrorCode};
use wiremesh_quic::{Attachment, InvalidProtocols, NO_APPLICATION_PROTOCOL, ResetKey};

#[test]
fn both_ends_learn_the_protocol_and_no_identity() {
    let mut pair = Pair::connected();
    for node in [&mut pair.client, &mut pair.server] {
        let connection = node.only();
        assert_eq!(protocol(connection).as_deref(), Some("test/1"));
        let identity = connection.crypto_session().peer_identity();
        assert!(Attachment::of(identity).is_some(), "nothing else is in it");
        assert!(
            connection
                .crypto_session()
                .export_keying_material(&mut [0; 8], b"", b"")
                .is_err()
        );
    }
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
}

#[test]
fn what_is_attached_lives_as_long_as_the_connection() {
    let kept = Arc::new(());
    let mut pair = Pair::connected();
    for node in [&mut pair.client, &mut pair.server] {
        let mut place = || Attachment::of(node.only().crypto_session().peer_identity());
        place().expect("it is ours").attach(Arc::clone(&kept));
        place().expect("it is ours").attach(Arc::clone(&kept));
    }
    assert_eq!(Arc::strong_count(&kept), 3, "the later one takes the place");
    drop(pair);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(Attachment::of(None).is_none());
}

#[test]
fn handshake_takes_one_round_trip() {
    let mut pair = Pair::begun();
    assert!(pair.run_until(ONE_WAY * 10, |pair| !pair.client.connected.is_empty()));
    assert_eq!(pair.elapsed(), ONE_WAY * 2);
    send(pair.client.only(), b"after");
    assert!(pair.run_until(ONE_WAY * 10, |pair| {
        receive(pair.server.only()).is_some_and(|data| data == b"after")
    }));
    assert_eq!(pair.elapsed(), ONE_WAY * 3);
}

#[test]
fn server_preference_decides_between_common_protocols() {
    let mut pair = Pair::new(&provider(1), &provider(2), &["x/3", "x/2", "x/1"]);
    pair.connect(provider(1).client_config(&["x/1", "x/2"]).unwrap());
    pair.run_until_connected();
    assert_eq!(protocol(pair.client.only()).as_deref(), Some("x/2"));
    assert_eq!(protocol(pair.server.only()).as_deref(), Some("x/2"));
}

#[test]
fn no_common_protocol_closes_both_ends_with_the_reason() {
    let mut pair = Pair::new(&provider(1), &provider(2), &["chat/2"]);
    pair.connect(provider(1).client_config(&["chat/1", "file\n"]).unwrap());
    assert!(pair.run_until(ONE_WAY * 20, |pair| !pair.client.lost.is_empty()));
    assert_eq!(pair.elapsed(), ONE_WAY * 2);

    let ConnectionError::ConnectionClosed(close) = &pair.client.lost[0].1 else {
        panic!("{:?}", pair.client.lost);
    };
    assert_eq!(u64::from(close.error_code), NO_APPLICATION_PROTOCOL);
    let expected: &[u8] = b"no common protocol; offered: chat/1, file\\n";
    assert_eq!(&close.reason[..], expected);
    let [ConnectionError::TransportError(refused)] = &pair.server.refused[..] else {
        panic!("{:?}", pair.server.refused);
    };
    assert_eq!(refused.code, TransportErrorCode::crypto(0x78));
    assert_eq!(pair.server.endpoint.open_connections(), 0);
    assert!(pair.client.connected.is_empty());
}

#[test]
fn server_without_protocols_refuses() {
    let mut pair = Pair::new(&provider(1), &provider(2), &[]);
    pair.connect(provider(1).client_config(&["a"]).unwrap());
    assert!(pair.run_until(ONE_WAY * 20, |pair| !pair.client.lost.is_empty()));
    assert_eq!(pair.server.refused.len(), 1);
}

#[test]
fn client_without_protocols_cannot_be_made() {
    let error = provider(1).client_config::<&str>(&[]).unwrap_err();
    assert_eq!(error, InvalidProtocols::Empty);
    assert!(provider(1).server_config(&["a", "a"]).is_err());
}

#[test]
fn client_hello_of_the_largest_size_spans_packets() {
    let names: Vec<String> = (0..32u8).map(|n| format!("{n:063}")).collect();
    assert_eq!(
        names.iter().map(|name| name.len() + 1).sum::<usize>(),
        2_048
    );
    let mut pair = Pair::new(&provider(1), &provider(2), &[&names[31]]);
    pair.connect(provider(1).client_config(&names).unwrap());
    pair.run_until_connected();
    assert_eq!(protocol(pair.server.only()), Some(names[31].clone()));
    let first_flight = pair.trace.iter().filter(|sent| sent.at.is_zero());
    assert_eq!(
        first_flight
            .map(|sent| sent.bytes.len())
            .collect::<Vec<_>>(),
        [1_200, 1_200]
    );
}

#[test]
fn refusal_of_a_hello_that_spans_packets_reaches_the_client() {
    let names: Vec<String> = (0..32u8).map(|n| format!("{n:063}")).collect();
    let mut pair = Pair::new(&provider(1), &provider(2), &["other"]);
    pair.connect(provider(1).client_config(&names).unwrap());
    assert!(pair.run_until(ONE_WAY * 20, |pair| !pair.client.lost.is_empty()));
    let ConnectionError::ConnectionClosed(close) = &pair.client.lost[0].1 else {
        panic!("{:?}", pair.client.lost);
    };
    assert_eq!(u64::from(close.error_code), NO_APPLICATION_PROTOCOL);
    assert!(close.reason.ends_with(b"more"), "{:?}", close.reason);
}

#[test]
fn each_lost_handshake_datagram_is_recovered() {
    // Every subset of the first four datagrams of each end, so also "all of them".
    for lost in 0u16..256 {
        let mut pair = Pair::begun();
        pair.network = Box::new(move |from, number, _| {
            let bit = number + 4 * usize::from(from == End::Server);
            match number < 4 && lost & (1 << bit) != 0 {
                true => Fate::Drop,
                false => Fate::Deliver,
            }
        });
        pair.run_until_connected();
        send(pair.client.only(), b"through");
        let arrived = pair.run_until(Duration::from_secs(60), |pair| {
            receive(pair.server.only()).is_some_and(|data| data == b"through")
        });
        assert!(arrived, "lost {lost:#010b}");
        assert!(
            pair.client.lost.is_empty() && pair.server.lost.is_empty(),
            "lost {lost:#010b}"
        );
    }
}

#[test]
fn packets_from_another_address_are_ignored() {
    // DESIGN: a connection belongs to the address that the tunnel ties to one key.
    let mut pair = Pair::connected();
    let stranger = "[fd77:6d00::3]:2708".parse().unwrap();
    send(pair.client.only(), b"mine");
    let stolen = pair.client.drive(pair.now);
    assert!(!stolen.is_empty());
    for bytes in &stolen {
        pair.server.handle(pair.now, stranger, bytes);
    }
    assert_eq!(receive(pair.server.only()), None);
    let address = pair.client.address;
    assert_eq!(pair.server.only().remote_address(), address);
    for bytes in &stolen {
        pair.server.handle(pair.now, address, bytes);
    }
    assert_eq!(receive(pair.server.only()), Some(b"mine".to_vec()));

    send(pair.server.only(), b"yours");
    for bytes in pair.server.drive(pair.now) {
        pair.client.handle(pair.now, stranger, &bytes);
    }
    assert_eq!(receive(pair.client.only()), None);
}

#[test]
fn handshake_packets_from_another_address_are_ignored() {
    let mut pair = Pair::begun();
    pair.run_for(ONE_WAY);
    let stranger = "[fd77:6d00::3]:2708".parse().unwrap();
    let (now, first) = (pair.now, pair.trace[0].bytes.clone());
    pair.server.handle(now, stranger, &first);
    let client = pair.client.address;
    assert_eq!(pair.server.only().remote_address(), client);
    pair.run_until_connected();
    assert_eq!(pair.server.connected.len(), 1);
}

#[test]
fn keys_can_be_updated() {
    let mut pair = Pair::connected();
    pair.run_for(Duration::from_secs(1));
    for round in 0..3u8 {
        pair.client.only().force_key_update();
        send(pair.client.only(), &[round]);
        let arrived = pair.run_until(Duration::from_secs(1), |pair| {
            receive(pair.server.only()).is_some_and(|data| data == [round])
        });
        assert!(arrived);
        pair.run_for(Duration::from_secs(5));
    }
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
}

#[test]
fn other_quic_versions_are_told_ours() {
    let mut pair = Pair::begun();
    let mut other = pair.client.drive(pair.now).remove(0);
    other[1..5].copy_from_slice(&1u32.to_be_bytes());
    let (now, address) = (pair.now, pair.client.address);
    let answer = pair.server.handle(now, address, &other);
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0][1..5], [0; 4], "version negotiation");
    assert!(answer[0].ends_with(&wiremesh_quic::QUIC_VERSION.to_be_bytes()));
}

#[test]
fn restarted_server_with_the_same_reset_key_resets() {
    let mut pair = Pair::new(&provider(1), &provider(2), &["test/1"]);
    let restart = |pair: &mut Pair, seed: u8| {
        let server = provider(seed);
        let mut config = server.endpoint_config();
        config.reset_key(Arc::new(ResetKey::new([9; 32])));
        let serves = server.server_config(&["test/1"]).unwrap();
        pair.server = pair::Node::new(config, Some(serves), "[fd77:6d00::2]:2708");
    };
    restart(&mut pair, 3);
    pair.connect(provider(1).client_config(&["test/1"]).unwrap());
    pair.run_until_connected();
    pair.run_for(Duration::from_secs(1));
    restart(&mut pair, 4);
    send(pair.client.only(), &[0; 100]);
    assert!(pair.run_until(ONE_WAY * 4, |pair| !pair.client.lost.is_empty()));
    assert_eq!(pair.client.lost[0].1, ConnectionError::Reset);
}

#[test]
fn idle_connection_lasts_at_least_a_minute() {
    let mut pair = Pair::connected();
    pair.run_for(Duration::from_secs(85));
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.client.lost[0].1, ConnectionError::TimedOut);
}
