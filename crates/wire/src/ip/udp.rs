//! UDP over IPv4 and IPv6: the per-packet path of the rootless plane.
//!
//! Owns the UDP header. It never allocates and never copies a payload: headers are written in
//! front of a payload that is already in place. RFC 768; RFC 8200, section 8.1.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

use super::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpError, PROTOCOL_UDP, emit_ipv4_header, emit_ipv6_header,
    parse, pseudo_header,
};

/// The length of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// The room that [`emit_ipv6_udp`] needs in front of a payload.
pub const IPV6_UDP_HEADER_LEN: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN;

/// The room that [`emit_ipv4_udp`] needs in front of a payload.
pub const IPV4_UDP_HEADER_LEN: usize = IPV4_HEADER_LEN + UDP_HEADER_LEN;

/// A UDP datagram inside an IP packet, with its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpDatagram {
    /// Where the packet says that it comes from.
    pub source: SocketAddr,
    /// Where the packet goes to.
    pub destination: SocketAddr,
    /// Where in the packet the payload is.
    pub payload: Range<usize>,
    /// The two bits of explicit congestion notification.
    pub ecn: u8,
}

/// Writes the 48 bytes of IPv6 and UDP header in front of the payload at
/// `buf[48..48 + payload_len]`, and returns the length of the packet.
///
/// Of `ecn` the two low bits are taken. The hop limit is 64, the flow label 0.
///
/// # Panics
///
/// If `buf` is shorter than the packet, or `payload_len` is above 65,527.
#[inline]
pub fn emit_ipv6_udp(
    buf: &mut [u8],
    source: (Ipv6Addr, u16),
    destination: (Ipv6Addr, u16),
    payload_len: usize,
    ecn: u8,
) -> usize {
    let packet = &mut buf[..IPV6_UDP_HEADER_LEN + payload_len];
    let udp_len =
        u16::try_from(UDP_HEADER_LEN + payload_len).expect("the caller bounds payload_len");
    let (header, udp) = packet
        .split_first_chunk_mut()
        .expect("cut to the packet's length");
    emit_ipv6_header(
        header,
        (source.0, destination.0),
        PROTOCOL_UDP,
        udp_len,
        ecn,
    );
    emit_ports(udp, source.1, destination.1, udp_len);
    let sum = pseudo_header(source.0.into(), destination.0.into(), PROTOCOL_UDP, udp_len)
        .add_bytes(udp)
        .finish();
    set_checksum(udp, sum);
    packet.len()
}

/// Writes the 28 bytes of IPv4 and UDP header in front of the payload at
/// `buf[28..28 + payload_len]`, and returns the length of the packet.
///
/// Of `ecn` the two low bits are taken. The TTL is 64 and "don't fragment" is set.
///
/// # Panics
///
/// If `buf` is shorter than the packet, or `payload_len` is above 65,507.
#[inline]
pub fn emit_ipv4_udp(
    buf: &mut [u8],
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    payload_len: usize,
    ecn: u8,
) -> usize {
    let packet = &mut buf[..IPV4_UDP_HEADER_LEN + payload_len];
    let total_len = u16::try_from(packet.len()).expect("the caller bounds payload_len");
    let udp_len = total_len - IPV4_HEADER_LEN as u16;
    let (header, udp) = packet
        .split_first_chunk_mut()
        .expect("cut to the packet's length");
    emit_ipv4_header(
        header,
        (source.0, destination.0),
        PROTOCOL_UDP,
        total_len,
        ecn,
    );
    emit_ports(udp, source.1, destination.1, udp_len);
    let sum = pseudo_header(source.0.into(), destination.0.into(), PROTOCOL_UDP, udp_len)
        .add_bytes(udp)
        .finish();
    set_checksum(udp, sum);
    packet.len()
}

/// Reads a UDP datagram out of an IP packet and verifies its checksum.
///
/// The UDP length may be smaller than the IP payload: the rest is ignored, as hosts do.
/// An absent (zero) checksum is accepted in IPv4 only.
///
/// # Errors
///
/// Those of [`parse`]; [`IpError::OtherProtocol`], [`IpError::Fragment`],
/// [`IpError::PayloadChecksum`], and the length errors for the UDP length.
#[inline]
pub fn parse_udp(packet: &[u8]) -> Result<UdpDatagram, IpError> {
    let ip = parse(packet)?;
    if ip.protocol != PROTOCOL_UDP {
        return Err(IpError::OtherProtocol);
    }
    if ip.fragment {
        return Err(IpError::Fragment);
    }
    let udp = &packet[ip.payload.clone()];
    let header: &[u8; UDP_HEADER_LEN] = udp.first_chunk().ok_or(IpError::Truncated)?;
    let udp_len = u16::from_be_bytes([header[4], header[5]]);
    if usize::from(udp_len) < UDP_HEADER_LEN {
        return Err(IpError::BadLength);
    }
    let udp = udp.get(..usize::from(udp_len)).ok_or(IpError::Truncated)?;
    let unchecked = ip.version == 4 && header[6..] == [0, 0];
    // RFC 8200, section 8.1: a receiver of IPv6 must discard a UDP checksum of zero.
    if !unchecked {
        let sum = pseudo_header(ip.source, ip.destination, PROTOCOL_UDP, udp_len).add_bytes(udp);
        if header[6..] == [0, 0] || sum.finish() != 0 {
            return Err(IpError::PayloadChecksum);
        }
    }
    let start = ip.payload.start;
    Ok(UdpDatagram {
        source: SocketAddr::new(ip.source, u16::from_be_bytes([header[0], header[1]])),
        destination: SocketAddr::new(ip.destination, u16::from_be_bytes([header[2], header[3]])),
        payload: start + UDP_HEADER_LEN..start + udp.len(),
        ecn: ip.ecn,
    })
}

#[inline]
fn emit_ports(udp: &mut [u8], source: u16, destination: u16, udp_len: u16) {
    udp[..2].copy_from_slice(&source.to_be_bytes());
    udp[2..4].copy_from_slice(&destination.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
}

/// RFC 768: a sum of zero is sent as all ones, because zero means "no checksum".
#[inline]
fn set_checksum(udp: &mut [u8], sum: u16) {
    let sum = if sum == 0 { 0xffff } else { sum };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
}
