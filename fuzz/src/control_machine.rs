//! Two machines of the control protocol in a tunnel that the input owns: which packet arrives,
//! when, how often and with which damage; what an attacker without keys puts into it; what a peer
//! says that has its keys and lies; when nodes crash, policies, settings and clocks change.
//!
//! Holds after every operation: no panic; no gate below what policy, pin and signed lists require,
//! and none at all for a stranger; a preshared key comes only from an exchange that both ends
//! signed, with one epoch and level; pins never fall; one input gives few outputs; timers do not
//! spin. Left alone afterwards, two machines come to their common level.

mod rogue;

use std::time::Duration;

use wiremesh_control::frame::{ExchangeId, Message, MessageType};
use wiremesh_control::machine::{Gate, Output, PeerSettings, Slot};
use wiremesh_control::{Level, Pin, Policy, SuiteId, choose};
use wiremesh_wire::PresharedKey;

use crate::input::Input;
use pair::{Pair, frames};

// The tunnel of the crate's own tests.
#[path = "../../crates/control/tests/support/pair.rs"]
mod pair;

const OPERATIONS_MAX: usize = 64;
/// An answer to a stranger's OFFER of 8 frames, and what it says to the node.
const OUTPUTS_MAX: usize = 24;
/// Two live machines are at their common level after this much time of good delivery.
const CONVERGED_AFTER: Duration = Duration::from_secs(200);

/// What is known of a side apart from its machine.
#[derive(Default)]
struct Known {
    /// How many of its outputs were looked at.
    looked_at: usize,
    /// The pin when it was last looked at.
    pin: Pin,
    /// Every record that it has signed, and the highest level promised.
    records: Vec<Vec<u8>>,
    promised: Option<Level>,
    highest_seq: u64,
}

struct World {
    pair: Pair,
    known: [Known; 2],
    /// Every key that A, or who has the key of A or B, agreed on: with its epoch and level.
    agreed: Vec<(PresharedKey, u32, Level)>,
    rogue_sessions: u64,
    /// Somebody with the keys of a side has taken part.
    impersonated: bool,
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let policies = [input.policy(), input.policy()];
    let setting = input.u8();
    let settings = [1, 4].map(|bit| PeerSettings {
        minimum: (setting & (bit * 2) != 0).then_some(Level::PostQuantum),
        proof: (setting & bit != 0).then(|| b"invitation".to_vec()),
        needs_admission: setting & bit != 0,
    });
    let mut world = World {
        pair: Pair::with_settings(policies, settings),
        known: Default::default(),
        agreed: Vec::new(),
        rogue_sessions: 0,
        impersonated: false,
    };
    world.pair.busy = setting & 16 != 0;
    if setting & 32 != 0 {
        world.pair.meet();
        world.check();
    }
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
    if setting & 64 != 0 {
        world.converge();
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.u8();
        let at = usize::from(operation >> 7);
        let how = operation >> 4 & 7;
        let pair = &mut self.pair;
        match operation & 15 {
            0 => (0..=how).for_each(|_| {
                if let Some(packet) = pair.packets.pop_front() {
                    pair.deliver(&packet);
                }
            }),
            1 => drop(pair.packets.pop_front()),
            2 => {
                if let Some(packet) = pair.packets.front().cloned() {
                    pair.packets.push_back(packet);
                }
            }
            3 => {
                if let Some(packet) = pair.packets.pop_front() {
                    pair.packets.push_back(packet);
                }
            }
            4 => pair.settle(),
            5 => {
                if pair.handshake(at) && how == 7 {
                    pair.packets.pop_back();
                }
            }
            6 => (0..=input.u8()).for_each(|_| pair.tick()),
            7 => pair.pass(Duration::from_millis(100) * u32::from(input.u16() & 2_047)),
            8 => self.crash(at, input.policy()),
            9 => pair.change_policy(at, input.policy()),
            10 => self.inject_sent(at, how, input),
            11 => self.inject_new(at, how, input),
            12 => self.tell(at, how, input),
            13 => pair.forge_session(at),
            14 => self.rogue(at, how, input),
            _ => {
                let frame = input.block().to_vec();
                pair.inject_frame(at, &frame);
            }
        }
        for at in 0..2 {
            for round in 0.. {
                let machine = &self.pair.sides[at].machine;
                let now = self.pair.instant();
                if machine.next_deadline().is_none_or(|due| now < due) {
                    break;
                }
                assert!(round < 8, "timers spin");
                self.pair.run(at, |machine, cx| machine.handle_timeout(cx));
            }
        }
    }

    fn crash(&mut self, at: usize, policy: Policy) {
        let admitted = self.pair.sides[at].admitted;
        self.pair.crash(at, policy);
        self.pair.sides[at].settings.needs_admission &= !admitted;
        self.known[at].looked_at = 0;
    }

