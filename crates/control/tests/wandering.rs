//! Two machines under whatever a network, an operator and a power cut can do to them: no gate opens
//! below what its side requires, and left alone they come to the level that both policies give.
//! docs/spec.md sections 7.2, 7.3 and 7.5.

#[path = "support/pair.rs"]
mod pair;

use pair::Pair;
use proptest::prelude::*;
use std::time::Duration;
use wiremesh_control::machine::{Gate, Output};
use wiremesh_control::{Level, Policy, Stage, SuiteId, choose};

/// Two live nodes are at their common level after this much time of good delivery.
const CONVERGED_AFTER: Duration = Duration::from_secs(200);

#[derive(Clone, Debug)]
enum Event {
    Deliver(u8),
    Lose(u8),
    Duplicate(u8),
    /// The newest packet overtakes all others.
    Overtake,
    Handshake(usize),
    /// A boot session in the name of the peer, by an attacker who has broken v1.
    Forge(usize),
    /// Time passes; packets stay where they are.
    Ticks(u16),
    /// Time passes with good delivery.
    Pass(u16),
    Deaf(usize, bool),
    Policy(usize, usize),
    Crash(usize, usize),
    /// From a backup: the pin and the number of the record are those of the beginning.
    Restore(usize),
    /// The sessions of one side expire.
    Expire(usize),
    Clock(usize, i64),
}

/// Every policy that does not contradict itself.
fn policies() -> Vec<Policy> {
    let mut found = Vec::new();
    for stage in Stage::ALL {
        for minimum in Level::ALL {
            for static_kem in [false, true] {
                let policy = Policy {
                    minimum,
                    stage,
                    static_kem,
                };
                if policy.suites().is_ok() {
                    found.push(policy);
                }
            }
        }
    }
    found
}

fn event() -> impl Strategy<Value = Event> {
    let side = 0..2usize;
    let policy = 0..policies().len();
    prop_oneof![
        12 => (0..4u8).prop_map(Event::Deliver),
        4 => (0..4u8).prop_map(Event::Lose),
        2 => (0..4u8).prop_map(Event::Duplicate),
        2 => Just(Event::Overtake),
        3 => side.clone().prop_map(Event::Handshake),
        1 => side.clone().prop_map(Event::Forge),
        3 => (1..40u16).prop_map(Event::Ticks),
        3 => (1..400u16).prop_map(Event::Pass),
        1 => (side.clone(), any::<bool>()).prop_map(|(at, deaf)| Event::Deaf(at, deaf)),
        3 => (side.clone(), policy.clone()).prop_map(|(at, n)| Event::Policy(at, n)),
        1 => (side.clone(), policy).prop_map(|(at, n)| Event::Crash(at, n)),
        1 => side.clone().prop_map(Event::Restore),
        1 => side.clone().prop_map(Event::Expire),
        1 => (side, -200_000..200_000i64).prop_map(|(at, secs)| Event::Clock(at, secs)),
    ]
}

/// The moves between phases that the models of docs/proofs allow.
const TRANSITIONS: &str = include_str!("../../../docs/proofs/transitions.txt");

/// Every move since the last time is one that the models allow.
fn check_moves(pair: &mut Pair) {
    for side in &mut pair.sides {
        for output in side.outputs.drain(..) {
            if let Output::Moved {
                role,
                from,
                event,
                to,
            } = output
            {
                let line = format!("{role:?} {from:?} {event} {to:?}");
                assert!(TRANSITIONS.lines().any(|known| known == line), "{line}");
            }
        }
    }
}

/// What the rules of section 7.2 allow a side to have as its gate, reckoned apart from the machine.
fn check_gates(pair: &Pair) {
    for (side, peer) in [(0, 1), (1, 0)].map(|(a, b)| (&pair.sides[a], &pair.sides[b])) {
        let Some(Gate::Level(gate)) = side.gate else {
            continue;
        };
        let ours = side.local.suites();
        let pinned = side
            .pin
            .level
            .min(ours.best_level().expect("lists are known"));
        let least = side.local.policy().minimum.max(pinned);
        assert!(gate >= least, "gate {gate} below {least}");
        if gate == Level::Classical {
            // The peer has signed a list that leaves nothing better.
            let only_l1 = |list| choose(ours, list) == Some(SuiteId::WIREGUARD);
            assert!(peer.listed.iter().any(only_l1), "L1 without a list for it");
        }
        if let Some(session) = side.data_session() {
            assert!(session.level >= gate as u8);
            assert!(session.level > 1 || gate == Level::Classical);
        }
    }
}

