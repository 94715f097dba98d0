//! The control protocol inside the engine: a machine per peer, and what its wishes come to.
//!
//! Owns the way between `wiremesh-control`, which decides, and sessions, keys and gates, which it
//! never sees. Its packets are in `node/control.rs`, the gate in `node/gate.rs`. docs/spec.md
//! section 7.

use super::Node;
use super::gate::{GATE_CLOSED, GATE_OPEN};
use super::shared::Shared;
use crate::agreeing::{Drawn, gate_number, suite_of};
use crate::counters::DropReason;
use crate::event::Event;
use crate::peer::{Peer, PeerKey, Provisional};
use crate::psk_slots::{PskSlot, PskTag};
use crate::status::PeerSecurity;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_control::machine::{ADMISSION_TIME, Context, Machine, Output, Slot};
use wiremesh_control::{Level, PeerSettings, Pin, Policy, PolicyError, Suites, required_level};
use wiremesh_wire::{NodeId, Now};

/// The answer to an initiation of this age may well be on its way.
const JUST_NOW: Duration = Duration::from_secs(1);

/// What is to be done with a stranger once nothing borrows the table of peers.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Keep(PeerKey),
    Forget(PeerKey),
}

impl Shared {
    /// The gate of a peer with which nothing has been agreed yet.
    pub(super) fn initial_gate(&self, id: &NodeId, settings: &PeerSettings) -> u8 {
        let Some(control) = self.suites.as_deref() else {
            return GATE_OPEN;
        };
        if settings.needs_admission {
            return GATE_CLOSED;
        }
        let own = control.local.policy().demanded();
        let minimum = own.max(settings.minimum.unwrap_or(Level::Classical));
        let suites = control.local.suites();
        let required = required_level(minimum, &control.pin(id), suites, None);
        // Without an agreement on L1 a session under the boot key carries no application data.
        required.max(Level::PostQuantum) as u8
    }

    /// The wall clock was behind until now, and with it the number of our record.
    pub(super) fn renew_record(&mut self, now: Now) {
        let mut random = Drawn {
            drbg: &mut self.drbg,
            now,
        };
        if let Some(control) = self.suites.as_deref_mut() {
            control.local.sign_anew(now.unix, &mut random);
            let event = control.save_record_seq();
            self.push_vital_event(event);
        }
    }

