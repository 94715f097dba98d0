//! What the plaintext of a transport data message is, by its first byte, and how a QUIC packet
//! travels as one without IP and UDP headers ("bare"). Never looks further than that byte.
//! docs/spec.md section 4.1.

/// What a plaintext carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// 0x40 to 0x7f: an IP packet; of these only 0x4. and 0x6. occur.
    Packet,
    /// 0x80 to 0xff: a bare stream packet, see [`from_bare`].
    Stream,
    /// 0x00 to 0x3f, or nothing at all.
    Reserved,
}

impl Content {
    /// Tells it from the first byte; there is none in a keepalive.
    #[must_use]
    pub fn of(first: Option<&u8>) -> Self {
        match first {
            Some(0x80..) => Self::Stream,
            Some(0x40..0x80) => Self::Packet,
            _ => Self::Reserved,
        }
    }
}

/// The two top bits of a QUIC packet: its header form and its fixed bit (RFC 9000, section 17).
const TOP_BITS: u8 = 0xc0;

/// The first byte of a bare stream packet, from that of the QUIC packet: a long header stays as
/// it is, of a short one both top bits are flipped. `None` if the fixed bit is clear: such a
/// packet cannot be told from others.
#[must_use]
pub const fn to_bare(first: u8) -> Option<u8> {
    match first & TOP_BITS {
        0x40 => Some(first ^ TOP_BITS),
        0xc0 => Some(first),
        _ => None,
    }
}

/// The reverse of [`to_bare`]; `None` if the byte begins no stream packet.
#[must_use]
pub const fn from_bare(first: u8) -> Option<u8> {
    match first & TOP_BITS {
        0x80 => Some(first ^ TOP_BITS),
        0xc0 => Some(first),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_packets_and_their_bare_form_are_one_to_one() {
        let mut seen = [false; 256];
        for first in 0..=u8::MAX {
            // RFC 9000: packets whose fixed bit is zero are not valid in version 1.
            let Some(bare) = to_bare(first) else {
                assert_eq!(first & 0x40, 0, "{first:#x} has its fixed bit set");
                continue;
            };
            assert_eq!(first & 0x40, 0x40, "{first:#x} has its fixed bit clear");
            assert_eq!(from_bare(bare), Some(first));
            assert_eq!(Content::of(Some(&bare)), Content::Stream);
            assert!(!core::mem::replace(&mut seen[usize::from(bare)], true));
        }
        for (bare, seen) in (0..=u8::MAX).zip(seen) {
            assert_eq!(from_bare(bare).is_some(), seen, "{bare:#x}");
            assert_eq!(Content::of(Some(&bare)) == Content::Stream, seen);
        }
    }

    #[test]
    fn ip_packets_are_never_taken_for_stream_packets() {
        for low in 0..16 {
            for version in [0x40, 0x60] {
                assert_eq!(Content::of(Some(&(version | low))), Content::Packet);
                assert_eq!(from_bare(version | low), None);
            }
            for high in 0..4 {
                assert_eq!(Content::of(Some(&(high << 4 | low))), Content::Reserved);
            }
        }
        assert_eq!(Content::of(None), Content::Reserved);
    }
}
