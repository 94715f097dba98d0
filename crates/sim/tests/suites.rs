//! Every failure that docs/spec.md section 7.3 says must heal by itself, on whole nodes: a message
//! that is lost, a node that dies, a disk that is old, a clock that goes back, an address that
//! changes. Host 0 is A, host 1 is B. The spy looks at every datagram.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use wiremesh_control::frame::MessageType;
use wiremesh_control::{Level, Phase, Policy, Stage};
use wiremesh_sim::lab::{Kind, Lab, LabOptions, Passing, Start};

const A: usize = 0;
const B: usize = 1;
const SECOND: Duration = Duration::from_secs(1);
/// The bound of the specification for everything that heals.
const HEALED_WITHIN: Duration = Duration::from_secs(200);

/// Each second rekey is to a new preshared key, at the soonest: one session carries the exchange,
/// the next one uses what it made.
const ROTATION: Duration = Duration::from_secs(260);

fn with_static_keys() -> Policy {
    Policy {
        static_kem: true,
        ..Policy::default()
    }
}

/// Each level above L1 with policies that reach it.
fn levels() -> [(Policy, Level); 2] {
    [
        (Policy::default(), Level::PostQuantum),
        (with_static_keys(), Level::PostQuantumAuthenticated),
    ]
}

/// Two nodes that have not met.
fn strangers(policy: Policy) -> Lab {
    let mut lab = Lab::new(LabOptions::default(), &[policy; 2]);
    lab.introduce(A, B);
    lab
}

/// The same, with data for each other.
fn talking(policy: Policy) -> Lab {
    let mut lab = strangers(policy);
    lab.send_every(SECOND);
    lab
}

/// The same, at their level.
fn up(policy: Policy, level: Level) -> Lab {
    let mut lab = talking(policy);
    heals(&mut lab, level, 5 * SECOND);
    lab
}

/// Both reach the level and stay there; tells how long it took.
fn heals(lab: &mut Lab, level: Level, within: Duration) -> Duration {
    let began = lab.time();
    let reached = |lab: &Lab| lab.level_of_link((A, B)) == Some(level);
    let phases = |lab: &Lab| [lab.phase(A, B), lab.phase(B, A)];
    assert!(
        lab.run_until(within, reached).unwrap(),
        "stuck in {:?}, levels {:?}",
        phases(lab),
        [lab.level(A, B), lab.level(B, A)]
    );
    let took = lab.time() - began;
    let before = lab.messages().sent();
    lab.run_for(20 * SECOND).unwrap();
    assert_eq!(lab.level_of_link((A, B)), Some(level));
    assert!(lab.messages().sent() > before);
    took
}

fn is(passing: &Passing, kind: MessageType) -> bool {
    passing.kind == Kind::Control(kind)
}

/// Loses the first frames of one type of message; tells how many are left to lose.
fn lose_first(lab: &mut Lab, kind: MessageType, count: u32) -> Rc<Cell<u32>> {
    let left = Rc::new(Cell::new(count));
    let counter = left.clone();
    lab.lose(move |passing| {
        let lost = is(passing, kind) && counter.get() > 0;
        counter.set(counter.get() - u32::from(lost));
        lost
    });
    left
}

#[test]
fn any_control_message_may_be_lost() {
    use MessageType::{Done, Fin, GetKey, Key, Offer, Reply};
    for (policy, level) in levels() {
        let kinds: &[MessageType] = match level {
            Level::PostQuantum => &[Offer, Reply, Fin],
            _ => &[GetKey, Key, Offer, Reply, Fin],
        };
        for kind in kinds {
            for count in [1, 2, 4] {
                let mut lab = talking(policy);
                let left = lose_first(&mut lab, *kind, count);
                let took = heals(&mut lab, level, 30 * SECOND);
                assert_eq!(left.get(), 0, "{count} {kind:?} were sent");
                assert!(took < 25 * SECOND, "{count} {kind:?} at {level}: {took:?}");
            }
        }
        // DONE leaves on a session under the boot key only if B has no other yet.
        let mut lab = talking(policy);
        lose_first(&mut lab, Done, 4);
        heals(&mut lab, level, 10 * SECOND);
    }
}

#[test]
fn any_control_message_may_be_lost_when_the_level_falls() {
    // B goes back to L1 only: FIN and DONE run on a session at L2, where their length tells.
    use MessageType::{Done, Fin, Offer, Poke, Reply};
    for kind in [Poke, Offer, Reply, Fin, Done] {
        let mut lab = up(Policy::at(Stage::OldOnly), Level::Classical);
        lose_first(&mut lab, kind, 2);
        lab.set_policy(A, Policy::at(Stage::Both)).unwrap();
        lab.set_policy(B, Policy::at(Stage::Both)).unwrap();
        let took = heals(&mut lab, Level::PostQuantum, HEALED_WITHIN);
        assert!(took < 30 * SECOND, "{kind:?}: {took:?}");
    }
}

