//! What breaks by itself: every failure that docs/spec.md section 7.3 says must heal, and those that
//! changes of policy, pin and clock in the middle of an exchange add. All on two machines with data
//! for each other; the level is that of the session that carries it.

#[path = "failures/changes.rs"]
mod changes;
#[path = "failures/deaths.rs"]
mod deaths;
#[path = "failures/losses.rs"]
mod losses;
#[path = "support/pair.rs"]
mod pair;

use pair::Pair;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use wiremesh_control::frame::{Message, MessageType};
use wiremesh_control::machine::Phase;
use wiremesh_control::{Level, Policy, Stage};

const SECOND: Duration = Duration::from_secs(1);
/// Nothing takes longer: no two live nodes stay below their common level for more.
const HEALED_AFTER: Duration = Duration::from_secs(200);
/// Long enough for the first upgrade when nothing is lost.
const MEETING: Duration = Duration::from_secs(5);

fn with_static_keys() -> Policy {
    Policy {
        static_kem: true,
        ..Policy::default()
    }
}

/// Pairs of policies with the level that they come to.
fn policies() -> [([Policy; 2], u8); 5] {
    let at = Policy::at;
    [
        ([Policy::default(); 2], 2),
        ([with_static_keys(); 2], 3),
        ([with_static_keys(), Policy::default()], 2),
        ([at(Stage::Both), at(Stage::OldOnly)], 1),
        ([at(Stage::OldOnly), at(Stage::Both)], 1),
    ]
}

fn minimum(level: Level) -> Policy {
    Policy {
        minimum: level,
        static_kem: true,
        ..Policy::default()
    }
}

/// Two nodes with data for each other.
fn busy(policies: [Policy; 2]) -> Pair {
    let mut pair = Pair::new(policies);
    pair.busy = true;
    pair
}

/// The same once they have met.
fn met(policies: [Policy; 2], level: u8) -> Pair {
    let mut pair = busy(policies);
    pair.pass(MEETING);
    assert_eq!(pair.data_level(), Some(level));
    pair
}

/// Meets message by message: `stop` says after which one no more are delivered. `false` if it never
/// did.
fn meet_until(pair: &mut Pair, mut stop: impl FnMut(&Pair) -> bool) -> bool {
    pair.busy = false;
    pair.handshake(0);
    while let Some(packet) = pair.packets.pop_front() {
        pair.deliver(&packet);
        let wants = (0..2).find(|at| pair.sides[*at].handshake_wanted);
        if stop(pair) {
            pair.busy = true;
            return true;
        }
        if let Some(at) = wants {
            pair.handshake(at);
        }
    }
    false
}

/// How long it takes until data goes both ways at a level.
fn heals(pair: &mut Pair, level: u8) -> Duration {
    let began = pair.time;
    while pair.data_level() < Some(level) {
        let took = pair.time - began;
        let state = || {
            pair.sides
                .each_ref()
                .map(|side| (side.machine.status(), &side.sessions))
        };
        assert!(took < HEALED_AFTER, "stuck: {:#?}", state());
        pair.pass(Duration::from_millis(100));
    }
    pair.time - began
}

/// Data goes both ways at the level or above, at each step.
fn goes_on(pair: &mut Pair, level: u8, time: Duration) {
    let end = pair.time + time;
    while pair.time < end {
        pair.pass(Duration::from_millis(100));
        let now = pair.data_level();
        assert!(now >= Some(level), "{now:?} at {:?}", pair.time);
    }
}

/// Loses the messages for which `lost` holds.
fn lose(pair: &mut Pair, mut lost: impl FnMut(usize, &Message) -> bool + 'static) {
    pair.tap = Some(Box::new(move |to, message| match lost(to, &message) {
        true => Vec::new(),
        false => vec![(to, message)],
    }));
}

/// Loses all messages of a kind.
fn lose_all(pair: &mut Pair, kind: MessageType) {
    lose(pair, move |_, message| message.kind == kind);
}

/// A flag that a tap raises.
fn flag() -> (Rc<Cell<bool>>, Rc<Cell<bool>>) {
    let flag = Rc::new(Cell::new(false));
    (flag.clone(), flag)
}
