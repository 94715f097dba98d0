//! Two machines joined by a tunnel that is as simple as the rules of docs/spec.md section 7.3.
//!
//! Owns virtual time, the frames on their way, and for each side its slot and its sessions. A
//! handshake succeeds at once if the responder's key is one that the initiator tries.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::time::Duration;
use wiremesh_control::exchange::Role;
use wiremesh_control::machine::{Context, Gate, Machine, Output, PeerSettings, Slot};
use wiremesh_control::{Local, LocalConfig, Pin, Policy, Random};
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, SecretKey, UnixTime};

/// Bytes that follow from a number, so that a run repeats.
pub struct Seeded(pub u64);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

/// One side.
pub struct Side {
    pub local: Local,
    pub machine: Machine,
    pub pin: Pin,
    pub primary: Option<Slot>,
    pub alternate: Option<Slot>,
    /// Epochs of the sessions that live, newest last; 0 is the boot key's.
    pub sessions: Vec<u32>,
    pub gate: Option<Gate>,
    pub handshake_wanted: bool,
    pub outputs: Vec<Output>,
    pub asked: Option<Vec<u8>>,
}

/// Both sides; side 0 is A.
pub struct Pair {
    pub sides: [Side; 2],
    pub time: Duration,
    pub random: Seeded,
    /// Frames on their way: to which side, payload.
    pub frames: VecDeque<(usize, Vec<u8>)>,
    /// Frames and initiations are lost while this is set for their destination.
    pub deaf: [bool; 2],
}

pub const EPOCH_START: u64 = 1_700_000_000;

/// Two secret keys, that of A first.
pub fn ordered_keys() -> [(SecretKey, NodeId); 2] {
    let mut keys = [3u8, 4].map(|byte| {
        let secret = [byte; 32];
        let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped(secret).to_bytes();
        let id = NodeId::from_bytes(&public).expect("a valid public key");
        (SecretKey::from_bytes(secret), id)
    });
    keys.sort_by_key(|(_, id)| *id);
    keys
}

pub fn local(policy: Policy, (secret, id): &(SecretKey, NodeId), unix: u64) -> Local {
    let mut config = LocalConfig::new(secret.clone());
    config.policy = policy;
    config.kem_seed = policy.static_kem.then(|| [secret.as_bytes()[0]; 64]);
    let unix = UnixTime::from_secs_nanos(unix, 0);
    Local::new(config, *id, unix, &mut Seeded(u64::from(id.as_bytes()[0])))
        .expect("a consistent policy")
}

fn side(policy: Policy, own: &(SecretKey, NodeId), peer: NodeId, unix: u64) -> Side {
    let local = local(policy, own, unix);
    Side {
        machine: Machine::new(&local, peer, Pin::default(), PeerSettings::default()),
        local,
        pin: Pin::default(),
        primary: None,
        alternate: None,
        sessions: Vec::new(),
        gate: None,
        handshake_wanted: false,
        outputs: Vec::new(),
        asked: None,
    }
}

impl Pair {
    /// Two nodes that never met, with these policies: A's, B's.
    pub fn new(policies: [Policy; 2]) -> Self {
        let keys = ordered_keys();
        Self {
            sides: [
                side(policies[0], &keys[0], keys[1].1, EPOCH_START),
                side(policies[1], &keys[1], keys[0].1, EPOCH_START),
            ],
            time: Duration::from_secs(1),
            random: Seeded(7),
            frames: VecDeque::new(),
            deaf: [false; 2],
        }
    }

    pub fn now(&self) -> Now {
        Now::new(
            Instant::from_nanos(self.time.as_nanos() as u64),
            UnixTime::from_duration(Duration::from_secs(EPOCH_START) + self.time),
        )
    }

