//! The control protocol with one peer, as a state machine.
//!
//! Owns what has been agreed with the peer, the exchange under way, and the gate: the level that
//! application data needs. What it wants done comes out as [`Output`]s; it never touches a session.
//! docs/spec.md section 7.3. The roles are in `machine/offering.rs` (A) and `machine/answering.rs`
//! (B); every transition is one of `docs/proofs/transitions.txt`.

mod answering;
mod learn;
mod offering;
mod status;
mod timeout;

pub use status::{MachineStatus, Phase, Refusal, WaitReason};

use crate::Random;
use crate::exchange::{Agreement, Offered, Replied, Role};
use crate::frame::{ExchangeId, MessageType, REASSEMBLY_TIME, Reassembly, fragment};
use crate::local::{Local, Plane};
use crate::pin::Pin;
use crate::policy::required_level;
use crate::record::SignedRecord;
use crate::suite::{Level, SuiteId, Suites};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey};

/// An exchange that is not finished by then is given up.
pub const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// When an unanswered message is repeated, counted from the first.
const REPEATS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
];
/// Least time between two exchanges that the peer asked for.
const EXCHANGES_APART: Duration = Duration::from_millis(200);
/// How long a stranger may take to be admitted, from its proof on.
pub const ADMISSION_TIME: Duration = Duration::from_secs(30);
/// Messages that cost a signature or a key agreement: so many at once, and one more per interval.
const COSTLY_BURST: u32 = 8;
const COSTLY_INTERVAL: Duration = Duration::from_millis(50);

/// What application data to and from the peer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// A session of this level or above.
    Level(Level),
    /// Nothing passes: the peer is not admitted yet.
    Closed,
}

/// What the machine wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send this as the payload of UDP port 2707 between the control addresses.
    Frame(Vec<u8>),
    /// Save the pin of the peer durably before the frames that follow leave.
    SavePin(Pin),
    /// Try this key too when a handshake response of the peer comes.
    Candidate(Slot),
    /// Put this key into the slot, in place; the one before is still tried. `None`: the boot key.
    Install(Option<Slot>),
    /// The peer has shown that it uses the key in the slot: forget the one before.
    Settle,
    /// The peer was restarted and went on at L1: sessions from before its newest are dead there.
    Abandon,
    /// The gate changed.
    SetGate(Gate),
    /// Start a handshake now; the peer's engine expects it right behind the frame before.
    Handshake,
    /// The peer's initiation comes right behind its last message.
    ExpectHandshake,
    /// Ask the application whether this stranger may come in.
    Ask(Vec<u8>),
    /// A stranger was let in.
    Admitted,
    /// A stranger was turned away, or gave up: forget it.
    Forget,
    /// A transition, for whoever compares with the model.
    Moved {
        /// Our role.
        role: Role,
        /// The phase before.
        from: Phase,
        /// What happened.
        event: &'static str,
        /// The phase after.
        to: Phase,
    },
    /// A message of the peer was refused; nothing has changed.
    Refused(Refusal),
}

/// A preshared key with what made it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The key.
    pub psk: PresharedKey,
    /// Its epoch, chosen by A.
    pub epoch: u32,
    /// The level of sessions that are made with it.
    pub level: Level,
}

/// What each call is given.
pub struct Context<'a> {
    /// Our side.
    pub local: &'a Local,
    /// The time.
    pub now: Now,
    /// Fresh random bytes.
    pub random: &'a mut dyn Random,
    /// Where wishes go.
    pub out: &'a mut Vec<Output>,
    /// Whether any session with the peer lives.
    pub any_session: bool,
    /// Whether one lives that the gate lets application data through on.
    pub open_session: bool,
    /// Bytes exchanged with the peer so far, both ways.
    pub traffic_bytes: u64,
}

impl Context<'_> {
    fn send(&mut self, kind: MessageType, id: ExchangeId, body: &[u8]) {
        let out = &mut *self.out;
        fragment(kind, id, body, |frame| out.push(Output::Frame(frame)));
    }

    fn unix_secs(&self) -> u64 {
        self.now.unix.as_duration().as_secs()
    }
}

