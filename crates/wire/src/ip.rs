//! IP packets inside the tunnel, read and written in place.
//!
//! Owns the IPv4 and IPv6 headers and the [`Checksum`]; the submodules add UDP and ICMP echo.
//! It never allocates, never walks IPv6 extension headers, and never reassembles fragments.
//! RFC 791, RFC 8200.

mod checksum;
mod echo;
mod udp;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

pub use checksum::{Checksum, checksum};
pub use echo::{Echo, echo_len, emit_echo, parse_echo, turn_echo_request_into_reply};
pub use udp::{
    IPV4_UDP_HEADER_LEN, IPV6_UDP_HEADER_LEN, UDP_HEADER_LEN, UdpDatagram, emit_ipv4_udp,
    emit_ipv6_udp, parse_udp,
};

/// The length of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;

/// The length of the IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;

/// The protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;

/// The protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// The protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// The TTL and hop limit of packets that we make.
const HOP_LIMIT: u8 = 64;

/// The header of an IP packet whose lengths, and in IPv4 whose checksum, are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// 4 or 6.
    pub version: u8,
    /// Where the packet says that it comes from.
    pub source: IpAddr,
    /// Where the packet goes to.
    pub destination: IpAddr,
    /// The protocol of the payload; in IPv6 the first next header, which may be an extension.
    pub protocol: u8,
    /// The two bits of explicit congestion notification.
    pub ecn: u8,
    /// Whether the packet is one fragment of a larger IPv4 packet.
    pub fragment: bool,
    /// The length of the packet; what follows it in the slice is padding.
    pub total_len: usize,
    /// Where in the slice the bytes behind the header (and its IPv4 options) are.
    pub payload: Range<usize>,
}

/// Why bytes are not an IP packet, or not one that is understood here; the sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpError {
    /// The version is neither 4 nor 6, or there are no bytes.
    UnknownVersion,
    /// The bytes end before the header or before the length that it states.
    Truncated,
    /// A length field is smaller than the header that contains it.
    BadLength,
    /// The checksum of the IPv4 header is wrong.
    HeaderChecksum,
    /// The packet carries another protocol than the one asked for.
    OtherProtocol,
    /// The packet is a fragment, so its payload cannot be read.
    Fragment,
    /// The checksum of the payload is wrong, or absent where it must not be.
    PayloadChecksum,
}

/// Reads the header of an IPv4 or IPv6 packet at the front of `bytes`.
///
/// WireGuard pads packets, so `bytes` may be longer than the packet: `total_len` cuts it.
///
/// # Errors
///
/// [`IpError::UnknownVersion`], [`IpError::Truncated`], [`IpError::BadLength`] or
/// [`IpError::HeaderChecksum`].
#[inline]
pub fn parse(bytes: &[u8]) -> Result<IpHeader, IpError> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(bytes),
        Some(6) => parse_ipv6(bytes),
        _ => Err(IpError::UnknownVersion),
    }
}

/// Where a packet goes, by the start of its header; nothing else of it is looked at.
#[must_use]
#[inline]
pub fn destination(start: &[u8]) -> Option<IpAddr> {
    match start.first()? >> 4 {
        4 => Some(IpAddr::V4(ipv4_at(start.first_chunk()?, 16))),
        6 => Some(IpAddr::V6(ipv6_at(start.first_chunk()?, 24))),
        _ => None,
    }
}

/// The ECN codepoint of a packet (RFC 3168), by the start of its header; 0 if there is none.
#[must_use]
#[inline]
pub fn ecn(start: &[u8]) -> u8 {
    match start {
        [first, traffic_class, ..] if first >> 4 == 4 => traffic_class & 3,
        [first, traffic_class, ..] if first >> 4 == 6 => traffic_class >> 4 & 3,
        _ => 0,
    }
}

/// Marks a packet as one that met congestion, if its sender understands marks: what a tunnel does
/// whose outer packet was marked (RFC 6040, section 4.2).
pub fn mark_congestion(packet: &mut [u8]) {
    if ecn(packet) == 0 {
        return;
    }
    match packet {
        [first, traffic_class, ..] if *first >> 4 == 6 => *traffic_class |= 3 << 4,
        _ => {
            let Some(header) = packet.first_chunk_mut::<IPV4_HEADER_LEN>() else {
                return;
            };
            // RFC 1624, equation 3, for the word of version, length and type of service.
            let before = u32::from(u16::from_be_bytes([header[0], header[1]]));
            header[1] |= 3;
            let after = u32::from(u16::from_be_bytes([header[0], header[1]]));
            let sum = u32::from(u16::from_be_bytes([header[10], header[11]]));
            let mut sum = (!sum & 0xFFFF) + (!before & 0xFFFF) + after;
            while sum > 0xFFFF {
                sum = (sum & 0xFFFF) + (sum >> 16);
            }
            header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
        }
    }
}

