//! What a session may carry, and what happens when the gate moves.

use crate::net::{Net, Sent};
use crate::raw::Raw;
use crate::{
    L2, dropped, forget, gated_pair, initiations, install, lost_sessions, made_with,
    pair_below_the_gate, pair_with_both, set_gate, set_gates, talk, upgraded_pair,
};
use std::time::Duration;
use wiremesh_core::{DropReason, Event, GATE_CLOSED, GATE_OPEN, NotReady, PeerState, Usage};

#[test]
fn a_session_below_the_gate_carries_no_data() {
    let mut net = pair_below_the_gate();
    assert_eq!(net.hosts[0].established() + net.hosts[1].established(), 0);
    assert!(!net.ready(0, 1) && !net.ready(1, 0));
    assert_eq!(net.state(0, 1), PeerState::Connected);
    let (status, key, now) = (net.status(0, 1), net.key(0, 1), net.now);
    assert_eq!((status.gate, status.session_level), (L2, Some(1)));
    for n in 0..20 {
        net.send(0, 1, &[n]);
        net.send(1, 0, &[n]);
        net.run(500);
    }
    assert!(net.log.iter().all(|sent| !sent.is_data()), "nothing leaves");
    assert_eq!(net.hosts[0].node.usage().staged_packets, 20, "it waits");
    let mut out = Vec::new();
    let sealed = net.hosts[0].node.seal_packet(now, key, 9, &mut out, |_| ());
    assert_eq!((sealed, out.len()), (Err(NotReady::NoSession), 0));
    // Without a key that could give more, a further handshake would only repeat the first.
    net.connect(0, 1);
    assert_eq!(initiations(&net), 1);

    install(&mut net, 0, 1);
    install(&mut net, 1, 1);
    net.rekey(0, 1);
    net.run(100);
    assert_eq!(net.payloads(1).len(), 20);
    assert_eq!(net.payloads(0).len(), 20);
    assert_eq!(net.hosts[0].established(), 1);
    assert_eq!(net.hosts[1].established(), 1);
    assert_eq!(made_with(&net, 0), Some((1, L2)));
}

#[test]
fn data_on_a_session_below_the_gate_is_dropped_and_counted() {
    // Host 0 has no gate, as a stock peer or an attacker that holds the key of one.
    let mut net = Net::pair();
    set_gate(&mut net, 1, L2);
    net.connect(0, 1);
    net.run(100);
    assert!(net.ready(0, 1) && !net.ready(1, 0));
    net.send(0, 1, b"early");
    net.run(100);
    assert_eq!(net.payloads(1), Vec::<Vec<u8>>::new());
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 1);
    // Data that confirms the session is no exception.
    let mut net = Net::pair();
    set_gate(&mut net, 1, L2);
    net.send(0, 1, b"first");
    net.run(100);
    assert_eq!(net.payloads(1), Vec::<Vec<u8>>::new());
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 1);
}

#[test]
fn no_level_passes_a_closed_gate() {
    let mut net = upgraded_pair();
    let key = net.key(0, 1);
    net.hosts[0]
        .node
        .install_psk(key, crate::psk(9), 9, u8::MAX);
    let key = net.key(1, 0);
    net.hosts[1]
        .node
        .install_psk(key, crate::psk(9), 9, u8::MAX);
    set_gates(&mut net, GATE_CLOSED);
    net.rekey(0, 1);
    net.run(6_000);
    assert_eq!(made_with(&net, 0), Some((9, GATE_CLOSED - 1)));
    net.send(0, 1, b"x");
    net.run(1_000);
    assert!(!net.ready(0, 1) && net.payloads(1).is_empty());
}

#[test]
fn a_session_below_the_gate_displaces_none_at_it() {
    let mut net = pair_with_both();
    for at in 0..2 {
        assert_eq!(made_with(&net, at), Some((1, L2)));
        // One is in use; of a younger one status says nothing.
        assert_eq!(net.hosts[at].established(), 1);
        assert_eq!(lost_sessions(&net, at), 0);
        assert!(net.hosts[at].node.usage().indices >= 2);
    }
    talk(&mut net);
    // Nor does the next one, nor one that is never confirmed.
    net.rekey(0, 1);
    net.run(6_000);
    net.lost = Box::new(|sent| sent.is_keepalive());
    net.rekey(1, 0);
    net.run(6_000);
    net.lost = Box::new(|_| false);
    talk(&mut net);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 0);
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 0);
}

