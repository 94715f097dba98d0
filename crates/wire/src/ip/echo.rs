//! ICMP and ICMPv6 echo: ping.
//!
//! Owns the echo request and the echo reply, no other ICMP message. It keeps no state, so the
//! caller limits the rate of replies. RFC 792; RFC 4443, section 4.

use core::net::IpAddr;
use core::ops::Range;

use super::{
    Checksum, HOP_LIMIT, IPV4_HEADER_LEN, IPV6_HEADER_LEN, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    checksum, emit_ipv4_header, emit_ipv6_header, parse, pseudo_header,
};

const ECHO_HEADER_LEN: usize = 8;

const ICMP_REPLY: u8 = 0;
const ICMP_REQUEST: u8 = 8;
const ICMPV6_REQUEST: u8 = 128;
const ICMPV6_REPLY: u8 = 129;

/// An echo request or reply inside an IP packet, with its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Whether it is a request; otherwise it is a reply.
    pub request: bool,
    /// Where the packet says that it comes from.
    pub source: IpAddr,
    /// Where the packet goes to.
    pub destination: IpAddr,
    /// Which ping process the sender meant it for.
    pub ident: u16,
    /// The number of the request.
    pub seq: u16,
    /// Where in the packet the data is that a reply repeats.
    pub data: Range<usize>,
}

/// Reads an echo request or reply; `None` if `packet` is anything else or damaged.
#[must_use]
pub fn parse_echo(packet: &[u8]) -> Option<Echo> {
    let ip = parse(packet).ok()?;
    if ip.fragment {
        return None;
    }
    let icmp = &packet[ip.payload.clone()];
    let header: &[u8; ECHO_HEADER_LEN] = icmp.first_chunk()?;
    let request = match (ip.version, ip.protocol, header[0], header[1]) {
        (4, PROTOCOL_ICMP, ICMP_REQUEST, 0) | (6, PROTOCOL_ICMPV6, ICMPV6_REQUEST, 0) => true,
        (4, PROTOCOL_ICMP, ICMP_REPLY, 0) | (6, PROTOCOL_ICMPV6, ICMPV6_REPLY, 0) => false,
        _ => return None,
    };
    if start_checksum(ip.source, ip.destination, icmp.len())
        .add_bytes(icmp)
        .finish()
        != 0
    {
        return None;
    }
    Some(Echo {
        request,
        source: ip.source,
        destination: ip.destination,
        ident: u16::from_be_bytes([header[4], header[5]]),
        seq: u16::from_be_bytes([header[6], header[7]]),
        data: ip.payload.start + ECHO_HEADER_LEN..ip.payload.end,
    })
}

/// Returns the length of the packet that [`emit_echo`] writes for `data_len` bytes of data
/// between addresses of the family of `source`.
#[must_use]
pub const fn echo_len(source: &IpAddr, data_len: usize) -> usize {
    match source {
        IpAddr::V4(_) => IPV4_HEADER_LEN + ECHO_HEADER_LEN + data_len,
        IpAddr::V6(_) => IPV6_HEADER_LEN + ECHO_HEADER_LEN + data_len,
    }
}

/// Writes an echo request or reply to the front of `buf`, and returns the packet's length.
///
/// # Panics
///
/// If the addresses are of two families, `buf` is shorter than [`echo_len`], or the packet is
/// longer than IP allows (65,535 bytes, in IPv6 without the header).
pub fn emit_echo(
    buf: &mut [u8],
    request: bool,
    source: IpAddr,
    destination: IpAddr,
    ident: u16,
    seq: u16,
    data: &[u8],
) -> usize {
    let packet = &mut buf[..echo_len(&source, data.len())];
    let len = packet.len();
    let bounded = |len: usize| u16::try_from(len).expect("the caller bounds the data");
    let (icmp, echo_type) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (header, icmp) = packet.split_first_chunk_mut().expect("cut to its length");
            emit_ipv4_header(
                header,
                (source, destination),
                PROTOCOL_ICMP,
                bounded(len),
                0,
            );
            (icmp, if request { ICMP_REQUEST } else { ICMP_REPLY })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (header, icmp) = packet.split_first_chunk_mut().expect("cut to its length");
            let payload_len = bounded(icmp.len());
            emit_ipv6_header(
                header,
                (source, destination),
                PROTOCOL_ICMPV6,
                payload_len,
                0,
            );
            (
                icmp,
                if request {
                    ICMPV6_REQUEST
                } else {
                    ICMPV6_REPLY
                },
            )
        }
        _ => panic!("the caller gives two addresses of one family"),
    };
    icmp[..4].copy_from_slice(&[echo_type, 0, 0, 0]);
    icmp[4..6].copy_from_slice(&ident.to_be_bytes());
    icmp[6..8].copy_from_slice(&seq.to_be_bytes());
    icmp[ECHO_HEADER_LEN..].copy_from_slice(data);
    let sum = start_checksum(source, destination, icmp.len())
        .add_bytes(icmp)
        .finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    len
}

/// Makes a valid echo request into the reply to it, in place; the length stays the same.
///
/// Returns `false` and changes nothing if `packet` is not an echo request, if one of its
/// addresses cannot be answered or answer (multicast, unspecified, broadcast), or if it has
/// IPv4 options, which a reply would have to reverse.
#[must_use = "a packet that was not changed must not be sent back"]
pub fn turn_echo_request_into_reply(packet: &mut [u8]) -> bool {
    let Some(echo) = parse_echo(packet) else {
        return false;
    };
    if !echo.request || !is_unicast(echo.source) || !is_unicast(echo.destination) {
        return false;
    }
    let icmp_start = echo.data.start - ECHO_HEADER_LEN;
    let reply_type = match echo.source {
        IpAddr::V4(_) if icmp_start != IPV4_HEADER_LEN => return false,
        IpAddr::V4(_) => {
            swap_halves(&mut packet[12..20]);
            packet[8] = HOP_LIMIT;
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum(&packet[..IPV4_HEADER_LEN]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            ICMP_REPLY
        }
        IpAddr::V6(_) => {
            swap_halves(&mut packet[8..40]);
            packet[7] = HOP_LIMIT;
            ICMPV6_REPLY
        }
    };
    let icmp = &mut packet[icmp_start..echo.data.end];
    icmp[0] = reply_type;
    icmp[2..4].copy_from_slice(&[0, 0]);
    let sum = start_checksum(echo.destination, echo.source, icmp.len())
        .add_bytes(icmp)
        .finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

/// ICMP has no pseudo header, ICMPv6 has one (RFC 4443, section 2.3).
fn start_checksum(source: IpAddr, destination: IpAddr, icmp_len: usize) -> Checksum {
    let len = u16::try_from(icmp_len).expect("the length field of IP bounds the payload");
    match source {
        IpAddr::V4(_) => Checksum::new(),
        IpAddr::V6(_) => pseudo_header(source, destination, PROTOCOL_ICMPV6, len),
    }
}

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast || address.is_multicast() || address.is_unspecified())
}

fn swap_halves(addresses: &mut [u8]) {
    let (source, destination) = addresses.split_at_mut(addresses.len() / 2);
    source.swap_with_slice(destination);
}