/// What the operator or the application says of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// Application data with this peer needs at least this, whatever the node's minimum.
    pub minimum: Option<Level>,
    /// Shown to the peer in the exchange, at most 4,096 bytes.
    pub proof: Option<Vec<u8>>,
    /// The peer is a stranger: nothing passes before the application has seen its proof.
    pub needs_admission: bool,
}

/// Where a stranger stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Admitted,
    NeedsProof,
    Asked,
}

/// A message that is repeated until it is answered.
struct Repeated {
    kind: MessageType,
    body: Vec<u8>,
    began: Instant,
    sent: usize,
}

impl Repeated {
    fn next_at(&self) -> Option<Instant> {
        Some(self.began + *REPEATS.get(self.sent)?)
    }
}

/// The exchange under way.
enum Exchange {
    None,
    /// A: GETKEY is out, for the peer's static key.
    KeyWanted(Repeated),
    /// A: OFFER is out.
    Offered(Box<Offered>, Repeated),
    /// A: the REPLY is good; the application is asked about a stranger, FIN waits.
    Held(Box<Agreement>, Vec<u8>),
    /// A: FIN is out.
    Finished(Box<Agreement>, Repeated),
    /// A: DONE came; a session under the new key is not there yet.
    Switch(Box<Agreement>),
    /// A session under the new key is there; the peer cannot see that by itself, so LIVE tells it.
    Live(Box<Agreement>, Repeated),
    /// B: the application is asked about a stranger; its OFFER waits.
    Waiting(Vec<u8>),
    /// B: OFFER came while the static key of A is missing; GETKEY is out.
    KeyMissing(Vec<u8>),
    /// B: REPLY is out.
    Replied(Box<Replied>, Vec<u8>),
    /// B: FIN was good, DONE is out; a session under the new key is not there yet.
    Set(Box<Agreement>),
}

/// What the slot holds beyond the key itself.
#[derive(Clone, Copy)]
struct InSlot {
    epoch: u32,
    suite: SuiteId,
    since: Instant,
    since_unix: u64,
    /// Traffic of the peer when it was installed.
    bytes: u64,
}

/// The control protocol with one peer. A few hundred bytes while no exchange runs.
pub struct Machine {
    peer: NodeId,
    role: Role,
    plane: Plane,
    settings: PeerSettings,
    pin: Pin,
    record: Option<Box<SignedRecord>>,
    /// The list of the newest signed message, or of a fresh record.
    theirs: Option<Suites>,
    static_ek: Option<Box<[u8; crate::kem::EK_LEN]>>,
    admission: Admission,
    asked_at: Instant,
    exchange: Exchange,
    id: ExchangeId,
    began: Instant,
    /// The time up to which costly messages are paid for.
    paid_until: Instant,
    reassembly: Option<Box<Reassembly>>,
    /// When what is incomplete in it is given up.
    reassembly_until: Instant,
    /// The key that is installed; `None` is the boot key.
    slot: Option<InSlot>,
    last_epoch: u32,
    /// Both have agreed on L1, and policy and pin allow it.
    legacy: bool,
    legacy_since: u64,
    /// A session was open at the end of the last step.
    open: bool,
    /// The switch must not wait for the next natural handshake.
    urgent: bool,
    switch_tries: u8,
    /// B, kernel: LIVE came, and the peer was removed and added anew for it.
    replaced: bool,
    /// The peer is known to let application data through under the key in the slot.
    confirmed: bool,
    /// The peer made a session under the boot key while a key of ours is in the slot.
    peer_lost_key: bool,
    /// The peer is our engine, by the newest of its messages.
    peer_has_session_gate: bool,
    /// Both have announced bare stream packets in the newest exchange.
    bare_streams: bool,
    /// The newest message of the peer named this record of ours.
    peer_holds: [u8; 32],
    /// An exchange is to be had when nothing stands in the way.
    wanted: bool,
    /// The policy has changed since the exchange under way began: another is due behind it.
    outdated: bool,
    retry_at: Option<Instant>,
    pokes: u32,
    gate: Option<Gate>,
    waiting: Option<(WaitReason, u64)>,
}

