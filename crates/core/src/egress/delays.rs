//! How long things waited for their turn, by class.
//!
//! Owns counts in buckets of a quarter octave: constant memory, percentiles within a fifth.

use core::time::Duration;
use wiremesh_wire::Priority;

const STEPS: u32 = 4;
/// From a microsecond up to about an hour.
const BUCKETS: usize = 128;

/// What left in one class since the node began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassDelays {
    /// Packets that left.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Half of them waited no longer.
    pub p50: Duration,
    /// Of a hundred, one waited longer.
    pub p99: Duration,
    /// The longest wait.
    pub max: Duration,
    /// Dropped because their time was over.
    pub expired: u64,
    /// Dropped because too much waited already.
    pub dropped: u64,
}

#[derive(Clone)]
struct Class {
    counts: [u64; BUCKETS],
    told: ClassDelays,
}

/// The counts of all classes.
#[derive(Clone)]
pub struct Delays([Class; Priority::ALL.len()]);

impl Default for Delays {
    fn default() -> Self {
        let class = Class {
            counts: [0; BUCKETS],
            told: ClassDelays::default(),
        };
        Self([class.clone(), class.clone(), class])
    }
}

impl Delays {
    pub(super) fn left(&mut self, class: Priority, len: usize, waited: Duration) {
        let class = &mut self.0[class.index()];
        class.counts[bucket(waited)] += 1;
        class.told.packets += 1;
        class.told.bytes += len as u64;
        class.told.max = class.told.max.max(waited);
    }

    pub(super) fn expired(&mut self, class: Priority) {
        self.0[class.index()].told.expired += 1;
    }

    pub(super) fn dropped(&mut self, class: Priority) {
        self.0[class.index()].told.dropped += 1;
    }

    /// The figures of one class.
    #[must_use]
    pub fn of(&self, class: Priority) -> ClassDelays {
        let class = &self.0[class.index()];
        ClassDelays {
            p50: class.percentile(50),
            p99: class.percentile(99),
            ..class.told
        }
    }
}

impl Class {
    /// The upper end of the bucket in which that percentile is.
    fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.told.packets * percent).div_ceil(100);
        let mut seen = 0;
        let full = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank && rank > 0
        });
        full.map_or(Duration::ZERO, upper_end).min(self.told.max)
    }
}

fn bucket(waited: Duration) -> usize {
    let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    if micros < u64::from(STEPS) {
        return micros as usize;
    }
    let octave = micros.ilog2();
    let step = (micros >> (octave - 2)) & 3;
    (((octave - 1) * STEPS) as usize + step as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < u64::from(STEPS) {
        return Duration::from_micros(bucket);
    }
    let (octave, step) = (bucket / u64::from(STEPS) + 1, bucket % u64::from(STEPS));
    Duration::from_micros(((4 + step + 1) << (octave - 2)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_below_the_truth_and_at_most_a_quarter_above() {
        for micros in [0, 1, 3, 4, 7, 8, 999, 1_000, 123_456, 59_000_000] {
            let waited = Duration::from_micros(micros);
            let end = upper_end(bucket(waited));
            assert!(end >= waited, "{micros}");
            assert!(end.as_micros() <= u128::from(micros) * 5 / 4, "{micros}");
        }
        assert_eq!(bucket(Duration::from_secs(86_400 * 365)), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let mut delays = Delays::default();
        for millis in 1..=100 {
            delays.left(Priority::Bulk, 10, Duration::from_millis(millis));
        }
        let bulk = delays.of(Priority::Bulk);
        assert_eq!((bulk.packets, bulk.bytes), (100, 1_000));
        assert!((50..=62).contains(&bulk.p50.as_millis()), "{bulk:?}");
        assert!((99..=100).contains(&bulk.p99.as_millis()), "{bulk:?}");
        assert_eq!(delays.of(Priority::Urgent), ClassDelays::default());
    }
}
