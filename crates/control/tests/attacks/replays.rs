//! Records and messages of another time, another side, another peer.

use super::*;
use crate::puppet::{has_refused, list, record_of};
use wiremesh_control::PeerSettings;
use wiremesh_control::machine::Refusal;
use wiremesh_wire::NetworkId;

/// Side 0 hears nothing but a record of the peer's from when it listed L1 alone.
fn with_old_record(policy: Policy, age_secs: u64, pin_first: bool) -> Pair {
    let mut pair = Pair::new([policy, both()]);
    let old = record_of(&pair, 1, |record| {
        record.seq -= age_secs;
        record.not_before -= age_secs;
        record.expiry -= age_secs;
        record.suites = list(&[1]);
    });
    if pin_first {
        let new = pair.sides[1].local.record().bytes().to_vec();
        pair.run(0, |machine, cx| {
            machine.start(cx);
            machine.learn_record(cx, &new).expect("valid");
        });
    }
    pair.run(0, |machine, cx| {
        machine.start(cx);
        let _ = machine.learn_record(cx, old.bytes());
    });
    pair.busy = true;
    pair.tap = Some(Box::new(|_, _| Vec::new()));
    pair
}

#[test]
fn a_replayed_record_is_overruled_by_the_pin() {
    let mut pair = with_old_record(both(), 3_600, true);
    let newest = pair.sides[0].pin.max_seq;
    stays_shut(&mut pair, 120 * SECOND);
    assert_eq!(pair.sides[0].pin.max_seq, newest);
    recovers(&mut pair, 2);
}

#[test]
fn a_replayed_record_without_a_pin_does_not_pass_the_minimum() {
    let mut pair = with_old_record(Policy::default(), 3_600, false);
    stays_shut(&mut pair, 120 * SECOND);
    recovers(&mut pair, 2);
}

#[test]
fn a_replayed_record_that_has_expired_says_nothing() {
    let mut pair = with_old_record(both(), 25 * 3_600, false);
    stays_shut(&mut pair, 120 * SECOND);
    assert_eq!(pair.sides[0].pin.max_seq, 0);
    recovers(&mut pair, 2);
}

/// The known limit of section 7.2 (b): no pin, L1 allowed, a record that is still valid, and an
/// attacker who lets nothing else through. It ends when he lets a message through.
#[test]
fn a_valid_old_record_without_a_pin_gives_l1_where_that_is_allowed() {
    let mut pair = with_old_record(both(), 3_600, false);
    pair.pass(60 * SECOND);
    assert!(pair.sides[0].open_at_l1());
    assert!(!pair.sides[1].open(), "the peer itself sends nothing at L1");
    recovers(&mut pair, 2);
    assert!(!pair.sides[0].open_at_l1());
}

#[test]
fn a_record_of_another_node_or_network_is_refused() {
    let mut pair = Pair::new([both(); 2]);
    let own = record_of(&pair, 0, |_| {});
    let other = record_of(&pair, 1, |record| {
        record.network = NetworkId::from_bytes([9; 32])
    });
    for record in [own, other] {
        pair.run(0, |machine, cx| {
            machine.start(cx);
            let refused = machine.learn_record(cx, record.bytes());
            assert_eq!(refused, Err(Refusal::Record));
        });
    }
    assert_eq!(pair.sides[0].pin, Pin::default());
}

/// Every message of two exchanges between the same nodes, of the whole life of both.
fn earlier(policies: [Policy; 2], level: u8) -> Vec<(usize, Message)> {
    let mut pair = met(policies, level);
    pair.set_policy(0, policies[0]);
    pair.pass(SECOND);
    pair.set_policy(1, policies[1]);
    pair.pass(2 * SECOND);
    let kinds: Vec<_> = pair.sent.iter().map(|(_, message)| message.kind).collect();
    for kind in [
        MessageType::Offer,
        MessageType::Reply,
        MessageType::Fin,
        MessageType::Done,
    ] {
        assert!(kinds.contains(&kind));
    }
    pair.sent
}

#[test]
fn an_exchange_of_an_earlier_life_is_of_no_use_in_any_state() {
    let policies = [both(); 2];
    let mut log = earlier(policies, 2);
    log.extend(met([Policy::at(Stage::OldOnly); 2], 1).sent);
    for (to, message) in &log {
        in_every_state(policies, 2, 30 * SECOND, |pair| pair.inject(*to, message));
    }
}

#[test]
fn an_exchange_that_is_over_is_of_no_use_afterwards() {
    let mut pair = met([both(); 2], 2);
    for round in 0..3 {
        let before = kept(&pair);
        for (to, message) in pair.sent.clone() {
            // A POKE asks for an honest exchange, whoever sends it.
            if message.kind != MessageType::Poke {
                pair.inject(to, &message);
                pair.packets.clear();
                pair.pass(SECOND);
                unharmed(&pair, &before);
                assert_eq!(pair.data_level(), Some(2), "{round} {:?}", message.kind);
            }
        }
        pair.pass(15 * SECOND);
        pair.set_policy(round % 2, both());
        pair.pass(SECOND);
        assert_eq!(pair.data_level(), Some(2));
    }
}

