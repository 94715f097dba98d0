//! The last packet that the streams sent to a peer that does not answer.
//!
//! Owns one packet per such peer. QUIC probes a silent path ever more rarely, at last once a minute; so
//! what it sent last is sent again as soon as there is a new session. A peer that lost nothing
//! answers with an acknowledgement, one that was restarted with a stateless reset: either ends the
//! wait at once.

use std::collections::HashMap;
use std::time::Duration;
use wiremesh_core::PeerKey;

/// Only what is sent after so long without an answer may have to be sent again: before that, QUIC
/// repeats it soon enough by itself.
const UNANSWERED_FOR: Duration = Duration::from_millis(500);
/// Peers for which a packet is kept, at most: 1.4 MiB of packets.
const PEERS_MAX: usize = 1_024;

#[derive(Default)]
pub(crate) struct LastWords(HashMap<PeerKey, Vec<u8>>);

impl LastWords {
    /// Whether a packet that is sent now is to be kept.
    pub(crate) fn wants(&self, peer: PeerKey, unanswered_for: Option<Duration>) -> bool {
        unanswered_for.is_some_and(|time| time >= UNANSWERED_FOR)
            && (self.0.len() < PEERS_MAX || self.0.contains_key(&peer))
    }

    pub(crate) fn keep(&mut self, peer: PeerKey, packet: Vec<u8>) {
        self.0.insert(peer, packet);
    }

    /// The peer has answered.
    pub(crate) fn forget(&mut self, peer: PeerKey) {
        if !self.0.is_empty() {
            self.0.remove(&peer);
        }
    }

    pub(crate) fn take(&mut self, peer: PeerKey) -> Option<Vec<u8>> {
        self.0.remove(&peer)
    }
}
