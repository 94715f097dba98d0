//! Virtual time: nanoseconds since the simulation's start.

/// A point in virtual time, or a span of it.
pub type Nanos = u64;

/// A millisecond.
pub const MS: Nanos = 1_000_000;

/// A second.
pub const SEC: Nanos = 1_000_000_000;

/// In milliseconds, for people.
pub fn millis(span: Nanos) -> f64 {
    span as f64 / MS as f64
}
