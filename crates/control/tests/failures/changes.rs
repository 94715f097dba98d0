//! Policy, pins and records that change while an exchange runs.

use super::*;
use wiremesh_control::machine::Gate;
use wiremesh_control::{PeerSettings, Record, SignedRecord, SuiteId, Suites};

/// A record of a side that promises a level, newer than all before.
fn promise(pair: &Pair, of: usize, level: Level, suites: &[SuiteId]) -> Vec<u8> {
    let facts = pair.sides[of].local.record().record();
    let record = Record {
        seq: facts.seq + 10,
        min_level: level,
        suites: Suites::new(suites.iter().copied()).expect("a list"),
        ..facts.clone()
    };
    let signed = SignedRecord::sign(record, &pair.keys[of].0, &[9; 32]).expect("valid");
    signed.bytes().to_vec()
}

/// Runs `change` when packet `at` of a meeting has arrived. `false` if there are not so many.
fn at_packet(pair: &mut Pair, at: usize, change: impl FnOnce(&mut Pair)) -> bool {
    let mut arrived = 0;
    let found = meet_until(pair, |_| {
        arrived += 1;
        arrived == at
    });
    if found {
        change(pair);
        pair.settle();
    }
    found
}

#[test]
fn a_policy_that_changes_at_any_packet_comes_into_force() {
    let (old, both, new) = (Stage::OldOnly, Stage::Both, Stage::NewOnly);
    let stages = [[old, old], [both, old], [old, both], [both, both]].map(|s| s.map(Policy::at));
    let l3 = with_static_keys();
    let starts = stages
        .into_iter()
        .chain([[Policy::default(), l3], [l3, Policy::default()]]);
    for policies in starts {
        for who in 0..2 {
            let peers = choose_level(&policies[1 - who]);
            for change in [
                Policy::at(both),
                Policy::at(new),
                minimum(Level::PostQuantum),
                l3,
            ] {
                let level = peers.min(choose_level(&change));
                let allowed = level >= change.minimum as u8 && level >= change.promised() as u8;
                for at in (1..).take_while(|_| allowed) {
                    let mut pair = busy(policies);
                    if !at_packet(&mut pair, at, |pair| pair.set_policy(who, change)) {
                        break;
                    }
                    heals(&mut pair, level);
                    pair.pass(20 * SECOND);
                    let gates = pair.sides.each_ref().map(|side| side.gate);
                    let gate = Level::from_number(level.into()).expect("1 to 3");
                    assert_eq!(
                        gates,
                        [Some(Gate::Level(gate)); 2],
                        "{policies:?} {change:?}"
                    );
                }
            }
        }
    }
}

/// The best level that a policy lists.
fn choose_level(policy: &Policy) -> u8 {
    let suites = policy.suites().expect("consistent");
    suites.best_level().expect("known suites") as u8
}

#[test]
fn a_higher_minimum_in_the_middle_of_a_rotation_comes_into_force() {
    for who in 0..2 {
        let mut pair = met([with_static_keys(), Policy::default()], 2);
        pair.change_policy(1, with_static_keys());
        // The exchange for that is under way when the other one demands L3.
        for _ in 0..3 {
            let packet = pair.packets.pop_front().expect("under way");
            pair.deliver(&packet);
        }
        pair.set_policy(who, minimum(Level::PostQuantumAuthenticated));
        heals(&mut pair, 3);
    }
}

#[test]
fn a_changed_policy_is_agreed_on_at_once() {
    for who in 0..2 {
        let mut pair = met([Policy::at(Stage::OldOnly); 2], 1);
        pair.set_policy(1 - who, Policy::at(Stage::Both));
        pair.pass(SECOND);
        pair.set_policy(who, Policy::at(Stage::Both));
        let took = heals(&mut pair, 2);
        assert_eq!(took, Duration::ZERO, "no timer is waited for");
    }
}

#[test]
fn a_promise_that_comes_between_offer_and_done_is_not_undercut() {
    let both = [SuiteId::HYBRID, SuiteId::WIREGUARD];
    for who in 0..2 {
        for at in 1..20 {
            let policies = [Policy::at(Stage::Both), Policy::at(Stage::OldOnly)];
            let policies = match who {
                0 => policies,
                _ => [policies[1], policies[0]],
            };
            let mut pair = busy(policies);
            let record = promise(&pair, 1 - who, Level::PostQuantum, &both);
            let mut agreed = false;
            let found = at_packet(&mut pair, at, |pair| {
                agreed = pair.sides[who].open_at_l1();
                pair.run(who, |machine, cx| {
                    machine.learn_record(cx, &record).expect("valid");
                });
            });
            if !found || agreed {
                assert!(at > 3, "packet {at}");
                break;
            }
            pair.pass(30 * SECOND);
            assert!(!pair.sides[who].open_at_l1());
            // B says DONE last, so it knows; A may have agreed before.
            let peer_alone = pair.sides[1 - who].open_at_l1();
            assert!(
                who == 0 || !peer_alone,
                "packet {at}: B agreed to what it does not keep"
            );
            let deadline = pair.sides[who].machine.next_deadline();
            assert!(deadline.is_some(), "side {who}, packet {at}: stuck");
            // The promise is kept in the end.
            pair.set_policy(1 - who, Policy::at(Stage::NewOnly));
            heals(&mut pair, 2);
        }
    }
}

#[test]
fn a_promise_that_closes_the_gate_starts_an_exchange() {
    let both = [SuiteId::HYBRID, SuiteId::WIREGUARD];
    for who in 0..2 {
        let mut pair = met([Policy::at(Stage::OldOnly); 2], 1);
        pair.set_policy(who, Policy::at(Stage::Both));
        pair.pass(SECOND);
        assert_eq!(pair.data_level(), Some(1));
        let record = promise(&pair, 1 - who, Level::PostQuantum, &both);
        let offers = pair.sent.len();
        pair.run(who, |machine, cx| {
            machine.learn_record(cx, &record).expect("valid");
        });
        assert!(!pair.sides[who].open());
        pair.pass(3 * SECOND);
        assert!(pair.sent.len() > offers, "side {who} is stuck");
        assert!(
            pair.sides[who].machine.status().waiting.is_some(),
            "and says why"
        );
    }
}

#[test]
fn a_stranger_that_the_operator_adds_is_not_turned_away_later() {
    for who in 0..2 {
        let mut settings = [PeerSettings::default(), PeerSettings::default()];
        settings[who].needs_admission = true;
        let mut pair = Pair::with_settings([Policy::default(); 2], settings);
        pair.busy = true;
        pair.pass(2 * SECOND);
        assert_eq!(pair.sides[who].asked.len(), 1);
        pair.run(who, |machine, cx| {
            machine.set_settings(cx, PeerSettings::default());
        });
        pair.settle();
        heals(&mut pair, 2);
        pair.pass(60 * SECOND);
        assert!(!pair.sides[who].forgotten && pair.sides[who].admitted);
    }
}

#[test]
fn an_old_node_rolled_back_to_is_met_at_l1_again() {
    let mut pair = met([Policy::at(Stage::Both); 2], 2);
    for who in [0, 1] {
        pair.set_policy(who, Policy::at(Stage::OldOnly));
        goes_on(&mut pair, 1, 200 * SECOND);
        assert!(pair.sides.iter().all(|side| side.open_at_l1()));
        pair.set_policy(who, Policy::at(Stage::Both));
        heals(&mut pair, 2);
    }
}
