//! Packets for the host, joined into super-packets where they continue one another.
//!
//! Owns their bytes until the flush, which flows may still grow, and the headers of what was
//! joined. Each payload is copied once; a checksum is verified before its packet is joined, since
//! the host does not look at it afterwards. It never reorders the packets of a flow. What may be
//! joined is in `flow`.

use crate::arrival::{Arrival, Segment, pseudo_header};
use crate::flow::{Packet, Protocol};
use crate::tun::{Offloads, Taken, Tun};
use crate::vnet;
use std::io::IoSlice;
use wiremesh_wire::ip::checksum;

/// Packets of one super-packet.
const PACKETS_MAX: usize = 128;
/// Datagrams of one: older kernels take no more (`UDP_MAX_SEGMENTS`).
const DATAGRAMS_MAX: usize = 64;
/// Bytes of one super-packet, with its headers.
const SUPER_BYTES_MAX: usize = 65_535;
/// Flows that can grow at a time.
const FLOWS_MAX: usize = 16;
/// Bytes between two flushes; what is beyond is dropped.
const BYTES_MAX: usize = 4 << 20;

/// Packets on their way to the host, in order.
///
/// It keeps the memory of the most that it has had between two flushes, at most 4 MiB.
#[derive(Debug, Default)]
pub struct Departures {
    offloads: Offloads,
    /// Each super-packet begins with room for the device's header.
    bytes: Vec<u8>,
    supers: Vec<Super>,
    pieces: Vec<Piece>,
    /// Those that may grow: hash of the flow and index in `supers`.
    flows: Vec<(u64, usize)>,
    evict_next: usize,
    too_much: usize,
    /// The kernel takes no super-packets, whatever it says.
    is_refused: bool,
}

/// What a flush did, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Taken by the device.
    pub written: usize,
    /// Not taken, or too many since the last flush.
    pub dropped: usize,
}

/// A packet, or several that are joined.
#[derive(Debug)]
struct Super {
    /// The first packet as it came, in `bytes`, behind the room for the header.
    start: usize,
    /// Bytes of the whole.
    len: usize,
    packets: usize,
    /// Indices in `pieces`.
    pieces: (usize, usize),
    protocol: Protocol,
    transport: usize,
    header_len: usize,
    /// Payload of the first packet, and of all but the last.
    segment_bytes: usize,
    is_pushed: bool,
}

/// Bytes that lie together, and where those behind them are described.
#[derive(Debug)]
struct Piece {
    start: usize,
    end: usize,
    next: usize,
}

impl Departures {
    /// Joins from the first packet on what a device with these offloads takes. One by `default`
    /// learns them from its first flush.
    #[must_use]
    pub fn new(offloads: Offloads) -> Self {
        Self {
            offloads,
            ..Self::default()
        }
    }

    /// Takes a copy of a whole IP packet.
    pub fn push(&mut self, packet: &[u8]) {
        if self.bytes.len() + vnet::LEN + packet.len() > BYTES_MAX {
            self.too_much += 1;
            return;
        }
        let parsed = Packet::parse(packet).filter(|parsed| parsed.protocol.is_in(self.offloads));
        let Some(parsed) = parsed else {
            self.append(packet, None);
            return;
        };
        let hash = parsed.hash();
        let known = self.flows.iter().position(|&(other, index)| {
            other == hash && self.lead(&self.supers[index]).is_of_flow(&parsed)
        });
        if let Some(known) = known {
            let index = self.flows[known].1;
            if self.may_join(&self.supers[index], &parsed) {
                if !self.join(index, &parsed) {
                    self.flows.swap_remove(known);
                }
                return;
            }
        }
        let index = self.append(packet, Some(&parsed));
        // What is there already of the flow must not grow: this one is behind it.
        match (known, parsed.may_join && !parsed.is_last) {
            (Some(known), true) => self.flows[known].1 = index,
            (Some(known), false) => drop(self.flows.swap_remove(known)),
            (None, true) => self.open(hash, index),
            (None, false) => {}
        }
    }

    /// Gives all to the device, without waiting.
    ///
    /// A device that is down or full takes nothing; what it does not take is dropped. Where the
    /// kernel refuses a super-packet, its packets go one by one, and nothing is joined any more.
    pub fn flush(&mut self, tun: &Tun) -> Flushed {
        let skip = if tun.has_header() { 0 } else { vnet::LEN };
        let flushed = self.drain(tun.offloads(), skip, |parts| tun.send(parts));
        self.offloads = if self.is_refused {
            Offloads::default()
        } else {
            tun.offloads()
        };
        flushed
    }

