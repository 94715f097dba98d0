//! Timers, indices and memory of sessions below the gate; and that whatever has happened, an
//! agreed key heals it.

use crate::net::{Net, Sent};
use crate::{
    L2, dropped, forget, gated_pair, initiations, install, install_alternate, lost_sessions,
    made_with, pair_below_the_gate, pair_with_both, psk, send_control, set_gate, set_gates, talk,
    upgraded_pair,
};
use proptest::prelude::*;
use std::time::Duration;
use wiremesh_core::{DropReason, Event, PeerState};

fn keepalives_of(net: &Net, at: usize) -> usize {
    net.sent_by(at).filter(|sent| sent.is_keepalive()).count()
}

#[test]
fn a_control_packet_without_an_answer_is_answered_by_a_keepalive() {
    let mut net = pair_below_the_gate();
    assert_eq!(keepalives_of(&net, 1), 0);
    send_control(&mut net, 0, b"message");
    net.run(9_900);
    assert_eq!(keepalives_of(&net, 1), 0);
    net.run(200);
    assert_eq!(keepalives_of(&net, 1), 1);
    net.run(20_000);
    assert_eq!(initiations(&net), 1, "so nobody misses an answer");
    assert_eq!(net.state(0, 1), PeerState::Connected);
}

#[test]
fn a_session_below_the_gate_on_which_nothing_comes_back_is_renewed() {
    let mut net = pair_below_the_gate();
    send_control(&mut net, 0, b"before");
    net.lost = Box::new(|sent| sent.kind() == 4);
    net.run(14_900);
    assert_eq!(initiations(&net), 1);
    net.run(600);
    assert_eq!(initiations(&net), 2);
}

#[test]
fn the_initiator_of_a_session_below_the_gate_rekeys_it() {
    // On sending after 120 s, the initiator only.
    let mut net = pair_below_the_gate();
    net.run(119_000);
    send_control(&mut net, 0, b"x");
    net.run(2_000);
    send_control(&mut net, 1, b"x");
    net.run(100);
    assert_eq!(initiations(&net), 1);
    send_control(&mut net, 0, b"x");
    net.run(100);
    assert_eq!(initiations(&net), 2);
    let age = net.status(1, 0).session_age;
    assert!(age.is_some_and(|age| age < Duration::from_secs(1)));

    // On receipt after 165 s.
    let mut net = pair_below_the_gate();
    net.run(166_000);
    send_control(&mut net, 1, b"x");
    net.run(100);
    assert_eq!(initiations(&net), 2);
}

#[test]
fn a_session_for_data_is_rekeyed_and_one_below_it_is_left_alone() {
    let mut net = pair_with_both();
    let before = initiations(&net);
    // The one for data is 67 s old and the other one 1 s, made by host 1.
    net.run_for(Duration::from_secs(55));
    net.send(0, 1, b"x");
    net.run(100);
    assert_eq!(initiations(&net), before + 1);
    assert_eq!(net.payloads(1), [b"x".to_vec()]);
}

#[test]
fn a_persistent_keepalive_holds_a_session_below_the_gate() {
    let mut net = pair_below_the_gate();
    let (key, now) = (net.key(0, 1), net.now);
    let every = Some(Duration::from_secs(25));
    net.hosts[0].node.set_persistent_keepalive(now, key, every);
    net.run(110_000);
    assert_eq!(keepalives_of(&net, 0), 1 + 5);
    assert_eq!(initiations(&net), 1);
}

#[test]
fn a_changed_address_of_ours_is_told_on_a_session_below_the_gate() {
    let mut net = pair_below_the_gate();
    let before = keepalives_of(&net, 0);
    let now = net.now;
    net.hosts[0].node.on_local_address_changed(now);
    net.run(100);
    assert_eq!(keepalives_of(&net, 0), before + 1);
    assert_eq!(initiations(&net), 1);
}

#[test]
fn a_clock_step_ends_all_sessions_and_tells_of_those_for_data() {
    for (mut net, told) in [(pair_below_the_gate(), 0), (pair_with_both(), 1)] {
        net.step_wall(Duration::from_secs(60));
        let now = net.now;
        net.hosts[0].node.handle_timeout(now);
        net.drain();
        assert_eq!(lost_sessions(&net, 0), told);
        assert_eq!(net.hosts[0].node.usage().indices, 0);
        assert!(net.hosts[0].events.contains(&Event::ClockStepped));
    }
}

