//! The path between two hosts: what it does to a datagram.
//!
//! Owns the impairments and the state of a burst. Never looks into a datagram.

use crate::random::Random;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;

/// How bad a link is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Profile {
    /// Single losses, in a thousand.
    pub(crate) loss: u32,
    /// Bursts that begin, in a thousand datagrams.
    pub(crate) burst: u32,
    /// Datagrams lost in one burst, at most.
    pub(crate) burst_len: u32,
    pub(crate) delay: u64,
    pub(crate) jitter: u64,
    /// Datagrams held back, in a thousand.
    pub(crate) reorder: u32,
    pub(crate) duplicate: u32,
    pub(crate) corrupt: u32,
    /// Longer datagrams are lost.
    pub(crate) mtu_bytes: usize,
    pub(crate) down: bool,
}

impl Profile {
    /// Nothing but a delay.
    pub(crate) fn clean(random: &mut Random) -> Self {
        Self {
            delay: random.between(MS, 80 * MS),
            mtu_bytes: usize::MAX,
            ..Self::default()
        }
    }

    pub(crate) fn bad(random: &mut Random) -> Self {
        let mut some = |bound: u64| match random.below(3) {
            0 => 0,
            _ => random.below(bound) as u32,
        };
        let (loss, burst, reorder) = (some(301), some(20), some(200));
        let (duplicate, corrupt) = (some(100), some(50));
        Self {
            loss,
            burst,
            burst_len: random.between(2, 60) as u32,
            delay: random.between(MS / 10, 250 * MS),
            jitter: random.below(100 * MS),
            reorder,
            duplicate,
            corrupt,
            mtu_bytes: match random.below(3) {
                0 => random.between(1_280, 1_500) as usize,
                _ => usize::MAX,
            },
            down: random.permille(30),
        }
    }
}

/// A link with its state.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) profile: Profile,
    burst_left: u32,
}

/// One copy of a datagram on its way.
pub(crate) struct Copy {
    pub(crate) after: u64,
    /// The bit that is flipped.
    pub(crate) flipped: Option<usize>,
}

impl Link {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            burst_left: 0,
        }
    }

    /// The copies of a datagram that arrive.
    pub(crate) fn carry(&mut self, random: &mut Random, len: usize) -> Vec<Copy> {
        let p = self.profile;
        if self.burst_left == 0 && random.permille(p.burst) {
            self.burst_left = p.burst_len;
        }
        let in_burst = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        if p.down || in_burst || len > p.mtu_bytes || random.permille(p.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.permille(p.duplicate));
        (0..copies)
            .map(|_| {
                let held = match random.permille(p.reorder) {
                    true => random.below(2 * SECOND),
                    false => 0,
                };
                let flipped = random.permille(p.corrupt).then(|| random.index(len * 8));
                Copy {
                    after: p.delay + random.below(p.jitter) + held,
                    flipped,
                }
            })
            .collect()
    }
}
