//! What a person or program may set of the egress scheduler.

use core::fmt;
use wiremesh_wire::Priority;

/// The slowest pace that can be configured, bits per second.
pub const RATE_MIN: u64 = 8_000;
/// The fastest, bits per second.
pub const RATE_MAX: u64 = 1_000_000_000_000;

/// Settings of the egress scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressConfig {
    /// The pace of all that leaves, in bits per second of UDP datagrams with their IP headers. A
    /// little below the uplink's capacity (95 %), so that the queue is here and not in a router.
    /// Default: none.
    pub rate_bits: Option<u64>,
    /// What each class gets of the pace at least while it has something to send, in percent, by
    /// [`Priority::index`]; together at most 100. Default: 0 (urgent goes first anyway), 10, 5.
    pub shares_percent: [u8; Priority::ALL.len()],
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            rate_bits: None,
            shares_percent: [0, 10, 5],
        }
    }
}

/// Why settings are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidEgress {
    /// The rate in bits per second is out of its range.
    Rate(u64),
    /// The shares come to more than 100 percent.
    Shares(u16),
}

impl fmt::Display for InvalidEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(
                f,
                "a rate of {rate} bit/s; fix: between 8 kbit/s and 1 Tbit/s"
            ),
            Self::Shares(sum) => write!(
                f,
                "minimum shares of {sum} % in all; fix: at most 100 % together"
            ),
        }
    }
}

impl core::error::Error for InvalidEgress {}

impl EgressConfig {
    /// Looks whether the settings can be met.
    ///
    /// # Errors
    ///
    /// [`InvalidEgress`].
    pub fn check(&self) -> Result<(), InvalidEgress> {
        if let Some(rate) = self
            .rate_bits
            .filter(|r| !(RATE_MIN..=RATE_MAX).contains(r))
        {
            return Err(InvalidEgress::Rate(rate));
        }
        match self
            .shares_percent
            .iter()
            .map(|share| u16::from(*share))
            .sum()
        {
            sum if sum > 100 => Err(InvalidEgress::Shares(sum)),
            _ => Ok(()),
        }
    }
}