impl Machine {
    /// Makes the machine of a peer that nothing runs with yet. `pin` is what was saved.
    #[must_use]
    pub fn new(local: &Local, peer: NodeId, pin: Pin, settings: PeerSettings) -> Self {
        let admission = match settings.needs_admission {
            true => Admission::NeedsProof,
            false => Admission::Admitted,
        };
        Self {
            peer,
            role: Role::of(&local.node_id(), &peer),
            plane: local.plane(),
            settings,
            pin,
            record: None,
            theirs: None,
            static_ek: None,
            admission,
            asked_at: Instant::ZERO,
            exchange: Exchange::None,
            id: ExchangeId([0; 8]),
            began: Instant::ZERO,
            paid_until: Instant::ZERO,
            reassembly: None,
            reassembly_until: Instant::ZERO,
            slot: None,
            last_epoch: 0,
            legacy: false,
            legacy_since: 0,
            open: false,
            urgent: false,
            switch_tries: 0,
            replaced: false,
            confirmed: false,
            peer_lost_key: false,
            peer_has_session_gate: false,
            bare_streams: false,
            peer_holds: [0; 32],
            wanted: true,
            outdated: false,
            retry_at: None,
            pokes: 0,
            gate: None,
            waiting: None,
        }
    }

    /// Announces the gate; to be called once, before any packet passes.
    pub fn start(&mut self, cx: &mut Context<'_>) {
        self.update_gate(cx);
    }

    /// A session can be sealed with. `epoch` 0 is the boot key's.
    pub fn handle_session(&mut self, cx: &mut Context<'_>, epoch: u32) {
        let event = match epoch {
            0 => "session-boot",
            _ if self.awaited_epoch() == Some(epoch) => "session-new",
            _ => "session-old",
        };
        self.step(cx, event, |machine, cx| machine.on_session(cx, epoch));
    }

    fn on_session(&mut self, cx: &mut Context<'_>, epoch: u32) {
        if epoch == 0 {
            // With a key in the slot it says that the peer has lost it.
            self.peer_lost_key |= self.slot.is_some();
            self.wanted |= !self.legacy;
            // It may have lost all it knew.
            self.peer_holds = [0; 32];
            self.on_overtaken_fin(cx);
        } else if self.awaited_epoch() == Some(epoch) {
            self.on_switched(cx);
        } else if self.slot.is_some_and(|slot| slot.epoch == epoch) {
            self.on_session_again(cx);
        }
        self.advance(cx);
    }

    /// A session under the boot key behind DONE: our initiation was there before FIN. The next is
    /// answered under the new key; once, since a peer that lost it would answer the same for ever.
    fn on_overtaken_fin(&mut self, cx: &mut Context<'_>) {
        let switches = matches!(self.exchange, Exchange::Switch(_)) && self.urgent;
        if switches && self.both_tell_sessions() && self.switch_tries == 0 {
            self.switch_tries = 1;
            cx.out.push(Output::Handshake);
        }
    }

    /// One more session under the key in the slot.
    fn on_session_again(&mut self, cx: &mut Context<'_>) {
        if self.waits_for_handshake() && self.is_exchange_time_over(cx) {
            // DONE is missing because FIN never arrived: the peer has the key before.
            self.exchange = Exchange::None;
        }
        self.rotate_if_due(cx);
    }

    /// The epoch that the exchange under way has agreed on.
    fn awaited_epoch(&self) -> Option<u32> {
        match &self.exchange {
            Exchange::Finished(agreement, _)
            | Exchange::Switch(agreement)
            | Exchange::Set(agreement) => Some(agreement.epoch()),
            _ => None,
        }
    }

    /// A session under the new key: both sides have it.
    fn on_switched(&mut self, cx: &mut Context<'_>) {
        if let Exchange::Finished(agreement, _) = &self.exchange {
            // DONE was lost, and the session says the same.
            let agreement = Agreement::clone_slot(agreement);
            self.install(cx, agreement);
        }
        cx.out.push(Output::Settle);
        let seen_by_both = self.both_tell_sessions();
        self.confirmed |= seen_by_both || self.role == Role::B || !self.urgent;
        match core::mem::replace(&mut self.exchange, Exchange::None) {
            Exchange::Finished(agreement, _)
            | Exchange::Switch(agreement)
            | Exchange::Set(agreement)
                if !seen_by_both =>
            {
                let body = agreement.live(self.role);
                let mut live = self.repeated(cx, MessageType::Live, body);
                if self.role == Role::B {
                    // A repeats its own, and each is answered.
                    live.sent = REPEATS.len();
                }
                self.began = cx.now.instant;
                self.exchange = Exchange::Live(agreement, live);
            }
            _ => {}
        }
        self.settled(cx);
    }

