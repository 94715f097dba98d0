//! IP packets: properties of all parsers and writers, beside naive ones.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use proptest::collection::vec;
use proptest::prelude::*;
use wiremesh_wire::ip::{
    Checksum, checksum, echo_len, emit_echo, emit_ipv4_udp, emit_ipv6_udp, parse, parse_echo,
    parse_udp, turn_echo_request_into_reply,
};

fn echo(request: bool, source: IpAddr, destination: IpAddr, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; echo_len(&source, data.len())];
    emit_echo(&mut packet, request, source, destination, 7, 9, data);
    packet
}

/// Writes the header checksum of an IPv4 packet anew after a change.
fn fix_ipv4(mut packet: Vec<u8>) -> Vec<u8> {
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sum as RFC 1071 defines it, one 16-bit word after the other.
fn naive_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    !words.fold(0, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into()));
    prop_oneof![v4, v6]
}

fn emit_udp(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    payload: &[u8],
    ecn: u8,
) -> (Vec<u8>, usize) {
    let mut packet = [&[0xaa; 48], payload].concat();
    match ends {
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            emit_ipv6_udp(&mut packet, (a, ports.0), (b, ports.1), payload.len(), ecn);
            (packet, 48)
        }
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            packet.drain(..20);
            emit_ipv4_udp(&mut packet, (a, ports.0), (b, ports.1), payload.len(), ecn);
            (packet, 28)
        }
        _ => panic!("one family"),
    }
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, 0).into(),
    }
}

/// A right packet with a few bytes changed; IPv4 headers sum up again afterwards.
fn nearly_a_packet() -> impl Strategy<Value = Vec<u8>> {
    let udp = (
        addresses(),
        any::<(u16, u16)>(),
        vec(any::<u8>(), 0..64),
        any::<u8>(),
    )
        .prop_map(|(ends, ports, payload, ecn)| emit_udp(ends, ports, &payload, ecn).0);
    let ping = (addresses(), any::<bool>(), vec(any::<u8>(), 0..64))
        .prop_map(|(ends, request, data)| echo(request, ends.0, ends.1, &data));
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let padding = vec(any::<u8>(), 0..16);
    (prop_oneof![udp, ping], changes, padding, any::<bool>()).prop_map(
        |(mut packet, changes, padding, fix)| {
            for (index, byte) in changes {
                let at = index.index(packet.len());
                packet[at] = byte;
            }
            packet.extend_from_slice(&padding);
            let fixable = (0x45..=0x4f).contains(&packet[0]);
            if fix && fixable && packet.len() >= usize::from(packet[0] & 15) * 4 {
                packet = fix_ipv4(packet);
            }
            packet
        },
    )
}

/// Calls every parser, and checks what holds for anything that they accept.
fn parse_all(packet: &[u8]) -> Result<(), TestCaseError> {
    let header = parse(packet);
    if let Ok(header) = &header {
        prop_assert!(header.total_len <= packet.len());
        prop_assert_eq!(header.payload.end, header.total_len);
        prop_assert!(header.payload.start <= header.payload.end);
        prop_assert_eq!(header.source.is_ipv4(), header.version == 4);
        prop_assert_eq!(header.destination.is_ipv4(), header.version == 4);
        // Nothing behind the packet changes anything.
        prop_assert_eq!(parse(&packet[..header.total_len]), Ok(header.clone()));
        let padded = [&packet[..header.total_len], &[0x5a; 15]].concat();
        prop_assert_eq!(&parse(&padded), &Ok(header.clone()));
        prop_assert_eq!(parse_udp(&padded), parse_udp(packet));
        prop_assert_eq!(parse_echo(&padded), parse_echo(packet));
    }
    if let Ok(udp) = parse_udp(packet) {
        let header = header.clone().expect("a UDP packet is an IP packet");
        prop_assert!(udp.payload.start <= udp.payload.end);
        prop_assert!(udp.payload.end <= header.total_len);
        prop_assert_eq!(udp.source.ip(), header.source);
        // Written again it is read the same.
        let ends = (udp.source.ip(), udp.destination.ip());
        let ports = (udp.source.port(), udp.destination.port());
        let payload = &packet[udp.payload.clone()];
        let (again, start) = emit_udp(ends, ports, payload, udp.ecn);
        let second = parse_udp(&again).expect("our own packet");
        prop_assert_eq!(
            (second.source, second.destination),
            (udp.source, udp.destination)
        );
        prop_assert_eq!((&again[second.payload], second.ecn), (payload, udp.ecn));
        // A packet that we could have written comes out byte for byte.
        let written = if header.version == 6 {
            packet[0] == 0x60 && packet[1] & 0xcf == 0 && packet[2..4] == [0, 0] && packet[7] == 64
        } else {
            packet[0] == 0x45
                && packet[1] & 0xfc == 0
                && packet[4..9] == [0, 0, 0x40, 0, 64]
                && packet[26..28] != [0, 0]
        };
        if written && udp.payload.end == header.total_len {
            prop_assert_eq!(udp.payload.start, start);
            prop_assert_eq!(&again, &packet[..header.total_len]);
        }
    }
    if let Some(echo) = parse_echo(packet) {
        let header = header.expect("an echo is an IP packet");
        prop_assert!(echo.data.start <= echo.data.end && echo.data.end == header.total_len);
        let mut reply = packet.to_vec();
        if turn_echo_request_into_reply(&mut reply) {
            let answer = parse_echo(&reply).expect("a right reply");
            prop_assert!(echo.request && !answer.request);
            prop_assert_eq!(
                (answer.source, answer.destination),
                (echo.destination, echo.source)
            );
            prop_assert_eq!((answer.ident, answer.seq), (echo.ident, echo.seq));
            prop_assert_eq!(&reply[echo.data.start..], &packet[echo.data.start..]);
            prop_assert!(!turn_echo_request_into_reply(&mut reply));
        } else {
            prop_assert_eq!(reply, packet);
        }
    } else {
        let mut same = packet.to_vec();
        prop_assert!(!turn_echo_request_into_reply(&mut same));
        prop_assert_eq!(same, packet);
    }
    Ok(())
}

