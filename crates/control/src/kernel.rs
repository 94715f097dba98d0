//! The control protocol over the kernel's WireGuard: one preshared key per peer, sessions unseen.
//!
//! Owns what can be concluded from the figures that the kernel shows (last handshake, bytes), and
//! the order of commands that keeps application data off sessions under the boot key: the allowed
//! IPs are the gate. Does no I/O: the caller reads the figures when told and carries out the
//! [`KernelCommand`]s. docs/spec.md section 7.3, "safe with the kernel".

use crate::Random;
use crate::local::Local;
use crate::machine::{
    Context, EXCHANGE_TIME, Gate, Machine, MachineStatus, Output, PeerSettings, Refusal, Slot,
};
use crate::pin::Pin;
use crate::suite::{Level, Suites};
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, UnixTime};

/// Data was sent and nothing came back for this long: the peer is dead. Also how long a key that
/// the exchange made stays in the slot while there is no session.
pub const DEAD_AFTER: Duration = Duration::from_secs(25);
/// This many initiations under another key within [`KNOCKS_WITHIN`]: the peer has lost its key.
pub const KNOCKS: usize = 3;
/// See [`KNOCKS`].
pub const KNOCKS_WITHIN: Duration = Duration::from_secs(20);
/// The bytes by which the kernel's count grows when it consumes an initiation.
pub const INITIATION_BYTES: u64 = 148;
/// The bytes of a response and of a keepalive: neither is answered.
const UNANSWERED_BYTES: [u64; 3] = [92, 32, 92 + 32];
/// While DONE is missing in a rotation, A puts the other key into the slot this often. An engine
/// answers initiations under one of three keys in turn, and the kernel makes one every 5 s, so that
/// each key has to stay for longer than three.
pub const ALTERNATE_EVERY: Duration = Duration::from_secs(16);
/// A handshake that is seen this soon after the slot changed may be of the key before.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// A session of this age carries nothing any more (`REJECT_AFTER_TIME`).
const SESSION_TIME: Duration = Duration::from_secs(180);
/// How often the kernel's figures are to be read.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The same while a handshake is what everything waits for.
const POLL_SOON: Duration = Duration::from_millis(100);

/// What the kernel tells of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Wall time of the last handshake; whole seconds are enough.
    pub last_handshake: Option<UnixTime>,
    /// Bytes received, authenticated.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum KernelCommand {
    /// Change the preshared key of the peer in place: its sessions stay.
    SetPsk(PresharedKey),
    /// Remove the peer and add it anew in one message, with this preshared key, its last endpoint
    /// as read just before, a persistent keepalive (so that it handshakes at once) and its control
    /// address as the only allowed IP.
    Replace(PresharedKey),
    /// Add the peer's other prefixes to its allowed IPs, or take them away.
    AllowApplication(bool),
    /// Send this from our control address and port 2707 to the peer's.
    Send(Vec<u8>),
    /// Save the pin durably before what follows.
    SavePin(Pin),
}

/// A rotation of which DONE is missing.
struct Candidate {
    /// The key that may be in the peer's slot already.
    slot: Slot,
    alternate_at: Instant,
    /// A handshake from here on shows which of the two keys the peer has.
    decided_from: Instant,
}

/// One peer in the kernel.
pub struct KernelPeer {
    machine: Machine,
    boot: PresharedKey,
    in_slot: Option<Slot>,
    candidate: Option<Candidate>,
    gate: Gate,
    view: KernelView,
    /// Bytes of all incarnations of the peer in the kernel.
    traffic_bytes: u64,
    /// When the newest session began, by our clock; none since the peer was replaced.
    session_since: Option<Instant>,
    /// A key of an exchange is in the slot, and no session is there since then.
    sessionless_since: Option<Instant>,
    /// No session that the kernel may have is below this level.
    sessions_level: Level,
    unanswered_since: Option<Instant>,
    knocks: Vec<Instant>,
    allowed: bool,
    refused: u64,
    commands: Vec<KernelCommand>,
}

impl KernelPeer {
    /// A peer that was just added to the interface with `boot` as its preshared key and its
    /// control address as the only allowed IP.
    #[must_use]
    pub fn new(
        local: &Local,
        peer: NodeId,
        boot: PresharedKey,
        pin: Pin,
        settings: PeerSettings,
    ) -> Self {
        Self {
            machine: Machine::new(local, peer, pin, settings),
            boot,
            in_slot: None,
            candidate: None,
            gate: Gate::Closed,
            view: KernelView::default(),
            traffic_bytes: 0,
            session_since: None,
            sessionless_since: None,
            sessions_level: Level::Classical,
            unanswered_since: None,
            knocks: Vec::new(),
            allowed: false,
            refused: 0,
            commands: Vec::new(),
        }
    }

    /// Takes what is to be done.
    pub fn poll_commands(&mut self) -> Vec<KernelCommand> {
        core::mem::take(&mut self.commands)
    }

