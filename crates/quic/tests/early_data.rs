//! 0-RTT without tickets: first flights, refusal, and every pairing of limits.
#![allow(clippy::unwrap_used)]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use bytes::Bytes;
use pair::{End, ONE_WAY, Pair, protocol, provider, read, receive, send};
use quinn_proto::{Dir, IdleTimeout, TransportConfig, VarInt};
use wiremesh_quic::{Provider, SettingOutOfRange, assumed, at_least_assumed, default_transport};

#[test]
fn data_arrives_with_the_first_datagram() {
    let mut pair = Pair::begun();
    assert!(pair.client.only().has_0rtt());
    let id = send(pair.client.only(), b"request");
    assert!(pair.run_until(ONE_WAY * 10, |pair| !pair.server.connections.is_empty()));
    assert_eq!(receive(pair.server.only()), Some(b"request".to_vec()));
    assert_eq!(pair.elapsed(), ONE_WAY);
    let first_flight = pair.trace.iter().filter(|sent| sent.from == End::Client);
    assert_eq!(
        first_flight
            .map(|sent| sent.bytes.len())
            .collect::<Vec<_>>(),
        [1_200]
    );

    pair.server
        .only()
        .send_stream(id)
        .write(b"response")
        .unwrap();
    assert!(
        pair.run_until(ONE_WAY * 10, |pair| read(pair.client.only(), id)
            == b"response")
    );
    assert_eq!(
        pair.elapsed(),
        ONE_WAY * 2,
        "one round trip from connect to response"
    );
    assert!(pair.client.only().accepted_0rtt());
}

#[test]
fn early_datagram_arrives_too() {
    let mut pair = Pair::begun();
    let largest = pair.client.only().datagrams().max_size().unwrap();
    assert!((1_100..1_200).contains(&largest), "{largest}");
    let datagram = Bytes::from(vec![7; largest]);
    pair.client
        .only()
        .datagrams()
        .send(datagram.clone(), false)
        .unwrap();
    pair.run_until(ONE_WAY * 10, |pair| !pair.server.connections.is_empty());
    assert_eq!(pair.elapsed(), ONE_WAY);
    pair.run_until_connected();
    assert_eq!(pair.server.only().datagrams().recv(), Some(datagram));
}

#[test]
fn early_data_lost_with_the_first_flight_is_sent_again() {
    let mut pair = Pair::begun();
    pair.network = Box::new(|from, number, _| match (from, number) {
        (End::Client, 0) => pair::Fate::Drop,
        _ => pair::Fate::Deliver,
    });
    send(pair.client.only(), b"request");
    assert!(pair.run_until(Duration::from_secs(10), |pair| {
        !pair.server.connections.is_empty() && receive(pair.server.only()).is_some()
    }));
}

#[test]
fn early_data_never_reaches_a_server_without_the_protocol() {
    let mut pair = Pair::new(&provider(1), &provider(2), &["b"]);
    pair.connect(provider(1).client_config(&["a"]).unwrap());
    for _ in 0..8 {
        send(pair.client.only(), &[1; 1_000]);
    }
    pair.run_for(Duration::from_secs(5));
    assert!(pair.server.connections.is_empty() && pair.server.connected.is_empty());
    // Later datagrams of the flight belong to no connection and start none.
    assert!(!pair.server.refused.is_empty());
    assert_eq!(pair.server.endpoint.open_connections(), 0);
}

#[test]
fn early_data_is_discarded_when_another_protocol_is_chosen() {
    let mut pair = Pair::new(&provider(1), &provider(2), &["x/2", "x/1"]);
    pair.connect(provider(1).client_config(&["x/1", "x/2"]).unwrap());
    send(pair.client.only(), b"meant for x/1");
    pair.run_until_connected();
    assert_eq!(protocol(pair.client.only()).as_deref(), Some("x/2"));
    assert!(!pair.client.only().accepted_0rtt());
    pair.run_for(Duration::from_secs(5));
    assert_eq!(receive(pair.server.only()), None);

    send(pair.client.only(), b"meant for x/2");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(receive(pair.server.only()), Some(b"meant for x/2".to_vec()));
    assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
}

/// Settings exactly at the assumed parameters.
fn smallest() -> TransportConfig {
    let varint = |value| VarInt::from_u64(value).unwrap();
    let mut config = default_transport();
    config
        .max_idle_timeout(Some(IdleTimeout::from(varint(
            assumed::MAX_IDLE_TIMEOUT_MS,
        ))))
        .receive_window(varint(assumed::INITIAL_MAX_DATA_BYTES))
        .stream_receive_window(varint(assumed::INITIAL_MAX_STREAM_DATA_BYTES))
        .max_concurrent_bidi_streams(varint(assumed::INITIAL_MAX_STREAMS_BIDI))
        .max_concurrent_uni_streams(varint(assumed::INITIAL_MAX_STREAMS_UNI))
        .datagram_receive_buffer_size(Some(assumed::MAX_DATAGRAM_FRAME_SIZE_BYTES as usize));
    config
}

/// Settings at the ceilings.
fn largest() -> TransportConfig {
    let mut config = default_transport();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(Duration::from_secs(86_400)).unwrap(),
        ))
        .receive_window(VarInt::MAX)
        .stream_receive_window(VarInt::MAX)
        .send_window(u64::MAX)
        .max_concurrent_bidi_streams(65_536u32.into())
        .max_concurrent_uni_streams(65_536u32.into())
        .datagram_receive_buffer_size(Some(usize::MAX));
    config
}

