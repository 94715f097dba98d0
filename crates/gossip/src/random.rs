//! Randomness of a topic: a seed stretched by BLAKE2s, so that what a peer sees of it (salts, ping
//! tokens) tells nothing about what comes.
//!
//! Owns the state. Never draws from the operating system.

use alloc::vec::Vec;

use blake2::{Blake2s256, Digest};

/// Chance, from a seed.
pub(crate) struct Random {
    seed: [u8; 32],
    draws: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, draws: 0 }
    }

    pub(crate) fn word(&mut self) -> u64 {
        let digest = Blake2s256::new()
            .chain_update(self.seed)
            .chain_update(self.draws.to_le_bytes())
            .finalize();
        self.draws = self.draws.wrapping_add(1);
        let mut word = [0; 8];
        word.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(word)
    }

    /// A number in `0..bound`; zero for a bound of zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound.max(1) as u64) as usize
    }

    /// Takes one out of `from`, if there is any.
    pub(crate) fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        let place = self.below(from.len());
        (!from.is_empty()).then(|| from.swap_remove(place))
    }
}
