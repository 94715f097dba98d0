//! Nodes that die: at each message of an exchange, both of them, and back from a backup or with
//! another clock.

use super::*;
use wiremesh_control::Pin;

/// Sides `who` die when packet `at` of a meeting has arrived.
fn dies_at(policies: [Policy; 2], level: u8, who: &[usize], at: usize) -> bool {
    let mut pair = busy(policies);
    let mut arrived = 0;
    let found = meet_until(&mut pair, |_| {
        arrived += 1;
        arrived == at
    });
    if found {
        who.iter().for_each(|who| pair.crash(*who, policies[*who]));
        heals(&mut pair, level);
    }
    found
}

#[test]
fn whoever_dies_at_whatever_packet_it_heals() {
    for (policies, level) in policies() {
        for who in [&[0][..], &[1], &[0, 1]] {
            let mut at = 1;
            while dies_at(policies, level, who, at) {
                at += 1;
            }
            assert!(at > 6, "only {at} packets at L{level}");
        }
    }
}

/// A pair in which FIN has arrived and nothing else since.
fn until_fin(policies: [Policy; 2]) -> Pair {
    let mut pair = busy(policies);
    let (seen, raised) = flag();
    pair.tap = Some(Box::new(move |to, message| {
        if raised.get() {
            return Vec::new();
        }
        raised.set(message.kind == MessageType::Fin);
        vec![(to, message)]
    }));
    while !seen.get() {
        pair.pass(Duration::from_millis(100));
    }
    pair.tap = None;
    pair
}

#[test]
fn a_dies_after_b_has_switched() {
    let mut pair = until_fin([Policy::default(); 2]);
    assert!(pair.sides[1].primary.is_some(), "B has the key");
    pair.crash(0, Policy::default());
    heals(&mut pair, 2);
    assert!(pair.is_up());
}

#[test]
fn b_dies_between_fin_and_live() {
    let mut pair = until_fin([Policy::default(); 2]);
    pair.crash(1, Policy::default());
    heals(&mut pair, 2);
    assert!(pair.is_up());
}

#[test]
fn both_die() {
    for (policies, level) in policies() {
        let mut pair = met(policies, level);
        pair.crash(0, policies[0]);
        pair.crash(1, policies[1]);
        heals(&mut pair, level);
    }
}

#[test]
fn a_dies_again_and_again() {
    for who in 0..2 {
        let mut pair = met([Policy::default(); 2], 2);
        for pause in 1..30 {
            pair.crash(who, Policy::default());
            pair.pass(Duration::from_millis(137) * pause);
        }
        heals(&mut pair, 2);
    }
}

#[test]
fn one_restored_from_backup() {
    for (policies, level) in policies() {
        for who in 0..2 {
            let mut pair = met(policies, level);
            let backup = (pair.sides[who].pin, pair.sides[who].record_seq);
            // The peer changes its mind for good meanwhile, and so does the one with the backup.
            pair.pass(100 * SECOND);
            for (at, policy) in policies.into_iter().enumerate() {
                pair.set_policy(at, policy);
            }
            pair.pass(100 * SECOND);
            (pair.sides[who].pin, pair.sides[who].record_seq) = backup;
            pair.crash(who, policies[who]);
            heals(&mut pair, level);
        }
    }
}

/// Its records count from below what the peer has seen, so the peer takes none of them, nor the
/// static key that they name. Only L3 rests on those.
#[test]
fn one_whose_record_numbers_were_put_back() {
    let lists_l3 = Policy {
        minimum: Level::Classical,
        ..with_static_keys()
    };
    let old = Policy::at(Stage::OldOnly);
    let with_key = Policy {
        static_kem: true,
        ..old
    };
    for who in 0..2 {
        for peer in [lists_l3, with_key] {
            let mut policies = [peer; 2];
            policies[who] = old;
            let mut pair = met(policies, 1);
            pair.sides[who].record_seq -= 100;
            pair.sides[who].clock_off = -100;
            pair.crash(who, with_key);
            pair.crash(1 - who, peer);
            heals(&mut pair, 1);
        }
    }
}

#[test]
fn one_that_has_lost_its_pins() {
    for who in 0..2 {
        let new_only = Policy::at(Stage::NewOnly);
        let mut pair = met([new_only; 2], 2);
        pair.sides[who].pin = Pin::default();
        pair.sides[who].record_seq = 0;
        pair.crash(who, new_only);
        heals(&mut pair, 2);
        assert_eq!(
            pair.sides[who].pin.level,
            Level::PostQuantum,
            "learned anew"
        );
    }
}

const HOUR: i64 = 3_600;

#[test]
fn a_clock_that_was_put_back_or_forward() {
    // L3 rests on records, and a record is of no use to whom its time has not come or is over.
    let below_l3 = policies().into_iter().filter(|(_, level)| *level < 3);
    for (policies, level) in below_l3 {
        for off in [-72 * HOUR, -HOUR, -400, HOUR, 72 * HOUR] {
            for who in 0..2 {
                let mut pair = busy(policies);
                pair.sides[who].clock_off = off;
                heals(&mut pair, level);
                pair.crash(who, policies[who]);
                heals(&mut pair, level);
                pair.sides[who].clock_off = 0;
                pair.crash(who, policies[who]);
                heals(&mut pair, level);
            }
        }
    }
}

#[test]
fn a_promise_by_a_clock_that_is_wrong() {
    for off in [-HOUR, HOUR] {
        let mut pair = met([Policy::at(Stage::Both); 2], 2);
        pair.sides[1].clock_off = off;
        pair.set_policy(1, Policy::at(Stage::NewOnly));
        // A holds the record before, and the new one is of no use to it.
        pair.crash(0, Policy::at(Stage::Both));
        let mut without = met([Policy::at(Stage::OldOnly), Policy::at(Stage::Both)], 1);
        without.sides[1].clock_off = off;
        without.set_policy(1, Policy::at(Stage::NewOnly));
        without.set_policy(0, Policy::at(Stage::Both));
        for mut pair in [pair, without] {
            heals(&mut pair, 2);
        }
    }
}

#[test]
fn clocks_apart_by_less_than_the_skew_allowed_reach_l3() {
    for off in [-299, 299] {
        let mut pair = busy([with_static_keys(); 2]);
        pair.sides[0].clock_off = off;
        heals(&mut pair, 3);
    }
}
