//! The wall clock against the monotonic one.
//!
//! Owns the last difference between the two; only changes of it mean anything.

use core::time::Duration;
use wiremesh_wire::Now;

/// A jump of the wall clock against the monotonic one that counts as a step.
const CLOCK_STEP: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct WallClock {
    offset: Duration,
}

impl WallClock {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            offset: offset_of(now),
        }
    }

    /// Whether the wall clock went forward by a step since the last call.
    pub(crate) fn stepped(&mut self, now: Now) -> bool {
        let offset = offset_of(now);
        let stepped = offset > self.offset + CLOCK_STEP;
        self.offset = offset;
        stepped
    }
}

/// Wall clock minus monotonic clock.
fn offset_of(now: Now) -> Duration {
    // A day's head start keeps the difference positive when the wall clock is near 1970.
    const DAY: Duration = Duration::from_secs(86_400);
    let mono = Duration::from_nanos(now.instant.as_nanos());
    (now.unix.as_duration() + DAY + Duration::from_secs(1 << 40)).saturating_sub(mono)
}
