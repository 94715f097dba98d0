//! The time types of the pure layers: a monotonic instant, the date, and the TAI64N label.
//!
//! Owns their arithmetic and the TAI64N byte layout. It never reads a clock: time is always an
//! argument. WireGuard paper, section 5.4.2 (timestamp); D. J. Bernstein's TAI64N format.

use core::fmt;
use core::ops::{Add, AddAssign};
use core::time::Duration;

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// TAI64 label of 1970-01-01 00:00:00 UTC: 2^62, plus the 10 s that TAI was ahead of UTC then.
const TAI64_UNIX_EPOCH: u64 = 0x4000_0000_0000_000a;

/// A point of monotonic time, in nanoseconds from an arbitrary origin.
///
/// The shell takes it from a clock that runs in suspend too; the simulator counts virtual time.
/// Additions stop at [`Instant::MAX`], which is 584 years after the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The last instant; a deadline there never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// Makes the instant `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later than `self`.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Adds `duration`, or returns `None` if the result is after [`Instant::MAX`].
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Self)
    }

    /// Subtracts `duration`, stopping at the origin.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self::MAX)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// A date: the time since 1970-01-01 00:00:00 UTC. It can jump both ways between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// 1970-01-01 00:00:00 UTC.
    pub const EPOCH: Self = Self(Duration::ZERO);

    /// Makes a date from whole seconds and nanoseconds; nanoseconds of 10^9 and more carry into
    /// the seconds, and the sum stops at the largest `Duration`.
    #[must_use]
    pub const fn from_secs_nanos(secs: u64, nanos: u32) -> Self {
        Self(Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos as u64)))
    }

    /// Makes the date that is `since_epoch` after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_duration(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Returns the time since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Returns the whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Returns the nanoseconds after the whole second, below 10^9.
    #[must_use]
    pub const fn subsec_nanos(self) -> u32 {
        self.0.subsec_nanos()
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later than `self`.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// What the clocks show at one moment; the argument `now` of the pure layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, for timers.
    pub instant: Instant,
    /// The date, for handshake timestamps and records only.
    pub unix: UnixTime,
}

impl Now {
    /// Joins the readings of the two clocks.
    #[must_use]
    pub const fn new(instant: Instant, unix: UnixTime) -> Self {
        Self { instant, unix }
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self {
            instant: self.instant + duration,
            unix: self.unix + duration,
        }
    }
}

/// The timestamp of a handshake initiation: 8 bytes of TAI seconds and 4 bytes of nanoseconds,
/// both big-endian, so that the byte order is the order in time.
///
/// A responder compares such values and nothing more, so all 2^96 of them are accepted.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The length in bytes.
    pub const LEN: usize = 12;

    /// The value below all dates; a peer that was never heard has it.
    pub const ZERO: Self = Self([0; 12]);

    /// Returns the label of `time`, without leap seconds, as all WireGuard implementations do.
    #[must_use]
    pub const fn from_unix(time: UnixTime) -> Self {
        let secs = TAI64_UNIX_EPOCH.saturating_add(time.as_secs());
        Self::from_parts(secs, time.subsec_nanos())
    }

    /// Takes the 12 bytes as they are on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the 12 bytes as they are on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Returns the smallest well-formed greater value: one nanosecond later.
    ///
    /// At the end of the range (in the year 438 billion) it returns `self`.
    #[must_use]
    pub const fn next(self) -> Self {
        let (secs, nanos) = self.parts();
        if nanos < NANOS_PER_SEC - 1 {
            return Self::from_parts(secs, nanos + 1);
        }
        match secs.checked_add(1) {
            Some(secs) => Self::from_parts(secs, 0),
            None => self,
        }
    }

    const fn from_parts(secs: u64, nanos: u32) -> Self {
        let s = secs.to_be_bytes();
        let n = nanos.to_be_bytes();
        Self([
            s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], n[0], n[1], n[2], n[3],
        ])
    }

    const fn parts(self) -> (u64, u32) {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = self.0;
        let secs = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        (secs, u32::from_be_bytes([n0, n1, n2, n3]))
    }
}

impl fmt::Debug for Tai64n {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, nanos) = self.parts();
        write!(f, "Tai64n({secs:016x}.{nanos:08x})")
    }
}
