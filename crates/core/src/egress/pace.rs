//! The pace of a link: when the next byte may be given to it.
//!
//! Owns one instant. A link that is asked too late catches up with at most a millisecond's worth.

use core::time::Duration;
use wiremesh_wire::{Instant, Priority};

/// What a late wake-up may make up for: the granularity of timers.
const CATCH_UP: Duration = Duration::from_millis(1);
/// What may leave before it is paid for, if it is urgent: a packet that was made before it, which has
/// to go first; itself; and what is left to pay of the packet that went before.
pub(super) const ADVANCE: usize = 3 * 1_500;
const NANOS: u64 = 1_000_000_000;

pub(super) struct Pace {
    rate_bits: u64,
    charged_at: Instant,
    free_at: Instant,
}

impl Pace {
    /// `rate_bits` per second, at least one.
    pub(super) fn new(rate_bits: u64) -> Self {
        Self {
            rate_bits: rate_bits.max(1),
            charged_at: Instant::ZERO,
            free_at: Instant::ZERO,
        }
    }

    /// The same link at another rate, at which also goes what it was given last.
    pub(super) fn at(self, rate_bits: u64) -> Self {
        let debt = self.free_at.saturating_since(self.charged_at);
        let other = Self::new(rate_bits);
        let nanos = debt.as_nanos() * u128::from(self.rate_bits) / u128::from(other.rate_bits);
        let debt = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Self {
            charged_at: self.charged_at,
            free_at: self.free_at.min(self.charged_at) + debt,
            ..other
        }
    }

    pub(super) fn rate_bits(&self) -> u64 {
        self.rate_bits
    }

    pub(super) fn free_at(&self) -> Instant {
        self.free_at
    }

    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.free_at <= now
    }

    /// Whether something urgent may leave: it takes in advance what little is still to be paid for.
    pub(super) fn is_free_for(&self, now: Instant, class: Priority) -> bool {
        self.free_at_for(class) <= now
    }

    pub(super) fn free_at_for(&self, class: Priority) -> Instant {
        match class {
            Priority::Urgent => self.free_at.saturating_sub(self.time_of(ADVANCE)),
            Priority::Normal | Priority::Bulk => self.free_at,
        }
    }

    pub(super) fn charge(&mut self, now: Instant, len: usize) {
        let from = self.free_at.max(now.saturating_sub(CATCH_UP));
        self.charged_at = now;
        self.free_at = from + self.time_of(len);
    }

    /// How long `len` bytes take.
    pub(super) fn time_of(&self, len: usize) -> Duration {
        let nanos = (len as u128 * 8 * u128::from(NANOS)) / u128::from(self.rate_bits);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Bytes that leave within `time`.
    pub(super) fn bytes_in(&self, time: Duration) -> usize {
        let bytes = time.as_nanos() * u128::from(self.rate_bits) / (8 * u128::from(NANOS));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
