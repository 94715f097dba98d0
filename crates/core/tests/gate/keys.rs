//! Which preshared key a response is tried under and an initiation answered with.

use crate::net::{Net, Sent};
use crate::{
    dropped, forget, install, install_alternate, made_with, psk, set_gates, talk, upgraded_pair,
};
use std::time::Duration;
use wiremesh_core::DropReason;

#[test]
fn a_response_is_taken_under_any_key_of_the_initiator() {
    for (answered_with, expected) in [(None, (0, 1)), (Some(1), (1, 2)), (Some(2), (2, 2))] {
        let mut net = Net::pair();
        install(&mut net, 0, 1);
        install_alternate(&mut net, 0, 2);
        if let Some(epoch) = answered_with {
            install(&mut net, 1, epoch);
        }
        net.connect(0, 1);
        net.run(100);
        assert_eq!(made_with(&net, 0), Some(expected));
        assert_eq!(made_with(&net, 1), Some(expected));
        assert_eq!(net.initiations_of(0).len(), 1);
        talk(&mut net);
    }
}

#[test]
fn an_initiator_that_cannot_use_the_answer_is_answered_with_the_next_key() {
    for (held, tries) in [(Some(1), 1), (Some(2), 2), (None, 3)] {
        let mut net = Net::pair();
        install(&mut net, 1, 1);
        install_alternate(&mut net, 1, 2);
        if let Some(epoch) = held {
            install(&mut net, 0, epoch);
            // The boot keys differ, so that only this key is common.
            let key = net.key(0, 1);
            net.hosts[0].node.set_preshared_key(key, psk(77), 0);
        }
        net.connect(0, 1);
        net.run(5_500 * (tries - 1) + 100);
        assert_eq!(made_with(&net, 0).map(|(epoch, _)| epoch), held.or(Some(0)));
        assert_eq!(made_with(&net, 1), made_with(&net, 0));
        assert_eq!(net.initiations_of(0).len() as u64, tries);
        let refused = dropped(&net, 0, DropReason::HandshakeInvalid);
        assert_eq!(refused, tries - 1);
        talk(&mut net);

        // The next handshake starts with the first key again.
        net.rekey(0, 1);
        net.run(100);
        let refused_again = dropped(&net, 0, DropReason::HandshakeInvalid) - refused;
        assert_eq!(refused_again, u64::from(tries > 1));
    }
}

#[test]
fn replayed_initiations_do_not_turn_the_circle() {
    let mut net = Net::pair();
    install(&mut net, 1, 1);
    net.lost = Box::new(|sent| sent.is_response());
    net.connect(0, 1);
    net.run(1_000);
    let initiation = net.last(0, Sent::is_initiation);
    for _ in 0..3 {
        net.deliver(initiation.from, 1, &initiation.bytes);
    }
    assert_eq!(dropped(&net, 1, DropReason::HandshakeReplayed), 3);
    // The second initiation is answered with the second key, the boot key.
    net.lost = Box::new(|_| false);
    net.run(5_000);
    assert_eq!(net.initiations_of(0).len(), 2);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
}

#[test]
fn the_circle_starts_anew_when_the_attempt_that_was_answered_is_over() {
    // The initiator has the session, but what it sends to confirm is lost, and it has no data.
    for (pause, handshake_passes) in [(50, false), (100, true)] {
        let mut net = Net::pair();
        set_gates(&mut net, 2);
        install(&mut net, 0, 1);
        install(&mut net, 1, 1);
        net.lost = Box::new(|sent| sent.is_keepalive());
        net.connect(0, 1);
        net.run_for(Duration::from_secs(pause));
        assert_eq!(net.hosts[0].established(), 1);
        net.rekey(0, 1);
        net.run(100);
        assert_eq!(net.hosts[0].established() == 2, handshake_passes, "{pause}");
    }
}

