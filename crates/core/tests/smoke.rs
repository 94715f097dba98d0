//! Two nodes in memory: the first things that must work.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;

use net::Net;
use wiremesh_wire::PresharedKey;

#[test]
fn two_nodes_handshake_and_exchange_packets_both_ways() {
    let mut net = Net::connected_pair();
    for n in 0..10u8 {
        net.send(0, 1, &[n; 100]);
        net.send(1, 0, &[n + 100; 1_372]);
    }
    net.run(100);
    let there = net.payloads(1);
    let back = net.payloads(0);
    assert_eq!(there, (0..10u8).map(|n| vec![n; 100]).collect::<Vec<_>>());
    assert_eq!(
        back,
        (0..10u8).map(|n| vec![n + 100; 1_372]).collect::<Vec<_>>()
    );
    assert_eq!(net.hosts[0].established(), 1);
    assert_eq!(net.hosts[1].established(), 1);
    let status = net.status(0, 1);
    assert_eq!(status.handshake_time, Some(2 * net::LATENCY));
    assert_eq!(status.initiator, Some(true));
    assert_eq!(net.status(1, 0).initiator, Some(false));
}

#[test]
fn packets_staged_before_the_handshake_are_sent_after_it() {
    let mut net = Net::pair();
    net.send(0, 1, b"one");
    net.send(0, 1, b"two");
    net.send(1, 0, b"three");
    net.run(200);
    assert_eq!(net.payloads(1), [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(net.payloads(0), [b"three".to_vec()]);
}

#[test]
fn equal_preshared_keys_connect_and_different_ones_do_not() {
    let psk = PresharedKey::from_bytes([9; 32]);
    let mut net = Net::pair();
    let key = net.key(0, 1);
    net.hosts[0].node.set_preshared_key(key, psk.clone(), 7);
    net.connect(0, 1);
    net.run(1_000);
    assert!(!net.ready(0, 1) && !net.ready(1, 0), "keys differ");

    let key = net.key(1, 0);
    net.hosts[1].node.set_preshared_key(key, psk, 7);
    net.run(6_000);
    assert!(net.ready(0, 1) && net.ready(1, 0), "keys are equal now");
    assert_eq!(net.status(0, 1).session_psk_epoch, Some(7));
    assert_eq!(net.status(1, 0).session_psk_epoch, Some(7));
}

#[test]
fn the_initiator_alone_rekeys_after_120_seconds() {
    let mut net = Net::connected_pair();
    // Traffic both ways, the responder's right before the initiator's.
    for second in 0..300u32 {
        net.send(1, 0, &second.to_le_bytes());
        net.send(0, 1, &second.to_le_bytes());
        net.run(1_000);
    }
    assert_eq!(net.payloads(0).len(), 300, "no packet is lost at a rekey");
    assert_eq!(net.payloads(1).len(), 300);
    let times: Vec<u64> = net
        .initiations_of(0)
        .iter()
        .map(|at| at.saturating_since(net.log[0].at).as_secs())
        .collect();
    // A session is born when the response comes, so the second rekey is a second later.
    assert_eq!(times, [0, 120, 241]);
    assert!(
        net.initiations_of(1).is_empty(),
        "the responder does not rekey by time"
    );
}
