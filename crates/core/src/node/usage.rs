//! How much a node holds at this moment.
//!
//! Owns the counting, for status and for tests of limits; costs a walk over all peers.

use super::Node;

/// What a node holds. Each figure has a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Peers, configured and provisional; at most [`crate::Limits::peers_max`].
    pub peers: usize,
    /// Strangers among them; bounded by [`crate::Admission::AllowAll`].
    pub provisional_peers: usize,
    /// Strangers that wait for the application's word; bounded by [`crate::Admission::Ask`].
    pub pending_admissions: usize,
    /// Peers with a handshake, a session, or staged packets.
    pub links: usize,
    /// Receiver indices of handshakes and sessions; at most five per link.
    pub indices: usize,
    /// Packets that wait for a session; per peer at most [`crate::Limits::staged_packets_max`].
    pub staged_packets: usize,
    /// What they count in bytes; at most [`crate::Limits::staged_bytes_max`].
    pub staged_bytes: usize,
    /// Datagrams that wait to be sent; at most [`crate::Limits::transmits_max`].
    pub transmits: usize,
    /// Events that wait to be taken; at most [`crate::Limits::events_max`].
    pub events: usize,
}

impl Node {
    /// How often the secret generator was drawn from since the node was made. It tells nothing of
    /// what was drawn; a simulator that gave the seed can follow the generator by it.
    pub fn random_draws(&self) -> u64 {
        self.shared.drbg.draws()
    }

    /// Counts what the node holds now.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            peers: self.peers.len(),
            provisional_peers: self.provisional_peers as usize,
            pending_admissions: self.pending_admissions.len(),
            indices: self.shared.indices.len(),
            staged_bytes: self.shared.staging.used_bytes(),
            transmits: self.shared.transmits.len(),
            events: self.shared.events.len(),
            ..Usage::default()
        };
        for link in self
            .peers()
            .filter_map(|key| self.peers.peek(key)?.link.as_deref())
        {
            usage.links += 1;
            usage.staged_packets += link.staged.len();
        }
        usage
    }
}