#[test]
fn of_a_session_below_the_gate_no_loss_is_told() {
    let mut net = pair_below_the_gate();
    net.run_for(Duration::from_secs(400));
    assert_eq!(lost_sessions(&net, 0) + lost_sessions(&net, 1), 0);
    assert_eq!(net.state(0, 1), PeerState::Idle);

    let mut net = pair_with_both();
    net.run_for(Duration::from_secs(120));
    // That for data is gone, the younger one is not.
    assert_eq!(lost_sessions(&net, 0), 1);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    net.run_for(Duration::from_secs(300));
    assert_eq!(lost_sessions(&net, 0), 1);
    assert_eq!(net.hosts[0].node.usage().indices, 0);
}

#[test]
fn while_handshakes_are_tried_their_end_decides_how_long_packets_wait() {
    let mut net = gated_pair();
    net.lost = Box::new(|_| true);
    net.send(0, 1, b"first");
    net.run(60_000);
    net.send(0, 1, b"second");
    net.run(110_000);
    assert_eq!(dropped(&net, 0, DropReason::NoAnswer), 1);
    assert_eq!(net.hosts[0].node.usage().staged_packets, 1);
    net.run(15_000);
    assert_eq!(dropped(&net, 0, DropReason::NoAnswer), 2);
    assert_eq!(dropped(&net, 0, DropReason::BelowLevel), 0);
}

/// Host 1 with every place taken: current, previous, next, below and a pending handshake.
fn pair_with_everything() -> Net {
    let mut net = pair_with_both();
    install(&mut net, 1, 1);
    net.rekey(0, 1);
    net.run(6_000);
    net.lost = Box::new(|sent| sent.is_response() || sent.is_keepalive());
    net.rekey(0, 1);
    net.run(100);
    net.rekey(1, 0);
    net.run(100);
    net
}

#[test]
fn at_most_five_indices_are_held_and_all_are_given_back() {
    let mut net = pair_with_everything();
    assert_eq!(net.hosts[1].node.usage().indices, 5);
    for _ in 0..20 {
        net.rekey(0, 1);
        net.rekey(1, 0);
        net.run(100);
        assert!(net.hosts[0].node.usage().indices <= 5);
        assert!(net.hosts[1].node.usage().indices <= 5);
    }
    let key = net.key(1, 0);
    assert!(net.hosts[1].node.remove_peer(key));
    assert_eq!(net.hosts[1].node.usage().indices, 0);
    net.run_for(Duration::from_secs(400));
    assert_eq!(net.hosts[0].node.usage().indices, 0);
}

#[test]
fn commands_on_a_peer_that_is_gone_do_nothing() {
    let mut net = upgraded_pair();
    let (key, now) = (net.key(0, 1), net.now);
    let node = &mut net.hosts[0].node;
    node.remove_peer(key);
    assert!(!node.install_psk(key, psk(1), 1, L2));
    assert!(!node.install_alternate_psk(key, psk(1), 1, L2));
    assert!(!node.settle_psk(key, 1));
    assert!(!node.forget_psks(key));
    assert!(!node.set_gate_level(now, key, 1));
}