    /// The attacker sends a message once more, perhaps changed, to its receiver or its sender.
    fn inject_sent(&mut self, at: usize, how: u8, input: &mut Input<'_>) {
        let back = usize::from(input.u8());
        let place = self.pair.sent.len().checked_sub(1 + back);
        let Some((_, mut message)) = place.and_then(|place| self.pair.sent.get(place).cloned())
        else {
            return;
        };
        if how & 1 != 0 && !message.body.is_empty() {
            let place = usize::from(input.u16()) % message.body.len();
            message.body[place] ^= input.u8();
        }
        if how & 2 != 0 {
            message.id = self
                .pair
                .sent
                .last()
                .map_or(message.id, |(_, last)| last.id);
        }
        if how & 4 != 0 {
            message.kind = MessageType::ALL[usize::from(input.u8()) % 9];
        }
        self.inject(at, &message);
    }

    /// The attacker makes a message up.
    fn inject_new(&mut self, at: usize, how: u8, input: &mut Input<'_>) {
        let kind = MessageType::ALL[usize::from(input.u8()) % 9];
        let id = self.pair.sent.last().map(|(_, last)| last.id);
        let id = id.filter(|_| how & 1 != 0).unwrap_or(ExchangeId([how; 8]));
        let body = match kind {
            MessageType::Offer => self.offer_of(1 - at, input).1,
            _ => input.block().to_vec(),
        };
        self.inject(at, &Message { kind, id, body });
    }

    /// What no node has sent to this side installs nothing and lets nobody in.
    fn inject(&mut self, at: usize, message: &Message) {
        let genuine = |(to, sent): &(usize, Message)| *to == at && sent == message;
        let forged = !self.pair.sent.iter().any(genuine);
        if forged {
            // It stands by itself: a frame that it shares with a genuine message must not complete
            // that one.
            let other = pair::message(message.kind, ExchangeId([0xFF; 8]), vec![0; 1_025]);
            self.pair.inject_frame(at, &frames(&other)[0]);
        }
        let before = self.pair.sides[at].outputs.len();
        self.pair.inject(at, message);
        let after = &self.pair.sides[at].outputs[before..];
        assert!(after.len() <= OUTPUTS_MAX * frames(message).len());
        let installs = |output: &Output| {
            let Output::Install(slot) = output else {
                return matches!(output, Output::Candidate(_) | Output::Admitted);
            };
            slot.is_some()
        };
        assert!(
            !forged || !after.iter().any(installs),
            "a forged {:?} installs a key",
            message.kind
        );
    }

    /// The owner of a node says something.
    fn tell(&mut self, at: usize, how: u8, input: &mut Input<'_>) {
        let pair = &mut self.pair;
        match how {
            0 | 1 => pair.run(at, |machine, cx| machine.admit(cx, how == 0)),
            2 => {
                let mut settings = pair.sides[at].settings.clone();
                settings.minimum = Level::from_number(u16::from(input.u8() & 3));
                settings.proof = Some(input.block().to_vec());
                pair.sides[at].settings = settings.clone();
                pair.run(at, |machine, cx| machine.set_settings(cx, settings));
            }
            3 => {
                let records = &self.known[1 - at].records;
                let place = usize::from(input.u8()) % records.len().max(1);
                if let Some(bytes) = records.get(place).cloned() {
                    pair.run(at, |machine, cx| {
                        let _ = machine.learn_record(cx, &bytes);
                    });
                }
            }
            4 => {
                let level = Level::ALL[usize::from(input.u8()) % 3];
                let side = &mut pair.sides[at];
                side.machine.lower_pin(level);
                side.pin.level = side.pin.level.min(level);
                self.known[at].pin = side.pin;
                pair.run(at, |machine, cx| machine.handle_policy(cx));
            }
            5 => pair.sides[at].clock_off = i64::from(input.u16() as i16) * 8,
            6 => pair.deaf[at] = input.bool(),
            _ => {
                if !pair.sides[at].sessions.is_empty() {
                    pair.sides[at].sessions.clear();
                    pair.run(at, |machine, cx| machine.handle_sessions_gone(cx));
                }
            }
        }
    }

    fn check(&mut self) {
        for at in 0..2 {
            self.look_at_outputs(at);
            self.check_pin(at);
        }
        check_gates(&self.pair);
        for at in 0..2 {
            if core::mem::take(&mut self.pair.sides[at].forgotten) {
                // The node removes the stranger; it may come again.
                let policy = *self.pair.sides[at].local.policy();
                self.pair.crash(at, policy);
                self.known[at].looked_at = 0;
            }
        }
    }

