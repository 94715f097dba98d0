//! What a relay does to datagrams.
//!
//! Owns the settings, their ranges and defaults. The default link changes nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// One direction of a link. The default forwards everything unchanged and at once.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// Probability that a datagram is lost, each on its own; 0 to 1.
    pub loss: f64,
    /// Probability that a burst of losses begins with a datagram; 0 to 1.
    pub burst_loss: f64,
    /// Mean length of such a burst in datagrams; at least 1, default 10.
    pub burst_datagrams: f64,
    /// Delay of every datagram; at most one hour.
    pub delay: Duration,
    /// Further delay, evenly from zero to this, for each datagram by itself: reorders. At most one
    /// hour.
    pub jitter: Duration,
    /// Probability that a datagram arrives twice; 0 to 1.
    pub duplicate: f64,
    /// Probability that one to three bits of the payload flip; 0 to 1. The UDP checksum is right
    /// again, so that the receiver sees the damage.
    pub corrupt: f64,
    /// Largest IP packet: a datagram is dropped when its payload and 28 bytes of IPv4 and UDP
    /// header (IPv6: 48) exceed it. `None` means no limit.
    pub mtu_bytes: Option<usize>,
    /// Rate of the link in bits per second, headers included; at least 1. `None` means no limit.
    pub rate_bits_per_s: Option<u64>,
    /// Queue in front of a link with a rate, in bytes with headers; default 256 KiB. What does not
    /// fit is dropped.
    pub queue_bytes: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            loss: 0.0,
            burst_loss: 0.0,
            burst_datagrams: 10.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu_bytes: None,
            rate_bits_per_s: None,
            queue_bytes: 256 * 1024,
        }
    }
}

/// A setting outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigError {
    /// This setting is a probability and not within 0 to 1.
    Probability(&'static str),
    /// `burst_datagrams` is below 1 or no number.
    BurstDatagrams,
    /// This setting exceeds one hour.
    TooLong(&'static str),
    /// `rate_bits_per_s` is zero, which would forward nothing.
    ZeroRate,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::Probability(name) => write!(f, "{name} must be from 0 to 1"),
            ConfigError::BurstDatagrams => f.write_str("burst_datagrams must be at least 1"),
            ConfigError::TooLong(name) => write!(f, "{name} must be at most one hour"),
            ConfigError::ZeroRate => f.write_str("rate_bits_per_s must be at least 1"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl LinkConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    ///
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let probabilities = [
            ("loss", self.loss),
            ("burst_loss", self.burst_loss),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ];
        for (name, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Probability(name));
            }
        }
        if !(self.burst_datagrams >= 1.0 && self.burst_datagrams.is_finite()) {
            return Err(ConfigError::BurstDatagrams);
        }
        for (name, value) in [("delay", self.delay), ("jitter", self.jitter)] {
            if value > Duration::from_secs(3600) {
                return Err(ConfigError::TooLong(name));
            }
        }
        if self.rate_bits_per_s == Some(0) {
            return Err(ConfigError::ZeroRate);
        }
        Ok(())
    }
}

/// A relay between clients and one target.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpairConfig {
    /// Where clients send to; default `127.0.0.1:0`, a free port.
    pub listen: SocketAddr,
    /// Where the relay forwards to.
    pub target: SocketAddr,
    /// The source of all chance; default 1. The same seed loses, duplicates and corrupts the same
    /// datagrams, counted per client and direction.
    pub seed: u64,
    /// The direction from a client to the target.
    pub to_target: LinkConfig,
    /// The direction from the target to a client.
    pub to_client: LinkConfig,
}

impl ImpairConfig {
    /// Makes a relay to `target` that changes nothing, listening on a free loopback port.
    pub fn new(target: SocketAddr) -> Self {
        ImpairConfig {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            target,
            seed: 1,
            to_target: LinkConfig::default(),
            to_client: LinkConfig::default(),
        }
    }

    /// Sets both directions.
    pub fn with_link(mut self, link: LinkConfig) -> Self {
        self.to_target = link.clone();
        self.to_client = link;
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_at_their_edges() {
        type Change = fn(&mut LinkConfig);
        let cases: [(Change, Result<(), ConfigError>); 12] = [
            (|_| (), Ok(())),
            (|link| link.loss = 1.0, Ok(())),
            (
                |link| link.loss = 1.01,
                Err(ConfigError::Probability("loss")),
            ),
            (
                |link| link.loss = f64::NAN,
                Err(ConfigError::Probability("loss")),
            ),
            (
                |link| link.burst_loss = -0.1,
                Err(ConfigError::Probability("burst_loss")),
            ),
            (
                |link| link.duplicate = 2.0,
                Err(ConfigError::Probability("duplicate")),
            ),
            (
                |link| link.corrupt = 2.0,
                Err(ConfigError::Probability("corrupt")),
            ),
            (
                |link| link.burst_datagrams = 0.9,
                Err(ConfigError::BurstDatagrams),
            ),
            (
                |link| link.burst_datagrams = f64::INFINITY,
                Err(ConfigError::BurstDatagrams),
            ),
            (
                |link| link.delay = Duration::from_secs(3601),
                Err(ConfigError::TooLong("delay")),
            ),
            (
                |link| link.rate_bits_per_s = Some(0),
                Err(ConfigError::ZeroRate),
            ),
            (|link| link.rate_bits_per_s = Some(1), Ok(())),
        ];
        for (change, expected) in cases {
            let mut link = LinkConfig::default();
            change(&mut link);
            assert_eq!(link.validate(), expected, "{link:?}");
        }
    }
}