#[test]
fn a_new_key_takes_over_without_a_lost_packet_in_either_order() {
    // As at a rotation: one side has the key first, the other one knows it as the alternate.
    for (first, initiator) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = upgraded_pair();
        install(&mut net, first, 2);
        install_alternate(&mut net, 1 - first, 2);
        net.rekey(initiator, 1 - initiator);
        for ms in 0..300u32 {
            net.send(0, 1, &ms.to_le_bytes());
            net.send(1, 0, &ms.to_le_bytes());
            net.run(1);
        }
        net.run(100);
        assert_eq!(net.payloads(0).len(), 300);
        assert_eq!(net.payloads(1).len(), 300);
        let expected = if initiator == first { (1, 2) } else { (2, 2) };
        assert_eq!(made_with(&net, 0), Some(expected));
        assert_eq!(made_with(&net, 1), Some(expected));
        // Whoever has not the new one in front puts it there now; nothing else is needed.
        install(&mut net, 1 - first, 2);
        net.rekey(initiator, 1 - initiator);
        net.run(100);
        assert_eq!(made_with(&net, 0), Some((2, 2)));
        for at in 0..2 {
            let key = net.key(at, 1 - at);
            assert!(net.hosts[at].node.settle_psk(key, 2));
        }
        net.rekey(1 - initiator, initiator);
        net.run(100);
        assert_eq!(made_with(&net, 1), Some((2, 2)));
        talk(&mut net);
    }
}

#[test]
fn a_settled_key_has_no_alternate() {
    let mut net = upgraded_pair();
    install(&mut net, 0, 2);
    let key = net.key(0, 1);
    assert!(net.hosts[0].node.settle_psk(key, 2));
    // Host 1 has only the old key and the boot key, and host 0 does not take the old one.
    let before = dropped(&net, 0, DropReason::HandshakeInvalid);
    net.rekey(0, 1);
    net.run(100);
    assert_eq!(dropped(&net, 0, DropReason::HandshakeInvalid), before + 1);
    talk(&mut net);
}

#[test]
fn crossing_handshakes_settle_on_the_higher_level() {
    // One has the key in front, so its handshakes give a session under the boot key: the other
    // one answers with that. The other one's own handshake gives a session at L2.
    let cases = [0, 1].into_iter().flat_map(|holder| {
        let firsts = [0, 1].into_iter();
        firsts.flat_map(move |first| [0, 3, 9, 15, 25].map(|apart| (holder, first, apart)))
    });
    for (holder, first, apart) in cases {
        // Where both pass, the later of two handshakes that do not cross wins, as ever.
        let gates: &[u8] = if apart < 10 { &[1, 2] } else { &[2] };
        for gate in gates {
            let mut net = Net::pair();
            set_gates(&mut net, *gate);
            install(&mut net, holder, 1);
            install_alternate(&mut net, 1 - holder, 1);
            net.connect(first, 1 - first);
            net.run(apart);
            net.rekey(1 - first, first);
            net.run(200);
            let place = format!("holder {holder} first {first} apart {apart} gate {gate}");
            assert_eq!(made_with(&net, 0), Some((1, 2)), "{place}");
            assert_eq!(made_with(&net, 1), Some((1, 2)), "{place}");
            let roles = [net.status(0, 1).initiator, net.status(1, 0).initiator];
            assert_eq!(roles[1 - holder], Some(true), "{place}");
            assert_eq!(roles[holder], Some(false), "{place}");
            talk(&mut net);
            assert_eq!(crate::initiations(&net), 2, "{place}");
        }
    }
}

#[test]
fn the_loser_of_two_crossing_handshakes_does_not_turn_the_circle() {
    for rekeys in [0, 1] {
        let mut net = Net::pair();
        set_gates(&mut net, 2);
        install(&mut net, 0, 1);
        install(&mut net, 1, 1);
        net.connect(0, 1);
        net.connect(1, 0);
        net.run(1_000);
        net.rekey(rekeys, 1 - rekeys);
        net.run(100);
        for at in 0..2 {
            let status = net.status(at, 1 - at);
            assert_eq!(status.session_level, Some(2));
            let young = status.session_age < Some(Duration::from_millis(500));
            assert!(young, "the rekey was answered under the key in front");
        }
    }
}

#[test]
fn a_key_that_is_installed_leaves_the_live_session_alone() {
    let mut net = Net::connected_pair();
    install(&mut net, 0, 1);
    install(&mut net, 1, 1);
    talk(&mut net);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    assert_eq!(crate::initiations(&net), 1);
    net.rekey(0, 1);
    net.run(100);
    assert_eq!(made_with(&net, 0), Some((1, 2)));
    forget(&mut net, 0);
    forget(&mut net, 1);
    talk(&mut net);
    net.rekey(1, 0);
    net.run(100);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    assert_eq!(lost_events(&net), 0);
}

fn lost_events(net: &Net) -> usize {
    crate::lost_sessions(net, 0) + crate::lost_sessions(net, 1)
}