    /// LIVE of a peer that cannot tell sessions apart: it has a session under the new key.
    fn on_live(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        let agreement = match &self.exchange {
            Exchange::Switch(agreement)
            | Exchange::Set(agreement)
            | Exchange::Live(agreement, _) => agreement,
            _ => return self.reject(cx, Refusal::Unexpected),
        };
        if id != self.id || !agreement.verify_live(self.role.other(), body) {
            return self.reject(cx, Refusal::Unauthenticated);
        }
        match self.role {
            // A repeats LIVE until it has B's, and B answers each.
            Role::A if matches!(self.exchange, Exchange::Live(..)) => {
                self.exchange = Exchange::None;
                self.confirmed = true;
            }
            Role::A => {}
            // The kernel may still hold a session under the boot key: let go of it.
            Role::B if self.plane == Plane::Kernel && !self.is_pure(cx) => {
                self.replaced = true;
                cx.out.push(Output::Handshake);
            }
            Role::B => cx.send(MessageType::Live, id, &agreement.live(Role::B)),
        }
    }

    fn is_pure(&self, cx: &Context<'_>) -> bool {
        cx.open_session || self.replaced
    }

    /// Whether the peer is known to let application data through under the key in the slot; for
    /// the kernel, whose allowed IPs are the gate.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Both sides have what the exchange agreed on: nothing is wanted any more, unless policy or pin
    /// have moved on meanwhile.
    fn settled(&mut self, cx: &Context<'_>) {
        self.wanted = core::mem::take(&mut self.outdated) || !self.is_reached(cx.local);
        self.retry_at = self.wanted.then_some(cx.now.instant + EXCHANGES_APART);
        self.pokes = 0;
        self.peer_lost_key = false;
        self.waiting = None;
    }

    /// Whether what is agreed satisfies what is required now.
    fn is_reached(&self, local: &Local) -> bool {
        let agreed = self.slot.and_then(|slot| slot.suite.level());
        agreed.or(self.legacy.then_some(Level::Classical)) >= Some(self.required(local))
    }

    /// The last session that the gate lets application data through on is gone; others live.
    pub fn handle_open_session_gone(&mut self, cx: &mut Context<'_>) {
        self.step(cx, "lost", |machine, cx| {
            machine.wanted = true;
            machine.advance(cx);
        });
    }

    /// No session is left: back to the boot key, each side on its own.
    pub fn handle_sessions_gone(&mut self, cx: &mut Context<'_>) {
        self.step(cx, "lost", |machine, cx| {
            machine.exchange = Exchange::None;
            machine.reassembly = None;
            machine.wanted = true;
            machine.retry_at = None;
            machine.pokes = 0;
            machine.legacy = false;
            machine.confirmed = false;
            machine.peer_lost_key = false;
            if machine.slot.take().is_some() {
                cx.out.push(Output::Install(None));
                cx.out.push(Output::Settle);
            }
            machine.update_gate(cx);
        });
    }

    /// The node's policy changed, or the peer's settings: agree anew. What is agreed stays in use
    /// meanwhile unless it is below what is required now.
    pub fn handle_policy(&mut self, cx: &mut Context<'_>) {
        self.step(cx, "policy", |machine, cx| {
            machine.wanted = true;
            machine.retry_at = None;
            machine.pokes = 0;
            let required = machine.required(cx.local);
            let was_legacy = machine.legacy;
            machine.legacy &= required == Level::Classical;
            let over = match machine.exchange {
                Exchange::KeyWanted(_)
                | Exchange::Offered(..)
                | Exchange::Held(..)
                | Exchange::Replied(..) => true,
                // An agreement on L1 leaves no key to wait for.
                Exchange::Set(_) => was_legacy,
                _ => false,
            };
            if over {
                machine.exchange = Exchange::None;
            }
            machine.outdated = !machine.is_free();
            machine.update_gate(cx);
            machine.advance(cx);
        });
    }