#[test]
fn fin_lost_for_good_opens_nothing_and_heals_with_the_network() {
    for (policy, level) in levels() {
        let mut lab = talking(policy);
        lab.lose(|passing| is(passing, MessageType::Fin));
        for _ in 0..120 {
            lab.run_for(SECOND).unwrap();
            assert_eq!(lab.level_of_link((A, B)), None);
        }
        assert_eq!(lab.messages().delivered(), 0);
        lab.lose_no_more();
        heals(&mut lab, level, HEALED_WITHIN);
    }
}

#[test]
fn done_lost_for_good_stops_nothing() {
    for (policy, level) in levels() {
        let mut lab = talking(policy);
        lab.lose(|passing| is(passing, MessageType::Done));
        let took = heals(&mut lab, level, HEALED_WITHIN);
        assert!(took < 5 * SECOND, "{took:?}");
    }
}

#[test]
fn done_lost_for_good_in_a_rotation_loses_no_packet() {
    /// A frame with 32 bytes of body in IPv6 and UDP, padded, in transport data.
    const DONE_BYTES: usize = 16 + 112 + 16 - 16;
    let mut lab = rotating(Duration::from_secs(60), 0);
    let epoch = lab.epoch(A, B).unwrap();
    lab.lose(|passing| passing.from == B && passing.len == DONE_BYTES);
    // Each waits for the next handshake of WireGuard, 120 s after the one before.
    lab.run_for(Duration::from_secs(1_000)).unwrap();
    lab.lose_no_more();
    lab.run_for(10 * SECOND).unwrap();
    assert!(lab.epoch(A, B).unwrap() > epoch + 2, "it went on rotating");
    assert_eq!(lab.messages().lost(|_, _| true), 0);
}

/// Runs two nodes until one is in this phase.
fn until(policy: Policy, host: usize, phase: Phase) -> Lab {
    let mut lab = talking(policy);
    let there = |lab: &Lab| lab.phase(host, 1 - host) == Some(phase);
    assert!(lab.run_until(10 * SECOND, there).unwrap(), "{phase:?}");
    lab
}

/// A node dies now and is back after a while.
fn dies(lab: &mut Lab, host: usize, start: Start, after: Duration) {
    lab.kill(host);
    lab.run_for(after).unwrap();
    lab.start(host, start).unwrap();
}

const AWAY: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(8),
    Duration::from_secs(250),
];

#[test]
fn a_dies_after_b_has_switched() {
    for (policy, level) in levels() {
        for start in [Start::WithDisk, Start::WithoutDisk] {
            for away in AWAY {
                let mut lab = until(policy, B, Phase::Set);
                dies(&mut lab, A, start, away);
                heals(&mut lab, level, HEALED_WITHIN);
            }
        }
    }
}

#[test]
fn b_dies_after_fin_and_before_the_new_session() {
    for (policy, level) in levels() {
        for start in [Start::WithDisk, Start::WithoutDisk] {
            for away in AWAY {
                let mut lab = until(policy, B, Phase::Set);
                dies(&mut lab, B, start, away);
                heals(&mut lab, level, HEALED_WITHIN);
            }
        }
    }
}

#[test]
fn either_dies_in_each_phase() {
    use Phase::{Boot, Finished, Offered, Replied, Set, Switch, Up};
    for (host, phases) in [
        (A, [Offered, Finished, Switch, Up].as_slice()),
        (B, [Boot, Replied, Set, Up].as_slice()),
    ] {
        for phase in phases {
            for who in [A, B] {
                let mut lab = until(Policy::default(), host, *phase);
                dies(&mut lab, who, Start::WithDisk, SECOND);
                heals(&mut lab, Level::PostQuantum, HEALED_WITHIN);
            }
        }
    }
}

#[test]
fn both_die() {
    for (policy, level) in levels() {
        for start in [Start::WithDisk, Start::WithoutDisk] {
            for away in AWAY {
                let mut lab = up(policy, level);
                lab.kill(A);
                dies(&mut lab, B, start, away);
                lab.start(A, start).unwrap();
                heals(&mut lab, level, HEALED_WITHIN);
            }
        }
    }
}

