//! How a scenario ends: well, skipped with a reason, or failed with one.

use std::time::{Duration, Instant};

/// Why a scenario did not end well.
#[derive(Debug)]
pub enum Stop {
    /// Something that the scenario needs is not on this machine; says what and how to get it.
    Skipped(String),
    /// What was seen is not what must be.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The end of a scenario or of one of its steps.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Fails with a reason.
pub fn fail<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(reason.into()))
}

/// Skips with a reason.
pub fn skip<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skipped(reason.into()))
}

/// Fails with a reason unless a condition holds.
pub fn ensure(condition: bool, reason: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { fail(reason) }
}

/// Asks again and again until there is an answer, up to a limit, and says how long it took.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> Outcome<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok((answer, start.elapsed()));
        }
        if start.elapsed() > limit {
            return fail(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
