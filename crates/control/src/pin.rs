//! What a node remembers of a peer for good, so that nobody can talk it down.
//!
//! Owns the rule that a pin only rises; only the operator lowers it. docs/spec.md section 7.2.

use crate::suite::Level;

/// What is known of a peer for good. Written to disk before anything that follows from it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The highest level that a valid record of the peer has promised.
    pub level: Level,
    /// The highest sequence number among its valid records; older ones are refused.
    pub max_seq: u64,
    /// BLAKE2s-256 of its static ML-KEM key, from that record.
    pub kem_pk_hash: Option<[u8; 32]>,
    /// When it was last heard with a valid record, Unix seconds; 0 for never. For people only.
    pub last_seen: u64,
}

impl Default for Pin {
    fn default() -> Self {
        Self {
            level: Level::Classical,
            max_seq: 0,
            kem_pk_hash: None,
            last_seen: 0,
        }
    }
}

impl Pin {
    /// Takes in what a valid record says, and tells whether anything that must be on disk changed.
    ///
    /// A record that is older than the newest known changes nothing.
    pub fn learn(
        &mut self,
        promised: Level,
        seq: u64,
        kem_pk_hash: Option<[u8; 32]>,
        unix_secs: u64,
    ) -> bool {
        if seq < self.max_seq {
            return false;
        }
        let before = *self;
        self.level = self.level.max(promised);
        self.max_seq = seq;
        self.kem_pk_hash = kem_pk_hash;
        let changed = *self != before;
        self.last_seen = self.last_seen.max(unix_secs);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_rises_and_never_falls() {
        let mut pin = Pin::default();
        assert!(pin.learn(Level::PostQuantum, 5, None, 100));
        assert!(
            pin.learn(Level::Classical, 6, None, 101),
            "the sequence rose"
        );
        assert_eq!(pin.level, Level::PostQuantum);
        assert!(!pin.learn(Level::PostQuantumAuthenticated, 5, None, 102));
        assert_eq!(
            pin.level,
            Level::PostQuantum,
            "an old record promises nothing"
        );
        assert!(
            !pin.learn(Level::Classical, 6, None, 103),
            "nothing new for the disk"
        );
        assert_eq!(pin.last_seen, 103);
    }
}
