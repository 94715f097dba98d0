//! Strangers: keys that no peer of ours has.
//!
//! A stranger that is refused leaves no state and gets no answer. One that is let in is
//! provisional: bounded in number, gone with its last session, and gone after 10 s unless it shows
//! that it received our response (a replayed initiation never does). Where a proof is needed, a full
//! table makes room by the oldest stranger that has not shown one: whoever fills it with handshakes
//! must do so faster than an honest newcomer needs for four round trips.

use super::Node;
use crate::config::{AddPeerError, Admission, Path, PeerConfig};
use crate::counters::DropReason;
use crate::event::Event;
use crate::peer::{Peer, PeerKey, Provisional};
use crate::remote::Remote;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_control::machine::Machine;
use wiremesh_noise::{AuthenticatedInitiation, OpenedInitiation, RemoteIdentity};
use wiremesh_wire::{Instant, NodeId, Now};

/// How long a question to the application stays open, and an unconfirmed stranger is kept.
const PATIENCE: Duration = Duration::from_secs(10);

/// An authenticated initiation that waits for the application's word.
pub(super) struct PendingAdmission {
    initiation: AuthenticatedInitiation,
    path: Path,
    pub(super) expires_at: Instant,
}

impl Node {
    pub(super) fn handle_stranger(&mut self, now: Now, path: Path, opened: OpenedInitiation) {
        let node_id = opened.peer();
        if node_id == self.node_id() {
            return self.shared.counters.drop_for(DropReason::HandshakeInvalid);
        }
        let with_proof = self.shared.suites.is_some();
        let room = match self.shared.admission {
            Admission::Proof { pending_max } if with_proof => {
                let full = self.provisional_peers >= pending_max
                    || self.peers.len() >= self.shared.limits.peers_max as usize;
                !full || self.replaceable_stranger().is_some()
            }
            Admission::AllowList | Admission::Proof { .. } => {
                self.shared.push_event(Event::Refused { node_id, path });
                return self.shared.counters.drop_for(DropReason::NotAdmitted);
            }
            Admission::AllowAll { provisional_max } => {
                self.provisional_peers < provisional_max
                    && self.peers.len() < self.shared.limits.peers_max as usize
            }
            Admission::Ask { pending_max } => {
                self.pending_admissions.len() < pending_max as usize
                    || self.pending_admissions.contains_key(&node_id)
            }
        };
        if !room {
            return self.shared.counters.drop_for(DropReason::LimitReached);
        }
        let remote = RemoteIdentity::new(&self.shared.local, node_id);
        let Ok(initiation) = opened.authenticate(&remote) else {
            return self.shared.counters.drop_for(DropReason::HandshakeInvalid);
        };
        if let Admission::Ask { .. } = self.shared.admission {
            return self.ask(now, path, node_id, initiation);
        }
        let needs_proof = match self.shared.admission {
            Admission::Proof { pending_max } => {
                self.make_room_for_stranger(pending_max);
                true
            }
            _ => false,
        };
        let mut config = PeerConfig::new(node_id);
        config.security.needs_admission = needs_proof;
        let Ok(key) = self.insert_peer(now, config, Remote::Met(remote)) else {
            return self.shared.counters.drop_for(DropReason::LimitReached);
        };
        self.provisional_peers += 1;
        let Some(peer) = self.peers.of(key) else {
            return;
        };
        peer.provisional = Some(Provisional::UnconfirmedUntil(now.instant + PATIENCE));
        if needs_proof {
            self.strangers.push_back(key);
        } else {
            self.shared
                .push_event(Event::PeerAdmitted { peer: key, node_id });
        }
        self.shared.accept_initiation(now, path, peer, &initiation);
    }

    /// The stranger that goes first when there is no room: the oldest about which the application
    /// was not asked. Not those first that have yet to confirm: a flood would then take each
    /// newcomer before its second packet.
    fn replaceable_stranger(&self) -> Option<PeerKey> {
        let replaceable = |peer: &Peer| {
            let asked = peer.machine.as_deref().is_some_and(Machine::is_asked);
            peer.provisional.is_some() && !asked
        };
        let mut keys = self.strangers.iter().copied();
        keys.find(|key| self.peers.peek(*key).is_some_and(replaceable))
    }

    fn make_room_for_stranger(&mut self, pending_max: u32) {
        let full = self.provisional_peers >= pending_max
            || self.peers.len() >= self.shared.limits.peers_max as usize;
        if let Some(key) = self.replaceable_stranger().filter(|_| full) {
            self.remove_peer(key);
            self.shared.counters.drop_for(DropReason::LimitReached);
        }
        if self.strangers.len() > 2 * pending_max as usize {
            let peers = &self.peers;
            let waits = |key: &PeerKey| peers.peek(*key).is_some_and(|p| p.provisional.is_some());
            self.strangers.retain(waits);
        }
    }

    fn ask(&mut self, now: Now, path: Path, node_id: NodeId, initiation: AuthenticatedInitiation) {
        let newest = self.pending_admissions.get(&node_id);
        if newest.is_some_and(|asked| initiation.timestamp() <= asked.initiation.timestamp()) {
            return self.shared.counters.drop_for(DropReason::HandshakeReplayed);
        }
        // Repeating does not prolong the question: when nobody answered, it is put again.
        let expires_at = newest.map_or(now.instant + PATIENCE, |asked| asked.expires_at);
        let asked = PendingAdmission {
            initiation,
            path,
            expires_at,
        };
        if self.pending_admissions.insert(node_id, asked).is_none() {
            self.shared.push_event(Event::AdmissionRequested {
                node_id,
                path,
                proof: None,
                under_load: self.shared.load.is_under_load(now.instant),
            });
        }
    }

    /// Lets a stranger in that asked, as the peer that `config` describes, and answers its
    /// initiation if it is still there.
    ///
    /// # Errors
    ///
    /// As [`Node::add_peer`].
    pub fn admit(&mut self, now: Now, config: PeerConfig) -> Result<PeerKey, AddPeerError> {
        if let Some(key) = self.unproven(&config.node_id) {
            self.answer_stranger(now, key, true);
            return Ok(key);
        }
        let asked = self.pending_admissions.remove(&config.node_id);
        let key = self.add_peer(now, config)?;
        if let (Some(asked), Some(peer)) = (asked, self.peers.of(key)) {
            self.shared
                .accept_initiation(now, asked.path, peer, &asked.initiation);
        }
        Ok(key)
    }

    fn unproven(&self, node_id: &NodeId) -> Option<PeerKey> {
        let key = self.peer_by_id(node_id)?;
        let unproven = matches!(
            self.peers.peek(key)?.provisional,
            Some(Provisional::Unproven(_))
        );
        unproven.then_some(key)
    }

    /// Turns a stranger away that asked, and leaves no state. It gets no answer, or where it has
    /// shown a proof, the reason.
    pub fn refuse(&mut self, now: Now, node_id: &NodeId) {
        if let Some(key) = self.unproven(node_id) {
            return self.answer_stranger(now, key, false);
        }
        if self.pending_admissions.remove(node_id).is_some() {
            self.shared.counters.drop_for(DropReason::NotAdmitted);
        }
    }

    pub(super) fn expire_admissions(&mut self, now: Now) {
        let late: Vec<NodeId> = self
            .pending_admissions
            .iter()
            .filter(|(_, asked)| now.instant >= asked.expires_at)
            .map(|(node_id, _)| *node_id)
            .collect();
        late.iter().for_each(|node_id| self.refuse(now, node_id));
    }
}
