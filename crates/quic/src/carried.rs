//! What the packets of a datagram of ours carry: parts of streams, datagrams, resets.
//!
//! Owns the walk over packets and frames (RFC 9000 sections 17 and 19, RFC 9221, the ACK frequency
//! draft as quinn sends it). For packets that quinn has just written in this process: it stops at
//! what it does not know, and never judges.

use crate::keys::CID_LEN;

/// One thing that a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Part of a stream.
    Stream {
        /// The stream's id.
        id: u64,
        /// The offset behind the part.
        end: u64,
    },
    /// A datagram of so many bytes.
    Datagram(usize),
    /// Nothing more is sent on this stream.
    Reset(u64),
}

/// Calls `note` for everything that a UDP payload of ours carries.
pub fn carried(mut datagram: &[u8], mut note: impl FnMut(Carried)) {
    while let Some((frames, rest)) = first_packet(datagram) {
        // The tag is no frame.
        let frames = frames.split_last().map_or(&[][..], |(_, frames)| frames);
        let mut reader = Reader(frames);
        while frame(&mut reader, &mut note).is_some() {}
        datagram = rest;
    }
}

/// The frames of the first packet, with its tag, and what follows the packet.
fn first_packet(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(datagram);
    let first = reader.byte()?;
    let number_len = usize::from(first & 3) + 1;
    if first & 0x80 == 0 {
        reader.bytes(CID_LEN + number_len)?;
        return Some((reader.0, &[]));
    }
    reader.bytes(4)?;
    for _ in 0..2 {
        let len = usize::from(reader.byte()?);
        reader.bytes(len)?;
    }
    match first >> 4 & 3 {
        0 => reader.counted()?,
        1 | 2 => &[],
        _ => return None,
    };
    let packet = reader.counted()?;
    Some((packet.get(number_len..)?, reader.0))
}

fn frame(reader: &mut Reader<'_>, note: &mut impl FnMut(Carried)) -> Option<()> {
    let kind = reader.number()?;
    match kind {
        0x00 | 0x01 | 0x1e | 0x1f => {}
        0x02 | 0x03 => {
            reader.numbers(2)?;
            let ranges = reader.number()?;
            reader.numbers(ranges.checked_mul(2)?.checked_add(1)?)?;
            reader.numbers(if kind == 0x03 { 3 } else { 0 })?;
        }
        0x04 => {
            note(Carried::Reset(reader.number()?));
            reader.numbers(2)?;
        }
        0x06 => {
            reader.number()?;
            reader.counted()?;
        }
        0x07 => {
            reader.counted()?;
        }
        0x08..=0x0f => stream(reader, kind, note)?,
        0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => reader.numbers(1)?,
        0x05 | 0x11 | 0x15 => reader.numbers(2)?,
        0x18 => {
            reader.numbers(2)?;
            let len = usize::from(reader.byte()?);
            reader.bytes(len + 16)?;
        }
        0x1a | 0x1b => {
            reader.bytes(8)?;
        }
        0x1c | 0x1d => {
            reader.numbers(if kind == 0x1c { 2 } else { 1 })?;
            reader.counted()?;
        }
        0x30 => note(Carried::Datagram(reader.rest().len())),
        0x31 => note(Carried::Datagram(reader.counted()?.len())),
        0xaf => reader.numbers(4)?,
        _ => return None,
    }
    Some(())
}

fn stream(reader: &mut Reader<'_>, kind: u64, note: &mut impl FnMut(Carried)) -> Option<()> {
    let id = reader.number()?;
    let offset = match kind & 0x04 {
        0 => 0,
        _ => reader.number()?,
    };
    let data = match kind & 0x02 {
        0 => reader.rest(),
        _ => reader.counted()?,
    };
    let end = offset.checked_add(data.len() as u64)?;
    note(Carried::Stream { id, end });
    Some(())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A variable-length integer (RFC 9000 section 16).
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = self.bytes((1 << (first >> 6)) - 1)?;
        let head = u64::from(first & 0x3f);
        Some(more.iter().fold(head, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn numbers(&mut self, count: u64) -> Option<()> {
        (0..count).try_for_each(|_| self.number().map(|_| ()))
    }

    /// Bytes behind their length.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.bytes(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(datagram: &[u8]) -> Vec<Carried> {
        let mut all = Vec::new();
        carried(datagram, |one| all.push(one));
        all
    }

    /// A short header with a packet number of one byte.
    fn short(frames: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        packet.extend_from_slice(frames);
        packet.push(crate::PACKET_TAG);
        packet
    }

    #[test]
    fn what_follows_an_acknowledgement_is_found() {
        // ACK with one more range; STREAM 4 at offset 100 with 3 bytes; DATAGRAM to the end.
        let frames = [
            &[0x02, 9, 0, 1, 2, 3, 4][..],
            &[0x0e, 4, 0x40, 100, 3, 7, 7, 7],
            &[0x30, 1, 2],
        ];
        let carried = [Carried::Stream { id: 4, end: 103 }, Carried::Datagram(2)];
        assert_eq!(all(&short(&frames.concat())), carried);
    }

    #[test]
    fn the_last_stream_frame_ends_with_the_packet_and_not_with_the_tag() {
        let carried = [Carried::Reset(8), Carried::Stream { id: 2, end: 3 }];
        assert_eq!(all(&short(&[0x04, 8, 0, 0, 0x08, 2, 1, 1, 1])), carried);
    }

    #[test]
    fn early_data_beside_the_hello_is_found() {
        let initial = [
            0xc0, 0x77, 0x6d, 0, 1, 1, 9, 1, 8, 0, 5, 0, 0x06, 0, 0, 0xff,
        ];
        let early = [
            0xd0, 0x77, 0x6d, 0, 1, 1, 9, 1, 8, 6, 0, 0x0a, 0, 1, 5, 0xff,
        ];
        let carried = [Carried::Stream { id: 0, end: 1 }];
        assert_eq!(all(&[initial, early].concat()), carried);
    }

    #[test]
    fn no_bytes_lead_astray() {
        let mut random = 1_u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (random >> 56) as u8
                })
                .collect();
            let _ = all(&bytes);
        }
    }
}
