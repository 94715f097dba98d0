//! A hierarchical timer wheel: many peers, one deadline each, no scan.
//!
//! Owns slots of (peer, tick). An entry is never removed: when it comes up, its owner looks whether
//! it is the one that counts, by the tick that it remembers; others were superseded. Insert and
//! expiry are O(1) amortised. Resolution is 2^20 ns (about 1 ms); a deadline never fires early.

use crate::peer::PeerKey;
use alloc::vec::Vec;
use wiremesh_wire::Instant;

const TICK_BITS: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;

#[derive(Clone, Copy)]
struct Entry {
    tick: u64,
    peer: PeerKey,
}

struct Level {
    occupied: u64,
    slots: [Vec<Entry>; SLOTS],
}

/// The wheel.
pub(crate) struct Wheel {
    /// Every entry before this tick has been handed out.
    now_tick: u64,
    levels: [Level; LEVELS],
}

fn tick_at_or_after(deadline: Instant) -> u64 {
    deadline.as_nanos().div_ceil(1 << TICK_BITS)
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            now_tick: now.as_nanos() >> TICK_BITS,
            levels: core::array::from_fn(|_| Level {
                occupied: 0,
                slots: core::array::from_fn(|_| Vec::new()),
            }),
        }
    }

    /// The tick at which an entry for this deadline comes up.
    pub(crate) fn tick_for(&self, deadline: Instant) -> u64 {
        tick_at_or_after(deadline).max(self.now_tick + 1)
    }

    /// Adds an entry at a tick that [`Wheel::tick_for`] gave.
    pub(crate) fn insert(&mut self, tick: u64, peer: PeerKey) {
        self.place(Entry { tick, peer });
    }

    fn place(&mut self, entry: Entry) {
        // The level is that of the highest digit in which the tick differs from now.
        let differing = (entry.tick ^ self.now_tick) | 1;
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
        let level = level.min(LEVELS - 1);
        let slot = ((entry.tick >> (level as u32 * SLOT_BITS)) as usize) & (SLOTS - 1);
        self.levels[level].occupied |= 1 << slot;
        self.levels[level].slots[slot].push(entry);
    }

    /// The time of the earliest entry, or of the slot that holds it: never later than it.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_tick()
            .map(|(tick, _, _)| Instant::from_nanos(tick << TICK_BITS))
    }

    /// The first tick at which a slot must be opened, with its level and slot.
    fn next_tick(&self) -> Option<(u64, usize, usize)> {
        let mut best: Option<(u64, usize, usize)> = None;
        for (index, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = index as u32 * SLOT_BITS;
            let here = (self.now_tick >> shift) as usize & (SLOTS - 1);
            let ahead = level.occupied.rotate_right(here as u32).trailing_zeros() as u64;
            let unit = self.now_tick >> shift;
            let tick = ((unit + ahead) << shift).max(self.now_tick);
            let slot = (here + ahead as usize) & (SLOTS - 1);
            if best.is_none_or(|(t, _, _)| tick < t) {
                best = Some((tick, index, slot));
            }
        }
        best
    }

    /// Hands out every entry due at `now`: its peer and its tick.
    pub(crate) fn expire(&mut self, now: Instant, mut due: impl FnMut(PeerKey, u64)) {
        let target = now.as_nanos() >> TICK_BITS;
        while let Some((tick, level, slot)) = self.next_tick() {
            if tick > target {
                break;
            }
            self.now_tick = tick;
            self.levels[level].occupied &= !(1 << slot);
            let mut entries = core::mem::take(&mut self.levels[level].slots[slot]);
            for entry in entries.drain(..) {
                if entry.tick <= tick {
                    due(entry.peer, entry.tick);
                } else {
                    self.place(entry);
                }
            }
            if self.levels[level].slots[slot].is_empty() && entries.capacity() <= 64 {
                self.levels[level].slots[slot] = entries;
            }
        }
        self.now_tick = self.now_tick.max(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use core::time::Duration;
    use proptest::prelude::*;

    fn key(n: u32) -> PeerKey {
        PeerKey::for_test(n)
    }

    #[test]
    fn fires_on_time_and_never_early() {
        let start = Instant::from_nanos(123_456_789_000);
        let mut wheel = Wheel::new(start);
        let steps = [
            0u64, 1, 2, 63, 64, 65, 4_095, 4_096, 15_000, 180_000, 540_000, 90_000_000,
        ];
        for (n, ms) in steps.iter().enumerate() {
            let tick = wheel.tick_for(start + Duration::from_millis(*ms));
            wheel.insert(tick, key(n as u32));
        }
        let mut fired = 0;
        while let Some(at) = wheel.next_deadline() {
            wheel.expire(at, |peer, _| {
                let due = start + Duration::from_millis(steps[peer.index()]);
                assert!(at >= due, "early");
                assert!(at.saturating_since(due) <= Duration::from_millis(4), "late");
                fired += 1;
            });
        }
        assert_eq!(fired, steps.len());
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(
            ops in proptest::collection::vec((0u64..10_000_000, 0u64..3_000_000), 1..200)
        ) {
            let mut now = Instant::from_nanos(77);
            let mut wheel = Wheel::new(now);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (n, (after_us, step_us)) in ops.iter().enumerate() {
                let deadline = now + Duration::from_micros(*after_us);
                wheel.insert(wheel.tick_for(deadline), key(n as u32));
                model.insert(n as u32, deadline);
                now += Duration::from_micros(*step_us);
                let mut fired = alloc::vec::Vec::new();
                wheel.expire(now, |peer, _| fired.push(peer.index() as u32));
                for peer in fired {
                    let due = model.remove(&peer).expect("fires once");
                    prop_assert!(due <= now);
                }
                // Whatever is left is due less than two ticks ago at most.
                for due in model.values() {
                    prop_assert!(now.saturating_since(*due) < Duration::from_micros(2_100));
                }
            }
        }
    }
}