    /// Gives each super-packet to `take`, without the first `skip` bytes, and forgets it.
    pub(crate) fn drain(
        &mut self,
        offloads: Offloads,
        skip: usize,
        mut take: impl FnMut(&[IoSlice<'_>]) -> Taken,
    ) -> Flushed {
        for one in self.supers.iter().filter(|one| one.packets > 1) {
            one.finish(&mut self.bytes[one.start - vnet::LEN..]);
        }
        let mut flushed = Flushed {
            written: 0,
            dropped: std::mem::take(&mut self.too_much),
        };
        let mut is_refused = self.is_refused;
        let mut slices = [IoSlice::new(&[]); PACKETS_MAX];
        for one in &self.supers {
            let is_joined = one.packets > 1;
            // It may have been joined for a device with other offloads.
            let taken = if is_joined && (is_refused || !one.protocol.is_in(offloads)) {
                Taken::Refused
            } else {
                let count = self.gather(one, skip, &mut slices);
                take(&slices[..count])
            };
            match taken {
                Taken::Yes => flushed.written += one.packets,
                Taken::Refused if is_joined => {
                    // Some stable kernels of summer 2024 refuse all: from Linux commit
                    // e269d79c7d35 until 89add40066f9.
                    is_refused |= one.protocol.is_in(offloads);
                    let count = self.gather(one, 0, &mut slices);
                    let written = cut(&slices[..count], skip, &mut take);
                    flushed.written += written;
                    flushed.dropped += one.packets - written;
                }
                Taken::Refused | Taken::No => flushed.dropped += one.packets,
            }
        }
        self.is_refused = is_refused;
        self.bytes.clear();
        self.supers.clear();
        self.pieces.clear();
        self.flows.clear();
        flushed
    }

    /// Puts the pieces of a super-packet into `slices`; how many.
    fn gather<'a>(&'a self, one: &Super, skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut at, last) = one.pieces;
        let mut skip = skip;
        let mut count = 0;
        loop {
            let piece = &self.pieces[at];
            slices[count] = IoSlice::new(&self.bytes[piece.start + skip..piece.end]);
            count += 1;
            if at == last {
                return count;
            }
            skip = 0;
            at = piece.next;
        }
    }

    /// The first packet, as it came.
    fn lead(&self, one: &Super) -> Packet<'_> {
        let end = one.start + one.header_len + one.segment_bytes;
        Packet {
            bytes: &self.bytes[one.start..end],
            protocol: one.protocol,
            transport: one.transport,
            header_len: one.header_len,
            may_join: true,
            is_last: false,
        }
    }

    fn may_join(&self, one: &Super, packet: &Packet<'_>) -> bool {
        // Only then its header ends within it.
        if !packet.may_join {
            return false;
        }
        let lead = self.lead(one);
        let len = packet.payload().len();
        len <= one.segment_bytes
            && one.len + len <= SUPER_BYTES_MAX
            && packet.continues(&lead, one.packets, one.len - one.header_len)
            && packet.has_right_checksums()
            // Looked at when a second one comes: most are alone.
            && (one.packets > 1 || lead.has_right_checksums())
    }

    /// Puts the payload behind the others; whether there may be more.
    fn join(&mut self, index: usize, packet: &Packet<'_>) -> bool {
        let payload = packet.payload();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let end = self.bytes.len();
        let one = &mut self.supers[index];
        let last = &mut self.pieces[one.pieces.1];
        if last.end == start {
            last.end = end;
        } else {
            let next = self.pieces.len();
            self.pieces[one.pieces.1].next = next;
            self.pieces.push(Piece {
                start,
                end,
                next: 0,
            });
            one.pieces.1 = next;
        }
        one.len += payload.len();
        one.packets += 1;
        one.is_pushed = packet.is_last;
        let packets_max = match one.protocol {
            Protocol::Tcp => PACKETS_MAX,
            Protocol::Udp => DATAGRAMS_MAX,
        };
        !packet.is_last && payload.len() == one.segment_bytes && one.packets < packets_max
    }

    /// Adds a packet by itself; its index. Without `parsed` it never grows.
    fn append(&mut self, packet: &[u8], parsed: Option<&Packet<'_>>) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; vnet::LEN]);
        self.bytes.extend_from_slice(packet);
        let piece = self.pieces.len();
        self.pieces.push(Piece {
            start,
            end: self.bytes.len(),
            next: 0,
        });
        let header_len = parsed.map_or(0, |parsed| parsed.header_len.min(packet.len()));
        self.supers.push(Super {
            start: start + vnet::LEN,
            len: packet.len(),
            packets: 1,
            pieces: (piece, piece),
            protocol: parsed.map_or(Protocol::Udp, |parsed| parsed.protocol),
            transport: parsed.map_or(0, |parsed| parsed.transport),
            header_len,
            segment_bytes: packet.len() - header_len,
            is_pushed: false,
        });
        self.supers.len() - 1
    }

    /// Lets a flow grow; another one cannot any more if there are many.
    fn open(&mut self, hash: u64, index: usize) {
        if self.flows.len() < FLOWS_MAX {
            self.flows.push((hash, index));
        } else {
            self.flows[self.evict_next] = (hash, index);
            self.evict_next = (self.evict_next + 1) % FLOWS_MAX;
        }
    }
}

