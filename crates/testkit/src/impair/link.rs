//! One direction of a bad link, as a pure state machine.
//!
//! Owns the datagrams in flight and the statistics. Never reads a clock, never does I/O: `now` is
//! the time since any fixed moment and must not go back.
//!
//! Each datagram draws the same number of random values whatever the settings are, so that with
//! one seed the n-th datagram meets the same fate when an unrelated setting changes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::config::LinkConfig;
use super::random::Random;

/// Most datagrams in flight in one direction of one client; further ones are dropped.
pub const IN_FLIGHT_MAX: usize = 32_768;

/// What happened to the datagrams of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Datagrams that entered.
    pub received_datagrams: u64,
    /// Payload bytes that entered.
    pub received_bytes: u64,
    /// Datagrams that came out, duplicates included.
    pub delivered_datagrams: u64,
    /// Payload bytes that came out, duplicates included.
    pub delivered_bytes: u64,
    /// Datagrams lost by themselves.
    pub lost: u64,
    /// Datagrams lost in bursts.
    pub lost_in_bursts: u64,
    /// Datagrams over the MTU.
    pub too_large: u64,
    /// Datagrams for which the queue, or the limit of datagrams in flight, left no room.
    pub queue_full: u64,
    /// Datagrams that were doubled.
    pub duplicated: u64,
    /// Datagrams with flipped bits.
    pub corrupted: u64,
    /// Datagrams that came out after one that had entered later.
    pub reordered: u64,
}

impl LinkStats {
    /// Gives the number of datagrams dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.lost + self.lost_in_bursts + self.too_large + self.queue_full
    }

    /// Adds the counts of another link.
    pub fn add(&mut self, other: &LinkStats) {
        self.received_datagrams += other.received_datagrams;
        self.received_bytes += other.received_bytes;
        self.delivered_datagrams += other.delivered_datagrams;
        self.delivered_bytes += other.delivered_bytes;
        self.lost += other.lost;
        self.lost_in_bursts += other.lost_in_bursts;
        self.too_large += other.too_large;
        self.queue_full += other.queue_full;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
    }
}

/// A datagram in flight, ordered by its due time and then by its entry.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    due: Duration,
    sequence: u64,
    data: Vec<u8>,
}

/// The random values of one datagram, drawn all at once.
struct Fate {
    loss: f64,
    burst: f64,
    duplicate: f64,
    corrupt: f64,
    flips: u64,
    jitter: f64,
    duplicate_jitter: f64,
}

/// One direction of a link: datagrams in, the same or worse datagrams out, later.
#[derive(Debug)]
pub struct Impairment {
    config: LinkConfig,
    header_bytes: usize,
    random: Random,
    in_burst: bool,
    /// When the last queued datagram has left a link with a rate.
    link_free_at: Duration,
    sequence: u64,
    last_delivered: Option<u64>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    stats: LinkStats,
}

impl Impairment {
    /// Makes a link for a valid configuration; `header_bytes` is 28 over IPv4 and 48 over IPv6.
    pub fn new(config: LinkConfig, seed: u64, header_bytes: usize) -> Self {
        Impairment {
            config,
            header_bytes,
            random: Random::new(seed),
            in_burst: false,
            link_free_at: Duration::ZERO,
            sequence: 0,
            last_delivered: None,
            in_flight: BinaryHeap::new(),
            stats: LinkStats::default(),
        }
    }

    /// Changes the settings for datagrams that enter from now on.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// Gives the statistics so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Takes a datagram that enters the link now.
    pub fn handle_datagram(&mut self, now: Duration, data: &[u8]) {
        let fate = self.draw();
        self.stats.received_datagrams += 1;
        self.stats.received_bytes += data.len() as u64;
        let packet_bytes = data.len() + self.header_bytes;
        if self.config.mtu_bytes.is_some_and(|mtu| packet_bytes > mtu) {
            self.stats.too_large += 1;
            return;
        }
        if self.is_in_burst(fate.burst) {
            self.stats.lost_in_bursts += 1;
            return;
        }
        if fate.loss < self.config.loss {
            self.stats.lost += 1;
            return;
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.stats.queue_full += 1;
            return;
        }
        let Some(leaves) = self.leave_queue(now, packet_bytes) else {
            self.stats.queue_full += 1;
            return;
        };
        let mut data = data.to_vec();
        if fate.corrupt < self.config.corrupt && !data.is_empty() {
            flip_bits(&mut data, fate.flips);
            self.stats.corrupted += 1;
        }
        let arrives = leaves + self.config.delay;
        if fate.duplicate < self.config.duplicate {
            self.stats.duplicated += 1;
            let due = arrives + self.config.jitter.mul_f64(fate.duplicate_jitter);
            self.push(due, data.clone());
        }
        let due = arrives + self.config.jitter.mul_f64(fate.jitter);
        self.push(due, data);
        self.sequence += 1;
    }

    /// Gives the next datagram that has arrived by now.
    pub fn poll_datagram(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(arrived) = self.in_flight.pop()?;
        self.stats.delivered_datagrams += 1;
        self.stats.delivered_bytes += arrived.data.len() as u64;
        if self
            .last_delivered
            .is_some_and(|last| arrived.sequence < last)
        {
            self.stats.reordered += 1;
        }
        self.last_delivered = self.last_delivered.max(Some(arrived.sequence));
        Some(arrived.data)
    }

    /// Gives the time at which the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse(next)| next.due)
    }

    fn draw(&mut self) -> Fate {
        Fate {
            loss: self.random.unit(),
            burst: self.random.unit(),
            duplicate: self.random.unit(),
            corrupt: self.random.unit(),
            flips: self.random.next(),
            jitter: self.random.unit(),
            duplicate_jitter: self.random.unit(),
        }
    }

    /// Walks the two states of a Gilbert link: outside a burst it may begin, inside it may end.
    fn is_in_burst(&mut self, chance: f64) -> bool {
        self.in_burst = if self.config.burst_loss == 0.0 {
            false
        } else if self.in_burst {
            chance >= 1.0 / self.config.burst_datagrams
        } else {
            chance < self.config.burst_loss
        };
        self.in_burst
    }

    /// Gives the time at which the last bit is on the wire, or `None` when the queue is full.
    fn leave_queue(&mut self, now: Duration, packet_bytes: usize) -> Option<Duration> {
        let Some(rate) = self.config.rate_bits_per_s else {
            return Some(now);
        };
        let starts = self.link_free_at.max(now);
        let waiting_bits = (starts - now).as_nanos() * u128::from(rate) / 1_000_000_000;
        if waiting_bits / 8 + packet_bytes as u128 > self.config.queue_bytes as u128 {
            return None;
        }
        let nanos = (packet_bytes as u128 * 8 * 1_000_000_000).div_ceil(u128::from(rate));
        self.link_free_at = starts + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(self.link_free_at)
    }

    fn push(&mut self, due: Duration, data: Vec<u8>) {
        self.in_flight.push(Reverse(InFlight {
            due,
            sequence: self.sequence,
            data,
        }));
    }
}

/// Flips one to three different bits.
fn flip_bits(data: &mut [u8], chance: u64) {
    let bits = data.len() as u64 * 8;
    let first = (chance >> 2) % bits;
    for step in 0..=(chance % 3).min(bits - 1) {
        let bit = (first + step * (bits / 3).max(1)) % bits;
        data[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
