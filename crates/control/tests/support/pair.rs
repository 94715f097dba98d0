//! Two machines joined by a tunnel that is as simple as the rules of docs/spec.md section 7.3.
//!
//! Owns virtual time, the packets on their way, and for each side its keys and its sessions: the
//! order of keys is that of the engine, and a handshake goes through all keys of the responder, as
//! its repetitions would. The tunnel belongs to the attacker: a [`Tap`] sees every message and says
//! what arrives instead.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::time::Duration;
use wiremesh_control::exchange::Role;
use wiremesh_control::frame::{ExchangeId, Message, MessageType, Reassembly, fragment};
use wiremesh_control::machine::{Context, Gate, Machine, Output, PeerSettings, Refusal, Slot};
use wiremesh_control::{Level, Local, LocalConfig, Pin, Policy, Random, Suites};
use wiremesh_wire::{Instant, NetworkId, NodeId, Now, PresharedKey, SecretKey, UnixTime};

/// Unix time at the start.
pub const EPOCH_START: u64 = 1_700_000_000;
/// The role of side 0 is A's.
pub const ROLES: [Role; 2] = [Role::A, Role::B];
/// A session older than this carries nothing (`REJECT_AFTER_TIME`).
const SESSION_TIME: Duration = Duration::from_secs(180);
/// A session older than this is replaced (`REKEY_AFTER_TIME`).
const REKEY_TIME: Duration = Duration::from_secs(120);
const ATTEMPTS_APART: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);

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

/// A WireGuard session as one side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: u64,
    pub epoch: u32,
    pub level: u8,
    pub since: Duration,
    pub initiator: bool,
}

/// A packet inside the tunnel: a frame, or nothing at all (a keepalive).
#[derive(Clone, Debug)]
pub struct Packet {
    pub to: usize,
    pub session: u64,
    pub payload: Vec<u8>,
}

/// What the attacker lets arrive in the place of a message to the given side.
pub type Tap = Box<dyn FnMut(usize, Message) -> Vec<(usize, Message)>>;

/// One side.
pub struct Side {
    pub local: Local,
    pub machine: Machine,
    pub settings: PeerSettings,
    pub pin: Pin,
    pub primary: Option<Slot>,
    pub alternate: Option<Slot>,
    /// Sessions that can be sealed with, newest last.
    pub sessions: Vec<Session>,
    /// The session of our last response, while nothing has come on it.
    pub unconfirmed: Option<Session>,
    pub gate: Option<Gate>,
    pub handshake_wanted: bool,
    pub attempted: Option<Duration>,
    pub outputs: Vec<Output>,
    pub asked: Vec<Vec<u8>>,
    pub admitted: bool,
    pub forgotten: bool,
    /// Highest sequence number of an own record, as on disk.
    pub record_seq: u64,
    /// By how many seconds its clock is wrong.
    pub clock_off: i64,
    /// Every list that it has ever signed.
    pub listed: Vec<Suites>,
    pub traffic_bytes: u64,
}

/// Both sides; side 0 is A.
pub struct Pair {
    pub sides: [Side; 2],
    pub keys: [(SecretKey, NodeId); 2],
    pub time: Duration,
    pub random: Seeded,
    pub packets: VecDeque<Packet>,
    /// Packets and initiations are lost while this is set for their destination.
    pub deaf: [bool; 2],
    /// Every message that was sent, with the side that it was for.
    pub sent: Vec<(usize, Message)>,
    pub tap: Option<Tap>,
    /// Both sides have data for each other, and make sessions for it.
    pub busy: bool,
    seen: [Reassembly; 2],
    caught: [Reassembly; 2],
    sessions_made: u64,
}

/// Three secret keys, the smallest node id first.
pub fn ordered_keys() -> [(SecretKey, NodeId); 3] {
    let mut keys = [3u8, 4, 5].map(|byte| {
        let secret = [byte; 32];
        let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped(secret).to_bytes();
        let id = NodeId::from_bytes(&public).expect("a valid public key");
        (SecretKey::from_bytes(secret), id)
    });
    keys.sort_by_key(|(_, id)| *id);
    keys
}

