//! Randomness of a node: a seed stretched by keyed BLAKE2s, hedged with the time of each draw.
//!
//! Owns the secret state. A node restored from a snapshot draws other values as soon as its wall
//! clock differs, and `reseed` mixes in whatever the host has. Public randomness (timer jitter)
//! comes from [`Jitter`], so that it tells nothing about the secret one.

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use core::time::Duration;
use wiremesh_wire::Now;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Secret randomness.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Drbg {
    key: [u8; 32],
    draws: u64,
}

impl Drbg {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            key: seed,
            draws: 0,
        }
    }

    fn block(&mut self, now: Now, label: u8, extra: &[u8]) -> [u8; 32] {
        let mut mac = Blake2sMac256::new_from_slice(&self.key)
            .expect("a 32-byte key is always a valid BLAKE2s key");
        mac.update(&[label]);
        mac.update(&self.draws.to_le_bytes());
        mac.update(&now.instant.as_nanos().to_le_bytes());
        mac.update(&now.unix.as_duration().as_nanos().to_le_bytes());
        mac.update(extra);
        mac.finalize().into_bytes().into()
    }

    /// Draws 32 bytes and moves the state on, so that earlier draws cannot be recomputed.
    pub(crate) fn draw32(&mut self, now: Now) -> Zeroizing<[u8; 32]> {
        let out = Zeroizing::new(self.block(now, 0, &[]));
        self.key = self.block(now, 1, &[]);
        self.draws = self.draws.wrapping_add(1);
        out
    }

    /// How often it was drawn from.
    pub(crate) fn draws(&self) -> u64 {
        self.draws
    }

    pub(crate) fn draw_u32(&mut self, now: Now) -> u32 {
        let d = self.draw32(now);
        u32::from_le_bytes([d[0], d[1], d[2], d[3]])
    }

    pub(crate) fn draw24(&mut self, now: Now) -> [u8; 24] {
        let d = self.draw32(now);
        let mut out = [0; 24];
        out.copy_from_slice(&d[..24]);
        out
    }

    /// Mixes in fresh randomness of the host.
    pub(crate) fn reseed(&mut self, now: Now, entropy: &[u8; 32]) {
        self.key = self.block(now, 2, entropy);
    }
}

/// Public randomness for timers (SplitMix64).
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration in `0..max`.
    pub(crate) fn up_to(&mut self, max: Duration) -> Duration {
        let nanos = max.as_nanos() as u64;
        Duration::from_nanos(if nanos == 0 { 0 } else { self.next() % nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wiremesh_wire::{Instant, UnixTime};

    fn at(unix: u64) -> Now {
        Now {
            instant: Instant::from_nanos(5),
            unix: UnixTime::from_secs_nanos(unix, 0),
        }
    }

    #[test]
    fn draws_repeat_from_a_seed_and_never_within_one() {
        let (mut a, mut b) = (Drbg::new([7; 32]), Drbg::new([7; 32]));
        let first = a.draw32(at(1));
        assert_eq!(*first, *b.draw32(at(1)));
        assert_ne!(*first, *a.draw32(at(1)));
    }

    #[test]
    fn restored_snapshot_does_not_repeat_randomness() {
        let (mut running, mut restored) = (Drbg::new([7; 32]), Drbg::new([7; 32]));
        assert_ne!(*running.draw32(at(1)), *restored.draw32(at(2)));
        let (mut running, mut restored) = (Drbg::new([7; 32]), Drbg::new([7; 32]));
        restored.reseed(at(1), &[9; 32]);
        assert_ne!(*running.draw32(at(1)), *restored.draw32(at(1)));
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        let mut jitter = Jitter::new(1);
        let max = Duration::from_millis(333);
        assert!((0..1000).all(|_| jitter.up_to(max) < max));
        assert_eq!(jitter.up_to(Duration::ZERO), Duration::ZERO);
    }
}
