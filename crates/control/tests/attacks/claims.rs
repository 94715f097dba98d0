//! A peer that has its keys and says less, or more, than is true.

use super::*;
use crate::puppet::{Puppet, has_refused, list, record_of};
use wiremesh_control::SuiteId;
use wiremesh_control::machine::{Refusal, WaitReason};
use wiremesh_control::message::{Abort, AbortCode};

fn reason(pair: &Pair, at: usize) -> Option<WaitReason> {
    pair.sides[at].machine.status().waiting.map(|(why, _)| why)
}

/// Side `at` learns that the other one promised a level.
fn promised(pair: &mut Pair, at: usize, level: Level) {
    let record = record_of(pair, 1 - at, |record| {
        record.seq -= 1;
        record.min_level = level;
        record.suites = list(&[3, 2, 1]);
    });
    pair.run(at, |machine, cx| {
        machine.start(cx);
        machine.learn_record(cx, record.bytes()).expect("valid");
    });
    assert_eq!(pair.sides[at].pin.level, level);
}

/// The other side lies; the liar first as B, then as A. What the honest one says of it.
fn lies(policies: [Policy; 2], promise: Level, lie: impl Fn(&mut Puppet)) -> Vec<WaitReason> {
    let mut reasons = Vec::new();
    let mut pair = Pair::new(policies);
    pair.busy = true;
    promised(&mut pair, 0, promise);
    let mut puppet = Puppet::new(&pair, 1, &[1]);
    lie(&mut puppet);
    puppet.play_b(&mut pair);
    stays_shut(&mut pair, 60 * SECOND);
    assert_eq!(pair.sides[0].pin.level, promise);
    reasons.extend(reason(&pair, 0));

    let mut pair = Pair::new(policies);
    promised(&mut pair, 1, promise);
    pair.handshake(0);
    pair.packets.clear();
    pair.forge_session(1);
    let mut puppet = Puppet::new(&pair, 0, &[1]);
    lie(&mut puppet);
    for id in 0..60 {
        pair.time += SECOND;
        let answers = puppet.play_a(&mut pair, id);
        let agreed = answers
            .iter()
            .any(|answer| answer.kind == MessageType::Done);
        assert!(!agreed && !pair.sides[1].open() && pair.sides[1].primary.is_none());
    }
    assert_eq!(pair.sides[1].pin.level, promise);
    reasons.extend(reason(&pair, 1));
    reasons
}

#[test]
fn a_peer_that_lists_l1_though_it_promised_l2_stays_outside() {
    let reasons = lies([both(); 2], Level::PostQuantum, |_| {});
    let expected = WaitReason::BelowPin {
        pinned: Level::PostQuantum,
    };
    assert_eq!(reasons, [expected; 2]);
}

#[test]
fn a_peer_that_lists_l2_though_it_promised_l3_stays_outside() {
    let l3 = with_static_keys(Level::PostQuantum);
    let promise = Level::PostQuantumAuthenticated;
    let reasons = lies([l3; 2], promise, |puppet| {
        puppet.claim.suites = list(&[2, 1]);
    });
    // As B it is not even asked: without its static key A offers nothing.
    assert!(
        reasons.contains(&WaitReason::BelowPin { pinned: promise }),
        "{reasons:?}"
    );
}

