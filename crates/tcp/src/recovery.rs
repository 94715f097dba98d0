//! What the peer's SACK options say about losses, for a sender that does not read them.
//!
//! smoltcp repeats the first gap after three duplicate ACKs and every further gap of the window only
//! after a timeout of a second or more. Where an ACK proves that the segment behind it is lost (RFC
//! 6675, section 4, IsLost), this asks for what NewReno does on a partial ACK (RFC 6582): repeat
//! that segment at once. It owns what is known of the gaps.

use crate::segment::{Segment, is_after};

/// As many duplicate ACKs as make smoltcp repeat a segment (RFC 5681, 3.2).
pub(crate) const DUPLICATE_ACKS: usize = 3;

/// What SACK blocks report beyond an acknowledged number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sacked {
    /// How many bytes.
    pub(crate) bytes: u32,
    /// How far beyond the number the last of them is.
    pub(crate) reach: u32,
}

/// What is known of the gaps in what the peer has.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// The number acknowledged last, and how often since then the same.
    ack: u32,
    duplicates: usize,
    /// The end of the last byte that the peer is known to have.
    edge: Option<u32>,
    /// Up to here every gap counts as a loss, because one was.
    until: Option<u32>,
    /// The gap that was repeated last, by its first number.
    repeated: Option<u32>,
}

impl Recovery {
    /// Whether this ACK proves that what comes right behind it is lost, and says so for the first
    /// time. `mss` is the size of a full segment.
    pub(crate) fn is_news_of_loss(&mut self, segment: &Segment, mss: usize) -> bool {
        let Some(ack) = segment.pure_ack else {
            return false;
        };
        let again = std::mem::replace(&mut self.ack, ack) == ack;
        self.duplicates = if again { self.duplicates + 1 } else { 0 };
        let Sacked { bytes, reach } = segment.sacked;
        let known = self.edge.filter(|edge| is_after(*edge, ack));
        let reported = (reach > 0).then(|| ack.wrapping_add(reach));
        self.edge = match (known, reported) {
            (Some(known), Some(reported)) if is_after(known, reported) => Some(known),
            (known, reported) => reported.or(known),
        };
        self.until = self.until.filter(|until| is_after(*until, ack));
        let Some(edge) = self.edge else {
            return false;
        };
        let proven = bytes as usize >= DUPLICATE_ACKS * mss || self.duplicates >= DUPLICATE_ACKS;
        let lost = proven || self.until.is_some();
        if proven {
            self.until.get_or_insert(edge);
        }
        lost && self.repeated.replace(ack) != Some(ack)
    }
}

/// Reads the SACK blocks among TCP options (RFC 2018).
pub(crate) fn sacked(mut options: &[u8], ack: u32) -> Sacked {
    let mut sacked = Sacked::default();
    while let [kind, rest @ ..] = options {
        let (kind, len) = match (*kind, rest) {
            (0, _) | (2.., []) => break,
            (1, _) => (1, 1),
            (kind, [len, ..]) => (kind, usize::from(*len)),
        };
        let Some((option, after)) = options.split_at_checked(len).filter(|_| len > 0) else {
            break;
        };
        if kind == 5 {
            let blocks = option.get(2..).unwrap_or_default().chunks_exact(8);
            blocks.for_each(|block| sacked.add(block, ack));
        }
        options = after;
    }
    sacked
}

impl Sacked {
    /// Adds a block, if it lies beyond `ack`: others are duplicates (RFC 2883).
    fn add(&mut self, block: &[u8], ack: u32) {
        let edge = |at: usize| {
            let bytes = block[at..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        let (left, len) = (edge(0).wrapping_sub(ack), edge(4).wrapping_sub(edge(0)));
        if (1..1 << 30).contains(&left) && len < 1 << 30 {
            self.bytes += len;
            self.reach = self.reach.max(left + len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sack(blocks: &[(u32, u32)]) -> Vec<u8> {
        let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (left, right) in blocks {
            option.extend(left.to_be_bytes());
            option.extend(right.to_be_bytes());
        }
        option
    }

    #[test]
    fn blocks_beyond_the_ack_count_and_duplicates_do_not() {
        let read = |blocks: &[(u32, u32)], ack| {
            let Sacked { bytes, reach } = sacked(&sack(blocks), ack);
            (bytes, reach)
        };
        assert_eq!(read(&[(1_100, 1_200), (1_300, 1_500)], 1_000), (300, 500));
        assert_eq!(read(&[(900, 1_000), (1_300, 1_500)], 1_000), (200, 500));
        assert_eq!(read(&[(5, 105)], u32::MAX - 9), (100, 115), "across zero");
        assert_eq!(read(&[(1_200, 1_100)], 1_000), (0, 0));
        let nothing = Sacked::default();
        assert_eq!(sacked(&[0, 5, 10], 0), nothing, "the list has ended");
        assert_eq!(
            sacked(&[5, 0, 5, 10], 0),
            nothing,
            "an option without length"
        );
    }

    #[test]
    fn each_gap_is_news_once_and_only_when_it_is_proven() {
        let flow = crate::segment::Flow {
            local: ([10, 0, 0, 1], 1).into(),
            remote: ([10, 0, 0, 2], 2).into(),
        };
        let mut recovery = Recovery::default();
        let mut news = |ack: u32, bytes: u32, reach: u32| {
            let segment = Segment {
                flow,
                opens: false,
                pure_ack: Some(ack),
                sacked: Sacked { bytes, reach },
                header: crate::segment::Header::default(),
            };
            recovery.is_news_of_loss(&segment, 1_000)
        };
        assert!(!news(5_000, 0, 0), "no gap");
        assert!(!news(6_000, 1_000, 2_000), "it may be late");
        assert!(!news(6_000, 2_000, 3_000));
        assert!(news(6_000, 3_000, 9_000), "three segments beyond it");
        assert!(!news(6_000, 3_000, 9_000), "said before");
        assert!(news(8_000, 1_000, 2_000), "the next gap of the same window");
        assert!(news(12_000, 0, 0), "its block is not reported again");
        assert!(!news(15_000, 0, 0), "everything is there");
        assert!(!news(16_000, 1_000, 2_000), "it may be late");
        for _ in 0..2 {
            assert!(!news(16_000, 1_000, 2_000));
        }
        assert!(news(16_000, 1_000, 2_000), "the third duplicate");
    }

    proptest! {
        #[test]
        fn no_options_panic(options in proptest::collection::vec(any::<u8>(), 0..60), ack: u32) {
            sacked(&options, ack);
        }
    }
}
