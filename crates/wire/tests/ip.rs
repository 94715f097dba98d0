//! IP packets: every refusal and every limit as a table.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wiremesh_wire::ip::{
    Checksum, IpError, checksum, destination, echo_len, ecn, emit_echo, emit_ipv4_udp,
    emit_ipv6_udp, mark_congestion, parse, parse_echo, parse_udp, turn_echo_request_into_reply,
};

const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
const V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfd77, 0x6d00, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd77, 0x6d00, 0, 0, 0, 0, 0, 2),
);

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut packet = [&[0; 28], payload].concat();
    assert_eq!(
        emit_ipv4_udp(&mut packet, (V4.0, 1), (V4.1, 2), payload.len(), 0),
        packet.len()
    );
    packet
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut packet = [&[0; 48], payload].concat();
    assert_eq!(
        emit_ipv6_udp(&mut packet, (V6.0, 1), (V6.1, 2), payload.len(), 0),
        packet.len()
    );
    packet
}

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

/// Changes bytes of a packet.
fn with(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// Puts four bytes of IPv4 options into a packet.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
    packet[0] = 0x46;
    let len = u16::try_from(packet.len()).expect("short");
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    fix_ipv4(packet)
}

#[test]
fn bad_headers_are_named() {
    let (v4, v6) = (udp4(b"data"), udp6(b"data"));
    let table = [
        (vec![], IpError::UnknownVersion),
        (with(&v4, 0, &[0x55]), IpError::UnknownVersion),
        (vec![0x45], IpError::Truncated),
        (v4[..19].to_vec(), IpError::Truncated),
        (v4[..31].to_vec(), IpError::Truncated),
        (with(&v4, 0, &[0x44]), IpError::BadLength),
        (with(&v4, 2, &[0, 19]), IpError::BadLength),
        // The options would be longer than the packet.
        (with(&v4, 0, &[0x4f]), IpError::BadLength),
        (with(&v4, 8, &[0]), IpError::HeaderChecksum),
        (vec![0x60], IpError::Truncated),
        (v6[..39].to_vec(), IpError::Truncated),
        (v6[..51].to_vec(), IpError::Truncated),
    ];
    for (packet, error) in table {
        assert_eq!(parse(&packet), Err(error), "{packet:02x?}");
        assert_eq!(parse_udp(&packet), Err(error), "{packet:02x?}");
        assert_eq!(parse_echo(&packet), None);
    }
}

#[test]
fn headers_alone_are_packets() {
    let v6 = with(&udp6(b"")[..40], 4, &[0, 0]);
    assert_eq!(
        parse(&v6).map(|ip| (ip.total_len, ip.payload)),
        Ok((40, 40..40))
    );
    let v4 = fix_ipv4(with(&udp4(b"")[..20], 2, &[0, 20]));
    assert_eq!(
        parse(&v4).map(|ip| (ip.total_len, ip.payload)),
        Ok((20, 20..20))
    );
}

#[test]
fn bad_udp_is_named() {
    let (v4, v6) = (udp4(b"data"), udp6(b"data"));
    let table = [
        (fix_ipv4(with(&v4, 9, &[6])), IpError::OtherProtocol),
        (with(&v6, 6, &[0]), IpError::OtherProtocol),
        // More fragments; a fragment offset. "Don't fragment" alone is none.
        (fix_ipv4(with(&v4, 6, &[0x20, 0])), IpError::Fragment),
        (fix_ipv4(with(&v4, 6, &[0, 1])), IpError::Fragment),
        // No room for a UDP header; a UDP length below 8; one above the payload.
        (fix_ipv4(with(&v4, 2, &[0, 27])), IpError::Truncated),
        (with(&v6, 4, &[0, 7]), IpError::Truncated),
        (with(&v4, 24, &[0, 7]), IpError::BadLength),
        (with(&v6, 44, &[0, 0]), IpError::BadLength),
        (with(&v4, 24, &[0, 13]), IpError::Truncated),
        (with(&v6, 44, &[0, 13]), IpError::Truncated),
        // Another payload, port or address than the checksum covers.
        (with(&v4, 28, b"D"), IpError::PayloadChecksum),
        (with(&v6, 48, b"D"), IpError::PayloadChecksum),
        (with(&v6, 41, &[7]), IpError::PayloadChecksum),
        (with(&v6, 23, &[7]), IpError::PayloadChecksum),
        (fix_ipv4(with(&v4, 15, &[7])), IpError::PayloadChecksum),
        // RFC 8200, section 8.1: no absent checksum in IPv6.
        (with(&v6, 46, &[0, 0]), IpError::PayloadChecksum),
    ];
    for (packet, error) in table {
        assert_eq!(parse_udp(&packet), Err(error), "{packet:02x?}");
    }
    let unchecked = with(&v4, 26, &[0, 0]);
    assert_eq!(parse_udp(&unchecked).map(|udp| udp.payload), Ok(28..32));
}

