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
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
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
}

impl Segment {
    /// Reads a whole IP packet. Fragments are not put together: TCP finds a size that needs none.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let header = ip::parse(packet).ok()?;
        let tcp = &packet[header.payload.clone()];
        if header.protocol != PROTOCOL_TCP || header.fragment || tcp.len() < HEADER_LEN {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let flags = tcp[13] & (FIN | SYN | RST | ACK);
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let ack = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
        let options = tcp.get(HEADER_LEN..header_len).unwrap_or_default();
        Some(Self {
            flow: Flow {
                local: SocketAddr::new(header.destination, port(2)),
                remote: SocketAddr::new(header.source, port(0)),
            },
            opens: flags == SYN,
            pure_ack: (flags == ACK && header_len == tcp.len()).then_some(ack),
            sacked: sacked(options, ack),
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
