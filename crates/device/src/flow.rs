//! TCP and UDP packets as far as joining them needs it: whose they are, and may they be joined.
//!
//! Owns the rules: what is joined comes out again byte for byte when the super-packet is cut (but
//! for the identification of IPv4 packets that are never fragmented, RFC 6864). It keeps nothing.

use crate::Offloads;
use crate::arrival::pseudo_header;
use wiremesh_wire::ip::checksum;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const ECE: u8 = 0x40;

/// Flags of IPv4: reserved, may not be fragmented, more fragments; then the offset.
const RESERVED: u16 = 0x8000;
const NO_FRAGMENTS: u16 = 0x4000;
const FRAGMENT: u16 = 0x3fff;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp = 6,
    Udp = 17,
}

impl Protocol {
    /// Whether there are super-packets of it.
    pub(crate) fn is_in(self, offloads: Offloads) -> bool {
        match self {
            Self::Tcp => offloads.tcp,
            Self::Udp => offloads.udp,
        }
    }
}

/// A packet whose ports can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) protocol: Protocol,
    /// Where the TCP or UDP header begins.
    pub(crate) transport: usize,
    /// Where the payload begins, if it can be joined.
    pub(crate) header_len: usize,
    /// It may be put behind others of its flow.
    pub(crate) may_join: bool,
    /// Nothing may be put behind it.
    pub(crate) is_last: bool,
}

impl<'a> Packet<'a> {
    /// None for what has no ports, hides them behind extension headers, or is a fragment.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (transport, protocol, is_plain) = match bytes.first()? >> 4 {
            4 => parse_ipv4(bytes)?,
            6 => parse_ipv6(bytes)?,
            _ => return None,
        };
        let protocol = match protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        let header = bytes.get(transport..)?;
        let header: &[u8; UDP_LEN] = header.first_chunk()?;
        let (transport_len, has_good_header, is_last) = match protocol {
            Protocol::Tcp => parse_tcp(&bytes[transport..]),
            Protocol::Udp => {
                let len = usize::from(number(header, 4));
                let good = len == bytes.len() - transport && number(header, 6) != 0;
                (UDP_LEN, good, false)
            }
        };
        let header_len = transport + transport_len;
        Some(Self {
            bytes,
            protocol,
            transport,
            header_len,
            // A packet without payload would be lost when the super-packet is cut.
            may_join: is_plain && has_good_header && bytes.len() > header_len,
            is_last,
        })
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// Equal for all packets of a flow, and rarely for others; cheap, since a match is compared.
    pub(crate) fn hash(&self) -> u64 {
        let (words, _) = addresses(self.bytes).as_chunks::<8>();
        let (ports, _) = self.ports().as_chunks::<4>();
        let words = words.iter().map(|word| u64::from_ne_bytes(*word));
        let ports = ports
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        let start = self.protocol as u64;
        words
            .chain(ports)
            .fold(start, |hash, word| hash.rotate_left(17) ^ word)
    }

    fn ports(&self) -> &'a [u8] {
        &self.bytes[self.transport..self.transport + 4]
    }

    /// Whether both have the same protocol, addresses and ports.
    pub(crate) fn is_of_flow(&self, other: &Packet<'_>) -> bool {
        self.protocol == other.protocol
            && self.bytes[0] >> 4 == other.bytes[0] >> 4
            && addresses(self.bytes) == addresses(other.bytes)
            && self.ports() == other.ports()
    }

    /// Whether the headers are those of the packet that comes `count` packets and `payload_bytes`
    /// bytes after `lead`, which may itself be joined.
    pub(crate) fn continues(&self, lead: &Packet<'_>, count: usize, payload_bytes: usize) -> bool {
        let (a, b) = (self.bytes, lead.bytes);
        if a[0] != b[0] || self.transport != lead.transport || self.header_len != lead.header_len {
            return false;
        }
        // All of the IP header but its length, identification and checksum: that is also the
        // traffic class, the hop limit and whether it may be fragmented.
        let is_same_ip = if a[0] >> 4 == 4 {
            let id = number(b, 4).wrapping_add(count as u16);
            let fixed = number(a, 6) & NO_FRAGMENTS != 0;
            a[1] == b[1]
                && a[6..10] == b[6..10]
                && a[12..20] == b[12..20]
                && (fixed || number(a, 4) == id)
        } else {
            a[..4] == b[..4] && a[6..40] == b[6..40]
        };
        let (a, b) = (&a[self.transport..self.header_len], &b[self.transport..]);
        is_same_ip
            && match self.protocol {
                Protocol::Udp => a[..4] == b[..4],
                Protocol::Tcp => {
                    let sequence = |tcp: &[u8]| u32::from_be_bytes([4, 5, 6, 7].map(|at| tcp[at]));
                    sequence(a) == sequence(b).wrapping_add(payload_bytes as u32)
                        && a[..4] == b[..4]
                        && a[8..13] == b[8..13]
                        && a[13] & !PSH == b[13] & !PSH
                        && a[14..16] == b[14..16]
                        && a[18..] == b[18..a.len()]
                }
            }
    }

    /// Whether all checksums are right; only asked of what can be joined.
    pub(crate) fn has_right_checksums(&self) -> bool {
        let transport = &self.bytes[self.transport..];
        let sum = pseudo_header(self.bytes)
            .add_u16(self.protocol as u16)
            .add_u16(transport.len() as u16)
            .add_bytes(transport);
        let is_ipv4 = self.bytes[0] >> 4 == 4;
        (!is_ipv4 || checksum(&self.bytes[..self.transport]) == 0) && sum.finish() == 0
    }
}

/// Where the payload begins, the protocol, and whether it may be joined; none for fragments.
fn parse_ipv4(bytes: &[u8]) -> Option<(usize, u8, bool)> {
    let header: &[u8; IPV4_LEN] = bytes.first_chunk()?;
    let header_len = usize::from(header[0] & 15) * 4;
    let fragment = number(header, 6);
    if header_len < IPV4_LEN || fragment & FRAGMENT != 0 {
        return None;
    }
    let is_plain = header_len == IPV4_LEN
        && fragment & RESERVED == 0
        && usize::from(number(header, 2)) == bytes.len();
    Some((header_len, header[9], is_plain))
}

fn parse_ipv6(bytes: &[u8]) -> Option<(usize, u8, bool)> {
    let header: &[u8; IPV6_LEN] = bytes.first_chunk()?;
    let is_plain = usize::from(number(header, 4)) + IPV6_LEN == bytes.len();
    Some((IPV6_LEN, header[6], is_plain))
}

/// The header's length, whether it may be joined, and whether the sender pushes.
fn parse_tcp(bytes: &[u8]) -> (usize, bool, bool) {
    let Some(header) = bytes.first_chunk::<20>() else {
        return (0, false, false);
    };
    let len = usize::from(header[12] >> 4) * 4;
    let flags = header[13];
    // What opens, closes or resets a connection, is urgent, or answers a mark, stays alone.
    let good = len >= 20 && len <= bytes.len() && flags & !(PSH | ECE) == ACK;
    (len, good, flags & PSH != 0)
}

fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    }
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