#[test]
fn zero_checksum_in_ipv6_is_refused_even_where_the_sum_fits() {
    // A payload whose right checksum is ffff; the same packet with 0000 sums up as well.
    let packet = (0..=u16::MAX)
        .map(|value| udp6(&value.to_be_bytes()))
        .find(|packet| packet[46..48] == [0xff, 0xff])
        .expect("one payload in 65,536 has this sum");
    assert!(parse_udp(&packet).is_ok());
    assert_eq!(
        parse_udp(&with(&packet, 46, &[0, 0])),
        Err(IpError::PayloadChecksum)
    );
}

#[test]
fn fragments_show_in_the_header() {
    let whole = udp4(b"data");
    assert_eq!(parse(&whole).map(|ip| ip.fragment), Ok(false));
    for field in [[0x20, 0], [0x60, 0], [0, 1], [0x1f, 0xff]] {
        let fragment = fix_ipv4(with(&whole, 6, &field));
        assert_eq!(parse(&fragment).map(|ip| ip.fragment), Ok(true));
    }
}

#[test]
fn options_are_part_of_the_header() {
    let packet = with_options(&udp4(b"data"));
    assert_eq!(parse(&packet).map(|ip| ip.payload), Ok(24..36));
    assert_eq!(parse_udp(&packet).map(|udp| udp.payload), Ok(32..36));
    // Too short for its options.
    assert_eq!(parse(&packet[..23]), Err(IpError::Truncated));

    let mut ping = with_options(&echo(true, V4.0.into(), V4.1.into(), b"data"));
    assert_eq!(parse_echo(&ping).map(|echo| echo.data), Some(32..36));
    let before = ping.clone();
    assert!(!turn_echo_request_into_reply(&mut ping));
    assert_eq!(ping, before);
}

#[test]
fn udp_length_cuts_the_payload() {
    // Eight bytes of IP payload more than UDP knows; its checksum does not cover them.
    let mut packet = udp6(b"data");
    packet.extend_from_slice(b"surplus!");
    packet[4..6].copy_from_slice(&20u16.to_be_bytes());
    assert_eq!(parse_udp(&packet).map(|udp| udp.payload), Ok(48..52));
}

#[test]
fn flow_label_and_traffic_class_do_not_disturb() {
    let packet = with(&udp6(b"data"), 0, &[0x6f, 0xef, 0xff, 0xff]);
    assert_eq!(parse_udp(&packet).map(|udp| udp.ecn), Ok(2));
    let packet = fix_ipv4(with(&udp4(b"data"), 1, &[0xfd]));
    assert_eq!(parse_udp(&packet).map(|udp| udp.ecn), Ok(1));
}

#[test]
fn largest_packets_fit() {
    let packet = udp4(&vec![0xff; 65_507]);
    assert_eq!(parse_udp(&packet).map(|udp| udp.payload.len()), Ok(65_507));
    let packet = udp6(&vec![0xff; 65_527]);
    assert_eq!(parse_udp(&packet).map(|udp| udp.payload.len()), Ok(65_527));
    let packet = echo(true, V6.0.into(), V6.1.into(), &vec![0xff; 65_527]);
    assert_eq!(
        parse_echo(&packet).map(|echo| echo.data.len()),
        Some(65_527)
    );
    let packet = echo(true, V4.0.into(), V4.1.into(), &vec![0xff; 65_507]);
    assert_eq!(
        parse_echo(&packet).map(|echo| echo.data.len()),
        Some(65_507)
    );
}

#[test]
#[should_panic(expected = "the caller bounds payload_len")]
fn larger_packets_are_the_callers_fault() {
    udp6(&vec![0; 65_528]);
}

