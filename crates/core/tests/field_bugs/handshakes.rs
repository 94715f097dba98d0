//! Handshakes that cross, are forged, are lost, or meet a peer that has restarted.

use crate::net::{LATENCY, Net, Sent};
use std::time::Duration;
use wiremesh_core::{DropReason, PeerState, Usage};
use wiremesh_noise::crypto::{hash, mac};
use wiremesh_wire::NodeId;

fn on_one_session(net: &Net) -> bool {
    let (a, b) = (net.status(0, 1).initiator, net.status(1, 0).initiator);
    a.is_some() && b.is_some() && a != b
}

fn talk(net: &mut Net) {
    net.send(0, 1, b"there");
    net.send(1, 0, b"back");
    net.run(100);
    assert_eq!(net.payloads(1), [b"there".to_vec()]);
    assert_eq!(net.payloads(0), [b"back".to_vec()]);
}

#[test]
fn simultaneous_initiation_settles_on_one_session() {
    for first in [0, 1] {
        let mut net = Net::pair();
        net.connect(first, 1 - first);
        net.connect(1 - first, first);
        net.run(200);
        talk(&mut net);
        assert!(on_one_session(&net));
        let initiations = net.initiations_of(0).len() + net.initiations_of(1).len();
        net.run(30_000);
        assert_eq!(
            net.initiations_of(0).len() + net.initiations_of(1).len(),
            initiations
        );
    }
}

#[test]
fn simultaneous_initiation_with_one_message_lost_settles_too() {
    // Each of the six datagrams is the lost one in turn.
    for lost in 0..6 {
        let mut net = Net::pair();
        let mut n = 0;
        net.lost = Box::new(move |_| {
            n += 1;
            n - 1 == lost
        });
        net.connect(0, 1);
        net.connect(1, 0);
        net.run(7_000);
        talk(&mut net);
        net.run(7_000);
        talk(&mut net);
        assert!(on_one_session(&net), "datagram {lost} lost");
    }
}

#[test]
fn both_sides_rekeying_at_once_lose_no_packet() {
    for (wait, lost) in [
        (0, None),
        (0, Some(0)),
        (3, None),
        (15, None),
        (15, Some(2)),
    ] {
        let mut net = Net::connected_pair();
        net.run(1_000);
        let mut n = 0;
        net.lost = Box::new(move |sent: &Sent| {
            let handshake = sent.is_initiation() || sent.is_response();
            n += usize::from(handshake);
            handshake && Some(n - 1) == lost
        });
        net.rekey(0, 1);
        net.run(wait);
        net.rekey(1, 0);
        for ms in 0..500u32 {
            net.send(0, 1, &ms.to_le_bytes());
            net.send(1, 0, &ms.to_le_bytes());
            net.run(1);
        }
        net.run(7_000);
        assert_eq!(net.payloads(0).len(), 500, "{wait} {lost:?}");
        assert_eq!(net.payloads(1).len(), 500, "{wait} {lost:?}");
        talk(&mut net);
        assert!(on_one_session(&net));
    }
}

/// A response with a right `mac1`, which anyone can make, and nothing else right.
fn forged_response(genuine: &Sent, victim: &NodeId) -> Vec<u8> {
    let mut bytes = genuine.bytes.clone();
    bytes[12] ^= 1;
    let key = hash(&[b"mac1----", victim.as_bytes()]);
    let mac1 = mac(&key, &bytes[..60]);
    bytes[60..76].copy_from_slice(&mac1);
    bytes
}

#[test]
fn spoofed_bad_response_does_not_clear_a_pending_handshake() {
    let mut net = Net::pair();
    net.lost = Box::new(|sent| sent.is_response());
    net.connect(0, 1);
    net.run(100);
    let genuine = net.last(1, Sent::is_response);
    let forged = forged_response(&genuine, &net.id(0));
    for _ in 0..3 {
        net.deliver(genuine.from, 0, &forged);
    }
    let counters = net.hosts[0].node.counters();
    assert_eq!(counters.dropped(DropReason::HandshakeInvalid), 3);
    assert_eq!(net.state(0, 1), PeerState::Handshaking);
    net.deliver(genuine.from, 0, &genuine.bytes);
    assert!(net.ready(0, 1), "the genuine response still counts");
    net.run(100);
    talk(&mut net);
    // A second copy of it finds no handshake any more.
    net.deliver(genuine.from, 0, &genuine.bytes);
    assert_eq!(net.hosts[0].established(), 1);
}