proptest! {
    #[test]
    fn checksum_equals_the_naive_one(bytes in vec(any::<u8>(), 0..300), high: bool) {
        let bytes = if high { bytes.iter().map(|byte| byte | 0xfc).collect() } else { bytes };
        prop_assert_eq!(checksum(&bytes), naive_checksum(&bytes));
        let even = bytes.len() / 4 * 2;
        let parts = Checksum::new().add_bytes(&bytes[..even]).add_bytes(&bytes[even..]);
        prop_assert_eq!(parts.finish(), naive_checksum(&bytes));
        let numbered = Checksum::new().add_bytes(&bytes).add_u16(0xabcd).finish();
        prop_assert_eq!(numbered, naive_checksum(&[&[0xab, 0xcd], &bytes[..]].concat()));
    }

    #[test]
    fn udp_emit_then_parse_is_identity(
        ends in addresses(), ports: (u16, u16), payload in vec(any::<u8>(), 0..1500), ecn in 0..4u8,
    ) {
        let (packet, start) = emit_udp(ends, ports, &payload, ecn);
        let udp = parse_udp(&packet).expect("our own packet");
        prop_assert_eq!(udp.source, socket(ends.0, ports.0));
        prop_assert_eq!(udp.destination, socket(ends.1, ports.1));
        prop_assert_eq!(udp.payload.clone(), start..packet.len());
        prop_assert_eq!(&packet[udp.payload], &payload);
        prop_assert_eq!(udp.ecn, ecn);
    }

    #[test]
    fn echo_emit_then_parse_is_identity(
        ends in addresses(), request: bool, ident: u16, seq: u16, data in vec(any::<u8>(), 0..100),
    ) {
        let mut packet = vec![0xaa; echo_len(&ends.0, data.len())];
        let len = emit_echo(&mut packet, request, ends.0, ends.1, ident, seq, &data);
        prop_assert_eq!(len, packet.len());
        let echo = parse_echo(&packet).expect("our own packet");
        prop_assert_eq!((echo.request, echo.source, echo.destination), (request, ends.0, ends.1));
        prop_assert_eq!((echo.ident, echo.seq), (ident, seq));
        prop_assert_eq!(&packet[echo.data], &data);
    }

    /// A ones' complement sum finds any one changed byte. Left out are the bytes that no sum
    /// covers, those that say what a sum covers, and the change to "no checksum".
    #[test]
    fn changed_bytes_are_found(
        ends in addresses(),
        payload in vec(any::<u8>(), 0..64),
        at: prop::sample::Index,
        xor in 1..=255u8,
    ) {
        let (mut packet, start) = emit_udp(ends, (1, 2), &payload, 0);
        let at = at.index(packet.len());
        packet[at] ^= xor;
        let uncovered = start == 48 && matches!(at, 0..4 | 7);
        let extent = at == 0 || (start - 4..start - 2).contains(&at);
        let no_checksum = start == 28 && packet[26..28] == [0, 0];
        if !uncovered && !extent && !no_checksum {
            prop_assert!(parse_udp(&packet).is_err());
        }
    }

    #[test]
    fn nearly_right_packets_do_not_panic(packet in nearly_a_packet()) {
        parse_all(&packet)?;
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..128), version in 4..=6u8) {
        parse_all(&bytes)?;
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 15;
        }
        parse_all(&bytes)?;
    }
}
