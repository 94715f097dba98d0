//! The state machine of docs/spec.md section 7.3, two of them against each other.

#[path = "support/pair.rs"]
mod pair;

use pair::Pair;
use std::time::Duration;
use wiremesh_control::machine::Gate;
use wiremesh_control::{Level, Policy, Stage, SuiteId, WaitReason};

const SECOND: Duration = Duration::from_secs(1);

fn at(stage: Stage) -> Policy {
    Policy::at(stage)
}

#[test]
fn two_nodes_end_at_l2_by_default() {
    let mut pair = Pair::new([Policy::default(); 2]);
    pair.meet();
    assert!(pair.is_up());
    for side in &pair.sides {
        let status = side.machine.status();
        assert_eq!(status.suite, Some(SuiteId::HYBRID));
        assert_eq!(status.required, Gate::Level(Level::PostQuantum));
        assert_eq!(status.waiting, None);
        assert!(!side.refused(), "{:?}", side.outputs);
    }
}

#[test]
fn with_static_keys_both_end_at_l3() {
    let policy = Policy {
        static_kem: true,
        ..Policy::default()
    };
    let mut pair = Pair::new([policy; 2]);
    pair.meet();
    pair.pass(3 * SECOND);
    for side in &pair.sides {
        assert_eq!(side.machine.status().suite, Some(SuiteId::HYBRID_STATIC));
        assert!(!side.refused(), "{:?}", side.outputs);
    }
}

#[test]
fn an_old_node_is_met_at_l1_only_where_policy_allows() {
    let mut pair = Pair::new([at(Stage::Both), at(Stage::OldOnly)]);
    pair.meet();
    for side in &pair.sides {
        assert_eq!(side.gate, Some(Gate::Level(Level::Classical)));
    }
    let mut pair = Pair::new([Policy::default(), at(Stage::OldOnly)]);
    pair.meet();
    pair.pass(30 * SECOND);
    for side in &pair.sides {
        assert!(!side.open());
        assert!(side.machine.status().waiting.is_some());
    }
    let reason = pair.sides[0].machine.status().waiting.map(|(why, _)| why);
    assert!(
        matches!(reason, Some(WaitReason::PeerRefused { .. })),
        "{reason:?}"
    );
}

#[test]
fn each_node_moves_through_the_stages_while_they_talk() {
    let mut pair = Pair::new([at(Stage::OldOnly); 2]);
    pair.meet();
    assert!(pair.sides.iter().all(|side| side.open()));
    for (who, stage) in [
        (0, Stage::Both),
        (1, Stage::Both),
        (1, Stage::OldOnly),
        (1, Stage::Both),
        (1, Stage::NewOnly),
        (0, Stage::NewOnly),
    ] {
        pair.set_policy(who, at(stage));
        pair.pass(SECOND);
        assert!(pair.sides.iter().all(|side| side.open()), "{who} {stage}");
    }
    assert!(pair.is_up());
    assert!(
        pair.sides
            .iter()
            .all(|side| side.pin.level == Level::PostQuantum)
    );
}

#[test]
fn a_crash_of_either_side_at_any_stage_heals() {
    for who in 0..2 {
        let mut pair = Pair::new([Policy::default(); 2]);
        pair.meet();
        pair.crash(who, Policy::default());
        for round in 0..3 {
            assert!(pair.handshake((who + round) % 2));
            pair.settle();
            pair.pass(SECOND);
        }
        assert!(pair.is_up(), "side {who}");
    }
}

#[test]
fn silence_opens_nothing() {
    let mut pair = Pair::new([at(Stage::Both); 2]);
    assert!(pair.handshake(0));
    pair.packets.clear();
    pair.deaf = [true; 2];
    pair.pass(120 * SECOND);
    for side in &pair.sides {
        assert!(!side.open());
    }
    let reason = pair.sides[0].machine.status().waiting.map(|(why, _)| why);
    assert_eq!(reason, Some(WaitReason::NoControlAnswer));
}

#[test]
fn what_a_node_promises_holds_for_itself() {
    let mut pair = Pair::new([at(Stage::Both), at(Stage::OldOnly)]);
    pair.meet();
    assert!(pair.sides[0].open_at_l1());
    let promise = Policy {
        minimum: Level::Classical,
        ..at(Stage::NewOnly)
    };
    pair.set_policy(0, promise);
    pair.pass(30 * SECOND);
    assert!(!pair.sides[0].open(), "its minimum alone would allow L1");
}

#[test]
fn a_static_key_that_is_turned_on_later_is_used() {
    let with_static = Policy {
        static_kem: true,
        ..Policy::default()
    };
    let mut pair = Pair::new([with_static, Policy::default()]);
    pair.meet();
    assert_eq!(pair.sides[0].machine.status().suite, Some(SuiteId::HYBRID));
    pair.set_policy(1, with_static);
    pair.pass(30 * SECOND);
    for side in &pair.sides {
        assert_eq!(side.machine.status().suite, Some(SuiteId::HYBRID_STATIC));
    }
}

#[test]
fn nothing_stays_due_while_no_session_can_be_sealed_with() {
    for who in 0..2 {
        let mut pair = Pair::new([Policy::default(); 2]);
        pair.tap = Some(Box::new(|_, _| Vec::new()));
        assert!(pair.handshake(0));
        pair.pass(15 * SECOND);
        // One that can be opened with is left, so nobody says that all are gone.
        pair.sides[who].sessions.clear();
        pair.pass(60 * SECOND);
        let due = pair.sides[who].machine.next_deadline();
        assert!(due.is_none_or(|at| at > pair.instant()), "{who}: {due:?}");
        pair.tap = None;
        pair.busy = true;
        pair.pass(30 * SECOND);
        assert!(pair.is_up(), "{who}");
    }
}

#[test]
fn a_refusal_is_not_shown_any_more_once_the_peer_has_answered() {
    let mut pair = Pair::new([Policy::default(); 2]);
    pair.meet();
    // A holds B's record of before, so its first offer is refused.
    pair.set_policy(1, at(Stage::NewOnly));
    pair.pass(2 * SECOND);
    assert_eq!(pair.sides[0].machine.waiting(), None);
}
