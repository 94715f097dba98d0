//! The control protocol over the kernel's WireGuard: one preshared key per peer, sessions unseen.
//!
//! Owns what can be concluded from the figures that the kernel shows (last handshake, bytes), and
//! the order of commands that keeps application data off sessions under the boot key: the allowed
//! IPs are the gate. Does no I/O: the caller polls the figures once a second and carries out the
//! [`KernelCommand`]s. docs/spec.md section 7.3, "safe with the kernel".

use crate::Random;
use crate::local::Local;
use crate::machine::{Context, Gate, Machine, MachineStatus, Output, PeerSettings, Slot};
use crate::pin::Pin;
use crate::suite::Level;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, UnixTime};

/// Data was sent and nothing came back for this long: the peer is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(25);
/// This many initiations under another key within [`KNOCKS_WITHIN`]: the peer has lost its key.
pub const KNOCKS: usize = 3;
/// See [`KNOCKS`].
pub const KNOCKS_WITHIN: Duration = Duration::from_secs(20);
/// The bytes by which the kernel's count grows when it consumes an initiation.
pub const INITIATION_BYTES: u64 = 148;
/// While DONE is missing in a rotation, A puts the other key into the slot this often.
pub const ALTERNATE_EVERY: Duration = Duration::from_secs(8);
/// A session of this age carries nothing any more (`REJECT_AFTER_TIME`).
const SESSION_TIME: Duration = Duration::from_secs(180);

/// What the kernel tells of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Wall time of the last handshake.
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