    /// Runs the peer's machine and does what it wants. Makes the machine if there is none.
    pub(super) fn run_machine(
        &mut self,
        now: Now,
        peer: &mut Peer,
        input: impl FnOnce(&mut Machine, &mut Context<'_>),
    ) {
        if peer.stock {
            return;
        }
        let Some(mut control) = self.suites.take() else {
            return;
        };
        let open_session = self.has_data_session(now, peer);
        let any_session = self.has_live_session(now, peer);
        let mut random = Drawn {
            drbg: &mut self.drbg,
            now,
        };
        let renewed = control.local.renew(now.unix, &mut random);
        let mut machine = peer.machine.take().unwrap_or_else(|| {
            let id = peer.remote.node_id();
            let settings = peer.settings.as_deref().cloned().unwrap_or_default();
            Box::new(Machine::new(&control.local, id, control.pin(&id), settings))
        });
        let waited = machine.waiting();
        let mut outputs = Vec::new();
        let mut context = Context {
            local: &control.local,
            now,
            random: &mut random,
            out: &mut outputs,
            any_session,
            open_session,
            traffic_bytes: peer.stats.rx_bytes + peer.stats.tx_bytes,
        };
        input(&mut machine, &mut context);
        let waits_otherwise = machine.waiting() != waited;
        peer.bare_streams = machine.agrees_on_bare_streams();
        peer.machine = Some(machine);
        if renewed {
            self.push_vital_event(control.save_record_seq());
        }
        self.suites = Some(control);
        for output in outputs {
            self.apply(now, peer, output);
        }
        if waits_otherwise {
            self.push_event(Event::SecurityChanged { peer: peer.key });
        }
        self.schedule(peer);
    }

    fn apply(&mut self, now: Now, peer: &mut Peer, output: Output) {
        match output {
            Output::Frame(payload) => {
                self.seal_control(now, peer, &payload);
            }
            // A stranger's is kept with it, and saved if it stays: keys cost nothing.
            Output::SavePin(_) if peer.provisional.is_some() => {}
            Output::SavePin(pin) => self.save_pin(peer.remote.node_id(), pin),
            Output::Candidate(slot) => peer.psks.set_alternate(slot.into()),
            Output::Install(Some(slot)) => peer.psks.set_primary(slot.into()),
            Output::Install(None) => peer.psks.step_back(),
            Output::Settle => peer.psks.settle_first(),
            Output::Abandon => {
                if let Some(link) = peer.link.as_deref_mut() {
                    link.sessions.abandon_older(|index| {
                        self.indices.remove(&index);
                    });
                }
            }
            Output::SetGate(gate) => {
                self.set_gate(now, peer, gate_number(gate));
                self.push_event(Event::SecurityChanged { peer: peer.key });
            }
            Output::Handshake => self.handshake_unless_begun(now, peer),
            Output::ExpectHandshake => peer.expects_initiation = true,
            Output::Ask(proof) => self.ask_about(now, peer, proof),
            Output::Admitted => self.verdicts.push(Verdict::Keep(peer.key)),
            Output::Forget => self.verdicts.push(Verdict::Forget(peer.key)),
            Output::Moved {
                role,
                from,
                event,
                to,
            } => {
                if self.suites.as_ref().is_some_and(|control| control.trace) {
                    self.push_event(Event::ControlMoved {
                        peer: peer.key,
                        role,
                        from,
                        event,
                        to,
                    });
                }
                if from != to {
                    self.push_event(Event::SecurityChanged { peer: peer.key });
                }
            }
            Output::Refused(_) => self.counters.drop_for(DropReason::ControlRefused),
        }
    }

    fn ask_about(&mut self, now: Now, peer: &mut Peer, proof: Vec<u8>) {
        let (Some(path), true) = (peer.path, peer.provisional.is_some()) else {
            return;
        };
        peer.provisional = Some(Provisional::Unproven(now.instant + ADMISSION_TIME));
        let under_load = self.load.is_under_load(now.instant);
        self.push_event(Event::AdmissionRequested {
            node_id: peer.remote.node_id(),
            path,
            proof: Some(proof),
            under_load,
        });
    }

    pub(super) fn save_pin(&mut self, node_id: NodeId, pin: Pin) {
        if let Some(control) = &mut self.suites {
            control.pins.insert(node_id, pin);
        }
        self.push_vital_event(Event::SavePin { node_id, pin });
    }

    /// Starts a handshake at once, unless one has begun right now: at FIN, and the answer is on
    /// its way. Where it does not come, the next is due sooner than `REKEY_TIMEOUT`: the peer is
    /// there.
    fn handshake_unless_begun(&mut self, now: Now, peer: &mut Peer) {
        let pending = peer.link.as_ref().and_then(|link| link.pending.as_ref());
        let answer_due = pending.map(|pending| pending.sent_at + JUST_NOW);
        match answer_due.filter(|at| now.instant < *at) {
            Some(at) => peer.link().timers.deferred_initiation = Some(at),
            None => self.initiate_for_upgrade(now, peer),
        }
    }

    /// A message of the control protocol has come, from the peer that the session belongs to.
    pub(super) fn handle_control(&mut self, now: Now, peer: &mut Peer, payload: &[u8]) {
        if self.suites.is_none() || peer.stock {
            return self.counters.drop_for(DropReason::ControlUnexpected);
        }
        peer.speaks_control = true;
        self.run_machine(now, peer, |machine, cx| machine.handle_frame(cx, payload));
    }

    /// A session is usable both ways, at whatever level; called again at each rekey.
    pub(super) fn on_session_usable(&mut self, now: Now, peer: &mut Peer, made_with: PskTag) {
        let epoch = match made_with.level {
            GATE_OPEN => 0,
            _ => made_with.epoch,
        };
        self.run_machine(now, peer, |machine, cx| {
            machine.start(cx);
            machine.handle_session(cx, epoch);
        });
    }

    /// The last session of the peer is gone, at whatever level.
    pub(super) fn on_links_gone(&mut self, now: Now, peer: &mut Peer) {
        if peer.machine.is_some() {
            self.run_machine(now, peer, |machine, cx| machine.handle_sessions_gone(cx));
        }
    }

    /// The last session that lets data through is gone; others are left.
    pub(super) fn on_open_session_gone(&mut self, now: Now, peer: &mut Peer) {
        if peer.machine.is_some() {
            self.run_machine(now, peer, |machine, cx| {
                machine.handle_open_session_gone(cx)
            });
        }
    }
}

impl From<Slot> for PskSlot {
    fn from(slot: Slot) -> Self {
        let tag = PskTag {
            epoch: slot.epoch,
            level: slot.level as u8,
        };
        Self { psk: slot.psk, tag }
    }
}

impl Node {
    /// Changes what the node lists, promises and demands, for all peers at once. Streams go on
    /// where the new policy allows what they run on.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] when the policy contradicts itself; nothing has changed then.
    pub fn set_policy(&mut self, now: Now, policy: Policy) -> Result<(), PolicyError> {
        let Some(control) = self.shared.suites.as_deref_mut() else {
            return Err(PolicyError::NoControl);
        };
        let mut random = Drawn {
            drbg: &mut self.shared.drbg,
            now,
        };
        control.local.set_policy(policy, now.unix, &mut random)?;
        let event = control.save_record_seq();
        self.shared.push_vital_event(event);
        let keys: Vec<PeerKey> = self.peers().collect();
        for key in keys {
            self.reconsider(now, key);
        }
        self.settle_strangers();
        Ok(())
    }

