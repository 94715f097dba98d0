//! Attacks on the control protocol, each really tried on the real state machine: docs/spec.md
//! section 7.3. The tunnel is handed to the attacker: he reads, changes, drops, repeats, reorders
//! and injects messages, and makes sessions under the boot key. What he lacks is the node keys.
//!
//! After each attack: no gate opened, no pin fell, no key in a slot changed, and as soon as he
//! lets go the two nodes come to their common level.

#[path = "attacks/aborts.rs"]
mod aborts;
#[path = "attacks/claims.rs"]
mod claims;
#[path = "attacks/lists.rs"]
mod lists;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/puppet.rs"]
mod puppet;
#[path = "attacks/replays.rs"]
mod replays;
#[path = "attacks/static_keys.rs"]
mod static_keys;
#[path = "attacks/strangers.rs"]
mod strangers;

use pair::Pair;
use std::time::Duration;
use wiremesh_control::frame::{Message, MessageType};
use wiremesh_control::machine::Gate;
use wiremesh_control::{Level, Pin, Policy, Stage};
use wiremesh_wire::PresharedKey;

const SECOND: Duration = Duration::from_secs(1);

/// L1 is allowed, so that there is something to be talked down to.
fn both() -> Policy {
    Policy::at(Stage::Both)
}

fn with_static_keys(minimum: Level) -> Policy {
    Policy {
        minimum,
        static_kem: true,
        ..Policy::default()
    }
}

/// What an attack must leave alone.
#[derive(Debug, PartialEq)]
struct Kept {
    gate: Option<Gate>,
    pin: Level,
    max_seq: u64,
    slot: Option<(u32, PresharedKey)>,
}

fn kept(pair: &Pair) -> [Kept; 2] {
    pair.sides.each_ref().map(|side| Kept {
        gate: side.gate,
        pin: side.pin.level,
        max_seq: side.pin.max_seq,
        slot: side
            .primary
            .as_ref()
            .map(|slot| (slot.epoch, slot.psk.clone())),
    })
}

/// Nothing fell and nothing opened since `before`; a pin may have learned.
fn unharmed(pair: &Pair, before: &[Kept; 2]) {
    for (now, before) in kept(pair).iter().zip(before) {
        assert!(now.gate >= before.gate, "{now:?} {before:?}");
        assert!(now.pin >= before.pin && now.max_seq >= before.max_seq);
        assert_eq!(now.slot, before.slot);
    }
}

/// No application data passes at any step.
fn stays_shut(pair: &mut Pair, time: Duration) {
    let end = pair.time + time;
    while pair.time < end {
        pair.pass(Duration::from_millis(100));
        for side in &pair.sides {
            assert!(!side.open(), "{:?}", side.machine.status());
            assert!(side.primary.is_none(), "{:?}", side.machine.status());
        }
    }
}

/// The attacker lets go: an honest exchange succeeds within a minute.
fn recovers(pair: &mut Pair, level: u8) {
    recovers_within(pair, level, 60 * SECOND);
    pair.pass(SECOND);
    assert_eq!(pair.data_level(), Some(level));
}

fn recovers_within(pair: &mut Pair, level: u8, time: Duration) {
    pair.tap = None;
    pair.deaf = [false; 2];
    pair.busy = true;
    pair.settle();
    let end = pair.time + time;
    while pair.data_level() < Some(level) {
        let state = || pair.sides.each_ref().map(|side| side.machine.status());
        assert!(pair.time < end, "{:#?}", state());
        pair.pass(Duration::from_millis(100));
    }
}

/// Changes messages on their way.
fn change(pair: &mut Pair, mut change: impl FnMut(&mut Message) + 'static) {
    pair.tap = Some(Box::new(move |to, mut message| {
        change(&mut message);
        vec![(to, message)]
    }));
}

/// Two that have met.
fn met(policies: [Policy; 2], level: u8) -> Pair {
    let mut pair = Pair::new(policies);
    pair.busy = true;
    pair.pass(5 * SECOND);
    assert_eq!(pair.data_level(), Some(level));
    pair.busy = false;
    pair
}

/// Calls `attack` in each state that two nodes pass through from their first handshake to the end
/// of a second exchange: after each packet, the others still under way. Then all goes on, and the
/// level is reached `within` a time; zero is without any timer.
fn in_every_state(
    policies: [Policy; 2],
    level: u8,
    within: Duration,
    mut attack: impl FnMut(&mut Pair),
) {
    let mut states = 0;
    for again in [false, true] {
        for at in 0.. {
            let mut pair = match again {
                false => Pair::new(policies),
                true => met(policies, level),
            };
            pair.random = pair::Seeded(1_000);
            match again {
                false => assert!(pair.handshake(0)),
                true => pair.change_policy(0, policies[0]),
            }
            let over = !advance(&mut pair, at);
            let before = kept(&pair);
            let under_way = pair.packets.len();
            attack(&mut pair);
            unharmed(&pair, &before);
            // Answers to the attacker are his.
            pair.packets.truncate(under_way);
            recovers_within(&mut pair, level, within);
            states += 1;
            if over {
                break;
            }
        }
    }
    assert!(states > 15, "{states} states only");
}

/// Delivers so many packets, and makes the handshakes in between. `false` if there are fewer.
fn advance(pair: &mut Pair, steps: usize) -> bool {
    for _ in 0..steps {
        if let Some(packet) = pair.packets.pop_front() {
            pair.deliver(&packet);
        } else if let Some(at) = (0..2).find(|at| pair.sides[*at].handshake_wanted) {
            pair.handshake(at);
        } else {
            return false;
        }
    }
    true
}

/// The newest exchange id on the wire: the attacker sees it.
fn newest_id(pair: &Pair) -> wiremesh_control::frame::ExchangeId {
    let found = pair.sent.iter().rev();
    let mut found = found.filter(|(_, message)| message.kind != MessageType::Poke);
    found
        .next()
        .map_or(wiremesh_control::frame::ExchangeId([7; 8]), |(_, m)| m.id)
}
