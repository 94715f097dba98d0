//! The one source of chance of a simulation.
//!
//! Owns a generator (SplitMix64) and, for fuzzing, bytes that are used up before it. Never draws
//! from the operating system.

/// Chance, from a seed.
pub(crate) struct Random {
    state: u64,
    script: Vec<u8>,
    used: usize,
}

impl Random {
    /// Everything drawn follows from `seed` and, as long as it lasts, from `script`.
    pub(crate) fn new(seed: u64, script: Vec<u8>) -> Self {
        Self {
            state: seed ^ 0x6a09_e667_f3bc_c909,
            script,
            used: 0,
        }
    }

    pub(crate) fn word(&mut self) -> u64 {
        if let Some(bytes) = self.script.get(self.used..self.used + 2) {
            // Two bytes decide almost anything; the generator spreads them.
            self.used += 2;
            self.state ^= u64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; zero for a bound of zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.word() % bound }
    }

    /// A number in `low..high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True so many times in a thousand.
    pub(crate) fn permille(&mut self, chance: u32) -> bool {
        self.below(1_000) < u64::from(chance)
    }

    pub(crate) fn bytes32(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for chunk in out.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes());
        }
        out
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| *byte = self.word() as u8);
    }
}