#[test]
fn one_is_restored_from_a_backup() {
    for who in [A, B] {
        for (policy, level) in levels() {
            let mut lab = up(policy, level);
            lab.back_up(who);
            lab.run_for(Duration::from_secs(100)).unwrap();
            // What was promised since is not in the backup of either.
            let promise = Policy {
                stage: Stage::NewOnly,
                ..policy
            };
            lab.set_policy(1 - who, promise).unwrap();
            lab.run_for(Duration::from_secs(100)).unwrap();
            dies(&mut lab, who, Start::FromBackup, 5 * SECOND);
            heals(&mut lab, level, HEALED_WITHIN);
        }
    }
}

#[test]
fn a_clock_goes_back() {
    const HOUR: i64 = 3_600;
    for who in [A, B] {
        for by in [-20, -250, -10 * HOUR, -24 * 365 * HOUR] {
            let mut lab = up(Policy::default(), Level::PostQuantum);
            lab.set_clock(who, by);
            lab.run_for(Duration::from_secs(150)).unwrap();
            heals(&mut lab, Level::PostQuantum, HEALED_WITHIN);
            dies(&mut lab, who, Start::WithDisk, SECOND);
            heals(&mut lab, Level::PostQuantum, HEALED_WITHIN);
        }
    }
}

#[test]
fn a_clock_that_went_back_and_is_right_again_reaches_l3() {
    for who in [A, B] {
        for by in [-10 * 3_600, 10 * 3_600] {
            let policy = with_static_keys();
            let mut lab = up(policy, Level::PostQuantumAuthenticated);
            lab.set_clock(who, by);
            dies(&mut lab, who, Start::WithDisk, SECOND);
            lab.run_for(Duration::from_secs(60)).unwrap();
            lab.set_clock(who, -by);
            heals(&mut lab, Level::PostQuantumAuthenticated, HEALED_WITHIN);
        }
    }
}

#[test]
fn an_address_changes_during_the_switch() {
    for (policy, level) in levels() {
        for (host, phase) in [
            (A, Phase::Offered),
            (A, Phase::Finished),
            (A, Phase::Switch),
            (B, Phase::Replied),
            (B, Phase::Set),
        ] {
            for who in [A, B] {
                let mut lab = until(policy, host, phase);
                lab.move_host(who);
                heals(&mut lab, level, HEALED_WITHIN);
            }
        }
    }
}

#[test]
fn an_address_changes_with_every_rotation() {
    let mut lab = rotating(Duration::from_secs(30), 0);
    let epoch = lab.epoch(A, B).unwrap();
    for round in 0..10 {
        let before = lab.epoch(A, B);
        let rotated = move |lab: &Lab| lab.epoch(A, B) > before;
        assert!(lab.run_until(ROTATION, rotated).unwrap());
        lab.move_host(round % 2);
    }
    lab.run_for(10 * SECOND).unwrap();
    assert!(lab.epoch(A, B).unwrap() >= epoch + 10);
    assert_eq!(lab.level_of_link((A, B)), Some(Level::PostQuantum));
}

/// Two nodes at L2 with a message each way every 200 ms.
fn rotating(rotate_after: Duration, loss: u32) -> Lab {
    let options = LabOptions {
        rotate_after,
        loss,
        ..LabOptions::default()
    };
    let mut lab = Lab::new(options, &[Policy::default(); 2]);
    lab.introduce(A, B);
    lab.send_every(Duration::from_millis(200));
    let reached = |lab: &Lab| lab.level_of_link((A, B)) == Some(Level::PostQuantum);
    assert!(lab.run_until(60 * SECOND, reached).unwrap());
    // What waited for the first session has no datagram of its own that could be lost: let it be.
    lab.send_no_more();
    lab.run_for(2 * SECOND).unwrap();
    lab.send_every(Duration::from_millis(200));
    lab
}

#[test]
fn a_hundred_rotations_under_traffic_lose_nothing_but_what_the_network_loses() {
    let mut lab = rotating(SECOND, 10);
    let lost_before = lab.messages().lost(|_, _| true);
    let epoch = lab.epoch(A, B).unwrap();
    let done = move |lab: &Lab| lab.epoch(A, B) >= Some(epoch + 100);
    assert!(
        lab.run_until(100 * ROTATION, done).unwrap(),
        "{:?}",
        lab.epoch(A, B)
    );
    lab.send_no_more();
    lab.run_for(5 * SECOND).unwrap();
    let messages = lab.messages();
    assert!(messages.sent() > 200_000, "{}", messages.sent());
    let on_the_way = messages.lost_on_the_way();
    assert!(on_the_way > messages.sent() / 200, "{on_the_way}");
    assert_eq!(messages.refused(), 0);
    assert_eq!(messages.lost(|_, _| true), lost_before);
}