/// Our side with a static ML-KEM key at hand, whether or not the policy uses it.
pub fn local(policy: Policy, own: &(SecretKey, NodeId), unix: u64, seq_floor: u64) -> Local {
    let mut config = LocalConfig::new(own.0.clone());
    config.policy = Policy {
        static_kem: true,
        ..policy
    };
    config.kem_seed = Some([own.0.as_bytes()[0]; 64]);
    config.record_seq_floor = seq_floor;
    let unix = UnixTime::from_secs_nanos(unix, 0);
    let mut random = Seeded(u64::from(own.1.as_bytes()[0]) ^ unix.as_secs() << 8);
    let mut local = Local::new(config, own.1, unix, &mut random).expect("a consistent policy");
    if !policy.static_kem {
        local
            .set_policy(policy, unix, &mut random)
            .expect("a consistent policy");
    }
    local
}

impl Side {
    pub fn new(local: Local, peer: NodeId, pin: Pin, settings: PeerSettings) -> Self {
        Self {
            machine: Machine::new(&local, peer, pin, settings.clone()),
            settings,
            pin,
            primary: None,
            alternate: None,
            sessions: Vec::new(),
            unconfirmed: None,
            gate: None,
            handshake_wanted: false,
            attempted: None,
            outputs: Vec::new(),
            asked: Vec::new(),
            admitted: false,
            forgotten: false,
            record_seq: local.record().record().seq,
            clock_off: 0,
            listed: vec![*local.suites()],
            traffic_bytes: 0,
            local,
        }
    }

    /// The keys that this side has, in the order in which they are tried and answered with.
    pub fn keys(&self) -> Vec<(u32, u8, PresharedKey)> {
        let boot = (0, 1, PresharedKey::default());
        let entry = |slot: &Slot| (slot.epoch, slot.level as u8, slot.psk.clone());
        let mut keys: Vec<_> = self
            .primary
            .iter()
            .chain(&self.alternate)
            .map(entry)
            .collect();
        keys.insert(self.boot_place(), boot);
        keys
    }

    /// The boot key is first while no other key is installed, else last.
    fn boot_place(&self) -> usize {
        match self.primary {
            None => 0,
            Some(_) => 1 + usize::from(self.alternate.is_some()),
        }
    }

    /// The session that application data leaves on.
    pub fn data_session(&self) -> Option<&Session> {
        let Some(Gate::Level(gate)) = self.gate else {
            return None;
        };
        let fits = |session: &&Session| session.level >= gate as u8;
        self.sessions.iter().rev().find(fits)
    }

    /// Whether application data passes.
    pub fn open(&self) -> bool {
        self.data_session().is_some()
    }

    /// Whether application data passes at L1 and no more is asked for.
    pub fn open_at_l1(&self) -> bool {
        self.gate == Some(Gate::Level(Level::Classical))
    }

    fn take_in(&mut self, session: Session) {
        self.unconfirmed = None;
        self.sessions.push(session);
        // The engine keeps two at or above the gate and one below.
        for boot in [true, false] {
            let kept = if boot { 1 } else { 2 };
            let of_kind = |s: &Session| (s.level == 1) == boot;
            while self.sessions.iter().filter(|s| of_kind(s)).count() > kept {
                let oldest = self
                    .sessions
                    .iter()
                    .position(of_kind)
                    .expect("just counted");
                self.sessions.remove(oldest);
            }
        }
    }

    fn apply(&mut self, output: &Output) {
        match output {
            Output::Candidate(slot) => self.alternate = Some(slot.clone()),
            Output::Install(None) => self.alternate = self.primary.take(),
            Output::Install(Some(slot)) => {
                let tag = |slot: &Slot| (slot.epoch, slot.level);
                let old = self.primary.replace(slot.clone());
                if old.as_ref().map(tag) != Some(tag(slot)) {
                    self.alternate = old;
                }
            }
            Output::Settle => self.alternate = None,
            Output::SetGate(gate) => self.gate = Some(*gate),
            Output::Handshake => self.handshake_wanted = true,
            Output::SavePin(pin) => self.pin = *pin,
            Output::Ask(proof) => self.asked.push(proof.clone()),
            Output::Admitted => self.admitted = true,
            Output::Forget => self.forgotten = true,
            _ => {}
        }
    }

