//! What the host sends: one packet, or a super-packet to be cut into packets.
//!
//! Owns the buffer of one read, and the cutting: lengths, IPv4 identifications, TCP sequence
//! numbers and flags, checksums. It never allocates for a packet and never looks at who it is for.
//! RFC 791, RFC 8200, RFC 9293, RFC 768; the virtio specification 1.2, section 5.1.6.

use crate::vnet;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::ops::Range;
use wiremesh_wire::ip::Checksum;

/// The longest packet: an IPv6 header and the most that its length field states.
const PACKET_BYTES_MAX: usize = 40 + 65_535;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// One read from the device; it is used again for the next.
pub struct Arrival {
    /// The header of the device, then the packet.
    buffer: Box<[u8]>,
    shape: Shape,
}

/// Where the parts of the packet are.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    /// Bytes of the packet; zero when nothing of use was read.
    len: usize,
    /// Packets that it is cut into.
    segments: usize,
    /// What is repeated in each segment: all of a single packet.
    header_len: usize,
    /// Payload of each segment but the last.
    segment_bytes: usize,
    /// Where the TCP or UDP header begins.
    transport: usize,
    kind: Kind,
    /// The sum of the pseudo header but for the length.
    pseudo: Checksum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Single,
    Tcp,
    Udp,
}

/// One IP packet of an [`Arrival`].
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    packet: &'a [u8],
    shape: &'a Shape,
    index: usize,
}

/// The packets of an [`Arrival`], in order.
#[derive(Clone)]
pub struct Segments<'a> {
    packet: &'a [u8],
    shape: &'a Shape,
    indices: Range<usize>,
}

impl Default for Arrival {
    /// With room for the largest super-packet, 64 KiB.
    fn default() -> Self {
        Self {
            buffer: vec![0; vnet::LEN + PACKET_BYTES_MAX].into(),
            shape: Shape::default(),
        }
    }
}

impl Arrival {
    /// The packets to be sent, in order. There is none before the first read, nor in one that
    /// makes no sense.
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments {
            packet: &self.buffer[vnet::LEN..vnet::LEN + self.shape.len],
            shape: &self.shape,
            indices: 0..self.shape.segments,
        }
    }

    /// Replaces the contents by what `read` puts into the buffer that it is given; it returns how
    /// many bytes.
    pub(crate) fn fill(
        &mut self,
        has_header: bool,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.shape = Shape::default();
        let start = if has_header { 0 } else { vnet::LEN };
        let end = start + read(&mut self.buffer[start..])?;
        let Some((header, rest)) = self.buffer.split_first_chunk_mut() else {
            return Ok(());
        };
        let header = if has_header {
            vnet::Header::parse(header)
        } else {
            vnet::Header::default()
        };
        let packet = end
            .checked_sub(vnet::LEN)
            .and_then(|len| rest.get_mut(..len));
        self.shape = packet
            .and_then(|packet| Shape::of(header, packet))
            .unwrap_or_default();
        Ok(())
    }
}

/// For fuzzing: what a device with headers gives.
#[doc(hidden)]
impl Arrival {
    pub fn test_read(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.buffer.len());
        let read = |buffer: &mut [u8]| {
            buffer[..len].copy_from_slice(&bytes[..len]);
            Ok(len)
        };
        self.fill(true, read).expect("memory can be read");
    }
}

impl Shape {
    /// None if the packet is not what its header says. A single packet is finished where it lies.
    fn of(header: vnet::Header, packet: &mut [u8]) -> Option<Self> {
        let start = usize::from(header.csum_start);
        let needs_checksum = header.flags & vnet::NEEDS_CSUM != 0;
        if header.gso_type == vnet::GSO_NONE {
            if needs_checksum {
                complete_checksum(packet, start, usize::from(header.csum_offset))?;
            }
            return Some(Self::single(packet.len()));
        }
        let (ip_len, protocol_at) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, 9),
            6 => (40, 6),
            _ => return None,
        };
        // Extension headers of IPv6 are between; `hdr_len` may be too large when the host forwards.
        let transport = if needs_checksum { start } else { ip_len };
        let (kind, protocol, transport_len) = match header.gso_type & !vnet::GSO_ECN {
            vnet::GSO_TCPV4 | vnet::GSO_TCPV6 => (
                Kind::Tcp,
                6,
                usize::from(packet.get(transport + 12)? >> 4) * 4,
            ),
            vnet::GSO_UDP_L4 => (Kind::Udp, 17, 8),
            _ => return None,
        };
        let header_len = transport + transport_len;
        let payload = packet.len().checked_sub(header_len)?;
        let segment_bytes = usize::from(header.gso_size);
        let is_whole = ip_len >= 20
            && transport >= ip_len
            && (kind == Kind::Udp || transport_len >= 20)
            && segment_bytes != 0;
        if !is_whole {
            return None;
        }
        let pseudo = if needs_checksum {
            // The host has put its sum here; take the length of the whole out again. It knows the
            // last destination behind a routing header, which the IPv6 header does not.
            let at = transport + if kind == Kind::Tcp { 16 } else { 6 };
            let len = u16::try_from(packet.len() - transport).ok()?;
            Checksum::new().add_bytes(&packet[at..at + 2]).add_u16(!len)
        } else if packet[protocol_at] == protocol {
            pseudo_header(packet).add_u16(u16::from(protocol))
        } else {
            return None;
        };
        Some(Self {
            len: packet.len(),
            segments: payload.div_ceil(segment_bytes).max(1),
            header_len,
            segment_bytes,
            transport,
            kind,
            pseudo,
        })
    }

    fn single(len: usize) -> Self {
        Self {
            len,
            segments: usize::from(len != 0),
            header_len: len,
            ..Self::default()
        }
    }

    /// Where the payload of a segment is.
    fn payload(&self, index: usize) -> Range<usize> {
        let start = self.header_len + index * self.segment_bytes;
        start..(start + self.segment_bytes).min(self.len)
    }
}

