//! A small reproducible random sequence.
//!
//! Owns the SplitMix64 generator (Steele, Lea, Flood 2014). The same seed gives the same sequence
//! on every machine and in every version, which a library does not promise. Not for secrets.

#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    /// Derives an independent seed, for example one per client.
    pub(crate) fn derive(seed: u64, index: u64) -> u64 {
        Random::new(seed ^ Random::new(index).next()).next()
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Gives a number from 0 up to but not including 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs for seed 1234567, as widely published for SplitMix64.
    #[test]
    fn the_sequence_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        let expected: [u64; 5] = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected, std::array::from_fn(|_| random.next()));
    }

    #[test]
    fn unit_stays_in_range_and_is_even() {
        let mut random = Random::new(1);
        let sum: f64 = (0..10_000)
            .map(|_| {
                let value = random.unit();
                assert!((0.0..1.0).contains(&value));
                value
            })
            .sum();
        assert!((4_800.0..5_200.0).contains(&sum), "{sum}");
    }

    #[test]
    fn derived_seeds_differ() {
        assert_ne!(Random::derive(1, 0), Random::derive(1, 1));
        assert_ne!(Random::derive(1, 0), Random::derive(2, 0));
    }
}
