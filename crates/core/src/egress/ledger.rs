//! What one connection has been given to send and has not sent yet, by class.
//!
//! Owns three counts. QUIC mixes streams in a packet and does not say which; but it sends the best
//! stream first, so the next packet is of the best class of which something is left.

use wiremesh_wire::Priority;

/// A packet of QUIC without so much payload only acknowledges.
const SMALL: usize = 100;
/// Bytes of a packet that are not payload, about: headers of QUIC and of a frame, tag.
const OVERHEAD: usize = 32;
/// More than a connection can have unsent: what is above was lost sight of.
const PENDING_MAX: u64 = 1 << 30;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger([u64; Priority::ALL.len()]);

impl Ledger {
    /// The connection was given so many bytes.
    pub fn wrote(&mut self, class: Priority, bytes: usize) {
        let pending = &mut self.0[class.index()];
        *pending = pending.saturating_add(bytes as u64).min(PENDING_MAX);
    }

    /// Bytes of a class that are not sent yet.
    #[must_use]
    pub fn pending(&self, class: Priority) -> u64 {
        self.0[class.index()]
    }

    /// The class of the next packet of so many bytes (of QUIC, without what the tunnel adds).
    /// What nobody has told anything about is normal.
    #[must_use]
    pub fn class(&self, len: usize) -> Priority {
        if len < SMALL {
            return Priority::Urgent;
        }
        let pending = |class: &Priority| self.pending(*class) > 0;
        Priority::ALL.into_iter().find(pending).unwrap_or_default()
    }

    /// A packet left: what it carried is taken off, the best class first.
    pub fn sent(&mut self, len: usize) {
        if len < SMALL {
            return;
        }
        let mut left = len.saturating_sub(OVERHEAD) as u64;
        for pending in &mut self.0 {
            let taken = left.min(*pending);
            *pending -= taken;
            left -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Bulk, Normal, Urgent};

    #[test]
    fn the_next_packet_is_of_the_best_class_that_has_something_left() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.class(1_200), Normal, "nobody said anything");
        ledger.wrote(Bulk, 5_000);
        assert_eq!(ledger.class(1_200), Bulk);
        ledger.wrote(Urgent, 1_000);
        assert_eq!(ledger.class(1_200), Urgent);
        ledger.sent(1_200);
        assert_eq!(ledger.class(1_200), Bulk);
        assert_eq!(ledger.pending(Bulk), 5_000 - 168);
    }

    #[test]
    fn acknowledgements_are_urgent_and_cost_nothing() {
        let mut ledger = Ledger::default();
        ledger.wrote(Bulk, 50);
        assert_eq!(ledger.class(99), Urgent);
        ledger.sent(99);
        assert_eq!(ledger.pending(Bulk), 50);
        ledger.sent(100);
        assert_eq!(ledger, Ledger::default());
    }
}