    /// Changes what the operator or the application says of the peer.
    pub fn set_settings(&mut self, cx: &mut Context<'_>, settings: PeerSettings) {
        let admitted = !settings.needs_admission && self.admission != Admission::Admitted;
        let shown = settings.proof != self.settings.proof;
        self.settings = settings;
        if admitted {
            self.step(cx, "admission", Self::let_in);
        }
        if shown {
            return self.handle_policy(cx);
        }
        // What an exchange under way says does not depend on the rest of the settings.
        self.step(cx, "policy", |machine, cx| {
            machine.update_gate(cx);
            if !machine.is_reached(cx.local) {
                machine.wanted = true;
                machine.retry_at = None;
                machine.pokes = 0;
                machine.advance(cx);
            }
        });
    }

    /// Why the peer has to wait; `None` when nothing stands in the way.
    #[must_use]
    pub fn waiting(&self) -> Option<WaitReason> {
        self.waiting.map(|(reason, _)| reason)
    }

    /// Takes the payload of one control packet.
    pub fn handle_frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) {
        let reassembly = self.reassembly.get_or_insert_default();
        let whole = reassembly.handle_frame(cx.now.instant, payload);
        if reassembly.is_empty() {
            self.reassembly = None;
        }
        let message = match whole {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.reassembly_until = cx.now.instant + REASSEMBLY_TIME;
                return;
            }
            Err(_) => return self.reject(cx, Refusal::Frame),
        };
        if !message.kind.is_cheap() && !self.afford(cx) {
            return self.reject(cx, Refusal::TooMany);
        }
        let (id, body) = (message.id, message.body);
        let role = self.role;
        match message.kind {
            MessageType::Poke => self.step(cx, "poke", |m, cx| m.on_poke(cx)),
            MessageType::Offer if role == Role::B => {
                self.step(cx, "offer", |m, cx| m.on_offer(cx, id, body));
            }
            MessageType::Reply if role == Role::A => {
                self.step(cx, "reply", |m, cx| m.on_reply(cx, id, &body));
            }
            MessageType::Fin if role == Role::B => {
                self.step(cx, "fin", |m, cx| m.on_fin(cx, id, &body));
            }
            MessageType::Done if role == Role::A => {
                self.step(cx, "done", |m, cx| m.on_done(cx, id, &body));
            }
            MessageType::Live => self.step(cx, "live", |m, cx| m.on_live(cx, id, &body)),
            MessageType::Abort => self.step(cx, "abort", |m, cx| m.on_abort(cx, id, &body)),
            MessageType::GetKey => self.on_get_key(cx, id),
            MessageType::Key => self.step(cx, "key", |m, cx| m.on_key(cx, id, &body)),
            // A role's message to the wrong role is a reflection, or a peer that miscounts.
            _ => self.reject(cx, Refusal::WrongRole),
        }
    }

    /// Takes a costly message from the peer's allowance, if there is any left.
    fn afford(&mut self, cx: &Context<'_>) -> bool {
        let now = cx.now.instant;
        let next = self.paid_until.max(now) + COSTLY_INTERVAL;
        let within = next.saturating_since(now) <= COSTLY_INTERVAL * COSTLY_BURST;
        if within {
            self.paid_until = next;
        }
        within
    }

    /// A message is refused, and nothing changes but what people are told.
    fn reject(&mut self, cx: &mut Context<'_>, refusal: Refusal) {
        cx.out.push(Output::Refused(refusal));
        let telling = !matches!(refusal, Refusal::Unexpected | Refusal::TooMany);
        if telling && !cx.open_session && !self.legacy {
            self.wait_for(cx, WaitReason::Rejected(refusal));
        }
    }

    fn on_poke(&mut self, cx: &mut Context<'_>) {
        if self.role == Role::B {
            return self.reject(cx, Refusal::WrongRole);
        }
        self.wanted = true;
        self.retry_at = Some(self.began + EXCHANGES_APART);
        self.advance(cx);
    }

    /// The application's answer about a stranger.
    pub fn admit(&mut self, cx: &mut Context<'_>, admitted: bool) {
        if self.admission != Admission::Asked {
            return;
        }
        self.step(cx, "admission", |machine, cx| match admitted {
            true => machine.let_in(cx),
            false => machine.turn_away(cx),
        });
    }

    /// Whether the application has yet to answer about this stranger.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.admission == Admission::Asked
    }

    fn let_in(&mut self, cx: &mut Context<'_>) {
        self.admission = Admission::Admitted;
        cx.out.push(Output::Admitted);
        self.update_gate(cx);
        self.resume(cx);
    }

    fn resume(&mut self, cx: &mut Context<'_>) {
        match core::mem::replace(&mut self.exchange, Exchange::None) {
            Exchange::Waiting(offer) => self.on_offer(cx, self.id, offer),
            Exchange::Held(agreement, fin) => {
                if cx.now.instant.saturating_since(self.began) < EXCHANGE_TIME {
                    return self.send_fin(cx, agreement, fin);
                }
                // The peer has given this exchange up meanwhile.
                self.wanted = true;
                self.retry_at = None;
                self.advance(cx);
            }
            other => self.exchange = other,
        }
    }

    /// Does what is wanted, as far as it can be done now.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let due = self.retry_at.is_none_or(|at| now >= at);
        if !self.wanted || !due || !self.is_free() {
            return;
        }
        if !cx.any_session {
            // The next session is the time for it.
            self.retry_at = None;
            return;
        }
        match self.role {
            Role::A => self.begin_offer(cx),
            Role::B => self.poke(cx),
        }
    }

    /// Notes that both have the key, and puts it into the slot.
    fn install(&mut self, cx: &mut Context<'_>, (slot, suite): (Slot, SuiteId)) {
        self.last_epoch = slot.epoch;
        self.legacy = false;
        self.slot = Some(InSlot {
            epoch: slot.epoch,
            suite,
            since: cx.now.instant,
            since_unix: cx.unix_secs(),
            bytes: cx.traffic_bytes,
        });
        cx.out.push(Output::Install(Some(slot)));
        self.update_gate(cx);
    }

    /// Both have agreed on L1: no preshared key, application data on WireGuard as it is.
    fn open_legacy(&mut self, cx: &mut Context<'_>) {
        if self.required(cx.local) != Level::Classical {
            // A promise of the peer has come in meanwhile.
            return self.retry_later(cx);
        }
        if !self.legacy {
            self.legacy_since = cx.unix_secs();
        }
        self.legacy = true;
        self.urgent = false;
        if self.slot.take().is_some() {
            cx.out.push(Output::Install(None));
        }
        if self.peer_lost_key {
            cx.out.push(Output::Abandon);
        }
        self.settled(cx);
        self.update_gate(cx);
    }

    /// The level that application data with the peer needs.
    #[must_use]
    pub fn required(&self, local: &Local) -> Level {
        let minimum = local
            .policy()
            .demanded()
            .max(self.settings.minimum.unwrap_or(Level::Classical));
        let recorded = self.record.as_ref().map(|record| &record.record().suites);
        let theirs = self.theirs.as_ref().or(recorded);
        required_level(minimum, &self.pin, local.suites(), theirs)
    }

    fn update_gate(&mut self, cx: &mut Context<'_>) {
        let required = self.required(cx.local);
        self.legacy &= required == Level::Classical;
        let gate = match self.admission {
            Admission::Admitted if self.legacy => Gate::Level(Level::Classical),
            // Without an agreement on L1 a session under the boot key carries no application data.
            Admission::Admitted => Gate::Level(required.max(Level::PostQuantum)),
            _ => Gate::Closed,
        };
        if self.gate != Some(gate) {
            self.gate = Some(gate);
            cx.out.push(Output::SetGate(gate));
        }
    }

    fn wait_for(&mut self, cx: &Context<'_>, reason: WaitReason) {
        let since = match self.waiting {
            Some((known, since)) if known == reason => since,
            _ => cx.unix_secs(),
        };
        self.waiting = Some((reason, since));
    }

    /// Runs one input and tells which transition it was.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        event: &'static str,
        input: impl FnOnce(&mut Self, &mut Context<'_>),
    ) {
        self.open = cx.open_session;
        let (role, from) = (self.role, self.phase());
        input(self, cx);
        let to = self.phase();
        cx.out.push(Output::Moved {
            role,
            from,
            event,
            to,
        });
    }
}