/// Something that may happen at any time, at host `at` where that matters.
#[derive(Clone, Debug)]
enum Happening {
    Install { at: usize, epoch: u32 },
    InstallAlternate { at: usize, epoch: u32 },
    Settle { at: usize, epoch: u32 },
    Forget { at: usize },
    Gate { at: usize, gate: u8 },
    Rekey { at: usize },
    Send { at: usize },
    Control { at: usize },
    Lose { kind: Option<u8> },
    Pass { ms: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let (at, epoch) = (0..2usize, 1..4u32);
    let both = (at.clone(), epoch);
    let gate = prop_oneof![Just(1u8), Just(2), Just(3), Just(255)];
    let ms = prop_oneof![0..100u64, 0..7_000u64, 0..130_000u64];
    prop_oneof![
        both.clone()
            .prop_map(|(at, epoch)| Happening::Install { at, epoch }),
        both.clone()
            .prop_map(|(at, epoch)| Happening::InstallAlternate { at, epoch }),
        both.prop_map(|(at, epoch)| Happening::Settle { at, epoch }),
        at.clone().prop_map(|at| Happening::Forget { at }),
        (at.clone(), gate).prop_map(|(at, gate)| Happening::Gate { at, gate }),
        at.clone().prop_map(|at| Happening::Rekey { at }),
        at.clone().prop_map(|at| Happening::Send { at }),
        at.prop_map(|at| Happening::Control { at }),
        prop_oneof![Just(None), (1..5u8).prop_map(Some)].prop_map(|kind| Happening::Lose { kind }),
        ms.prop_map(|ms| Happening::Pass { ms }),
    ]
}

fn happen(net: &mut Net, what: &Happening) {
    match *what {
        Happening::Install { at, epoch } => install(net, at, epoch),
        Happening::InstallAlternate { at, epoch } => install_alternate(net, at, epoch),
        Happening::Settle { at, epoch } => {
            let key = net.key(at, 1 - at);
            net.hosts[at].node.settle_psk(key, epoch);
        }
        Happening::Forget { at } => forget(net, at),
        Happening::Gate { at, gate } => set_gate(net, at, gate),
        Happening::Rekey { at } => net.rekey(at, 1 - at),
        Happening::Send { at } => {
            // A full queue is fine.
            let _ = net.try_send(at, 1 - at, b"x");
        }
        Happening::Control { at } => {
            send_control(net, at, b"x");
        }
        Happening::Lose { kind } => {
            net.lost = Box::new(move |sent: &Sent| Some(sent.kind()) == kind);
        }
        Happening::Pass { ms } => net.run(ms),
    }
    for at in 0..2 {
        let (status, ready) = (net.status(at, 1 - at), net.ready(at, 1 - at));
        if ready {
            assert!(status.session_level >= Some(status.gate), "{what:?}");
        }
        assert!(net.hosts[at].node.usage().indices <= 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever has happened: with the same key in front and without loss, packets that wait find
    /// their session by themselves; what the two may hold of different handshakes that crossed is
    /// over when data had no answer for 15 s; and in the end nothing is left.
    #[test]
    fn an_agreed_key_heals(what in proptest::collection::vec(happening(), 0..40)) {
        let mut net = gated_pair();
        what.iter().for_each(|what| happen(&mut net, what));
        net.lost = Box::new(|_| false);
        install(&mut net, 0, 9);
        install(&mut net, 1, 9);
        set_gates(&mut net, L2);
        for at in 0..2 {
            // A full queue is fine.
            let _ = net.try_send(at, 1 - at, b"x");
        }
        net.run(16_000);
        prop_assert!(net.ready(0, 1) && net.ready(1, 0));
        net.send(0, 1, b"x");
        net.send(1, 0, b"x");
        net.run(21_000);
        net.payloads(0);
        net.payloads(1);
        talk(&mut net);
        net.run_for(Duration::from_secs(500));
        for at in 0..2 {
            prop_assert_eq!(net.hosts[at].node.usage().links, 0);
            prop_assert_eq!(net.hosts[at].node.usage().indices, 0);
        }
    }

    /// Without a common key above L1, no data comes through two gates at L2, whatever else happens.
    #[test]
    fn no_data_passes_two_gates_without_a_common_key(
        what in proptest::collection::vec(happening(), 0..40)
    ) {
        let mut net = gated_pair();
        for what in &what {
            match what {
                Happening::Install { at: 1, .. } | Happening::InstallAlternate { at: 1, .. } => {}
                Happening::Gate { at, gate: 1 } => set_gate(&mut net, *at, L2),
                what => happen(&mut net, what),
            }
        }
        net.lost = Box::new(|_| false);
        net.run(20_000);
        prop_assert_eq!(net.hosts[0].established() + net.hosts[1].established(), 0);
        prop_assert!(net.hosts.iter().all(|host| host.received.is_empty()));
        prop_assert_eq!(dropped(&net, 0, DropReason::SourceNotAllowed), 0);
    }
}
