//! Initiations that come sooner than usual: after an answer under no key of ours, and right behind
//! an exchange.

use crate::net::{LATENCY, Net, Sent};
use crate::{dropped, install, install_alternate, made_with, talk};
use std::time::Duration;
use wiremesh_core::DropReason;
use wiremesh_noise::crypto::{hash, mac};

fn speaks_control(net: &mut Net, at: usize, expects_initiation: bool) {
    let key = net.key(at, 1 - at);
    let node = &mut net.hosts[at].node;
    node.test_speaks_control(key, expects_initiation);
}

fn initiate_for_upgrade(net: &mut Net, at: usize) {
    let (key, now) = (net.key(at, 1 - at), net.now);
    net.hosts[at].node.test_initiate_for_upgrade(now, key);
    net.drain();
}

/// When host 0 sent initiations, in ms since the first.
fn times(net: &Net) -> Vec<u64> {
    let at = net.initiations_of(0);
    at.iter()
        .map(|time| time.saturating_since(at[0]).as_millis() as u64)
        .collect()
}

#[test]
fn an_answer_under_no_key_of_ours_is_asked_again_after_40_ms() {
    let mut net = Net::pair();
    speaks_control(&mut net, 0, false);
    install(&mut net, 1, 1);
    net.connect(0, 1);
    net.run(200);
    let expected = 2 * LATENCY + Duration::from_millis(40);
    let times = times(&net);
    assert_eq!(times.len(), 2);
    assert!(
        times[1].abs_diff(expected.as_millis() as u64) <= 2,
        "{times:?}"
    );
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    // The next attempt has its own.
    net.rekey(0, 1);
    net.run(200);
    assert_eq!(net.initiations_of(0).len(), 4);
    talk(&mut net);
}

#[test]
fn it_is_asked_again_once_per_attempt() {
    let mut net = Net::pair();
    speaks_control(&mut net, 0, false);
    install(&mut net, 1, 1);
    install_alternate(&mut net, 1, 2);
    net.connect(0, 1);
    net.run(6_000);
    let times = times(&net);
    assert_eq!(times.len(), 3);
    assert!(times[2] > 5_000, "{times:?}");
    assert_eq!(made_with(&net, 0), Some((0, 1)));
}

#[test]
fn a_stock_peer_is_not_asked_again() {
    let mut net = Net::pair();
    install(&mut net, 1, 1);
    net.connect(0, 1);
    net.run(4_000);
    assert_eq!(times(&net), [0]);
}

#[test]
fn a_forged_answer_does_not_spoil_the_true_one() {
    let mut net = Net::pair();
    speaks_control(&mut net, 0, false);
    net.lost = Box::new(|sent| sent.is_response());
    net.connect(0, 1);
    net.run(20);
    let genuine = net.last(1, Sent::is_response);
    let mut forged = genuine.bytes.clone();
    forged[12] ^= 1;
    let key = hash(&[b"mac1----", net.id(0).as_bytes()]);
    let mac1 = mac(&key, &forged[..60]);
    forged[60..76].copy_from_slice(&mac1);
    for _ in 0..5 {
        net.deliver(genuine.from, 0, &forged);
    }
    assert_eq!(dropped(&net, 0, DropReason::HandshakeInvalid), 5);
    net.run(30);
    net.lost = Box::new(|_| false);
    net.deliver(genuine.from, 0, &genuine.bytes);
    assert!(net.ready(0, 1));
    net.run(1_000);
    assert_eq!(times(&net), [0], "and nothing is asked again");
    talk(&mut net);
}

#[test]
fn an_expected_initiation_may_follow_within_20_ms_but_only_one() {
    let mut net = Net::pair();
    net.connect(0, 1);
    net.run(15);
    speaks_control(&mut net, 1, true);
    for floods in [0, 1] {
        initiate_for_upgrade(&mut net, 0);
        net.run(15);
        assert_eq!(dropped(&net, 1, DropReason::HandshakeFlood), floods);
    }
    assert_eq!(net.sent_by(1).filter(|sent| sent.is_response()).count(), 2);

    let mut net = Net::pair();
    net.connect(0, 1);
    net.run(15);
    initiate_for_upgrade(&mut net, 0);
    net.run(15);
    assert_eq!(dropped(&net, 1, DropReason::HandshakeFlood), 1);
}

#[test]
fn what_does_not_authenticate_does_not_use_up_the_expectation() {
    let mut net = Net::pair();
    net.connect(0, 1);
    net.run(11);
    let old = net.last(0, Sent::is_initiation);
    speaks_control(&mut net, 1, true);
    net.deliver(old.from, 1, &old.bytes);
    let mut forged = old.bytes.clone();
    forged[100] ^= 1;
    net.deliver(old.from, 1, &forged);
    initiate_for_upgrade(&mut net, 0);
    net.run(15);
    assert_eq!(dropped(&net, 1, DropReason::HandshakeReplayed), 1);
    assert_eq!(dropped(&net, 1, DropReason::HandshakeFlood), 0);
    assert_eq!(net.sent_by(1).filter(|sent| sent.is_response()).count(), 2);
}

#[test]
fn an_upgrade_takes_the_place_of_a_handshake_under_way() {
    let mut net = crate::upgraded_pair();
    net.rekey(0, 1);
    net.run(30);
    install(&mut net, 0, 2);
    install(&mut net, 1, 2);
    net.rekey(0, 1);
    initiate_for_upgrade(&mut net, 0);
    assert_eq!(
        net.hosts[0].node.usage().indices,
        3,
        "of current, previous, pending"
    );
    net.run(200);
    assert_eq!(made_with(&net, 0), Some((2, 2)));
    assert_eq!(made_with(&net, 1), Some((2, 2)));
    talk(&mut net);
}