#[test]
fn sessions_below_the_gate_do_not_cut_off_data_on_the_session_before() {
    let mut net = upgraded_pair();
    net.lost = Box::new(|sent| sent.is_data());
    net.send(0, 1, b"late");
    let late = net.last(0, Sent::is_data);
    net.lost = Box::new(|_| false);
    net.rekey(0, 1);
    net.run(100);
    forget(&mut net, 1);
    for _ in 0..2 {
        net.rekey(1, 0);
        net.run(6_000);
    }
    net.deliver(late.from, 1, &late.bytes);
    assert_eq!(net.payloads(1), [b"late".to_vec()]);
    talk(&mut net);
}

#[test]
fn when_the_gate_rises_the_younger_session_carries_control_packets() {
    let mut net = pair_with_both();
    set_gates(&mut net, 3);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    assert_eq!(made_with(&net, 1), Some((0, 1)));

    let mut net = pair_below_the_gate();
    net.run(1_000);
    install(&mut net, 0, 1);
    install(&mut net, 1, 1);
    net.rekey(0, 1);
    net.run(100);
    set_gates(&mut net, 3);
    assert_eq!(made_with(&net, 0), Some((1, L2)));
    assert_eq!(made_with(&net, 1), Some((1, L2)));
}

#[test]
fn when_the_gate_rises_sealing_stops_at_once_and_opening_5_seconds_later() {
    let mut net = Net::connected_pair();
    net.lost = Box::new(|sent| sent.is_data());
    net.send(0, 1, b"in time, on the session before");
    let in_time = net.last(0, Sent::is_data);
    net.send(0, 1, b"late, on the session before");
    let late = net.last(0, Sent::is_data);
    net.lost = Box::new(|_| false);
    net.rekey(0, 1);
    net.run(100);

    set_gate(&mut net, 1, L2);
    assert!(!net.ready(1, 0));
    assert_eq!(lost_sessions(&net, 1), 1);
    assert_eq!(net.state(1, 0), PeerState::Connected, "for control packets");
    net.send(1, 0, b"waits");
    assert!(net.sent_by(1).all(|sent| !sent.is_data()));
    net.deliver(in_time.from, 1, &in_time.bytes);
    net.send(0, 1, b"in time");
    net.run(4_900);
    assert_eq!(
        net.payloads(1),
        [
            b"in time, on the session before".to_vec(),
            b"in time".to_vec()
        ]
    );
    net.run(200);
    net.send(0, 1, b"late");
    net.deliver(late.from, 1, &late.bytes);
    net.run(100);
    assert_eq!(net.payloads(1), Vec::<Vec<u8>>::new());
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 2);

    // The session in use is told to be gone once, not again when it expires.
    net.run_for(Duration::from_secs(200));
    assert_eq!(lost_sessions(&net, 1), 1);
}

#[test]
fn the_grace_is_not_for_sessions_that_were_below_before() {
    let mut net = pair_below_the_gate();
    set_gate(&mut net, 0, GATE_OPEN);
    set_gate(&mut net, 1, 3);
    net.send(0, 1, b"x");
    net.run(100);
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 1);
    // Nor for those that come after.
    let mut net = Net::connected_pair();
    set_gate(&mut net, 1, L2);
    net.rekey(0, 1);
    net.run(100);
    net.send(0, 1, b"x");
    net.run(100);
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 1);
}