    /// Why messages were refused so far.
    pub fn refusals(&self) -> Vec<Refusal> {
        let refusal = |output: &Output| match output {
            Output::Refused(refusal) => Some(*refusal),
            _ => None,
        };
        self.outputs.iter().filter_map(refusal).collect()
    }

    /// Whether some message was refused so far.
    pub fn refused(&self) -> bool {
        !self.refusals().is_empty()
    }
}

impl Pair {
    /// Two nodes that never met, with these policies: A's, B's.
    pub fn new(policies: [Policy; 2]) -> Self {
        Self::with_settings(policies, Default::default())
    }

    pub fn with_settings(policies: [Policy; 2], settings: [PeerSettings; 2]) -> Self {
        let [a, b, _] = ordered_keys();
        Self::between([a, b], policies, settings)
    }

    /// As [`Self::new`] with keys of the caller's, the smaller node id first.
    pub fn between(
        keys: [(SecretKey, NodeId); 2],
        policies: [Policy; 2],
        settings: [PeerSettings; 2],
    ) -> Self {
        let peers = [keys[1].1, keys[0].1];
        let mut at = 0..2;
        let sides = settings.map(|settings| {
            let at = at.next().expect("two sides");
            let local = local(policies[at], &keys[at], EPOCH_START, 0);
            Side::new(local, peers[at], Pin::default(), settings)
        });
        Self {
            sides,
            keys,
            time: Duration::from_secs(1),
            random: Seeded(7),
            packets: VecDeque::new(),
            deaf: [false; 2],
            sent: Vec::new(),
            tap: None,
            busy: false,
            seen: Default::default(),
            caught: Default::default(),
            sessions_made: 0,
        }
    }

    pub fn instant(&self) -> Instant {
        Instant::from_nanos(self.time.as_nanos() as u64)
    }

    pub fn now(&self, at: usize) -> Now {
        let unix = Duration::from_secs(EPOCH_START) + self.time;
        let off = Duration::from_secs(self.sides[at].clock_off.unsigned_abs());
        let unix = match self.sides[at].clock_off {
            0.. => unix + off,
            _ => unix - off,
        };
        Now::new(self.instant(), UnixTime::from_duration(unix))
    }

