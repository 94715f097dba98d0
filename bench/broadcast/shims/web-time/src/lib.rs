//! Stands in for the crate `web-time`: the same names, on a clock that a simulation moves.
//!
//! Owns this thread's clock. Never reads the system's. Holds no more of the interface than
//! libp2p-gossipsub and libp2p-swarm use.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Sub, SubAssign};

pub use std::time::{Duration, SystemTimeError, UNIX_EPOCH};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Where simulations start in UNIX time, in seconds.
const EPOCH_SECS: u64 = 1_800_000_000;

/// Sets this thread's clock, in nanoseconds since the simulation's start.
pub fn set_nanos(nanos: u64) {
    NOW.with(|now| now.set(nanos));
}

/// What this thread's clock shows, in nanoseconds since the simulation's start.
#[must_use]
pub fn nanos() -> u64 {
    NOW.with(Cell::get)
}

/// A point on the virtual clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

/// A day, so that a short time before the start can be told.
const ORIGIN: Duration = Duration::from_secs(86_400);

impl Instant {
    /// The virtual present.
    #[must_use]
    pub fn now() -> Self {
        Self(ORIGIN + Duration::from_nanos(nanos()))
    }

    /// How long after `earlier` this is; zero when it is before.
    #[must_use]
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long after `earlier` this is, if it is not before.
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }

    /// How long after `earlier` this is; zero when it is before.
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }

    /// How long ago this was.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }

    /// This much later, if it can be told.
    #[must_use]
    pub fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    /// This much earlier, if it can be told.
    #[must_use]
    pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(duration).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Virtual wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemTime(std::time::SystemTime);

impl SystemTime {
    /// 1970-01-01 UTC, of the type that [`SystemTime::duration_since`] takes.
    pub const UNIX_EPOCH: std::time::SystemTime = UNIX_EPOCH;

    /// The virtual present.
    #[must_use]
    pub fn now() -> Self {
        Self(UNIX_EPOCH + Duration::from_secs(EPOCH_SECS) + Duration::from_nanos(nanos()))
    }

    /// How long after `earlier` this is.
    ///
    /// # Errors
    ///
    /// When it is before.
    pub fn duration_since(
        &self,
        earlier: std::time::SystemTime,
    ) -> Result<Duration, SystemTimeError> {
        self.0.duration_since(earlier)
    }
}
