//! Whether the node is under load, and how much one source may ask of it then.
//!
//! Owns two rate counters, both bounded. Source: WireGuard paper section 5.3; the per-source
//! figures (20 a second, burst 5) are those of the Linux implementation.

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;
use wiremesh_wire::Instant;

const SOURCES_MAX: usize = 4_096;
const COST: Duration = Duration::from_millis(50);
const BURST: Duration = Duration::from_millis(250);
const LOAD_LASTS: Duration = Duration::from_secs(1);

/// Counts handshake messages with a valid `mac1` over windows of one second.
pub(crate) struct Load {
    per_second_max: u32,
    window_began: Instant,
    in_window: u32,
    under_load_until: Option<Instant>,
    sources: BTreeMap<IpAddr, Source>,
}

struct Source {
    tokens: Duration,
    updated: Instant,
}

impl Load {
    pub(crate) fn new(per_second_max: u32, now: Instant) -> Self {
        Self {
            per_second_max,
            window_began: now,
            in_window: 0,
            under_load_until: None,
            sources: BTreeMap::new(),
        }
    }

    /// Counts one handshake message and tells whether cookies are demanded now.
    pub(crate) fn on_handshake_message(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.window_began) >= Duration::from_secs(1) {
            self.window_began = now;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        if self.in_window > self.per_second_max {
            self.under_load_until = Some(now + LOAD_LASTS);
        }
        self.is_under_load(now)
    }

    pub(crate) fn is_under_load(&self, now: Instant) -> bool {
        self.per_second_max == 0 || self.under_load_until.is_some_and(|until| now < until)
    }

    /// Whether `source`, which proved its address by a cookie, may go on.
    pub(crate) fn allow_source(&mut self, now: Instant, source: IpAddr) -> bool {
        let source = network_of(source);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources
                .retain(|_, s| now.saturating_since(s.updated) < Duration::from_secs(1));
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let entry = self.sources.entry(source).or_insert(Source {
            tokens: BURST,
            updated: now,
        });
        entry.tokens = (entry.tokens + now.saturating_since(entry.updated)).min(BURST);
        entry.updated = now;
        match entry.tokens.checked_sub(COST) {
            Some(left) => {
                entry.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// One IPv4 address, or one IPv6 /64: what one subscriber has.
fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn load_starts_above_the_limit_and_ends_a_second_later() {
        let mut load = Load::new(2, at(0));
        assert!(!load.on_handshake_message(at(0)));
        assert!(!load.on_handshake_message(at(1)));
        assert!(load.on_handshake_message(at(2)));
        assert!(load.is_under_load(at(1_001)));
        assert!(!load.is_under_load(at(1_002)));
        assert!(!load.on_handshake_message(at(1_500)));
    }

    #[test]
    fn zero_means_always() {
        assert!(Load::new(0, at(0)).is_under_load(at(0)));
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut load = Load::new(0, at(0));
        let source: IpAddr = "192.0.2.1".parse().expect("ip");
        assert_eq!(
            (0..10).filter(|_| load.allow_source(at(0), source)).count(),
            5
        );
        assert_eq!(
            (0..10)
                .filter(|_| load.allow_source(at(100), source))
                .count(),
            2
        );
        let same_subscriber: [IpAddr; 2] = [
            "2001:db8::1".parse().expect("ip"),
            "2001:db8::2".parse().expect("ip"),
        ];
        assert_eq!(
            (0..10)
                .filter(|n| load.allow_source(at(0), same_subscriber[n % 2]))
                .count(),
            5
        );
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let mut load = Load::new(0, at(0));
        for n in 0..SOURCES_MAX as u32 + 100 {
            load.allow_source(at(0), IpAddr::from(n.to_be_bytes()));
        }
        assert!(load.sources.len() <= SOURCES_MAX);
        assert!(load.allow_source(at(2_000), IpAddr::from([10, 255, 255, 255])));
    }
}
