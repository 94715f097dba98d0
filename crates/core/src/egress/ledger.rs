//! What one connection has been given to send and has not sent yet, by class.
//!
//! Owns the count of each stream with a class, from its offsets: nothing drifts, whatever a packet's
//! headers take, and what is repeated does not count twice. QUIC sends the best stream first, so the
//! next packet but the one that is made already is of the best class of which something is left.

use alloc::collections::BTreeMap;
use wiremesh_wire::Priority;

/// Streams that are followed; what is written to a further one is normal.
const STREAMS_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    class: Priority,
    written: u64,
    sent: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Those of which something is not sent yet.
    streams: BTreeMap<u64, Stream>,
    pending: [u64; Priority::ALL.len()],
    datagrams: [u64; Priority::ALL.len()],
    /// A packet has left without a datagram since the last one was given or sent.
    datagrams_doubted: bool,
}

impl Ledger {
    /// A stream was given so many bytes, which end at an offset.
    pub fn wrote(&mut self, id: u64, class: Priority, end: u64, bytes: usize) {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
            return;
        }
        let begin = end.saturating_sub(bytes as u64);
        let stream = self.streams.entry(id).or_insert(Stream {
            class,
            written: begin,
            sent: begin,
        });
        let added = end.saturating_sub(stream.written);
        stream.written += added;
        self.pending[stream.class.index()] += added;
    }

    /// The connection was given a datagram.
    pub fn wrote_datagram(&mut self, class: Priority, bytes: usize) {
        self.datagrams_doubted = false;
        let datagrams = &mut self.datagrams[class.index()];
        *datagrams = datagrams.saturating_add(bytes as u64);
    }

    /// Bytes of streams of a class that are not sent yet.
    #[must_use]
    pub fn pending(&self, class: Priority) -> u64 {
        self.pending[class.index()]
    }

    /// The best class of which something is left.
    #[must_use]
    pub fn best(&self) -> Option<Priority> {
        let left =
            |class: &Priority| self.pending[class.index()] > 0 || self.datagrams[class.index()] > 0;
        Priority::ALL.into_iter().find(left)
    }

    /// The class of a stream of which something is left.
    #[must_use]
    pub fn class_of(&self, id: u64) -> Option<Priority> {
        self.streams.get(&id).map(|stream| stream.class)
    }

    /// Part of a stream leaves, up to this offset.
    pub fn sent(&mut self, id: u64, end: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let before = stream.sent;
        stream.sent = end.clamp(before, stream.written);
        self.pending[stream.class.index()] -= stream.sent - before;
        if stream.sent == stream.written {
            self.streams.remove(&id);
        }
    }

    /// Nothing more leaves of a stream.
    pub fn ended(&mut self, id: u64) {
        self.sent(id, u64::MAX);
    }

    /// A datagram leaves; the best ones are taken to leave first.
    pub fn sent_datagram(&mut self, bytes: usize) {
        self.datagrams_doubted = false;
        let mut left = bytes as u64;
        for datagrams in &mut self.datagrams {
            let taken = left.min(*datagrams);
            *datagrams -= taken;
            left -= taken;
        }
    }

    /// A packet left with streams and without a datagram. Datagrams go first, so after the second one
    /// none is left; the first may have been made before there was one.
    pub fn no_datagrams(&mut self) {
        if core::mem::replace(&mut self.datagrams_doubted, true) {
            self.datagrams = [0; Priority::ALL.len()];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Bulk, Normal, Urgent};

    #[test]
    fn what_left_is_known_to_the_byte_and_repetitions_do_not_count() {
        let mut ledger = Ledger::default();
        ledger.wrote(4, Bulk, 10_000, 10_000);
        ledger.wrote(8, Urgent, 1_000, 1_000);
        assert_eq!(ledger.best(), Some(Urgent));
        ledger.sent(4, 1_400);
        ledger.sent(4, 1_400);
        assert_eq!(ledger.pending(Bulk), 8_600);
        ledger.sent(8, 1_000);
        assert_eq!(ledger.best(), Some(Bulk));
        ledger.wrote(4, Bulk, 10_500, 500);
        ledger.sent(4, 10_500);
        assert_eq!((ledger.best(), ledger.class_of(4)), (None, None));
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn a_stream_that_is_met_late_counts_from_there() {
        let mut ledger = Ledger::default();
        ledger.wrote(4, Normal, 5_000, 1_000);
        ledger.sent(4, 3_000);
        assert_eq!(ledger.pending(Normal), 1_000);
        ledger.sent(4, 4_400);
        assert_eq!(ledger.pending(Normal), 600);
        ledger.ended(4);
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn datagrams_go_before_streams() {
        let mut ledger = Ledger::default();
        ledger.wrote(4, Bulk, 10_000, 10_000);
        ledger.wrote_datagram(Urgent, 500);
        ledger.wrote_datagram(Normal, 500);
        ledger.sent_datagram(600);
        assert_eq!(ledger.best(), Some(Normal));
        ledger.no_datagrams();
        assert_eq!(ledger.best(), Some(Normal), "one was made already");
        ledger.no_datagrams();
        assert_eq!(ledger.best(), Some(Bulk));
    }

    #[test]
    fn the_number_of_streams_is_bounded() {
        let mut ledger = Ledger::default();
        for id in 0..STREAMS_MAX as u64 + 5 {
            ledger.wrote(id, Bulk, 1, 1);
        }
        assert_eq!(ledger.pending(Bulk), STREAMS_MAX as u64);
    }
}