    /// Runs a machine and takes in what it wants.
    pub fn run(&mut self, at: usize, input: impl FnOnce(&mut Machine, &mut Context<'_>)) {
        let now = self.now();
        let side = &mut self.sides[at];
        let mut out = Vec::new();
        let mut context = Context {
            local: &side.local,
            now,
            random: &mut self.random,
            out: &mut out,
            any_session: !side.sessions.is_empty(),
            open_session: side.open(),
            traffic_bytes: 0,
        };
        input(&mut side.machine, &mut context);
        for output in &out {
            side.apply(output);
            if let Output::Frame(frame) = output
                && !side.sessions.is_empty()
            {
                self.frames.push_back((1 - at, frame.clone()));
            }
        }
        self.sides[at].outputs.extend(out);
    }

    /// A handshake, `initiator` first. `false` if no key fits.
    pub fn handshake(&mut self, initiator: usize) -> bool {
        self.sides[initiator].handshake_wanted = false;
        if self.deaf[0] || self.deaf[1] {
            return false;
        }
        let answers = self.sides[1 - initiator].keys();
        let tried = self.sides[initiator].keys();
        let Some((epoch, _)) = answers.iter().find(|key| tried.contains(key)) else {
            return false;
        };
        for at in [initiator, 1 - initiator] {
            self.sides[at].sessions.push(*epoch);
            self.run(at, |machine, cx| {
                machine.start(cx);
                machine.handle_session(cx, *epoch);
            });
        }
        true
    }

    /// Delivers frames and handshakes until nothing moves.
    pub fn settle(&mut self) {
        loop {
            if let Some((to, frame)) = self.frames.pop_front() {
                if !self.deaf[to] && !self.sides[to].sessions.is_empty() {
                    self.run(to, |machine, cx| machine.handle_frame(cx, &frame));
                }
            } else if let Some(at) = (0..2).find(|at| self.sides[*at].handshake_wanted) {
                self.handshake(at);
            } else {
                return;
            }
        }
    }

    /// Lets time pass, with everything that is due in it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.time + time;
        while self.time < end {
            self.time += Duration::from_millis(100);
            for at in 0..2 {
                self.run(at, |machine, cx| machine.handle_timeout(cx));
            }
            self.settle();
        }
    }

    /// First contact: a handshake, and what follows from it.
    pub fn meet(&mut self) {
        assert!(self.handshake(0), "boot keys fit");
        self.settle();
    }

    /// A side forgets everything but its pin.
    pub fn crash(&mut self, at: usize, policy: Policy) {
        let keys = ordered_keys();
        let unix = self.now().unix.as_duration().as_secs();
        let pin = self.sides[at].pin;
        let peer = keys[1 - at].1;
        let mut fresh = side(policy, &keys[at], peer, unix);
        fresh.machine = Machine::new(&fresh.local, peer, pin, PeerSettings::default());
        fresh.pin = pin;
        self.sides[at] = fresh;
        self.frames.clear();
    }

    pub fn set_policy(&mut self, at: usize, policy: Policy) {
        let unix = self.now().unix;
        self.sides[at]
            .local
            .set_policy(policy, unix, &mut self.random)
            .expect("a consistent policy");
        self.run(at, |machine, cx| machine.handle_policy(cx));
        self.settle();
    }

    /// Both have the same key in the slot, and a session under it that the gate lets through.
    pub fn is_up(&self) -> bool {
        let [a, b] = &self.sides;
        let epochs = [a, b].map(|side| side.primary.as_ref().map(|slot| slot.epoch));
        let same = match (&a.primary, &b.primary) {
            (Some(a), Some(b)) => a.psk == b.psk,
            _ => false,
        };
        same && epochs[0] == epochs[1] && a.open() && b.open()
    }
}

impl Side {
    /// The keys that this side has, in the order in which they are tried.
    fn keys(&self) -> Vec<(u32, PresharedKey)> {
        let slots = self.primary.iter().chain(&self.alternate);
        slots
            .map(|slot| (slot.epoch, slot.psk.clone()))
            .chain([(0, PresharedKey::default())])
            .collect()
    }

    /// Whether application data passes.
    pub fn open(&self) -> bool {
        let level = |epoch: &u32| match epoch {
            0 => 1,
            _ => 2,
        };
        match self.gate {
            Some(Gate::Level(gate)) => self.sessions.iter().any(|e| level(e) >= gate as u8),
            _ => false,
        }
    }

    fn apply(&mut self, output: &Output) {
        match output {
            Output::Candidate(slot) => self.alternate = Some(slot.clone()),
            Output::Install(slot) => {
                let old = std::mem::replace(&mut self.primary, slot.clone());
                self.alternate = old;
            }
            Output::Settle => self.alternate = None,
            Output::SetGate(gate) => self.gate = Some(*gate),
            Output::Handshake => self.handshake_wanted = true,
            Output::SavePin(pin) => self.pin = *pin,
            Output::Ask(proof) => self.asked = Some(proof.clone()),
            _ => {}
        }
    }

    /// Whether some message was refused so far.
    pub fn refused(&self) -> bool {
        self.outputs
            .iter()
            .any(|output| matches!(output, Output::Refused(_)))
    }
}

/// The role of side 0 is A's.
pub const ROLES: [Role; 2] = [Role::A, Role::B];