#[test]
fn other_icmp_is_no_echo() {
    for (source, destination) in [(V4.0.into(), V4.1.into()), (V6.0.into(), V6.1.into())] {
        let packet = echo(true, source, destination, b"data");
        let start = packet.len() - 12;
        // The damage is found; so is a type or a code that is no echo, with its sum put right.
        for (at, byte) in [
            (start, 3),
            (start + 1, 1),
            (start + 8, b'D'),
            (start + 3, 0xee),
        ] {
            let mut damaged = with(&packet, at, &[byte]);
            assert_eq!(parse_echo(&damaged), None);
            assert!(!turn_echo_request_into_reply(&mut damaged));
            if at < start + 2 {
                let old = u16::from_be_bytes([packet[start], packet[start + 1]]);
                let new = u16::from_be_bytes([damaged[start], damaged[start + 1]]);
                let sum = u16::from_be_bytes([packet[start + 2], packet[start + 3]]);
                // RFC 1624, section 3.
                let sum = Checksum::new()
                    .add_u16(!sum)
                    .add_u16(!old)
                    .add_u16(new)
                    .finish();
                let fixed = with(&damaged, start + 2, &sum.to_be_bytes());
                assert_eq!(parse_echo(&fixed), None);
            }
        }
        assert_eq!(parse_echo(&packet[..packet.len() - 1]), None);
    }
    let fragment = fix_ipv4(with(
        &echo(true, V4.0.into(), V4.1.into(), b""),
        6,
        &[0x20, 0],
    ));
    assert_eq!(parse_echo(&fragment), None);
    // ICMPv6 in IPv4 and the reverse.
    let packet = fix_ipv4(with(&echo(true, V4.0.into(), V4.1.into(), b""), 9, &[58]));
    assert_eq!(parse_echo(&packet), None);
    assert_eq!(
        parse_echo(&with(&echo(true, V6.0.into(), V6.1.into(), b""), 6, &[1])),
        None
    );
}

#[test]
fn reply_has_a_full_hop_limit() {
    let request = echo(true, V4.0.into(), V4.1.into(), b"data");
    let mut packet = fix_ipv4(with(&request, 8, &[1]));
    assert!(turn_echo_request_into_reply(&mut packet));
    assert_eq!(packet, echo(false, V4.1.into(), V4.0.into(), b"data"));

    let request = echo(true, V6.0.into(), V6.1.into(), b"data");
    let mut packet = with(&request, 7, &[1]);
    assert!(turn_echo_request_into_reply(&mut packet));
    assert_eq!(packet, echo(false, V6.1.into(), V6.0.into(), b"data"));
}

#[test]
fn only_unicast_is_answered() {
    let addresses: [(IpAddr, [&str; 3]); 2] = [
        (V4.0.into(), ["0.0.0.0", "255.255.255.255", "224.0.0.1"]),
        (V6.0.into(), ["::", "ff02::1", "ff0e::1"]),
    ];
    for (good, bad) in addresses {
        for bad in bad.map(|text| text.parse::<IpAddr>().expect("an address")) {
            for (source, destination) in [(good, bad), (bad, good)] {
                let mut packet = echo(true, source, destination, b"data");
                let before = packet.clone();
                assert!(!turn_echo_request_into_reply(&mut packet));
                assert_eq!(packet, before);
            }
        }
    }
}

#[test]
#[should_panic(expected = "one family")]
fn echo_between_families_is_the_callers_fault() {
    emit_echo(&mut [0; 100], true, V4.0.into(), V6.0.into(), 0, 0, &[]);
}

#[test]
fn the_start_of_a_packet_says_where_it_goes() {
    let (four, six) = (udp4(b"x"), udp6(b"x"));
    assert_eq!(destination(&four[..20]), Some(V4.1.into()));
    assert_eq!(destination(&six[..40]), Some(V6.1.into()));
    for short in [&four[..19], &six[..39], &[], &[0x50; 60]] {
        assert_eq!(destination(short), None);
    }
}

#[test]
fn congestion_is_marked_where_marks_are_understood() {
    for codepoint in 0..4 {
        let mut four = vec![0; 29];
        emit_ipv4_udp(&mut four, (V4.0, 1), (V4.1, 2), 1, codepoint);
        let mut six = vec![0; 49];
        emit_ipv6_udp(&mut six, (V6.0, 1), (V6.1, 2), 1, codepoint);
        for mut packet in [four, six] {
            assert_eq!(ecn(&packet), codepoint);
            mark_congestion(&mut packet);
            let marked = if codepoint == 0 { 0 } else { 3 };
            let udp = parse_udp(&packet).expect("its checksums are right");
            assert_eq!((ecn(&packet), udp.ecn), (marked, marked));
        }
    }
    for mut short in [vec![], vec![0x45], vec![0x45, 1, 2]] {
        let before = short.clone();
        mark_congestion(&mut short);
        assert_eq!(short, before);
    }
}
