//! A set of chunks of one object.
//!
//! Owns nothing but the bits.

use alloc::vec;
use alloc::vec::Vec;

use crate::message::Range;

/// Chunks `0..len`, each in or out.
#[derive(Clone)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(crate) fn all(len: usize) -> Self {
        let mut bits = Self::none(len);
        (0..len).for_each(|index| bits.set(index, true));
        bits
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        let word = self.0.get(index / 64).copied().unwrap_or_default();
        word >> (index % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, index: usize, to: bool) {
        if let Some(word) = self.0.get_mut(index / 64) {
            let bit = 1 << (index % 64);
            *word = if to { *word | bit } else { *word & !bit };
        }
    }

    /// The first one at or after `start`, around the end, that is in both.
    pub(crate) fn first_in_both(&self, other: &Self, start: usize) -> Option<usize> {
        let words = self.0.len();
        let turn = start / 64;
        // The first word is looked at twice: from `start` on, and at the end all of it.
        (0..=words).find_map(|step| {
            let at = (turn + step) % words.max(1);
            let mut both = self.0.get(at)? & other.0.get(at)?;
            if step == 0 {
                both &= u64::MAX << (start % 64);
            }
            (both != 0).then(|| at * 64 + both.trailing_zeros() as usize)
        })
    }

    pub(crate) fn ranges(&self) -> Vec<Range> {
        let len = self.0.len() * 64;
        ranges_of((0..len).filter(|index| self.has(*index)))
    }
}

/// Ranges of ascending indices.
pub(crate) fn ranges_of(indices: impl Iterator<Item = usize>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some(last) if usize::from(last.start) + usize::from(last.count) == index => {
                last.count += 1;
            }
            _ => ranges.push(Range {
                start: index as u16,
                count: 1,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_search_agree_with_the_bits() {
        let mut bits = Bits::none(130);
        for index in [0, 1, 63, 64, 129] {
            bits.set(index, true);
        }
        let ranges = bits.ranges();
        let shown: Vec<_> = ranges
            .iter()
            .map(|range| (range.start, range.count))
            .collect();
        assert_eq!(shown, [(0, 2), (63, 2), (129, 1)]);
        let all = Bits::all(130);
        assert_eq!(bits.first_in_both(&all, 2), Some(63));
        assert_eq!(bits.first_in_both(&all, 65), Some(129));
        bits.set(129, false);
        assert_eq!(bits.first_in_both(&all, 65), Some(0), "around the end");
        assert_eq!(bits.first_in_both(&Bits::none(130), 0), None);
        let mut one = Bits::none(130);
        one.set(1, true);
        assert_eq!(
            one.first_in_both(&all, 2),
            Some(1),
            "in the word where it began"
        );
    }
}
