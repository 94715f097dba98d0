//! The replay window over the counters of transport data.
//!
//! Owns: which counters of one session have been seen. Never does: look at bytes or keys; a
//! counter is marked by the caller only after its packet has authenticated. Specification: the
//! WireGuard paper, section 5.4.6, with the block-wise sliding window of RFC 6479.

use alloc::boxed::Box;
use core::fmt;

/// Bits held: a ring of 128 blocks of 64.
pub const BITS: u64 = 8192;
/// How far a counter may lie behind the greatest one seen and still be told apart: 8,128.
///
/// One block less than what is held, because the block of the greatest counter is used in part.
pub const WINDOW: u64 = BITS - BLOCK_BITS;

const BLOCK_BITS: u64 = 64;
const BLOCKS: usize = (BITS / BLOCK_BITS) as usize;

/// Remembers which of the last counters of a session were seen; 1 KiB of heap.
pub struct ReplayWindow {
    /// The greatest counter marked plus one; zero means that none is. Bits are stored at
    /// `counter + 1`, so that counter zero needs no special case.
    next: u64,
    blocks: Box<[u64; BLOCKS]>,
}

impl ReplayWindow {
    /// Makes a window that has seen nothing.
    #[must_use]
    pub fn new() -> ReplayWindow {
        ReplayWindow {
            next: 0,
            blocks: Box::new([0; BLOCKS]),
        }
    }

    /// Says whether the counter is new: neither seen nor too old to know.
    ///
    /// `u64::MAX` is never new; it lies beyond every counter that the protocol uses.
    #[must_use]
    pub fn check(&self, counter: u64) -> bool {
        let Some(place) = counter.checked_add(1) else {
            return false;
        };
        if place > self.next {
            return true;
        }
        self.next - place <= WINDOW && self.blocks[block_of(place)] & bit_of(place) == 0
    }

    /// Records the counter as seen. A counter that is too old changes nothing.
    pub fn mark(&mut self, counter: u64) {
        let Some(place) = counter.checked_add(1) else {
            return;
        };
        if place > self.next {
            self.advance(place);
        } else if self.next - place > WINDOW {
            return;
        }
        self.blocks[block_of(place)] |= bit_of(place);
    }

    /// The greatest counter seen plus one, or zero when none was.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Clears the blocks between the old and the new greatest place.
    fn advance(&mut self, place: u64) {
        let from = self.next / BLOCK_BITS;
        let passed = (place / BLOCK_BITS - from).min(BLOCKS as u64);
        for step in 1..=passed {
            self.blocks[((from + step) % BLOCKS as u64) as usize] = 0;
        }
        self.next = place;
    }
}

impl Default for ReplayWindow {
    fn default() -> ReplayWindow {
        ReplayWindow::new()
    }
}

impl fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayWindow")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn block_of(place: u64) -> usize {
    (place / BLOCK_BITS) as usize % BLOCKS
}

fn bit_of(place: u64) -> u64 {
    1 << (place % BLOCK_BITS)
}
