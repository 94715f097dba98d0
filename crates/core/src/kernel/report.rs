//! What a node in kernel mode tells of its peers.
//!
//! Owns nothing: all is made from the agreement and from what the kernel showed last.

use super::KernelNode;
use crate::agreeing::{gate_number, suite_of};
use crate::config::Path;
use crate::node::GATE_OPEN;
use crate::peer::PeerKey;
use crate::status::{PeerSecurity, PeerStatus};
use wiremesh_control::machine::Gate;
use wiremesh_control::{Level, Pin};
use wiremesh_wire::Now;

impl KernelNode {
    /// A snapshot of one peer, as of the figures read last.
    pub fn status(&self, now: Now, key: PeerKey) -> Option<PeerStatus> {
        let peer = self.peers.get(&key)?;
        let watch = &peer.watch;
        let session_age = watch.session_age(now.instant);
        let agreement = peer.agreement.as_deref();
        let agreed = agreement.map(|agreement| agreement.status());
        let level = agreement.map_or(Level::Classical, |agreement| agreement.sessions_level());
        let epoch = agreed.as_ref().map_or(0, |status| status.epoch);
        let last_received = watch.last_received;
        Some(PeerStatus {
            node_id: peer.node_id,
            overlay: peer.overlay,
            path: peer.endpoint.map(Path::to),
            allowed_ips: self.shared.prefixes.of(key, &peer.allowed_ips),
            persistent_keepalive: peer.keepalive,
            state: watch.state(now.instant),
            bare_streams: false,
            provisional: false,
            gate: agreed.map_or(GATE_OPEN, |status| gate_number(status.required)),
            session_age,
            initiator: None,
            session_psk_epoch: session_age.map(|_| epoch),
            session_level: session_age.map(|_| level as u8),
            last_handshake: watch.last_handshake,
            handshake_time: None,
            rx_bytes: watch.rx_bytes,
            tx_bytes: watch.tx_bytes,
            last_received: last_received.map(|at| now.instant.saturating_since(at)),
        })
    }

    /// How the traffic with a peer is protected, and what stands in the way if it is not.
    pub fn security(&self, now: Now, key: PeerKey) -> Option<PeerSecurity> {
        let peer = self.peers.get(&key)?;
        let agreement = peer.agreement.as_deref();
        let agreed = agreement.map(|agreement| agreement.status());
        let passes = peer.is_open() && peer.watch.is_live(now.instant);
        let sessions = agreement.map_or(Level::Classical, |agreement| agreement.sessions_level());
        let level = passes.then_some(sessions);
        let required = agreed.map_or(Gate::Level(Level::Classical), |status| status.required);
        Some(PeerSecurity {
            level,
            suite: level.map(suite_of),
            required: match required {
                Gate::Level(level) => Some(level),
                Gate::Closed => None,
            },
            psk_epoch: level.map(|_| agreed.map_or(0, |status| status.epoch)),
            since: agreed.and_then(|status| status.since),
            pin: self
                .pin(&peer.node_id)
                .or(agreed.map(|status| status.pin))
                .filter(|pin| *pin != Pin::default()),
            theirs: agreed.and_then(|status| status.theirs),
            waiting: agreed.and_then(|status| status.waiting),
            phase: agreed.map(|status| status.phase),
            stranger: agreed.is_some_and(|status| status.stranger),
            stock: agreement.is_none(),
        })
    }
}
