//! Lists and records changed on the way.

use super::*;
use crate::puppet::{has_refused, list};
use wiremesh_control::machine::Refusal;
use wiremesh_control::message::{Hello, Offer, Reply};
use wiremesh_control::{Machine, SuiteId, Suites};

/// Changes what OFFERs or REPLYs, or both, say of their senders.
fn edit(pair: &mut Pair, in_offer: bool, in_reply: bool, how: fn(&mut Hello)) {
    change(pair, move |message| match message.kind {
        MessageType::Offer if in_offer => {
            let mut offer = Offer::parse(&message.body).expect("honest");
            how(&mut offer.hello);
            message.body = offer.emit();
        }
        MessageType::Reply if in_reply => {
            let mut reply = Reply::parse(&message.body).expect("honest");
            how(&mut reply.hello);
            message.body = reply.emit();
        }
        _ => {}
    });
}

/// Two that never met and know of each other's promise, or of none.
fn pinned_pair(level: Level) -> Pair {
    let mut pair = Pair::new([both(); 2]);
    for at in 0..2 {
        let peer = pair.keys[1 - at].1;
        let side = &mut pair.sides[at];
        side.pin = Pin {
            level,
            ..Pin::default()
        };
        side.machine = Machine::new(&side.local, peer, side.pin, side.settings.clone());
    }
    pair.busy = true;
    pair
}

/// Tries an edit on OFFER, on REPLY and on both: at first contact, with pins, and in a rotation.
fn attempt(how: fn(&mut Hello)) {
    for (in_offer, in_reply) in [(true, false), (false, true), (true, true)] {
        for pin in [Level::Classical, Level::PostQuantum] {
            let mut pair = pinned_pair(pin);
            edit(&mut pair, in_offer, in_reply, how);
            stays_shut(&mut pair, 60 * SECOND);
            let sides = &pair.sides;
            assert!(
                sides
                    .iter()
                    .any(|side| side.machine.status().waiting.is_some())
            );
            recovers(&mut pair, 2);
        }
        let mut pair = met([both(); 2], 2);
        let before = kept(&pair);
        edit(&mut pair, in_offer, in_reply, how);
        for _ in 0..6 {
            pair.set_policy(0, both());
            pair.pass(11 * SECOND);
            assert_eq!(pair.data_level(), Some(2), "what is agreed goes on");
        }
        unharmed(&pair, &before);
        recovers(&mut pair, 2);
    }
}

#[test]
fn a_list_cut_down_to_l1_opens_nothing() {
    attempt(|hello| hello.suites = list(&[1]));
}

#[test]
fn a_list_cut_down_to_l1_without_its_record_opens_nothing() {
    attempt(|hello| {
        hello.suites = list(&[1]);
        hello.record = None;
        hello.own_seq = 0;
    });
}

#[test]
fn a_list_cut_down_to_l1_under_another_record_number_opens_nothing() {
    attempt(|hello| {
        hello.suites = list(&[1]);
        hello.own_seq += 1;
    });
}

#[test]
fn a_list_of_grease_alone_opens_nothing() {
    attempt(|hello| hello.suites = list(&[0x0a0a, 0x1a1a]));
}

#[test]
fn a_list_of_unknown_suites_opens_nothing() {
    attempt(|hello| hello.suites = list(&[0x0777]));
}

#[test]
fn an_edited_order_opens_nothing() {
    attempt(|hello| {
        let mut suites = hello.suites.as_slice().to_vec();
        suites.reverse();
        suites.push(SuiteId(0x0777));
        hello.suites = Suites::new(suites).expect("none twice");
    });
}

#[test]
fn an_added_suite_opens_nothing() {
    attempt(|hello| hello.suites = list(&[3, 2, 1]));
}

#[test]
fn a_record_that_was_taken_out_is_missed() {
    attempt(|hello| {
        // Whichever was sent: the transcript covers its absence too.
        hello.record = match hello.record {
            Some(_) => None,
            None => Some(Vec::new()),
        };
    });
}

#[test]
fn a_promise_that_was_taken_out_or_put_in_opens_nothing() {
    attempt(|hello| {
        hello.min_level = match hello.min_level {
            Level::Classical => Level::PostQuantum,
            _ => Level::Classical,
        };
    });
}

#[test]
fn changed_capabilities_open_nothing() {
    attempt(|hello| hello.caps ^= 1);
}

#[test]
fn another_chosen_suite_is_not_believed() {
    for number in [1, 3, 0x0a0a, 0x0777] {
        let mut pair = pinned_pair(Level::Classical);
        change(&mut pair, move |message| {
            if message.kind == MessageType::Reply {
                let mut reply = Reply::parse(&message.body).expect("honest");
                reply.chosen = SuiteId(number);
                message.body = reply.emit();
            }
        });
        stays_shut(&mut pair, 30 * SECOND);
        assert!(has_refused(&pair, 0, Refusal::WrongSuite));
        recovers(&mut pair, 2);
    }
}

#[test]
fn a_flipped_bit_anywhere_opens_nothing() {
    for kind in [MessageType::Offer, MessageType::Reply, MessageType::Fin] {
        let mut pair = Pair::new([both(); 2]);
        pair.meet();
        let to = usize::from(kind != MessageType::Reply);
        let len = pair.last_sent(to, kind).body.len();
        for at in (0..len).step_by(1 + len / 64).chain([len - 1]) {
            let mut pair = Pair::new([both(); 2]);
            change(&mut pair, move |message| {
                if message.kind == kind {
                    message.body[at] ^= 1;
                }
            });
            pair.meet();
            assert!(pair.sides[1].primary.is_none(), "{kind:?} byte {at}");
            assert!(
                pair.sides.iter().all(|side| !side.open()),
                "{kind:?} byte {at}"
            );
            recovers(&mut pair, 2);
        }
    }
}

#[test]
fn a_flipped_bit_in_done_ends_nothing() {
    let mut pair = Pair::new([both(); 2]);
    change(&mut pair, |message| {
        if message.kind == MessageType::Done {
            message.body[31] ^= 1;
        }
    });
    pair.meet();
    assert!(has_refused(&pair, 0, Refusal::Unauthenticated));
    assert_eq!(
        pair.data_level(),
        Some(2),
        "the session proves the key by itself"
    );
}

#[test]
fn a_changed_done_at_l1_opens_nothing() {
    let mut pair = Pair::new([both(), Policy::at(Stage::OldOnly)]);
    pair.busy = true;
    change(&mut pair, |message| {
        if message.kind == MessageType::Done {
            message.body[0] ^= 1;
        }
    });
    pair.pass(60 * SECOND);
    assert!(!pair.sides[0].open() && has_refused(&pair, 0, Refusal::Unauthenticated));
    recovers(&mut pair, 1);
}