#[test]
fn a_peer_that_lists_l1_stays_outside_of_a_node_with_a_minimum() {
    let reasons = lies([Policy::default(); 2], Level::Classical, |_| {});
    let expected = [
        // It claims that L1 was chosen, from two lists that have nothing in common.
        WaitReason::Rejected(Refusal::WrongSuite),
        WaitReason::NoCommonSuite {
            theirs: Some(Level::Classical),
        },
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_peer_that_demands_more_than_it_lists_stays_outside() {
    let reasons = lies([both(); 2], Level::Classical, |puppet| {
        puppet.claim.suites = list(&[2, 1]);
        puppet.claim.min_level = Level::PostQuantumAuthenticated;
    });
    let expected = WaitReason::BelowPeersMinimum {
        promised: Level::PostQuantumAuthenticated,
    };
    assert_eq!(reasons, [expected; 2]);
    let reasons = lies([both(); 2], Level::Classical, |puppet| {
        puppet.claim.min_level = Level::PostQuantum;
    });
    let expected = WaitReason::BelowPeersMinimum {
        promised: Level::PostQuantum,
    };
    assert_eq!(reasons, [expected; 2]);
}

#[test]
fn a_list_that_differs_from_its_record_is_refused() {
    for at in [0, 1] {
        let mut pair = Pair::new([both(); 2]);
        let record = record_of(&pair, 1 - at, |_| {});
        let mut puppet = Puppet::new(&pair, 1 - at, &[1]);
        puppet.claim.own_seq = record.record().seq;
        puppet.claim.record = Some(record.bytes().to_vec());
        pair.handshake(0);
        if at == 0 {
            puppet.play_b(&mut pair);
            pair.pass(30 * SECOND);
        } else {
            pair.settle();
            pair = Pair::new([both(); 2]);
            pair.forge_session(1);
            puppet.play_a(&mut pair, 1);
        }
        assert!(has_refused(&pair, at, Refusal::ListDiffersFromRecord));
        assert!(!pair.sides[at].open());
        recovers(&mut pair, 2);
    }
}

#[test]
fn a_suite_below_what_both_lists_give_is_refused() {
    let mut pair = Pair::new([both(); 2]);
    pair.busy = true;
    let mut puppet = Puppet::new(&pair, 1, &[2, 1]);
    puppet.claim.chosen = Some(SuiteId::WIREGUARD);
    puppet.play_b(&mut pair);
    stays_shut(&mut pair, 30 * SECOND);
    assert!(has_refused(&pair, 0, Refusal::WrongSuite));
    recovers(&mut pair, 2);
}

/// That is what an old node looks like, and policy allows it: the known price of L1.
#[test]
fn a_peer_that_lists_l1_at_first_contact_gets_l1_only_where_that_is_allowed() {
    let mut pair = Pair::new([both(); 2]);
    pair.forge_session(1);
    let mut puppet = Puppet::new(&pair, 0, &[1]);
    let answers = puppet.play_a(&mut pair, 1);
    assert!(
        answers
            .iter()
            .any(|answer| answer.kind == MessageType::Done)
    );
    assert!(pair.sides[1].open_at_l1());
    assert!(pair.sides[1].primary.is_none() && pair.sides[1].alternate.is_none());
    // As soon as it tells the truth both are at L2, and stay there.
    pair.sides[1].sessions.clear();
    pair.run(1, |machine, cx| machine.handle_sessions_gone(cx));
    recovers(&mut pair, 2);
    assert!(!pair.sides[1].open_at_l1());
}

#[test]
fn l3_without_the_static_ciphertext_is_not_l2() {
    let mut pair = Pair::new([with_static_keys(Level::PostQuantum); 2]);
    pair.forge_session(1);
    let mut puppet = Puppet::new(&pair, 0, &[3, 2, 1]);
    let answers = puppet.play_a(&mut pair, 1);
    let kinds: Vec<_> = answers.iter().map(|answer| answer.kind).collect();
    assert_eq!(kinds, [MessageType::Abort]);
    let abort = Abort::parse(&answers[0].body).expect("honest");
    assert_eq!(abort.code, AbortCode::StaleRecord.number());
    assert!(pair.sides[1].primary.is_none());
    recovers(&mut pair, 3);
}

#[test]
fn an_epoch_that_is_in_use_or_the_last_there_is_does_no_harm() {
    for epoch in [1, 2, u32::MAX] {
        let mut pair = met([Policy::default(); 2], 2);
        let mut puppet = Puppet::new(&pair, 0, &[2]);
        puppet.claim.epoch = epoch;
        pair.time += SECOND;
        let answers = puppet.play_a(&mut pair, 1);
        assert!(
            answers
                .iter()
                .any(|answer| answer.kind == MessageType::Done)
        );
        // A is restored from a time when it had agreed on another key.
        recovers(&mut pair, 2);
        pair.busy = true;
        pair.pass(400 * SECOND);
        assert_eq!(pair.data_level(), Some(2));
    }
}