    fn look_at_outputs(&mut self, at: usize) {
        let side = &self.pair.sides[at];
        let (own, peer) = (&side.listed, &self.pair.sides[1 - at].listed);
        let known = &mut self.known[at];
        for output in &side.outputs[known.looked_at..] {
            let (Output::Candidate(slot) | Output::Install(Some(slot))) = output else {
                continue;
            };
            let Slot { psk, epoch, level } = slot;
            assert!(*epoch != 0 && *level > Level::Classical);
            let gives = |a, b| choose(a, b).and_then(SuiteId::level) == Some(*level);
            let listed = own.iter().any(|a| peer.iter().any(|b| gives(a, b)));
            assert!(listed, "a level that the two have not listed");
            let agreed = self.agreed.iter().find(|(known, ..)| known == psk);
            match (agreed, output) {
                (Some((_, e, l)), _) => assert_eq!((e, l), (epoch, level), "two meanings"),
                (None, Output::Candidate(_)) if at == 0 => {
                    self.agreed.push((psk.clone(), *epoch, *level));
                }
                (None, _) => panic!("a key that nobody has agreed on"),
            }
        }
        known.looked_at = side.outputs.len();
    }

    fn check_pin(&mut self, at: usize) {
        let side = &self.pair.sides[at];
        let record = side.local.record();
        let own = &mut self.known[at];
        if own.records.last().is_none_or(|last| last != record.bytes()) {
            own.records.push(record.bytes().to_vec());
            own.promised = own.promised.max(Some(record.record().min_level));
            own.highest_seq = own.highest_seq.max(record.record().seq);
        }
        let (before, pin) = (own.pin, side.pin);
        let durable = |pin: &Pin| (pin.level, pin.max_seq, pin.kem_pk_hash);
        assert_eq!(durable(side.machine.pin()), durable(&pin), "not saved");
        assert!(pin.level >= before.level && pin.max_seq >= before.max_seq);
        own.pin = pin;
        let peer = &self.known[1 - at];
        assert!(pin.max_seq <= peer.highest_seq.max(self.pair.sides[1 - at].record_seq));
        let promised = self.pair.sides[1 - at].local.policy().promised();
        assert!(Some(pin.level) <= peer.promised.max(Some(promised)));
    }

    /// Nobody disturbs the two any more, and strangers are let in.
    fn converge(&mut self) {
        self.pair.deaf = [false; 2];
        self.pair.busy = true;
        if self.impersonated {
            // What was signed with a node's key is the node's word while both live, also that L1 is
            // all it speaks.
            for at in 0..2 {
                let policy = *self.pair.sides[at].local.policy();
                self.crash(at, policy);
            }
        }
        for side in &mut self.pair.sides {
            side.clock_off = side.clock_off.clamp(-100, 100);
        }
        let end = self.pair.time + CONVERGED_AFTER;
        while self.pair.time < end {
            self.pair.pass(Duration::from_secs(1));
            for at in 0..2 {
                self.pair.run(at, |machine, cx| machine.admit(cx, true));
            }
            self.pair.settle();
            self.check();
        }
        if let Some(level) = common(&self.pair) {
            let reached = self.pair.data_level();
            assert!(reached >= Some(level as u8), "{reached:?} below {level}");
        }
    }
}

/// What docs/spec.md section 7.2 lets be a gate, reckoned apart from the machine.
fn check_gates(pair: &Pair) {
    for (side, peer) in [(0, 1), (1, 0)].map(|(a, b)| (&pair.sides[a], &pair.sides[b])) {
        let _ = (side.machine.status(), side.machine.known_suites());
        let Some(Gate::Level(gate)) = side.gate else {
            continue;
        };
        let stranger = side.settings.needs_admission && !side.admitted;
        assert!(!stranger, "open for a stranger");
        let least = least(side);
        assert!(gate >= least, "gate {gate} below {least}");
        if gate == Level::Classical {
            let ours = side.local.suites();
            let only_l1 = |list| choose(ours, list) == Some(SuiteId::WIREGUARD);
            assert!(peer.listed.iter().any(only_l1), "L1 without a list for it");
        }
        if let Some(session) = side.data_session() {
            assert!(session.level > 1 || gate == Level::Classical);
        }
    }
}

/// What a side demands whatever the peer lists.
fn least(side: &pair::Side) -> Level {
    let best = side.local.suites().best_level().expect("known suites");
    let minimum = side.local.policy().minimum;
    minimum
        .max(side.settings.minimum.unwrap_or(minimum))
        .max(side.pin.level.min(best))
}

/// The level that both sides allow, if there is one.
fn common(pair: &Pair) -> Option<Level> {
    let [a, b] = &pair.sides;
    let chosen = choose(a.local.suites(), b.local.suites())?.level()?;
    let allowed = [(a, b), (b, a)]
        .iter()
        .all(|(own, peer)| chosen >= least(own) && chosen >= peer.local.policy().promised());
    allowed.then_some(chosen)
}