#[inline]
fn parse_ipv6(bytes: &[u8]) -> Result<IpHeader, IpError> {
    let header: &[u8; IPV6_HEADER_LEN] = bytes.first_chunk().ok_or(IpError::Truncated)?;
    let total_len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total_len > bytes.len() {
        return Err(IpError::Truncated);
    }
    Ok(IpHeader {
        version: 6,
        source: IpAddr::V6(ipv6_at(header, 8)),
        destination: IpAddr::V6(ipv6_at(header, 24)),
        protocol: header[6],
        ecn: header[1] >> 4 & 3,
        fragment: false,
        total_len,
        payload: IPV6_HEADER_LEN..total_len,
    })
}

#[inline]
fn parse_ipv4(bytes: &[u8]) -> Result<IpHeader, IpError> {
    let header: &[u8; IPV4_HEADER_LEN] = bytes.first_chunk().ok_or(IpError::Truncated)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IPV4_HEADER_LEN || total_len < header_len {
        return Err(IpError::BadLength);
    }
    if total_len > bytes.len() {
        return Err(IpError::Truncated);
    }
    if checksum(&bytes[..header_len]) != 0 {
        return Err(IpError::HeaderChecksum);
    }
    // More-fragments flag or a fragment offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    Ok(IpHeader {
        version: 4,
        source: IpAddr::V4(ipv4_at(header, 12)),
        destination: IpAddr::V4(ipv4_at(header, 16)),
        protocol: header[9],
        ecn: header[1] & 3,
        fragment,
        total_len,
        payload: header_len..total_len,
    })
}

fn ipv6_at(header: &[u8; IPV6_HEADER_LEN], offset: usize) -> Ipv6Addr {
    let octets: &[u8; 16] = header[offset..]
        .first_chunk()
        .expect("the header holds both");
    Ipv6Addr::from(*octets)
}

fn ipv4_at(header: &[u8; IPV4_HEADER_LEN], offset: usize) -> Ipv4Addr {
    let octets: &[u8; 4] = header[offset..]
        .first_chunk()
        .expect("the header holds both");
    Ipv4Addr::from(*octets)
}

/// Writes an IPv6 header in front of a payload of `payload_len` bytes.
#[inline]
fn emit_ipv6_header(
    header: &mut [u8; IPV6_HEADER_LEN],
    addresses: (Ipv6Addr, Ipv6Addr),
    protocol: u8,
    payload_len: u16,
    ecn: u8,
) {
    header[..4].copy_from_slice(&[0x60, (ecn & 3) << 4, 0, 0]);
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = protocol;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&addresses.0.octets());
    header[24..].copy_from_slice(&addresses.1.octets());
}

/// Writes an IPv4 header without options, with "don't fragment" set and so without an
/// identification (RFC 6864, section 4).
#[inline]
fn emit_ipv4_header(
    header: &mut [u8; IPV4_HEADER_LEN],
    addresses: (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    total_len: u16,
    ecn: u8,
) {
    header[..2].copy_from_slice(&[0x45, ecn & 3]);
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..12].copy_from_slice(&[0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
    header[12..16].copy_from_slice(&addresses.0.octets());
    header[16..].copy_from_slice(&addresses.1.octets());
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Starts a payload checksum with the pseudo header (RFC 8200, section 8.1; RFC 768).
#[inline]
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: u16) -> Checksum {
    let sum = Checksum::new().add_u16(u16::from(protocol)).add_u16(len);
    match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => sum.add_bytes(&a.octets()).add_bytes(&b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => sum.add_bytes(&a.octets()).add_bytes(&b.octets()),
        _ => unreachable!("both addresses of a packet are of its version"),
    }
}

impl fmt::Display for IpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownVersion => "the packet is neither IPv4 nor IPv6",
            Self::Truncated => "the packet is shorter than its header says",
            Self::BadLength => "a length field of the packet is smaller than its header",
            Self::HeaderChecksum => "the checksum of the IPv4 header is wrong",
            Self::OtherProtocol => "the packet carries another protocol",
            Self::Fragment => "the packet is a fragment",
            Self::PayloadChecksum => "the checksum of the payload is wrong or absent",
        })
    }
}

impl core::error::Error for IpError {}
