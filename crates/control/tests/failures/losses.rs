//! Messages that are lost: once, several times, for good.

use super::*;

/// Every message of a first meeting, in order.
fn of_a_meeting(policies: [Policy; 2]) -> Vec<MessageType> {
    let mut pair = busy(policies);
    pair.pass(MEETING);
    pair.sent.iter().map(|(_, message)| message.kind).collect()
}

#[test]
fn any_message_may_be_lost() {
    for (policies, level) in policies() {
        let messages = of_a_meeting(policies);
        assert!(messages.len() >= 4, "{messages:?}");
        for (lost, kind) in messages.iter().enumerate() {
            let mut pair = busy(policies);
            let mut count = 0;
            lose(&mut pair, move |_, _| {
                count += 1;
                count == lost + 1
            });
            let took = heals(&mut pair, level);
            assert!(took < 3 * SECOND, "{kind:?} lost at L{level}: {took:?}");
        }
    }
}

#[test]
fn any_message_may_be_lost_with_its_repetitions() {
    for (policies, level) in policies() {
        let mut kinds = of_a_meeting(policies);
        kinds.sort_by_key(|kind| *kind as u8);
        kinds.dedup();
        for kind in kinds {
            for times in 1..=6 {
                let mut pair = busy(policies);
                let mut left = times;
                lose(&mut pair, move |_, message| {
                    let lost = message.kind == kind && left > 0;
                    left -= usize::from(lost);
                    lost
                });
                let took = heals(&mut pair, level);
                assert!(took < 45 * SECOND, "{times} {kind:?} at L{level}: {took:?}");
            }
        }
    }
}

#[test]
fn half_of_all_messages_may_be_lost() {
    for (policies, level) in policies() {
        for seed in 0..10 {
            let mut pair = busy(policies);
            let mut random = pair::Seeded(seed);
            lose(&mut pair, move |_, _| {
                let mut byte = [0];
                wiremesh_control::Random::fill(&mut random, &mut byte);
                byte[0] & 1 == 0
            });
            heals(&mut pair, level);
        }
    }
}

#[test]
fn fin_lost_for_good_opens_nothing_and_heals() {
    for (policies, level) in policies() {
        let mut pair = busy(policies);
        lose_all(&mut pair, MessageType::Fin);
        for _ in 0..90 {
            pair.pass(SECOND);
            assert!(!pair.sides[1].open(), "B has agreed on nothing");
            assert_eq!(pair.data_level(), None);
        }
        pair.tap = None;
        heals(&mut pair, level);
    }
}

#[test]
fn done_lost_for_good_leaves_a_at_the_level() {
    let mut pair = busy([Policy::default(); 2]);
    lose_all(&mut pair, MessageType::Done);
    let took = heals(&mut pair, 2);
    assert!(took < SECOND, "{took:?}: the session says what DONE says");
    goes_on(&mut pair, 2, 300 * SECOND);
}

#[test]
fn done_lost_for_good_at_l1_opens_one_side_only() {
    let mut pair = busy([Policy::at(Stage::Both), Policy::at(Stage::OldOnly)]);
    lose_all(&mut pair, MessageType::Done);
    pair.pass(60 * SECOND);
    assert!(!pair.sides[0].open(), "A has no answer");
    pair.tap = None;
    heals(&mut pair, 1);
}

/// Two hours of rotations in which a message never arrives.
fn rotates_without(kind: MessageType, policy: Policy, level: u8) {
    let mut pair = met([policy; 2], level);
    lose_all(&mut pair, kind);
    goes_on(&mut pair, level, 7200 * SECOND);
    pair.tap = None;
    goes_on(&mut pair, level, 2000 * SECOND);
    assert!(pair.is_up());
}

#[test]
fn rotation_loses_no_data() {
    let mut pair = met([Policy::default(); 2], 2);
    let first = pair.sides[0].machine.status().epoch;
    goes_on(&mut pair, 2, 7200 * SECOND);
    let rotations = pair.sides[0].machine.status().epoch - first;
    assert!((5..=8).contains(&rotations), "{rotations} in two hours");
    assert!(pair.is_up());
}

#[test]
fn a_rotation_whose_offer_is_lost_loses_no_data() {
    rotates_without(MessageType::Offer, Policy::default(), 2);
}

#[test]
fn a_rotation_whose_reply_is_lost_loses_no_data() {
    rotates_without(MessageType::Reply, Policy::default(), 2);
}

#[test]
fn a_rotation_whose_fin_is_lost_loses_no_data() {
    rotates_without(MessageType::Fin, Policy::default(), 2);
    rotates_without(MessageType::Fin, with_static_keys(), 3);
}

#[test]
fn a_rotation_whose_done_is_lost_loses_no_data() {
    rotates_without(MessageType::Done, Policy::default(), 2);
    rotates_without(MessageType::Done, with_static_keys(), 3);
}

#[test]
fn rotations_that_end_anywhere_lose_no_data() {
    // Each exchange loses all of one kind, and the next exchange all of the next kind.
    let kinds = [MessageType::Done, MessageType::Fin, MessageType::Reply];
    for shift in 0..kinds.len() {
        let mut pair = met([Policy::default(); 2], 2);
        let mut exchange = None;
        let mut count = shift;
        lose(&mut pair, move |_, message| {
            if message.kind == MessageType::Offer && exchange != Some(message.id) {
                exchange = Some(message.id);
                count += 1;
            }
            message.kind == kinds[count % kinds.len()]
        });
        goes_on(&mut pair, 2, 7200 * SECOND);
    }
}

/// A pair in a rotation whose DONE is lost, with FIN arrived or not, at the moment when A would have
/// given up. Nothing but control messages passes from here on.
fn rotation_without_done(lost: MessageType) -> Pair {
    let mut pair = met([Policy::default(); 2], 2);
    lose_all(&mut pair, lost);
    let phase = |pair: &Pair| pair.sides[0].machine.status().phase;
    while phase(&pair) != Phase::RotateFinished {
        pair.pass(SECOND);
        assert!(pair.time < 2_000 * SECOND, "{:?}", phase(&pair));
    }
    pair.busy = false;
    pair.pass(11 * SECOND);
    pair
}

#[test]
fn no_third_key_comes_before_a_session_shows_which_one_the_peer_has() {
    for lost in [MessageType::Fin, MessageType::Done] {
        let mut pair = rotation_without_done(lost);
        let offers = |pair: &Pair| {
            let is_offer = |sent: &&(usize, Message)| sent.1.kind == MessageType::Offer;
            pair.sent.iter().filter(is_offer).count()
        };
        let before = offers(&pair);
        pair.pass(60 * SECOND);
        assert_eq!(offers(&pair), before, "{lost:?} lost: another exchange");
        pair.tap = None;
        let old = pair.sides[0].machine.status().epoch;
        assert!(pair.handshake(0), "{lost:?} lost: no key in common");
        pair.settle();
        let epoch = pair.sides[0].machine.status().epoch;
        assert_eq!(epoch, pair.sides[1].machine.status().epoch);
        assert!(epoch > old, "{lost:?} lost: {epoch} after {old}");
        assert_eq!(offers(&pair) > before, lost == MessageType::Fin);
    }
}

#[test]
fn a_rotation_without_done_does_not_hold_up_a_peer_that_was_restarted() {
    for lost in [MessageType::Fin, MessageType::Done] {
        let mut pair = rotation_without_done(lost);
        pair.tap = None;
        pair.busy = true;
        pair.crash(1, Policy::default());
        let took = heals(&mut pair, 2);
        assert!(took < 30 * SECOND, "{lost:?} lost: {took:?}");
    }
}
