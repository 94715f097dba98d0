//! What the node does about the engine's events.
//!
//! Owns the order in which a timestamp reaches the disk before it reaches the wire.

use crate::admission::AdmissionRequest;
use crate::status::Refusal;
use crate::tunnel::{State, Tunnel};
use std::time::SystemTime;
use wiremesh_core::Event;
use wiremesh_wire::Now;

impl Tunnel {
    pub(crate) fn on_event(&self, state: &mut State, now: Now, event: Event) {
        match event {
            Event::ReserveTimestamps(floor) => {
                if let Some(Err(error)) = self.state_dir.as_ref().map(|d| d.save_timestamp(floor)) {
                    tracing::error!(%error, "the state directory cannot be written; after a \
                        restart with the clock set back, peers may refuse this node for a while");
                }
            }
            Event::AdmissionRequested { node_id, path } => {
                let request = AdmissionRequest::new(self.me.clone(), node_id, path.remote);
                state.asked.push(request);
            }
            Event::Refused { node_id, path } => {
                state.refusals.add(Refusal {
                    node_id,
                    source: path.remote,
                    time: SystemTime::now(),
                    reason: "its key is not among the peers, and admission is by allow list",
                });
            }
            Event::ClockStepped => {
                tracing::warn!("the wall clock jumped forward: all sessions start anew");
                if let Ok(entropy) = crate::host::entropy() {
                    state.engine.reseed(now, &entropy);
                }
            }
            Event::SessionEstablished { peer, .. } => {
                tracing::debug!(?event);
                if let Some(path) = state.engine.path_of(peer) {
                    state.recent_remotes[usize::from(path.remote.is_ipv6())] = Some(path.remote);
                }
            }
            Event::SessionLost { .. }
            | Event::HandshakeFailed { .. }
            | Event::EndpointChanged { .. }
            | Event::PeerAdmitted { .. }
            | Event::PeerForgotten { .. } => tracing::debug!(?event),
        }
    }
}