#[test]
fn an_exchange_is_of_no_use_after_a_crash() {
    for who in 0..2 {
        for backwards in [false, true] {
            let mut pair = met([both(); 2], 2);
            let mut log = pair.sent.clone();
            if backwards {
                log.reverse();
            }
            pair.crash(who, both());
            // The attacker makes the boot session himself.
            pair.forge_session(who);
            for (to, message) in &log {
                let before = kept(&pair);
                pair.inject(*to, message);
                pair.packets.clear();
                unharmed(&pair, &before);
                assert!(!pair.sides[who].open() && pair.sides[who].primary.is_none());
                pair.time += SECOND;
            }
            recovers(&mut pair, 2);
        }
    }
}

#[test]
fn a_first_exchange_at_l1_cannot_be_had_again() {
    // Both were old, agreed on L1, and have moved on since.
    let mut pair = met([Policy::at(Stage::OldOnly); 2], 1);
    let log = pair.sent.clone();
    pair.set_policy(0, both());
    pair.pass(SECOND);
    pair.set_policy(1, both());
    pair.pass(SECOND);
    assert_eq!(pair.data_level(), Some(2));
    for who in 0..2 {
        pair.crash(who, both());
        pair.forge_session(who);
        for (to, message) in &log {
            pair.inject(*to, message);
            pair.packets.clear();
            pair.time += SECOND;
            assert!(
                pair.sides.iter().all(|side| !side.open_at_l1()),
                "{:?}",
                message.kind
            );
        }
    }
    recovers(&mut pair, 2);
}

#[test]
fn reflected_messages_change_nothing() {
    for (policies, level) in [
        ([both(); 2], 2),
        ([with_static_keys(Level::PostQuantum); 2], 3),
        ([both(), Policy::at(Stage::OldOnly)], 1),
    ] {
        let mut pair = Pair::new(policies);
        pair.tap = Some(Box::new(|to, message| {
            vec![(1 - to, message.clone()), (to, message)]
        }));
        pair.meet();
        // More messages than are answered at once, perhaps.
        pair.pass(2 * SECOND);
        assert_eq!(pair.data_level(), Some(level), "and stops nothing");
        for at in 0..2 {
            assert!(has_refused(&pair, at, Refusal::WrongRole));
        }
        pair.pass(20 * SECOND);
        pair.set_policy(0, policies[0]);
        pair.pass(20 * SECOND);
        assert_eq!(pair.data_level(), Some(level));
    }
}

#[test]
fn reflected_messages_alone_open_nothing() {
    let mut pair = Pair::new([both(); 2]);
    pair.busy = true;
    pair.tap = Some(Box::new(|to, message| vec![(1 - to, message)]));
    stays_shut(&mut pair, 60 * SECOND);
    recovers(&mut pair, 2);
}

/// What the honest side of `from` says in the next 100 ms goes to the honest side of `to`.
fn hand_over(from: &mut Pair, speaker: usize, to: &mut Pair, listener: usize) -> usize {
    from.pass(Duration::from_millis(100));
    let said: Vec<_> = from
        .sent
        .drain(..)
        .filter(|(at, _)| *at != speaker)
        .collect();
    for (_, message) in &said {
        to.inject(listener, message);
    }
    said.len()
}

/// C has a tunnel with A and one with B, and hands A's messages to B as its own and back: A would
/// believe to share a key with C that it shares with B.
#[test]
fn a_relay_between_two_peers_gets_neither_of_them_a_key() {
    let keys = pair::ordered_keys();
    // Who relays: the one in the middle, the smallest, the greatest id.
    for (a, c, b) in [(0, 1, 2), (1, 0, 2), (0, 2, 1)] {
        for proven in [false, true] {
            let sorted = |x: usize, y: usize| [keys[x.min(y)].clone(), keys[x.max(y)].clone()];
            let make = |x, y| Pair::between(sorted(x, y), [both(); 2], no_settings());
            let (mut left, mut right) = (make(a, c), make(c, b));
            // The honest ends; the other side of each pair is C, which only relays.
            let (of_a, of_b) = (usize::from(a > c), usize::from(b > c));
            for (pair, honest) in [(&mut left, of_a), (&mut right, of_b)] {
                pair.handshake(0);
                if proven {
                    pair.settle();
                    pair.set_policy(honest, both());
                }
                pair.tap = Some(Box::new(|_, _| Vec::new()));
            }
            let before = [kept(&left), kept(&right)];
            let mut relayed = 0;
            for _ in 0..300 {
                relayed += hand_over(&mut left, of_a, &mut right, of_b);
                relayed += hand_over(&mut right, of_b, &mut left, of_a);
            }
            assert!(relayed > 5, "{relayed}");
            let now = [kept(&left), kept(&right)];
            assert_eq!(now[0][of_a].slot, before[0][of_a].slot);
            assert_eq!(now[1][of_b].slot, before[1][of_b].slot);
            for pair in [&mut left, &mut right] {
                recovers(pair, 2);
            }
        }
    }
}

fn no_settings() -> [PeerSettings; 2] {
    [PeerSettings::default(), PeerSettings::default()]
}
