//! Which connection a packet belongs to.
//!
//! Owns the two ends of a connection, read from IP and TCP headers. It checks no checksum of TCP:
//! smoltcp does.

use crate::recovery::{Sacked, sacked};
use std::fmt;
use std::net::SocketAddr;
use wiremesh_wire::ip;

/// The protocol number of TCP.
pub(crate) const PROTOCOL_TCP: u8 = 6;

const HEADER_LEN: usize = 20;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Flow {
    /// The same, seen from the other end.
    pub(crate) fn reversed(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.local, self.remote)
    }
}

/// What is read of a segment before its connection is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flow: Flow,
    /// It asks for a new connection.
    pub(crate) opens: bool,
    /// The number that it acknowledges, if it does nothing else.
    pub(crate) pure_ack: Option<u32>,
    /// What its SACK blocks report beyond that.
    pub(crate) sacked: Sacked,
    pub(crate) header: Header,
}

/// What is needed of a TCP header, and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where it begins in the packet.
    at: usize,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// FIN, SYN, RST and ACK.
    pub(crate) flags: u8,
    /// As it stands there, not scaled.
    pub(crate) window: u16,
    pub(crate) payload_bytes: usize,
}

impl Header {
    /// How many sequence numbers the segment takes.
    pub(crate) fn takes(&self) -> u32 {
        let controls = (self.flags & (SYN | FIN)).count_ones();
        self.payload_bytes as u32 + controls
    }

    /// Writes another sequence number into the packet.
    pub(crate) fn set_seq(&self, packet: &mut [u8], seq: u32) {
        self.replace(packet, 4, seq);
    }

    /// Writes another acknowledged number into the packet.
    pub(crate) fn set_ack(&self, packet: &mut [u8], ack: u32) {
        self.replace(packet, 8, ack);
    }

    /// Replaces four bytes and has the checksum follow (RFC 1624, equation 3): one that is wrong
    /// stays wrong.
    fn replace(&self, packet: &mut [u8], at: usize, value: u32) {
        let tcp = &mut packet[self.at..];
        let mut sum = u32::from(!u16::from_be_bytes([tcp[16], tcp[17]]));
        for (n, new) in value.to_be_bytes().chunks_exact(2).enumerate() {
            let old = &mut tcp[at + 2 * n..][..2];
            sum += u32::from(!u16::from_be_bytes([old[0], old[1]]));
            sum += u32::from(u16::from_be_bytes([new[0], new[1]]));
            old.copy_from_slice(new);
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

/// Whether a sequence number comes after another.
pub(crate) fn is_after(number: u32, other: u32) -> bool {
    (1..1 << 31).contains(&number.wrapping_sub(other))
}

impl Segment {
    /// Reads a whole IP packet. Fragments are not put together: TCP finds a size that needs none.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let header = ip::parse(packet).ok()?;
        let tcp = &packet[header.payload.clone()];
        if header.protocol != PROTOCOL_TCP || header.fragment || tcp.len() < HEADER_LEN {
            return None;
        }
        let short = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let flags = tcp[13] & (FIN | SYN | RST | ACK);
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let ack = word(8);
        let options = tcp.get(HEADER_LEN..header_len).unwrap_or_default();
        Some(Self {
            flow: Flow {
                local: SocketAddr::new(header.destination, short(2)),
                remote: SocketAddr::new(header.source, short(0)),
            },
            opens: flags == SYN,
            pure_ack: (flags == ACK && header_len == tcp.len()).then_some(ack),
            sacked: sacked(options, ack),
            header: Header {
                at: header.payload.start,
                seq: word(4),
                ack,
                flags,
                window: short(14),
                payload_bytes: tcp.len().saturating_sub(header_len),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IPv6 packet with a TCP header with these flags.
    fn packet(flags: u8) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        packet[5] = 20;
        packet[6] = PROTOCOL_TCP;
        packet[23] = 1;
        packet[39] = 2;
        packet[40..44].copy_from_slice(&[0, 80, 0x1f, 0x90]);
        packet[53] = flags;
        packet
    }

    #[test]
    fn ends_and_flags_are_read() {
        let segment = Segment::parse(&packet(SYN)).expect("a segment");
        assert_eq!(segment.flow.local.to_string(), "[::2]:8080");
        assert_eq!(segment.flow.remote.to_string(), "[::1]:80");
        assert!(segment.opens);
        for flags in [SYN | ACK, SYN | RST, SYN | FIN, ACK, 0] {
            assert!(!Segment::parse(&packet(flags)).expect("a segment").opens);
        }
    }

    #[test]
    fn other_protocols_fragments_and_short_segments_are_none() {
        let mut udp = packet(SYN);
        udp[6] = 17;
        assert_eq!(Segment::parse(&udp), None);
        let mut short = packet(SYN);
        short[5] = 19;
        assert_eq!(Segment::parse(&short), None);
        let mut fragment = vec![0; 40];
        fragment[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x20, 0, 64, PROTOCOL_TCP]);
        fragment[10..12].copy_from_slice(&[0x5a, 0xd1]);
        let parsed = ip::parse(&fragment);
        assert!(parsed.expect("a packet").fragment);
        assert_eq!(Segment::parse(&fragment), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Segment::parse(&bytes);
        }
    }
}