fn play(pair: &mut Pair, event: &Event) {
    let at = |n: u8, len: usize| usize::from(n) % len.max(1);
    let waiting = pair.packets.len();
    match *event {
        Event::Deliver(n) => {
            if let Some(packet) = pair.packets.remove(at(n, waiting)) {
                pair.deliver(&packet);
            }
        }
        Event::Lose(n) => drop(pair.packets.remove(at(n, waiting))),
        Event::Duplicate(n) => {
            if let Some(packet) = pair.packets.get(at(n, waiting)).cloned() {
                pair.packets.push_back(packet);
            }
        }
        Event::Overtake => {
            if let Some(packet) = pair.packets.pop_back() {
                pair.packets.push_front(packet);
            }
        }
        Event::Handshake(initiator) => drop(pair.handshake(initiator)),
        Event::Forge(with) => pair.forge_session(with),
        Event::Ticks(count) => (0..count).for_each(|_| pair.tick()),
        Event::Pass(count) => pair.pass(Duration::from_millis(100) * u32::from(count)),
        Event::Deaf(at, deaf) => pair.deaf[at] = deaf,
        Event::Policy(at, n) => pair.change_policy(at, policies()[n]),
        Event::Crash(at, n) => pair.crash(at, policies()[n]),
        Event::Restore(at) => {
            pair.sides[at].pin = Default::default();
            pair.sides[at].record_seq = 0;
            let policy = *pair.sides[at].local.policy();
            pair.crash(at, policy);
        }
        Event::Expire(at) => {
            if !pair.sides[at].sessions.is_empty() {
                pair.sides[at].sessions.clear();
                pair.run(at, |machine, cx| machine.handle_sessions_gone(cx));
            }
        }
        Event::Clock(at, secs) => pair.sides[at].clock_off = secs,
    }
}

/// The level that both sides allow, if there is one: what `choose` gives, if no minimum, pin or
/// promise forbids it.
fn common(pair: &Pair) -> Option<Level> {
    let [a, b] = &pair.sides;
    let chosen = choose(a.local.suites(), b.local.suites())?.level()?;
    let allowed = [(a, b), (b, a)].iter().all(|(own, peer)| {
        let best = own.local.suites().best_level().expect("lists are known");
        let pinned = own.pin.level.min(best);
        let minimum = own.local.policy().minimum;
        chosen >= minimum.max(pinned) && chosen >= peer.local.policy().promised()
    });
    allowed.then_some(chosen)
}

fn wander(start: [usize; 2], events: &[Event]) {
    let mut pair = Pair::new(start.map(|n| policies()[n]));
    pair.busy = true;
    for event in events {
        play(&mut pair, event);
        check_gates(&pair);
        check_moves(&mut pair);
    }
    pair.deaf = [false; 2];
    for side in &mut pair.sides {
        side.clock_off = side.clock_off.clamp(-100, 100);
    }
    let end = pair.time + CONVERGED_AFTER;
    while pair.time < end {
        pair.pass(Duration::from_secs(1));
        check_gates(&pair);
        check_moves(&mut pair);
    }
    let Some(level) = common(&pair) else {
        return;
    };
    // L3 rests on records. One that came from a backup may count from below what peers have seen,
    // and then they take its next record, half a day later.
    let [a, b] = &pair.sides;
    let counts_on = a.record_seq >= b.pin.max_seq && b.record_seq >= a.pin.max_seq;
    if level == Level::PostQuantumAuthenticated && !counts_on {
        return;
    }
    let state = || {
        pair.sides
            .each_ref()
            .map(|side| (side.machine.status(), &side.sessions))
    };
    let reached = pair.data_level();
    assert!(
        reached >= Some(level as u8),
        "{reached:?} {level} {:#?}",
        state()
    );
}

proptest! {
    #[test]
    fn gates_stay_shut_and_two_live_nodes_come_together(
        start in [0..policies().len(), 0..policies().len()],
        events in prop::collection::vec(event(), 0..120),
    ) {
        wander(start, &events);
    }
}