    /// Runs a machine and takes in what it wants.
    pub fn run(&mut self, at: usize, input: impl FnOnce(&mut Machine, &mut Context<'_>)) {
        let now = self.now(at);
        let side = &mut self.sides[at];
        side.local.renew(now.unix, &mut self.random);
        side.record_seq = side.local.record().record().seq;
        let mut out = Vec::new();
        let mut context = Context {
            local: &side.local,
            now,
            random: &mut self.random,
            out: &mut out,
            any_session: !side.sessions.is_empty(),
            open_session: side.open(),
            traffic_bytes: side.traffic_bytes,
        };
        input(&mut side.machine, &mut context);
        for output in &out {
            side.apply(output);
            if let Output::Frame(frame) = output
                && let Some(session) = side.sessions.last()
            {
                let (to, session) = (1 - at, session.id);
                self.packets.push_back(Packet {
                    to,
                    session,
                    payload: frame.clone(),
                });
                let whole = self.seen[to].handle_frame(now.instant, frame);
                if let Ok(Some(message)) = whole {
                    self.sent.push((to, message));
                }
            }
        }
        self.sides[at].outputs.extend(out);
    }

    /// A handshake, `initiator` first. `false` if it cannot be had now.
    pub fn handshake(&mut self, initiator: usize) -> bool {
        let responder = 1 - initiator;
        self.sides[initiator].handshake_wanted = false;
        self.sides[initiator].attempted = Some(self.time);
        if self.deaf[0] || self.deaf[1] {
            return false;
        }
        let mut answers = self.sides[responder].keys();
        // An answer that was not taken up is not given first again.
        if let Some(last) = &self.sides[responder].unconfirmed {
            let same =
                |(epoch, level, _): &(u32, u8, _)| *epoch == last.epoch && *level == last.level;
            let from = answers.iter().position(same).map_or(0, |at| at + 1);
            let len = answers.len();
            answers.rotate_left(from % len);
        }
        let tried = self.sides[initiator].keys();
        let Some((epoch, level, _)) = answers
            .iter()
            .find(|key| tried.iter().any(|mine| mine.2 == key.2))
        else {
            return false;
        };
        self.sessions_made += 1;
        let session = |initiator| Session {
            id: self.sessions_made,
            epoch: *epoch,
            level: *level,
            since: self.time,
            initiator,
        };
        self.sides[responder].unconfirmed = Some(session(false));
        let own = session(true);
        let (id, epoch) = (own.id, own.epoch);
        self.sides[initiator].take_in(own);
        self.packets.push_back(Packet {
            to: responder,
            session: id,
            payload: Vec::new(),
        });
        self.begin(initiator, epoch);
        true
    }

    fn begin(&mut self, at: usize, epoch: u32) {
        self.run(at, |machine, cx| {
            machine.start(cx);
            machine.handle_session(cx, epoch);
        });
    }

    /// A handshake that the attacker makes in the name of the peer: he has broken v1, so he has
    /// the boot session and the peer knows nothing of it.
    pub fn forge_session(&mut self, with: usize) {
        self.sessions_made += 1;
        let session = Session {
            id: self.sessions_made,
            epoch: 0,
            level: 1,
            since: self.time,
            initiator: false,
        };
        self.sides[with].take_in(session);
        self.begin(with, 0);
    }

    /// Lets a packet arrive. `false` if its session is unknown to the receiver.
    pub fn deliver(&mut self, packet: &Packet) -> bool {
        let side = &mut self.sides[packet.to];
        if let Some(session) = side.unconfirmed.take_if(|s| s.id == packet.session) {
            let epoch = session.epoch;
            side.take_in(session);
            self.begin(packet.to, epoch);
        }
        let side = &self.sides[packet.to];
        if !side.sessions.iter().any(|s| s.id == packet.session) {
            return false;
        }
        if !packet.payload.is_empty() {
            self.hand_over(packet.to, &packet.payload);
        }
        true
    }

    /// A frame arrives, as far as the attacker lets it.
    fn hand_over(&mut self, to: usize, frame: &[u8]) {
        let Some(mut tap) = self.tap.take() else {
            return self.inject_frame(to, frame);
        };
        let whole = self.caught[to].handle_frame(self.instant(), frame);
        if let Ok(Some(message)) = whole {
            for (to, message) in tap(to, message) {
                self.inject(to, &message);
            }
        }
        self.tap.get_or_insert(tap);
    }

    /// The attacker, who has the tunnel, puts one payload into it.
    pub fn inject_frame(&mut self, to: usize, frame: &[u8]) {
        if !self.sides[to].sessions.is_empty() {
            self.run(to, |machine, cx| machine.handle_frame(cx, frame));
        }
    }

    /// The same with a whole message.
    pub fn inject(&mut self, to: usize, message: &Message) {
        for frame in frames(message) {
            self.inject_frame(to, &frame);
        }
    }

    /// Delivers packets and makes the handshakes that are wanted until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if let Some(packet) = self.packets.pop_front() {
                if !self.deaf[packet.to] {
                    self.deliver(&packet);
                }
            } else if let Some(at) = (0..2).find(|at| self.sides[*at].handshake_wanted) {
                self.handshake(at);
            } else {
                return;
            }
        }
        panic!("two machines talk without end: {:?}", self.sent.last());
    }

    /// Lets time pass, with everything that is due in it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.time + time;
        while self.time < end {
            self.tick();
            self.settle();
        }
    }

    /// The next 100 ms, without delivering anything.
    pub fn tick(&mut self) {
        self.time += TICK;
        for at in 0..2 {
            self.expire(at);
            let due = |machine: &Machine| machine.next_deadline();
            if due(&self.sides[at].machine).is_some_and(|due| self.instant() >= due) {
                self.run(at, |machine, cx| machine.handle_timeout(cx));
            }
            if self.busy && self.needs_handshake(at) {
                self.handshake(at);
            }
        }
    }

    fn expire(&mut self, at: usize) {
        let time = self.time;
        let side = &mut self.sides[at];
        let (had_any, had_open) = (!side.sessions.is_empty(), side.open());
        side.sessions.retain(|s| time < s.since + SESSION_TIME);
        if had_any && side.sessions.is_empty() {
            self.run(at, |machine, cx| machine.handle_sessions_gone(cx));
        } else if had_open && !side.open() {
            self.run(at, |machine, cx| machine.handle_open_session_gone(cx));
        }
    }

    /// No session, one that gets no answer, or an old one.
    fn needs_handshake(&self, at: usize) -> bool {
        let (own, peer) = (&self.sides[at], &self.sides[1 - at]);
        let apart = |last: Duration| self.time < last + ATTEMPTS_APART;
        if own.attempted.is_some_and(apart) {
            return false;
        }
        let answering = |s: &Session| self.time < s.since + ATTEMPTS_APART;
        if own.unconfirmed.as_ref().is_some_and(answering) {
            return false;
        }
        let Some(session) = own.data_session().or(own.sessions.last()) else {
            return true;
        };
        let answered = peer.sessions.iter().any(|s| s.id == session.id);
        let grace = match session.initiator {
            true => Duration::ZERO,
            false => ATTEMPTS_APART * 2,
        };
        !answered || self.time >= session.since + REKEY_TIME + grace
    }

    /// First contact: a handshake, and what follows from it.
    pub fn meet(&mut self) {
        assert!(self.handshake(0), "boot keys fit");
        self.settle();
    }

    /// A side forgets everything but its pin and the number of its record.
    pub fn crash(&mut self, at: usize, policy: Policy) {
        let old = &self.sides[at];
        let unix = self.now(at).unix.as_secs();
        let local = local(policy, &self.keys[at], unix, old.record_seq);
        let (pin, settings) = (old.pin, old.settings.clone());
        let mut fresh = Side::new(local, self.keys[1 - at].1, pin, settings);
        fresh.clock_off = old.clock_off;
        fresh.listed.extend(&old.listed);
        self.sides[at] = fresh;
    }

    pub fn set_policy(&mut self, at: usize, policy: Policy) {
        self.change_policy(at, policy);
        self.settle();
    }

    /// Changes a policy and delivers nothing.
    pub fn change_policy(&mut self, at: usize, policy: Policy) {
        let unix = self.now(at).unix;
        let side = &mut self.sides[at];
        side.local
            .set_policy(policy, unix, &mut self.random)
            .expect("a consistent policy");
        side.record_seq = side.local.record().record().seq;
        side.listed.push(*side.local.suites());
        self.run(at, |machine, cx| machine.handle_policy(cx));
    }

    /// Both have the same key in the slot, and a session that the gate lets through.
    pub fn is_up(&self) -> bool {
        let [a, b] = &self.sides;
        let same = match (&a.primary, &b.primary) {
            (Some(a), Some(b)) => a.psk == b.psk && a.epoch == b.epoch,
            _ => false,
        };
        same && a.open() && b.open()
    }

    /// Application data goes both ways: the lower level of the two sessions that carry it.
    pub fn data_level(&self) -> Option<u8> {
        let level = |at: usize| {
            let (own, peer) = (&self.sides[at], &self.sides[1 - at]);
            let session = own.data_session()?;
            let known = peer.sessions.iter().any(|s| s.id == session.id);
            let passes =
                matches!(peer.gate, Some(Gate::Level(gate)) if session.level >= gate as u8);
            (known && passes).then_some(session.level)
        };
        Some(level(0)?.min(level(1)?))
    }

    /// The last message of a kind that was sent to a side.
    pub fn last_sent(&self, to: usize, kind: MessageType) -> Message {
        let found = self.sent.iter().rev();
        let mut found = found.filter(|(at, message)| *at == to && message.kind == kind);
        found.next().expect("one was sent").1.clone()
    }
}

/// The frames of a message.
pub fn frames(message: &Message) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    fragment(message.kind, message.id, &message.body, |frame| {
        frames.push(frame);
    });
    frames
}

pub fn message(kind: MessageType, id: ExchangeId, body: Vec<u8>) -> Message {
    Message { kind, id, body }
}

pub fn network() -> NetworkId {
    NetworkId::default()
}
