//! What the node does about the engine's events.
//!
//! Owns the order in which timestamps and pins reach the disk before anything that follows from
//! them reaches the wire.

use crate::admission::{AdmissionRequest, Stranger};
use crate::pins::Kept;
use crate::status::Refusal;
use crate::tunnel::{State, Tunnel};
use std::time::{Duration, Instant, SystemTime};
use wiremesh_core::Event;
use wiremesh_wire::{NodeId, Now, Tai64n};

/// How long after a failure the file of pins is written again.
const SAVED_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Tunnel {
    pub(crate) fn on_event(&self, state: &mut State, now: Now, event: Event) {
        match event {
            Event::ReserveTimestamps(floor) => state.save_timestamp(floor),
            Event::SavePin { node_id, pin } => {
                // Keys cost a stranger nothing: they must not fill the disk.
                if !state.is_stranger(now, &node_id) {
                    state.unsaved.pins.insert(node_id, pin);
                }
            }
            Event::SaveRecordSeq(seq) => state.unsaved.record_seq = seq,
            Event::AdmissionRequested {
                node_id,
                path,
                proof,
                under_load,
            } => {
                let stranger = Stranger {
                    node_id,
                    source: path.remote,
                    proof: proof.unwrap_or_default(),
                    under_load,
                };
                state.asked.push(AdmissionRequest::new(self, stranger));
            }
            Event::Refused { node_id, path } => {
                state.refusals.add(Refusal {
                    node_id,
                    source: path.remote,
                    time: SystemTime::now(),
                    reason: "its key is not among the peers, and admission is by allow list".into(),
                });
            }
            Event::ClockStepped => {
                tracing::warn!("the wall clock jumped forward: all sessions start anew");
                if let Ok(entropy) = self.host.entropy() {
                    state.engine.reseed(now, &entropy);
                }
            }
            Event::SessionEstablished { peer, .. } => {
                tracing::debug!(?event);
                if let Some(path) = state.engine.path_of(peer) {
                    state.recent_remotes[usize::from(path.remote.is_ipv6())] = Some(path.remote);
                }
                self.on_security_changed(state, now, peer);
            }
            Event::SecurityChanged { peer } | Event::SessionLost { peer } => {
                tracing::debug!(?event);
                self.on_security_changed(state, now, peer);
            }
            Event::PeerForgotten { peer, node_id } => {
                tracing::debug!(?event);
                state.last_words.forget(peer);
                state.reached.forget(&node_id);
                self.security_changed.notify_waiters();
            }
            Event::PeerAdmitted { node_id, .. } => {
                tracing::debug!(?event);
                state.save_pin_of(now, node_id);
            }
            Event::HandshakeFailed { .. }
            | Event::EndpointChanged { .. }
            | Event::ControlMoved { .. } => tracing::debug!(?event),
        }
    }

    /// Writes down what must outlive the node, before anything that follows from it leaves.
    pub(crate) fn save(&self, state: &mut State) {
        if state.unsaved.is_empty() {
            return;
        }
        let Some(disk) = &mut state.disk else {
            state.unsaved = Kept::default();
            return;
        };
        let failed = &mut state.save_failed_at;
        if failed.is_some_and(|at| at.elapsed() < SAVED_AGAIN_AFTER) {
            return;
        }
        match disk.journal.append(&state.unsaved) {
            Ok(()) => {
                state.unsaved = Kept::default();
                *failed = None;
            }
            Err(error) => {
                // As with timestamps the node goes on: it would be cut off by a full disk
                // otherwise. What is not saved is tried again.
                *failed = Some(Instant::now());
                tracing::error!(%error, "the file of pins cannot be written; after a crash now, \
                    peers could be talked down below what they have promised lately");
            }
        }
    }
}

impl State {
    fn save_timestamp(&self, floor: Tai64n) {
        let disk = self.disk.as_ref();
        if let Some(Err(error)) = disk.map(|disk| disk.dir.save_timestamp(floor)) {
            tracing::error!(%error, "the state directory cannot be written; after a restart with \
                the clock set back, peers may refuse this node for a while");
        }
    }

    /// Whether admission let the peer in, and nobody has made it one of ours since.
    pub(crate) fn is_stranger(&self, now: Now, id: &NodeId) -> bool {
        let peer = self.engine.peer_by_id(id);
        let status = peer.and_then(|key| self.engine.status(now, key));
        status.is_some_and(|status| status.provisional)
    }

    /// Keeps what was learned of a peer while it was a stranger.
    pub(crate) fn save_pin_of(&mut self, now: Now, id: NodeId) {
        if let Some(pin) = self.engine.pin(&id).filter(|_| !self.is_stranger(now, &id)) {
            self.unsaved.pins.insert(id, pin);
        }
    }
}
