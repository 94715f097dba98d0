//! The control protocol of a node in kernel mode: what it is told, and what its wishes come to.
//!
//! Owns the way between [`KernelPeer`], which decides, and the tasks. docs/spec.md section 7.3.

use super::KernelNode;
use super::peer::Peer;
use super::shared::Shared;
use crate::agreeing::Drawn;
use crate::counters::DropReason;
use crate::event::Event;
use crate::peer::PeerKey;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use wiremesh_control::kernel::{KernelCommand, KernelPeer};
use wiremesh_control::machine::Gate;
use wiremesh_control::{
    Level, Local, PeerSettings, Phase, Pin, Policy, PolicyError, Random, SuiteId, Suites,
    WaitReason,
};
use wiremesh_wire::{Instant, NodeId, Now};

/// What is shown of an agreement: a change of it is worth an event.
type Face = (Phase, Gate, Option<SuiteId>, u32, Option<WaitReason>, bool);

fn face(agreement: &KernelPeer) -> Face {
    let status = agreement.status();
    (
        status.phase,
        status.required,
        status.suite,
        status.epoch,
        status.waiting.map(|(reason, _)| reason),
        agreement.is_open(),
    )
}

impl Peer {
    /// Gives the agreement an input and does what it wants. Nothing for a stock peer.
    pub(super) fn run(
        &mut self,
        shared: &mut Shared,
        now: Now,
        input: impl FnOnce(&mut KernelPeer, &Local, &mut dyn Random),
    ) {
        shared.renew_record(now, false);
        let (Some(agreement), Some(agreeing)) = (&mut self.agreement, &shared.agreeing) else {
            return;
        };
        let before = (face(agreement), agreement.refused());
        let mut random = Drawn {
            drbg: &mut shared.drbg,
            now,
        };
        input(agreement, &agreeing.local, &mut random);
        let after = (face(agreement), agreement.refused());
        shared.read_by(now.instant + agreement.poll_interval());
        for _ in before.1..after.1 {
            shared.counters.drop_for(DropReason::ControlRefused);
        }
        self.carry_out(shared);
        self.settle(shared, now.instant);
        if before.0 != after.0 {
            shared.push_event(Event::SecurityChanged { peer: self.key });
        }
    }

    /// Does what the agreement wants.
    pub(super) fn carry_out(&mut self, shared: &mut Shared) {
        let commands = match &mut self.agreement {
            Some(agreement) => agreement.poll_commands(),
            None => return,
        };
        for command in commands {
            match command {
                KernelCommand::SetPsk(psk) => self.set_psk(shared, psk),
                KernelCommand::Replace(psk) => self.replace(shared, psk),
                KernelCommand::AllowApplication(open) => self.allow(shared, open),
                KernelCommand::Send(payload) => shared.send(self.control, payload),
                KernelCommand::SavePin(pin) => shared.save_pin(self.node_id, pin),
            }
        }
    }

    /// Tells whether data passes now, where that has changed.
    pub(super) fn settle(&mut self, shared: &mut Shared, now: Instant) {
        let ready = self.is_open() && self.watch.is_live(now);
        if ready == core::mem::replace(&mut self.was_ready, ready) {
            return;
        }
        shared.push_event(match ready {
            true => Event::SessionEstablished {
                peer: self.key,
                initiator: false,
                handshake_time: None,
            },
            false => Event::SessionLost { peer: self.key },
        });
    }
}

impl Shared {
    fn save_pin(&mut self, node_id: NodeId, pin: Pin) {
        if let Some(agreeing) = &mut self.agreeing {
            agreeing.pins.insert(node_id, pin);
        }
        self.push_vital_event(Event::SavePin { node_id, pin });
    }
}

impl KernelNode {
    /// Takes the payload of a UDP packet that came to our control address, port 2707, from this
    /// address and port 2707. One of nobody's is counted and dropped.
    pub fn handle_control(&mut self, now: Now, source: Ipv6Addr, payload: &[u8]) {
        self.check_clock(now);
        let key = self.shared.prefixes.lookup(source.into());
        let peer = key.and_then(|key| self.peers.get_mut(&key));
        match peer.filter(|peer| peer.control == source && peer.agreement.is_some()) {
            Some(peer) => peer.run(&mut self.shared, now, |agreement, local, random| {
                agreement.handle_frame(local, now, random, payload);
            }),
            None => self.shared.counters.drop_for(DropReason::ControlUnexpected),
        }
    }

    /// What the node lists, promises and demands; `None` without the control protocol.
    pub fn policy(&self) -> Option<Policy> {
        Some(*self.shared.agreeing.as_ref()?.local.policy())
    }

    /// Changes what the node lists, promises and demands, for all peers at once. Where what is
    /// agreed is below it, nothing passes from now on.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] when the policy contradicts itself; nothing has changed then.
    pub fn set_policy(&mut self, now: Now, policy: Policy) -> Result<(), PolicyError> {
        let Some(agreeing) = &mut self.shared.agreeing else {
            return Err(PolicyError::NoControl);
        };
        let mut random = Drawn {
            drbg: &mut self.shared.drbg,
            now,
        };
        agreeing.local.set_policy(policy, now.unix, &mut random)?;
        let event = agreeing.save_record_seq();
        self.shared.push_vital_event(event);
        let keys: Vec<PeerKey> = self.peers().collect();
        for key in keys {
            self.reconsider(now, key);
        }
        Ok(())
    }

    /// Applies policy, pin and settings to one peer anew.
    fn reconsider(&mut self, now: Now, key: PeerKey) {
        self.change(key, |peer, shared| {
            peer.run(shared, now, |agreement, local, random| {
                agreement.handle_policy(local, now, random);
            });
        });
    }

    /// Changes what application data with this peer needs at least, and what is shown to it.
    pub fn set_peer_settings(&mut self, now: Now, key: PeerKey, settings: PeerSettings) -> bool {
        let peer = self.peers.get_mut(&key);
        let Some(peer) = peer.filter(|peer| !peer.stock) else {
            return false;
        };
        peer.settings = settings.clone();
        peer.run(&mut self.shared, now, |agreement, local, random| {
            agreement.set_settings(local, now, random, settings);
        });
        true
    }

    /// The settings of a peer.
    pub fn peer_settings(&self, key: PeerKey) -> Option<PeerSettings> {
        Some(self.peers.get(&key)?.settings.clone())
    }

    /// What is remembered of a node for good.
    pub fn pin(&self, id: &NodeId) -> Option<Pin> {
        self.shared.agreeing.as_ref()?.pins.get(id).copied()
    }

    /// All pins, ordered by key.
    pub fn pins(&self) -> impl Iterator<Item = (NodeId, Pin)> + '_ {
        let pins = self.shared.agreeing.as_ref().map(|agreeing| &agreeing.pins);
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
            let peer = self.peers.get_mut(&key);
            if let Some(agreement) = peer.and_then(|peer| peer.agreement.as_mut()) {
                agreement.lower_pin(level);
            }
            self.reconsider(now, key);
        }
        true
    }

    /// The newest list of suites of each peer that has told one.
    pub fn known_suites(&self) -> impl Iterator<Item = (NodeId, Suites)> + '_ {
        self.peers().filter_map(|key| {
            let peer = self.peers.get(&key)?;
            Some((peer.node_id, peer.agreement.as_ref()?.known_suites()?))
        })
    }
}
