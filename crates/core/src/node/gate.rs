//! The gate of a peer: which sessions may carry data, and which preshared keys make them.
//!
//! A gate is a level. Sessions at or above it carry everything, those below it control packets
//! only, so an attacker who makes a handshake fall back to the boot key gains nothing. Never does:
//! agree on keys or decide on a level. Source: docs/spec.md, "Suites".

use super::Node;
use super::handshake::INITIATIONS_APART;
use super::shared::Shared;
use crate::counters::DropReason;
use crate::event::Event;
use crate::peer::{Peer, PeerKey};
use crate::psk_slots::{PskSlot, PskTag};
use wiremesh_noise::Role;
use wiremesh_noise::constants::{REKEY_ATTEMPT_TIME, REKEY_TIMEOUT};
use wiremesh_wire::{Now, PresharedKey};

/// The gate at which every session carries everything, as in WireGuard. The default.
pub const GATE_OPEN: u8 = 1;

/// The gate above every level: no session carries more than control packets.
pub const GATE_CLOSED: u8 = u8::MAX;

impl Node {
    /// Changes the boot key in place, the one that is used unless another was installed: live
    /// sessions stay, the next handshake uses the new one. `epoch` marks every session made with
    /// it; their level is 1.
    pub fn set_preshared_key(&mut self, key: PeerKey, psk: PresharedKey, epoch: u32) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        peer.psks.set_boot(psk, epoch);
        true
    }

    /// Installs a key that an exchange with the peer has agreed on: from now on initiations are
    /// answered with it, and sessions that it makes have this `level`, below [`GATE_CLOSED`]. The
    /// key installed before stays as the alternate until [`Node::settle_psk`].
    pub fn install_psk(&mut self, key: PeerKey, psk: PresharedKey, epoch: u32, level: u8) -> bool {
        let slot = slot(psk, epoch, level);
        self.with_peer(key, |peer| peer.psks.set_primary(slot))
    }

    /// Installs a key that the peer may have installed already, beside the one in use: responses
    /// are taken under both, initiations are answered with it if the other one fails. There is one
    /// alternate at most.
    pub fn install_alternate_psk(
        &mut self,
        key: PeerKey,
        psk: PresharedKey,
        epoch: u32,
        level: u8,
    ) -> bool {
        let slot = slot(psk, epoch, level);
        self.with_peer(key, |peer| peer.psks.set_alternate(slot))
    }

    /// Puts the installed key of this epoch first and forgets the alternate: a session was made
    /// with it. Does nothing if no installed key has this epoch.
    pub fn settle_psk(&mut self, key: PeerKey, epoch: u32) -> bool {
        self.with_peer(key, |peer| peer.psks.settle(epoch))
    }

    /// Forgets all installed keys. Live sessions stay, the next handshake uses the boot key.
    pub fn forget_psks(&mut self, key: PeerKey) -> bool {
        self.with_peer(key, |peer| peer.psks.forget_agreed())
    }

    /// Sets the level that a session with this peer needs to carry data: [`GATE_OPEN`] (the
    /// default) to [`GATE_CLOSED`]. What the peer sent until it knows of a higher gate passes for
    /// another 5 s, where it passed before; we seal nothing more at once.
    pub fn set_gate_level(&mut self, now: Now, key: PeerKey, gate: u8) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        self.shared.set_gate(now, peer, gate);
        true
    }

    fn with_peer(&mut self, key: PeerKey, change: impl FnOnce(&mut Peer)) -> bool {
        self.peers.of(key).map(change).is_some()
    }
}

fn slot(psk: PresharedKey, epoch: u32, level: u8) -> PskSlot {
    let level = level.clamp(GATE_OPEN, GATE_CLOSED - 1);
    let tag = PskTag { epoch, level };
    PskSlot { psk, tag }
}

impl Shared {
    /// Sets the level that sessions of the peer need, and sorts its sessions anew.
    pub(super) fn set_gate(&mut self, now: Now, peer: &mut Peer, gate: u8) {
        let old = core::mem::replace(&mut peer.gate, gate);
        let Some(link) = peer.link.as_deref_mut() else {
            return;
        };
        let was_ready = link.sessions.peek_current().is_some();
        link.sessions.move_gate(now.instant, old, gate, |index| {
            self.indices.remove(&index);
        });
        match link.sessions.peek_current().map(|current| current.role) {
            Some(role) if !was_ready => {
                self.push_event(Event::SessionEstablished {
                    peer: peer.key,
                    initiator: role == Role::Initiator,
                    handshake_time: None,
                });
                self.flush_staged(now, peer);
            }
            None if was_ready => {
                self.push_event(Event::SessionLost { peer: peer.key });
            }
            _ => {}
        }
        self.schedule(peer);
    }

    /// A session for data is wanted: starts a handshake, unless one could only give another
    /// session below the gate. Where such a one is live, at most every `REKEY_TIMEOUT`.
    pub(super) fn want_session(&mut self, now: Now, peer: &mut Peer) {
        if !self.has_live_session(now, peer) {
            return self.initiate(now, peer);
        }
        if peer.psks.best_level() < peer.gate {
            return;
        }
        let earliest = peer.last_initiation_sent.map(|at| at + REKEY_TIMEOUT);
        match earliest.filter(|at| now.instant < *at) {
            Some(at) if peer.link().pending.is_none() => {
                peer.link().timers.deferred_initiation = Some(at);
                self.schedule(peer);
            }
            _ => self.initiate(now, peer),
        }
    }

    /// Starts a handshake at once, in place of one that is under way and without regard to the
    /// distance of 40 ms: the peer expects it, see [`Peer::expects_initiation`].
    pub(super) fn initiate_for_upgrade(&mut self, now: Now, peer: &mut Peer) {
        self.send_initiation(now, peer);
        self.schedule(peer);
    }

    /// A response fitted none of our keys. The peer has several to answer with, so the next answer
    /// may fit: asks once more, once per attempt, as anyone can send a response that fits none.
    pub(super) fn retry_soon(&mut self, now: Now, peer: &mut Peer) {
        let speaks_control = peer.speaks_control || (self.suites.is_some() && !peer.stock);
        let link = peer.link();
        if speaks_control && link.quick_retry_of != link.attempt_began {
            link.quick_retry_of = link.attempt_began;
            link.timers.deferred_initiation = Some(now.instant + INITIATIONS_APART);
            self.schedule(peer);
        }
    }

    /// Whether data that came on a session of this level and index may pass.
    pub(super) fn may_pass(&mut self, now: Now, peer: &Peer, (level, index): (u8, u32)) -> bool {
        let passes = level >= peer.gate
            || peer
                .link
                .as_ref()
                .is_some_and(|link| link.sessions.is_in_grace(index, now.instant));
        if !passes {
            self.counters.drop_for(DropReason::BelowLevel);
        }
        passes
    }

    /// Drops staged packets for which the gate did not open in time.
    pub(super) fn expire_staged(&mut self, now: Now, peer: &mut Peer) {
        let Some(link) = peer.link.as_deref_mut() else {
            return;
        };
        if link.staged_until().is_none_or(|until| now.instant < until) {
            return;
        }
        let waits = |since| now.instant.saturating_since(since) < REKEY_ATTEMPT_TIME;
        let before = link.staged.len();
        link.staged.retain(|(since, _)| waits(*since));
        (link.staged.len()..before).for_each(|_| self.counters.drop_for(DropReason::BelowLevel));
    }
}