    /// Applies policy and settings to one peer anew.
    fn reconsider(&mut self, now: Now, key: PeerKey) {
        let Some(peer) = self.peers.of(key).filter(|peer| !peer.stock) else {
            return;
        };
        if peer.machine.is_some() {
            self.shared
                .run_machine(now, peer, |machine, cx| machine.handle_policy(cx));
        } else {
            let settings = peer.settings.as_deref().cloned().unwrap_or_default();
            let gate = self.shared.initial_gate(&peer.remote.node_id(), &settings);
            self.shared.set_gate(now, peer, gate);
        }
    }

    /// What the node lists, promises and demands; `None` without the control protocol.
    pub fn policy(&self) -> Option<Policy> {
        Some(*self.shared.suites.as_deref()?.local.policy())
    }

    /// Our newest signed record.
    pub fn own_record(&self) -> Option<&[u8]> {
        Some(self.shared.suites.as_deref()?.local.record().bytes())
    }

    /// Takes in a signed record of a peer that came from elsewhere; `false` when it is not valid.
    pub fn learn_record(&mut self, now: Now, key: PeerKey, record: &[u8]) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        let mut learned = false;
        self.shared.run_machine(now, peer, |machine, cx| {
            learned = machine.learn_record(cx, record).is_ok();
        });
        learned
    }

    /// Changes what application data with this peer needs at least, and what is shown to it.
    pub fn set_peer_settings(&mut self, now: Now, key: PeerKey, settings: PeerSettings) -> bool {
        let Some(peer) = self.peers.of(key).filter(|peer| !peer.stock) else {
            return false;
        };
        peer.settings = Some(Box::new(settings.clone()));
        if peer.machine.is_some() {
            self.shared
                .run_machine(now, peer, |machine, cx| machine.set_settings(cx, settings));
        } else {
            self.reconsider(now, key);
        }
        self.settle_strangers();
        true
    }

    /// The settings of a peer.
    pub fn peer_settings(&self, key: PeerKey) -> Option<PeerSettings> {
        let peer = self.peers.peek(key)?;
        Some(peer.settings.as_deref().cloned().unwrap_or_default())
    }

    /// What is remembered of a node for good.
    pub fn pin(&self, id: &NodeId) -> Option<Pin> {
        self.shared.suites.as_deref()?.pins.get(id).copied()
    }