#[test]
fn when_the_gate_falls_the_session_below_it_serves() {
    let mut net = pair_below_the_gate();
    net.send(0, 1, b"waited");
    set_gates(&mut net, GATE_OPEN);
    for at in 0..2 {
        assert!(net.ready(at, 1 - at));
        let key = net.key(at, 1 - at);
        let event = Event::SessionEstablished {
            peer: key,
            initiator: at == 0,
            handshake_time: None,
        };
        let events = &net.hosts[at].events;
        assert_eq!(events.iter().filter(|e| **e == event).count(), 1);
    }
    net.run(100);
    assert_eq!(net.payloads(1), [b"waited".to_vec()]);
    assert_eq!(initiations(&net), 1);
    talk(&mut net);
    // A move that changes nothing tells nothing.
    set_gates(&mut net, GATE_OPEN);
    assert_eq!(net.hosts[0].established(), 1);
    assert_eq!(lost_sessions(&net, 0), 0);
}

#[test]
fn a_session_that_was_below_serves_when_the_better_one_has_expired() {
    let mut net = pair_with_both();
    set_gates(&mut net, GATE_OPEN);
    assert_eq!(made_with(&net, 0), Some((1, L2)), "the better one goes on");
    let before = initiations(&net);
    net.run_for(Duration::from_secs(118));
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    net.send(0, 1, b"x");
    net.run(15);
    assert_eq!(net.payloads(1), [b"x".to_vec()]);
    assert_eq!(initiations(&net), before, "without a handshake");
    assert_eq!(lost_sessions(&net, 0), 0);
}

#[test]
fn packets_that_wait_behind_a_gate_go_after_90_seconds() {
    let mut net = pair_below_the_gate();
    net.run(10_000);
    for n in 0..3 {
        net.send(0, 1, &[n]);
    }
    net.run(50_000);
    net.send(0, 1, &[9]);
    net.run(39_900);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 0);
    net.run(200);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 3);
    assert_eq!(net.hosts[0].node.usage().staged_packets, 1);
    net.run(50_000);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 4);
    assert_eq!(initiations(&net), 1);
    // In the end nothing is left.
    net.run_for(Duration::from_secs(200));
    let empty = Usage {
        peers: 1,
        ..Usage::default()
    };
    assert_eq!(net.hosts[0].node.usage(), empty);
    assert_eq!(net.hosts[1].node.usage(), empty);
}

#[test]
fn packets_that_still_wait_when_the_session_below_expires_start_a_handshake() {
    let mut net = pair_below_the_gate();
    net.run(170_000);
    net.send(0, 1, b"waits");
    net.run(5_000);
    assert_eq!(initiations(&net), 1);
    net.run(6_000);
    assert_eq!(initiations(&net), 2);
}

#[test]
fn a_packet_starts_a_handshake_once_a_key_is_there_that_can_help() {
    let mut net = pair_below_the_gate();
    net.run(10_000);
    install(&mut net, 0, 1);
    install(&mut net, 1, 1);
    net.send(0, 1, b"x");
    net.send(0, 1, b"y");
    net.run(100);
    assert_eq!(net.payloads(1), [b"x".to_vec(), b"y".to_vec()]);
    assert_eq!(initiations(&net), 2);
}

#[test]
fn a_gate_is_of_one_peer_and_outlives_its_sessions() {
    let mut net = gated_pair();
    net.add(|_| ());
    net.introduce(0, 2);
    net.introduce(2, 0);
    net.send(0, 2, b"to another peer");
    net.run(100);
    assert_eq!(net.payloads(2), [b"to another peer".to_vec()]);
    net.connect(0, 1);
    net.run_for(Duration::from_secs(400));
    assert_eq!(net.hosts[0].node.usage().links, 0);
    assert_eq!(net.status(0, 1).gate, L2);
    net.connect(0, 1);
    net.run(100);
    assert!(!net.ready(0, 1));
}

#[test]
fn the_gate_stands_before_a_raw_peer_too() {
    let mut net = Net::new();
    let mut raw = Raw::connect(&mut net);
    raw.send_data(&mut net, b"open");
    let now = net.now;
    net.hosts[0].node.set_gate_level(now, raw.key, L2);
    net.run(5_000);
    raw.send_data(&mut net, b"below");
    assert_eq!(net.payloads(0), [b"open".to_vec()]);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 1);
}