/// One peer in the kernel.
pub struct KernelPeer {
    machine: Machine,
    boot: PresharedKey,
    in_slot: Option<Slot>,
    /// A rotation of which DONE is missing: the key that may be in the peer's slot already.
    candidate: Option<Slot>,
    alternate_at: Option<Instant>,
    gate: Gate,
    view: KernelView,
    seen: bool,
    /// When the newest session began, by our clock; none since the peer was replaced.
    session_since: Option<Instant>,
    /// All sessions that the kernel can have are under the key in the slot.
    pure: bool,
    unanswered_since: Option<Instant>,
    knocks: Vec<Instant>,
    allowed: bool,
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
            alternate_at: None,
            gate: Gate::Closed,
            view: KernelView::default(),
            seen: false,
            session_since: None,
            pure: false,
            unanswered_since: None,
            knocks: Vec::new(),
            allowed: false,
            commands: Vec::new(),
        }
    }

    /// Takes what is to be done.
    pub fn poll_commands(&mut self) -> Vec<KernelCommand> {
        core::mem::take(&mut self.commands)
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

    /// Takes the payload of a control packet.
    pub fn handle_frame(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        payload: &[u8],
    ) {
        self.run(local, now, random, |m, cx| m.handle_frame(cx, payload));
    }

    /// Takes the kernel's figures; to be called once a second.
    pub fn handle_view(
        &mut self,
        local: &Local,
        now: Now,
        random: &mut dyn Random,
        view: KernelView,
    ) {
        let before = core::mem::replace(&mut self.view, view);
        let first = !core::mem::replace(&mut self.seen, true);
        let handshake =
            view.last_handshake.is_some() && view.last_handshake != before.last_handshake;
        self.watch(now.instant, &before, handshake, first);
        if handshake {
            self.session_since = Some(now.instant);
            self.candidate = None;
            self.alternate_at = None;
            // After a change in place the kernel may hold sessions under either key, and either
            // satisfies the policy once all that are under the boot key are gone.
            let epoch = match (&self.in_slot, self.pure) {
                (Some(slot), true) => slot.epoch,
                _ => 0,
            };
            if epoch != 0 || self.in_slot.is_none() {
                self.run(local, now, random, |machine, cx| {
                    machine.start(cx);
                    machine.handle_session(cx, epoch);
                });
            }
        }
        let expired = self
            .session_since
            .is_some_and(|at| now.instant >= at + SESSION_TIME);
        if self.is_dead(now.instant) || expired {
            self.back_to_boot(local, now, random);
        }
        self.run(local, now, random, |machine, cx| machine.handle_timeout(cx));
        self.alternate(now.instant);
    }

    /// Keeps account of silence and of knocks.
    fn watch(&mut self, now: Instant, before: &KernelView, handshake: bool, first: bool) {
        if first {
            return;
        }
        let received = self.view.rx_bytes.saturating_sub(before.rx_bytes);
        let knocked = received == INITIATION_BYTES && !handshake;
        if knocked {
            self.knocks.push(now);
        }
        if received > 0 && !knocked {
            self.unanswered_since = None;
        } else if self.view.tx_bytes > before.tx_bytes {
            self.unanswered_since.get_or_insert(now);
        }
        self.knocks
            .retain(|at| now.saturating_since(*at) <= KNOCKS_WITHIN);
    }

    /// The kernel's own timer for dead peers stops at each knock, so this one decides.
    fn is_dead(&self, now: Instant) -> bool {
        let silent = self
            .unanswered_since
            .is_some_and(|at| now.saturating_since(at) >= DEAD_AFTER);
        self.session_since.is_some() && silent
            || self.in_slot.is_some() && self.knocks.len() >= KNOCKS
    }

    fn back_to_boot(&mut self, local: &Local, now: Now, random: &mut dyn Random) {
        self.session_since = None;
        self.candidate = None;
        self.alternate_at = None;
        self.run(local, now, random, |m, cx| m.handle_sessions_gone(cx));
        self.in_slot = None;
        self.replace(self.boot.clone());
        self.update_gate(local);
    }

    fn replace(&mut self, psk: PresharedKey) {
        self.pure = true;
        self.session_since = None;
        self.unanswered_since = None;
        self.knocks.clear();
        self.allowed = false;
        self.seen = false;
        self.commands.push(KernelCommand::Replace(psk));
    }

    /// DONE of a rotation is missing: the peer has one of two keys, and both are good.
    fn alternate(&mut self, now: Instant) {
        if self.candidate.is_none() || self.alternate_at.is_none_or(|at| now < at) {
            return;
        }
        self.alternate_at = Some(now + ALTERNATE_EVERY);
        core::mem::swap(&mut self.candidate, &mut self.in_slot);
        let psk = self.in_slot.as_ref().map_or(&self.boot, |slot| &slot.psk);
        self.commands.push(KernelCommand::SetPsk(psk.clone()));
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
            open_session: any_session && self.pure && self.in_slot.is_some(),
            traffic_bytes: self.view.rx_bytes + self.view.tx_bytes,
        };
        input(&mut self.machine, &mut context);
        for output in out {
            self.apply(now.instant, output);
        }
        self.update_gate(local);
    }

    fn apply(&mut self, now: Instant, output: Output) {
        match output {
            Output::Frame(payload) => self.commands.push(KernelCommand::Send(payload)),
            Output::SavePin(pin) => self.commands.push(KernelCommand::SavePin(pin)),
            Output::SetGate(gate) => self.gate = gate,
            Output::Candidate(slot) if self.pure && self.in_slot.is_some() => {
                self.candidate = Some(slot);
                self.alternate_at = Some(now + ALTERNATE_EVERY);
            }
            Output::Install(slot) => {
                // In place: sessions stay, and those under the boot key with them.
                self.pure &= self.in_slot.is_some();
                self.candidate = None;
                self.alternate_at = None;
                let psk = slot.as_ref().map_or(&self.boot, |slot| &slot.psk);
                self.commands.push(KernelCommand::SetPsk(psk.clone()));
                self.in_slot = slot;
            }
            Output::Handshake => {
                let psk = self.in_slot.as_ref().map_or(&self.boot, |slot| &slot.psk);
                self.replace(psk.clone());
            }
            _ => {}
        }
    }

    /// The peer's prefixes are in its allowed IPs when the level is reached, and only then.
    fn update_gate(&mut self, _local: &Local) {
        let level = match &self.in_slot {
            Some(slot) if self.pure => slot.level,
            _ => Level::Classical,
        };
        let reached = match self.gate {
            Gate::Level(needed) => level >= needed,
            Gate::Closed => false,
        };
        let confirmed = level == Level::Classical || self.machine.is_confirmed();
        let allowed = reached && confirmed && self.session_since.is_some();
        if allowed != self.allowed {
            self.allowed = allowed;
            self.commands.push(KernelCommand::AllowApplication(allowed));
        }
    }
}