    /// All pins, ordered by key.
    pub fn pins(&self) -> impl Iterator<Item = (NodeId, Pin)> + '_ {
        let pins = self.shared.suites.as_deref().map(|control| &control.pins);
        pins.into_iter().flatten().map(|(id, pin)| (*id, *pin))
    }

    /// Lowers the level of a pin. For the operator only: an attacker who can have this done has
    /// the downgrade that pins prevent. `false` if there is no such pin above `level`.
    pub fn lower_pin(&mut self, now: Now, id: &NodeId, level: Level) -> bool {
        let Some(mut pin) = self.pin(id).filter(|pin| pin.level > level) else {
            return false;
        };
        pin.level = level;
        self.shared.save_pin(*id, pin);
        if let Some(key) = self.peer_by_id(id) {
            if let Some(peer) = self.peers.of(key)
                && let Some(machine) = &mut peer.machine
            {
                machine.lower_pin(level);
            }
            self.reconsider(now, key);
            self.settle_strangers();
        }
        true
    }

    /// How the traffic with a peer is protected, and what stands in the way if it is not.
    pub fn security(&self, now: Now, key: PeerKey) -> Option<PeerSecurity> {
        let peer = self.peers.peek(key)?;
        let link = peer.link.as_deref();
        let session = link
            .and_then(|link| link.sessions.peek_current())
            .filter(|session| !session.is_expired(now.instant));
        let level = session.and_then(|session| Level::from_number(session.psk.level.into()));
        let machine = peer.machine.as_deref().map(Machine::status);
        Some(PeerSecurity {
            level,
            suite: level.map(suite_of),
            required: Level::from_number(peer.gate.into()),
            psk_epoch: session.map(|session| session.psk.epoch),
            since: machine.as_ref().and_then(|status| status.since),
            pin: self
                .pin(&peer.remote.node_id())
                // A stranger's is not among those to keep.
                .or(machine.as_ref().map(|status| status.pin))
                .filter(|pin| *pin != Pin::default()),
            theirs: machine.as_ref().and_then(|status| status.theirs),
            waiting: machine.as_ref().and_then(|status| status.waiting),
            phase: machine.as_ref().map(|status| status.phase),
            stranger: machine.as_ref().is_some_and(|status| status.stranger),
            stock: peer.stock || self.shared.suites.is_none(),
        })
    }

    /// The newest list of suites of each peer that has told one.
    pub fn known_suites(&self) -> impl Iterator<Item = (NodeId, Suites)> + '_ {
        self.peers().filter_map(|key| {
            let peer = self.peers.peek(key)?;
            let suites = peer.machine.as_deref()?.known_suites()?;
            Some((peer.remote.node_id(), suites))
        })
    }

    /// Tells the machine of a stranger what the application has decided.
    pub(super) fn answer_stranger(&mut self, now: Now, key: PeerKey, admitted: bool) {
        if let Some(peer) = self.peers.of(key) {
            self.shared
                .run_machine(now, peer, |machine, cx| machine.admit(cx, admitted));
        }
        self.settle_strangers();
    }

    /// Carries out what machines decided about strangers.
    pub(super) fn settle_strangers(&mut self) {
        while let Some(verdict) = self.shared.verdicts.pop() {
            match verdict {
                Verdict::Keep(key) => {
                    self.keep_peer(key);
                    if let Some(node_id) = self.node_id_of(key) {
                        self.shared
                            .push_event(Event::PeerAdmitted { peer: key, node_id });
                    }
                }
                Verdict::Forget(key) => self.forget_stranger(key),
            }
        }
    }

    fn forget_stranger(&mut self, key: PeerKey) {
        let stranger = self
            .peers
            .peek(key)
            .filter(|peer| peer.provisional.is_some())
            .map(|peer| peer.remote.node_id());
        if let Some(node_id) = stranger {
            self.remove_peer(key);
            self.shared.counters.drop_for(DropReason::NotAdmitted);
            self.shared
                .push_event(Event::PeerForgotten { peer: key, node_id });
        }
    }
}
