//! The Internet checksum: the ones' complement sum of 16-bit words.
//!
//! Owns the summing; it knows no header. It adds 32-bit words of the machine's byte order into a
//! 64-bit sum, which compilers vectorise: the sum is the same in any byte order (RFC 1071,
//! section 2), so bytes are swapped once, at the end.

/// A checksum in progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    sum: u64,
}

impl Checksum {
    /// Starts with the sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0 }
    }

    /// Adds `bytes`; an odd last byte counts as if a zero followed it.
    ///
    /// All but the last slice of a checksum need an even length. The sum cannot overflow below
    /// 16 GiB.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut lanes = [0u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = self.sum + lanes.iter().sum::<u64>();
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self {
            sum: sum + u64::from(u32::from_ne_bytes(last)),
        }
    }

    /// Adds one 16-bit number.
    #[must_use]
    #[inline]
    pub const fn add_u16(self, number: u16) -> Self {
        Self {
            sum: self.sum + number.to_be() as u64,
        }
    }

    /// Returns the complement of the sum, the value of a checksum field.
    ///
    /// Over bytes that contain their own right checksum it is zero.
    #[must_use]
    #[inline]
    pub const fn finish(self) -> u16 {
        let mut sum = self.sum;
        // A 64-bit sum has no carry left after four foldings.
        let mut round = 0;
        while round < 4 {
            sum = (sum & 0xffff) + (sum >> 16);
            round += 1;
        }
        !u16::from_be(sum as u16)
    }
}

/// Returns the checksum of `bytes`.
#[must_use]
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Checksum::new().add_bytes(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3: the sum is ddf2.
    #[test]
    fn published_example() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    #[test]
    fn edges() {
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&[0x12]), !0x1200);
        assert_eq!(checksum(&[0xff; 65_535]), !0xff00);
        assert_eq!(Checksum::new().add_u16(0x1234).finish(), !0x1234);
        assert_eq!(Checksum { sum: u64::MAX }.finish(), 0);
    }
}