impl<'a> Segment<'a> {
    /// Bytes of the packet.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // None is empty.
    pub fn len(&self) -> usize {
        self.shape.header_len + self.shape.payload(self.index).len()
    }

    /// The packet from its first byte on, at least its IP header and that of TCP or UDP if it has
    /// been cut. Where it has been cut, lengths, checksums and sequence numbers are those of the
    /// whole; addresses, ports, protocol and traffic class are right.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        &self.packet[..self.shape.header_len]
    }

    /// Writes the packet: header, payload, right checksums.
    ///
    /// # Panics
    ///
    /// If `out` does not have [`Self::len`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        let shape = self.shape;
        let payload = shape.payload(self.index);
        assert_eq!(
            out.len(),
            shape.header_len + payload.len(),
            "a packet's length"
        );
        let (header, body) = out.split_at_mut(shape.header_len);
        header.copy_from_slice(self.header());
        body.copy_from_slice(&self.packet[payload]);
        if shape.kind != Kind::Single {
            self.finish(out);
        }
    }

    /// Turns the header of the whole into that of this segment.
    fn finish(&self, out: &mut [u8]) {
        let shape = self.shape;
        // A segment is shorter than the whole, and that is at most 65,575 bytes.
        if out[0] >> 4 == 4 {
            let len = (out.len() as u16).to_be_bytes();
            out[2..4].copy_from_slice(&len);
            let id = u16::from_be_bytes([out[4], out[5]]).wrapping_add(self.index as u16);
            out[4..6].copy_from_slice(&id.to_be_bytes());
            out[10..12].fill(0);
            let options_end = usize::from(out[0] & 15) * 4;
            let sum = Checksum::new().add_bytes(&out[..options_end]).finish();
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let len = (out.len() - 40) as u16;
            out[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let transport = &mut out[shape.transport..];
        let len = transport.len() as u16;
        let checksum_at = if shape.kind == Kind::Tcp {
            let sequence = u32::from_be_bytes([4, 5, 6, 7].map(|at| transport[at]));
            let sequence = sequence.wrapping_add((self.index * shape.segment_bytes) as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            if self.index != 0 {
                transport[13] &= !CWR;
            }
            if self.index + 1 != shape.segments {
                transport[13] &= !(FIN | PSH);
            }
            16
        } else {
            transport[4..6].copy_from_slice(&len.to_be_bytes());
            6
        };
        transport[checksum_at..checksum_at + 2].fill(0);
        let sum = shape.pseudo.add_u16(len).add_bytes(transport).finish();
        put_checksum(
            &mut transport[checksum_at..checksum_at + 2],
            sum,
            shape.kind == Kind::Udp,
        );
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (packet, shape) = (self.packet, self.shape);
        self.indices.next().map(|index| Segment {
            packet,
            shape,
            index,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }

    fn count(self) -> usize {
        self.indices.len()
    }
}

impl ExactSizeIterator for Segments<'_> {}
impl FusedIterator for Segments<'_> {}

/// Makes the checksum that the host left to us: over all from `start`, where the field holds the
/// sum of the pseudo header.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    covered.get(offset..offset + 2)?;
    let sum = Checksum::new().add_bytes(covered).finish();
    // As the kernel does: only UDP has a use for zero, and the others take both.
    put_checksum(&mut covered[offset..offset + 2], sum, true);
    Some(())
}

/// In UDP zero says that there is no checksum (RFC 768); all ones is the same number.
fn put_checksum(field: &mut [u8], sum: u16, is_udp: bool) {
    let sum = if is_udp && sum == 0 { u16::MAX } else { sum };
    field.copy_from_slice(&sum.to_be_bytes());
}

/// The sum of the addresses of a packet that has a whole IP header.
pub(crate) fn pseudo_header(packet: &[u8]) -> Checksum {
    let addresses = if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    Checksum::new().add_bytes(addresses)
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arrival").field(&self.shape).finish()
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment {} of {:?}", self.index, self.shape)
    }
}

impl fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segments {:?} of {:?}", self.indices, self.shape)
    }
}