    /// When the kernel's figures are to be read again, after the last time.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        match self.in_slot.is_some() && !self.allowed && self.session_since.is_none() {
            true => POLL_SOON,
            false => POLL_EVERY,
        }
    }

    /// Where the protocol stands.
    #[must_use]
    pub fn status(&self) -> MachineStatus {
        self.machine.status()
    }

    /// Whether application data passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allowed
    }

    /// The suites that the peer listed last.
    #[must_use]
    pub fn known_suites(&self) -> Option<Suites> {
        self.machine.known_suites()
    }

    /// No session that the kernel may have is below this level.
    #[must_use]
    pub fn sessions_level(&self) -> Level {
        self.sessions_level
    }

    /// How many messages of the peer were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Settles the gate; to be called once, before anything else.
    pub fn start(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.run(local, now, random, Machine::start);
    }

    /// Changes the boot key in place: live sessions stay, and the next one under it uses this.
    pub fn set_boot(&mut self, boot: PresharedKey) {
        self.boot = boot;
        if self.in_slot.is_none() {
            self.set_psk(None);
        }
    }

    /// The operator lowers the level of the pin; [`KernelPeer::handle_policy`] is to follow.
    pub fn lower_pin(&mut self, level: Level) {
        self.machine.lower_pin(level);
    }

    /// The peer is not in the kernel as it was left there: it begins anew under the boot key.
    pub fn reset(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.back_to_boot(local, now, random);
    }

    /// Changes what the operator or the application says of the peer.
    pub fn set_settings(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        settings: PeerSettings,
    ) {
        self.run(local, now, random, |m, cx| m.set_settings(cx, settings));
    }

    /// Takes the payload of a control packet.
    pub fn handle_frame(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        payload: &[u8],
    ) {
        let reached = self.is_level_reached();
        self.run(local, now, random, |m, cx| {
            // It came through a session, seen already or not.
            cx.any_session = true;
            cx.open_session = reached;
            m.handle_frame(cx, payload);
        });
    }

    /// The node's policy changed.
    pub fn handle_policy(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.run(local, now, random, |m, cx| m.handle_policy(cx));
    }

    /// Takes in a record of the peer that came from elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Machine::learn_record`].
    pub fn learn_record(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let mut result = Ok(());
        self.run(local, now, random, |m, cx| {
            result = m.learn_record(cx, bytes);
        });
        result
    }

    /// Takes the kernel's figures; to be called every [`KernelPeer::poll_interval`].
    pub fn handle_view(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        view: KernelView,
    ) {
        let before = core::mem::replace(&mut self.view, view);
        let handshake =
            view.last_handshake.is_some() && view.last_handshake != before.last_handshake;
        self.watch(now.instant, &before);
        if handshake {
            self.on_handshake(local, now, random);
        }
        self.expire(now.instant);
        if self.is_dead(now.instant) {
            self.back_to_boot(local, now, random);
        }
        self.run(local, now, random, |machine, cx| machine.handle_timeout(cx));
        self.alternate(now.instant);
    }

    fn on_handshake(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.session_since = Some(now.instant);
        self.sessionless_since = None;
        if let Some(candidate) = &self.candidate
            && now.instant < candidate.decided_from
        {
            return;
        }
        self.candidate = None;
        let epoch = match &self.in_slot {
            // It can be told from one under the boot key only once no such can live.
            Some(_) if self.sessions_level == Level::Classical => return,
            Some(slot) => slot.epoch,
            None => 0,
        };
        self.run(local, now, random, |machine, cx| {
            machine.start(cx);
            machine.handle_session(cx, epoch);
        });
    }

    /// Keeps account of silence and of knocks.
    fn watch(&mut self, now: Instant, before: &KernelView) {
        let received = self.view.rx_bytes.saturating_sub(before.rx_bytes);
        let sent = self.view.tx_bytes.saturating_sub(before.tx_bytes);
        let both = received.saturating_add(sent);
        self.traffic_bytes = self.traffic_bytes.saturating_add(both);
        if (1..=KNOCKS as u64).any(|count| received == count * INITIATION_BYTES) {
            // An initiation; what follows if it leads to a session makes it forgotten.
            self.knocks.push(now);
        } else if received > 0 {
            // Only who has a session with us can send that.
            self.knocks.clear();
            self.unanswered_since = None;
            return;
        }
        if sent > 0 && !UNANSWERED_BYTES.contains(&sent) {
            self.unanswered_since.get_or_insert(now);
        }
        self.knocks
            .retain(|at| now.saturating_since(*at) <= KNOCKS_WITHIN);
    }

    /// A session that is too old is none.
    fn expire(&mut self, now: Instant) {
        if self
            .session_since
            .is_some_and(|at| now >= at + SESSION_TIME)
        {
            self.session_since = None;
        }
        if self.session_since.is_none() && self.in_slot.is_some() {
            self.sessionless_since.get_or_insert(now);
        }
    }

    /// The kernel's own timer for dead peers stops at each knock, so this one decides.
    fn is_dead(&self, now: Instant) -> bool {
        let late = |since: Instant| now.saturating_since(since) >= DEAD_AFTER;
        self.session_since.is_some() && self.unanswered_since.is_some_and(late)
            || self.sessionless_since.is_some_and(late)
            || self.in_slot.is_some() && self.knocks.len() >= KNOCKS
    }

    fn back_to_boot(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.session_since = None;
        self.sessionless_since = None;
        self.candidate = None;
        self.run(local, now, random, |m, cx| m.handle_sessions_gone(cx));
        self.in_slot = None;
        self.replace();
        self.update_gate();
    }

    fn replace(&mut self) {
        self.session_since = None;
        self.unanswered_since = None;
        self.knocks.clear();
        self.allowed = false;
        // The new one counts from zero, and a handshake of it may be in the second of the last.
        self.view = KernelView::default();
        self.sessions_level = self.slot_level();
        let psk = self.slot_psk().clone();
        self.commands.retain(|command| match command {
            KernelCommand::Send(_) | KernelCommand::SavePin(_) => true,
            // Nothing of what was to be changed is left; it may even be missing.
            KernelCommand::SetPsk(_)
            | KernelCommand::Replace(_)
            | KernelCommand::AllowApplication(_) => false,
        });
        self.commands.push(KernelCommand::Replace(psk));
    }

    /// In place: sessions stay, and so does what they may be worth.
    fn set_psk(&mut self, slot: Option<Slot>) {
        self.in_slot = slot;
        self.sessions_level = self.sessions_level.min(self.slot_level());
        // What may carry data now is less before it is more.
        self.update_gate();
        let psk = self.slot_psk().clone();
        self.commands.push(KernelCommand::SetPsk(psk));
    }

    fn slot_psk(&self) -> &PresharedKey {
        self.in_slot.as_ref().map_or(&self.boot, |slot| &slot.psk)
    }

    fn slot_level(&self) -> Level {
        self.in_slot
            .as_ref()
            .map_or(Level::Classical, |slot| slot.level)
    }

    /// DONE of a rotation is missing: the peer has one of two keys, and both are good.
    fn alternate(&mut self, now: Instant) {
        let Some(mut candidate) = self.candidate.take_if(|c| now >= c.alternate_at) else {
            return;
        };
        let Some(slot) = self.in_slot.take() else {
            return;
        };
        let other = core::mem::replace(&mut candidate.slot, slot);
        candidate.alternate_at = now + ALTERNATE_EVERY;
        candidate.decided_from = candidate.decided_from.max(now + HANDSHAKE_TIME);
        self.candidate = Some(candidate);
        self.set_psk(Some(other));
    }

    fn run(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        input: impl FnOnce(&mut Machine, &mut Context<'_>),
    ) {
        let mut out = Vec::new();
        let any_session = self.session_since.is_some();
        let mut context = Context {
            local,
            now,
            random,
            out: &mut out,
            any_session,
            open_session: any_session && self.is_level_reached(),
            traffic_bytes: self.traffic_bytes,
        };
        input(&mut self.machine, &mut context);
        for output in out {
            self.apply(now.instant, output);
        }
        self.update_gate();
    }

    fn apply(&mut self, now: Instant, output: Output) {
        match output {
            Output::Frame(payload) => self.commands.push(KernelCommand::Send(payload)),
            Output::SavePin(pin) => self.commands.push(KernelCommand::SavePin(pin)),
            Output::SetGate(gate) => {
                self.gate = gate;
                self.update_gate();
            }
            // On first contact the boot key stays until DONE.
            Output::Candidate(slot) if self.sessions_level > Level::Classical => {
                self.candidate = Some(Candidate {
                    slot,
                    alternate_at: now + ALTERNATE_EVERY,
                    // Until then the peer may still take FIN.
                    decided_from: now + EXCHANGE_TIME,
                });
            }
            Output::Install(slot) => {
                self.candidate = None;
                self.set_psk(slot);
            }
            Output::Handshake => self.replace(),
            Output::Refused(_) => self.refused += 1,
            _ => {}
        }
    }

    /// No session that may live is below what application data needs.
    fn is_level_reached(&self) -> bool {
        match self.gate {
            Gate::Level(needed) => self.sessions_level >= needed,
            Gate::Closed => false,
        }
    }

    /// The peer's prefixes are in its allowed IPs when the level is reached, and only then.
    fn update_gate(&mut self) {
        let confirmed = self.sessions_level == Level::Classical || self.machine.is_confirmed();
        let allowed = self.is_level_reached() && confirmed;
        if allowed != self.allowed {
            self.allowed = allowed;
            self.commands.push(KernelCommand::AllowApplication(allowed));
        }
    }
}
