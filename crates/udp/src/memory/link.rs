//! One directed link: rate, queue, loss, delay.
//!
//! Owns what waits in front of it, as times and lengths only. Never holds a datagram.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of the IP and UDP headers around a payload.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// How a link behaves. The default loses nothing, takes no time and has no limit but an MTU of 1,500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Time from the last bit in to the last bit out.
    pub delay: Duration,
    /// Bits per second, counted with IP and UDP headers; `None` is no limit.
    pub rate: Option<u64>,
    /// Most bytes that wait or are being sent; a datagram that does not fit is dropped (drop-tail).
    pub queue_bytes: usize,
    /// How many of 1,000 datagrams are lost at random.
    pub loss_permille: u16,
    /// The largest IP packet. A longer one is refused at a host's uplink, and lost elsewhere.
    pub mtu_bytes: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            delay: Duration::ZERO,
            rate: None,
            queue_bytes: usize::MAX,
            loss_permille: 0,
            mtu_bytes: 1_500,
        }
    }
}

/// What a link has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets that came out.
    pub packets: u64,
    /// Bytes of them, with IP and UDP headers.
    pub bytes: u64,
    /// Packets for which the queue had no room.
    pub dropped: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets above the MTU.
    pub too_large: u64,
    /// The longest time that a packet waited for those in front of it.
    pub wait_max: Duration,
}

/// What becomes of a packet.
pub(crate) enum Passage {
    /// It comes out at this time.
    Arrives(Duration),
    Gone,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    pub(crate) counters: LinkCounters,
    /// When each packet that was taken has left, and its bytes.
    queue: VecDeque<(Duration, usize)>,
    queue_bytes: usize,
    free_at: Duration,
}

impl Link {
    pub(crate) fn new(config: LinkConfig) -> Self {
        Link {
            config,
            counters: LinkCounters::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            free_at: Duration::ZERO,
        }
    }

    pub(crate) fn fits(&self, destination: SocketAddr, payload_bytes: usize) -> bool {
        on_the_wire(destination, payload_bytes) <= self.config.mtu_bytes
    }

    pub(crate) fn enter(
        &mut self,
        now: Duration,
        destination: SocketAddr,
        payload_bytes: usize,
        random: &mut Random,
    ) -> Passage {
        let len = on_the_wire(destination, payload_bytes);
        if len > self.config.mtu_bytes {
            self.counters.too_large += 1;
            return Passage::Gone;
        }
        while let Some((_, left)) = self.queue.pop_front_if(|(at, _)| *at <= now) {
            self.queue_bytes -= left;
        }
        // Whatever the limit, an idle link takes a packet.
        if !self.queue.is_empty() && self.queue_bytes + len > self.config.queue_bytes {
            self.counters.dropped += 1;
            return Passage::Gone;
        }
        let begins = self.free_at.max(now);
        let takes = self.config.rate.map_or(Duration::ZERO, |rate| {
            let nanos = len as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        });
        self.free_at = begins + takes;
        self.queue.push_back((self.free_at, len));
        self.queue_bytes += len;
        self.counters.wait_max = self.counters.wait_max.max(begins - now);
        if random.below(1_000) < u64::from(self.config.loss_permille) {
            self.counters.lost += 1;
            return Passage::Gone;
        }
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        Passage::Arrives(self.free_at + self.config.delay)
    }
}

fn on_the_wire(destination: SocketAddr, payload_bytes: usize) -> usize {
    payload_bytes
        + match destination {
            SocketAddr::V4(_) => HEADERS_V4,
            SocketAddr::V6(_) => HEADERS_V6,
        }
}

/// SplitMix64: enough to lose packets.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// A number below `bound`, nearly uniform.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