#[test]
fn new_key_is_not_used_before_the_peer_confirmed_it() {
    let mut net = Net::connected_pair();
    net.lost = Box::new(|sent| sent.is_response());
    let old = net.status(1, 0).session_age;
    net.run(1_000);
    net.rekey(0, 1);
    net.run(50);
    // The responder has the new keys, the initiator does not.
    net.send(1, 0, b"on the old session");
    net.run(50);
    assert_eq!(net.payloads(0), [b"on the old session".to_vec()]);
    assert!(net.status(1, 0).session_age > old);

    // With no old session, nothing is sealed: the packet waits and an initiation goes out.
    let mut net = Net::pair();
    net.lost = Box::new(|sent| sent.is_response());
    net.connect(0, 1);
    net.run(50);
    assert_eq!(net.state(1, 0), PeerState::AwaitingConfirmation);
    net.send(1, 0, b"waits");
    assert!(net.sent_by(1).all(|sent| sent.kind() != 4));
    net.lost = Box::new(|_| false);
    net.run(6_000);
    assert_eq!(net.payloads(0), [b"waits".to_vec()]);
}

#[test]
fn initiator_confirms_the_session_at_once_without_data() {
    let mut net = Net::pair();
    net.connect(0, 1);
    net.run_for(3 * LATENCY);
    assert!(
        net.ready(1, 0),
        "the keepalive behind the response confirms"
    );
}

#[test]
fn stale_session_after_one_side_restarts_recovers() {
    for (restarted, speaks) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = Net::connected_pair();
        net.run(10_000);
        net.restart(restarted, 9, true);
        net.introduce(restarted, 1 - restarted);
        // One that restarted speaks at once; the other one learns by the lack of an answer.
        let mut reached = None;
        for second in 0..20u32 {
            net.send(speaks, 1 - speaks, &second.to_le_bytes());
            net.run(1_000);
            if !net.payloads(1 - speaks).is_empty() {
                reached.get_or_insert(second);
            }
        }
        let limit = if restarted == speaks { 0 } else { 16 };
        assert!(
            reached.is_some_and(|s| s <= limit),
            "{restarted} {speaks} {reached:?}"
        );
        talk(&mut net);
    }
}

#[test]
fn failed_handshakes_keep_no_memory() {
    let empty = Usage {
        peers: 1,
        ..Usage::default()
    };
    // As initiator, with packets waiting.
    let mut net = Net::pair();
    net.lost = Box::new(|_| true);
    for n in 0..10 {
        net.send(0, 1, &[n]);
    }
    net.run(100_000);
    assert_eq!(net.hosts[0].node.usage(), empty);
    assert_eq!(
        net.hosts[0].node.counters().dropped(DropReason::NoAnswer),
        10
    );
    assert_eq!(net.state(0, 1), PeerState::NoAnswer);

    // As responder, of initiations that never go on.
    let mut net = Net::pair();
    net.lost = Box::new(|sent| sent.is_response());
    for _ in 0..100 {
        net.rekey(0, 1);
        net.run(100);
        assert!(net.hosts[1].node.usage().indices <= 4);
    }
    net.run(300_000);
    assert_eq!(net.hosts[1].node.usage(), empty);

    // Without an endpoint nothing can be sent.
    let mut net = Net::new();
    net.add(|_| ());
    net.add(|_| ());
    net.introduce_with(0, 1, |_| ());
    net.send(0, 1, b"nowhere");
    net.run_for(Duration::from_secs(181));
    assert_eq!(net.hosts[0].node.usage(), empty);
    assert!(net.log.is_empty());
}

#[test]
fn an_attempt_without_endpoint_ends_when_the_peer_comes() {
    let mut net = Net::new();
    net.add(|_| ());
    net.add(|_| ());
    net.introduce_with(0, 1, |_| ());
    net.introduce(1, 0);
    net.send(0, 1, b"waits for the peer");
    net.run(1_000);
    net.connect(1, 0);
    net.run(100);
    assert_eq!(net.payloads(1), [b"waits for the peer".to_vec()]);
    let failures = net.hosts[0].failures();
    net.run(100_000);
    net.send(1, 0, b"x");
    net.run(1_000);
    assert_eq!(
        net.hosts[0].failures(),
        failures,
        "no attempt is given up beside a session"
    );
    assert_eq!(net.state(0, 1), PeerState::Connected);
}
