//! One-way delays of messages.
//!
//! Owns the samples.

use std::fmt;
use std::time::Duration;

/// The delays of many messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Takes one.
    pub fn add(&mut self, delay: Duration) {
        self.0.push(delay);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest delay that so many of 1,000 messages do not exceed; zero without any.
    pub fn permille(&self, permille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The median.
    pub fn p50(&self) -> Duration {
        self.permille(500)
    }

    /// What one message of a hundred exceeds.
    pub fn p99(&self) -> Duration {
        self.permille(990)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.permille(1_000)
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |delay: Duration| delay.as_secs_f64() * 1e3;
        let (p50, p99, max) = (ms(self.p50()), ms(self.p99()), ms(self.max()));
        write!(f, "p50 {p50:6.1}  p99 {p99:6.1}  max {max:6.1} ms")
    }
}