/// For fuzzing: what a device is given; `None` says that it is full, `false` that it refuses.
#[doc(hidden)]
impl Departures {
    pub fn test_drain(
        &mut self,
        offloads: Offloads,
        skip: usize,
        mut take: impl FnMut(Vec<u8>) -> Option<bool>,
    ) -> Flushed {
        self.drain(offloads, skip, |parts| {
            let bytes = parts.iter().flat_map(|part| part.iter().copied());
            match take(bytes.collect()) {
                Some(true) => Taken::Yes,
                Some(false) => Taken::Refused,
                None => Taken::No,
            }
        })
    }
}

/// Gives a super-packet to `take` packet by packet, each without its first `skip` bytes; how many
/// it took.
fn cut(
    parts: &[IoSlice<'_>],
    skip: usize,
    take: &mut impl FnMut(&[IoSlice<'_>]) -> Taken,
) -> usize {
    let mut arrival = Arrival::default();
    let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    let read = |buffer: &mut [u8]| {
        buffer[..whole.len()].copy_from_slice(&whole);
        Ok(whole.len())
    };
    if arrival.fill(true, read).is_err() {
        return 0;
    }
    let mut packet = Vec::new();
    let mut give = |segment: Segment<'_>| {
        packet.clear();
        packet.resize(vnet::LEN + segment.len(), 0);
        segment.write(&mut packet[vnet::LEN..]);
        take(&[IoSlice::new(&packet[skip..])]) == Taken::Yes
    };
    arrival.segments().filter(|segment| give(*segment)).count()
}

impl Super {
    /// Turns the header of the first packet into that of the whole, and writes the device's header.
    fn finish(&self, bytes: &mut [u8]) {
        let (header, packet) = bytes.split_at_mut(vnet::LEN);
        let is_ipv4 = packet[0] >> 4 == 4;
        // At most `SUPER_BYTES_MAX`.
        let len = self.len as u16;
        let transport_len = len - self.transport as u16;
        if is_ipv4 {
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum(&packet[..self.transport]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        // The host is to sum the rest, and would only when it sends the packet on.
        let partial = !pseudo_header(packet)
            .add_u16(self.protocol as u16)
            .add_u16(transport_len)
            .finish();
        let transport = &mut packet[self.transport..];
        let (gso_type, csum_offset) = match self.protocol {
            Protocol::Tcp => {
                if self.is_pushed {
                    transport[13] |= 0x08;
                }
                let gso_type = if is_ipv4 {
                    vnet::GSO_TCPV4
                } else {
                    vnet::GSO_TCPV6
                };
                (gso_type, 16)
            }
            Protocol::Udp => {
                transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
                (vnet::GSO_UDP_L4, 6)
            }
        };
        let at = usize::from(csum_offset);
        transport[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let vnet = vnet::Header {
            flags: vnet::NEEDS_CSUM,
            gso_type,
            hdr_len: self.header_len as u16,
            gso_size: self.segment_bytes as u16,
            csum_start: self.transport as u16,
            csum_offset,
        };
        header.copy_from_slice(&vnet.emit());
    }
}