#[test]
fn smallest_and_largest_settings_pair_both_ways() {
    let make = |seed, config| Provider::new([seed; 32], at_least_assumed(config).unwrap());
    let ends: [fn() -> TransportConfig; 3] = [smallest, largest, default_transport];
    for (client, server) in (0..9).map(|n| (ends[n / 3], ends[n % 3])) {
        let (client, server) = (make(1, client()), make(2, server()));
        let mut pair = Pair::new(&client, &server, &["p"]);
        pair.connect(client.client_config(&["p"]).unwrap());
        // As much as 0-RTT lets an application write: every assumed stream, all assumed data.
        let data = vec![5; (assumed::INITIAL_MAX_DATA_BYTES / 16) as usize];
        let streams: Vec<_> = (0..16).map(|_| send(pair.client.only(), &data)).collect();
        pair.run_until_connected();
        assert!(pair.client.only().accepted_0rtt());
        let mut arrived = 0;
        let done = pair.run_until(Duration::from_secs(30), |pair| {
            for &id in &streams {
                arrived += read(pair.server.only(), id).len();
            }
            arrived == 16 * data.len()
        });
        assert!(done, "{arrived} bytes arrived");
        send(pair.server.only(), b"back");
        pair.run_for(Duration::from_secs(1));
        assert_eq!(receive(pair.client.only()), Some(b"back".to_vec()));
        assert!(pair.client.lost.is_empty() && pair.server.lost.is_empty());
    }
}

#[test]
fn client_writes_no_more_than_assumed_before_the_server_answers() {
    let mut pair = Pair::begun();
    let id = pair.client.only().streams().open(Dir::Uni).unwrap();
    let written = pair
        .client
        .only()
        .send_stream(id)
        .write(&vec![0; 1 << 20])
        .unwrap();
    assert_eq!(written as u64, assumed::INITIAL_MAX_STREAM_DATA_BYTES);
    for _ in 0..assumed::INITIAL_MAX_STREAMS_BIDI {
        assert!(pair.client.only().streams().open(Dir::Bi).is_some());
    }
    assert!(pair.client.only().streams().open(Dir::Bi).is_none());
    pair.run_until_connected();
    assert!(pair.client.only().streams().open(Dir::Bi).is_some());
}

/// One setting changed from the smallest legal settings.
#[derive(Clone, Copy)]
enum Change {
    IdleMs(Option<u64>),
    Connection(u64),
    Stream(u64),
    Bidi(u64),
    Uni(u64),
    Datagram(Option<u64>),
}

fn refused(change: Change) -> SettingOutOfRange {
    let varint = |value: u64| VarInt::from_u64(value).unwrap();
    let mut config = smallest();
    match change {
        Change::IdleMs(ms) => config.max_idle_timeout(ms.map(|ms| varint(ms).into())),
        Change::Connection(bytes) => config.receive_window(varint(bytes)),
        Change::Stream(bytes) => config.stream_receive_window(varint(bytes)),
        Change::Bidi(streams) => config.max_concurrent_bidi_streams(varint(streams)),
        Change::Uni(streams) => config.max_concurrent_uni_streams(varint(streams)),
        Change::Datagram(bytes) => {
            config.datagram_receive_buffer_size(bytes.map(|bytes| bytes as usize))
        }
    };
    at_least_assumed(config).unwrap_err()
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (change, setting, found) in [
        (
            Change::IdleMs(Some(59_999)),
            "max_idle_timeout",
            Some(59_999),
        ),
        (
            Change::IdleMs(Some(86_400_001)),
            "max_idle_timeout",
            Some(86_400_001),
        ),
        (Change::IdleMs(None), "max_idle_timeout", None),
        (Change::Connection(131_071), "receive_window", Some(131_071)),
        (
            Change::Stream(65_535),
            "stream_receive_window",
            Some(65_535),
        ),
        (Change::Bidi(15), "max_concurrent_bidi_streams", Some(15)),
        (
            Change::Bidi(65_537),
            "max_concurrent_bidi_streams",
            Some(65_537),
        ),
        (Change::Uni(0), "max_concurrent_uni_streams", Some(0)),
        (
            Change::Uni(1 << 61),
            "max_concurrent_uni_streams",
            Some(1 << 61),
        ),
        (
            Change::Datagram(Some(1_199)),
            "datagram_receive_buffer_size",
            Some(1_199),
        ),
        (Change::Datagram(None), "datagram_receive_buffer_size", None),
    ] {
        let error = refused(change);
        assert_eq!((error.setting, error.found), (setting, found));
        assert!(error.to_string().contains(setting), "{error}");
    }
    assert!(at_least_assumed(smallest()).is_ok() && at_least_assumed(largest()).is_ok());
}

#[test]
fn settings_error_names_value_and_range() {
    // Quinn's own default would end connections after 30 s.
    assert_eq!(
        at_least_assumed(TransportConfig::default())
            .unwrap_err()
            .to_string(),
        "transport setting `max_idle_timeout` is 30000, must be between 60000 and 86400000"
    );
    assert_eq!(
        refused(Change::Stream(1)).to_string(),
        "transport setting `stream_receive_window` is 1, must be at least 65536"
    );
}
