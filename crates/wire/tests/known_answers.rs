//! Known answers that `vectors/make_vectors.py` computed without this crate, and published ones.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use wiremesh_wire::address::{
    ALL_NET, CONTROL_NET, OVERLAY_NET, control_address, network_id, overlay_address,
};
use wiremesh_wire::ip::{
    emit_echo, emit_ipv4_udp, emit_ipv6_udp, parse, parse_echo, parse_udp,
    turn_echo_request_into_reply,
};
use wiremesh_wire::{
    Endpoint, InvalidNodeId, NodeId, PresharedKey, SecretKey, Tai64n, Ticket, TicketSecret,
    UnixTime,
};

/// The lines of one kind, split into their fields; "-" is the empty text.
fn vectors(kind: &str) -> Vec<Vec<&'static str>> {
    let lines: Vec<Vec<&str>> = include_str!("vectors/vectors.txt")
        .lines()
        .map(|line| {
            line.split(' ')
                .map(|field| if field == "-" { "" } else { field })
                .collect()
        })
        .filter(|fields: &Vec<&str>| fields[0] == kind)
        .map(|fields| fields[1..].to_vec())
        .collect();
    assert!(!lines.is_empty(), "no vectors of kind {kind}");
    lines
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn bytes32(text: &str) -> [u8; 32] {
    hex(text).try_into().expect("32 bytes")
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a number in range")
}

#[test]
fn key_texts() {
    for fields in vectors("key") {
        let bytes = bytes32(fields[0]);
        let node_id = NodeId::from_bytes(&bytes).expect("a valid key");
        assert_eq!(node_id.to_string(), fields[1]);
        assert_eq!(format!("{node_id:?}"), fields[1]);
        assert_eq!(fields[1].parse(), Ok(node_id));
        assert_eq!(node_id.to_base32(), fields[2]);
        assert_eq!(NodeId::from_base32(fields[2]), Ok(node_id));
        assert_eq!(NodeId::from_base32(&fields[2].to_uppercase()), Ok(node_id));

        assert_eq!(*SecretKey::from_bytes(bytes).to_base64(), fields[1]);
        assert_eq!(fields[1].parse(), Ok(SecretKey::from_bytes(bytes)));
        assert_eq!(*PresharedKey::from_bytes(bytes).to_base64(), fields[1]);
        assert_eq!(fields[1].parse(), Ok(PresharedKey::from_bytes(bytes)));
    }
}

#[test]
fn points_of_curve_and_twist() {
    for fields in vectors("point") {
        let valid = match fields[1] {
            "1" => Ok(()),
            _ => Err(InvalidNodeId::NotOnCurve),
        };
        assert_eq!(
            NodeId::from_bytes(&bytes32(fields[0])).map(drop),
            valid,
            "{}",
            fields[0]
        );
    }
}

#[test]
fn addresses_follow_from_the_key() {
    for fields in vectors("address") {
        let node_id = NodeId::from_bytes(&bytes32(fields[0])).expect("a valid key");
        let (overlay, control) = (overlay_address(&node_id), control_address(&node_id));
        assert_eq!(overlay, number::<Ipv6Addr>(fields[1]));
        assert_eq!(control, number::<Ipv6Addr>(fields[2]));
        assert!(OVERLAY_NET.contains(overlay.into()) && !CONTROL_NET.contains(overlay.into()));
        assert!(CONTROL_NET.contains(control.into()) && !OVERLAY_NET.contains(control.into()));
        assert!(ALL_NET.contains(overlay.into()) && ALL_NET.contains(control.into()));
    }
}

#[test]
fn network_ids() {
    for fields in vectors("network") {
        assert_eq!(network_id(fields[0]).as_bytes(), &bytes32(fields[1]));
        assert_eq!(network_id(fields[0]).to_string(), fields[1]);
    }
    assert_eq!(network_id(""), Default::default());
}

#[test]
fn tai64n_labels() {
    for fields in vectors("tai64n") {
        let time = UnixTime::from_secs_nanos(number(fields[0]), number(fields[1]));
        assert_eq!(
            Tai64n::from_unix(time).as_bytes().as_slice(),
            hex(fields[2])
        );
    }
}

#[test]
fn tickets() {
    let list = |text: &str| -> Vec<Endpoint> {
        text.split(',')
            .filter(|one| !one.is_empty())
            .map(number)
            .collect()
    };
    for fields in vectors("ticket") {
        let secret: Option<[u8; 16]> = hex(fields[4]).try_into().ok();
        let ticket = Ticket {
            node_id: NodeId::from_bytes(&bytes32(fields[0])).expect("a valid key"),
            network: network_id(fields[1]),
            endpoints: list(fields[2]),
            relays: list(fields[3]),
            secret: secret.map(TicketSecret::from_bytes),
        };
        assert_eq!(ticket.to_string(), fields[5]);
        assert_eq!(fields[5].parse(), Ok(ticket));
    }
}

#[test]
fn udp_packets() {
    for fields in vectors("udp") {
        let source = SocketAddr::new(number(fields[0]), number(fields[1]));
        let destination = SocketAddr::new(number(fields[2]), number(fields[3]));
        let (ecn, payload, packet) = (number(fields[4]), hex(fields[5]), hex(fields[6]));

        let mut buf = vec![0xaa; packet.len() + 3];
        let start = packet.len() - payload.len();
        buf[start..packet.len()].copy_from_slice(&payload);
        let len = match (source, destination) {
            (SocketAddr::V4(a), SocketAddr::V4(b)) => {
                let ends = ((*a.ip(), a.port()), (*b.ip(), b.port()));
                emit_ipv4_udp(&mut buf, ends.0, ends.1, payload.len(), ecn)
            }
            (SocketAddr::V6(a), SocketAddr::V6(b)) => {
                let ends = ((*a.ip(), a.port()), (*b.ip(), b.port()));
                emit_ipv6_udp(&mut buf, ends.0, ends.1, payload.len(), ecn)
            }
            _ => panic!("one family"),
        };
        assert_eq!(buf[..len], packet);
        assert_eq!(
            buf[len..],
            [0xaa; 3],
            "nothing is written behind the packet"
        );

        // Parsed with the three bytes of padding.
        let datagram = parse_udp(&buf).expect("a right packet");
        assert_eq!(
            (datagram.source, datagram.destination),
            (source, destination)
        );
        assert_eq!((datagram.ecn, datagram.payload), (ecn, start..len));
    }
}

#[test]
fn echo_packets() {
    for fields in vectors("echo") {
        let request = fields[0] == "1";
        let (source, destination): (IpAddr, IpAddr) = (number(fields[1]), number(fields[2]));
        let (ident, seq) = (number(fields[3]), number(fields[4]));
        let (data, packet) = (hex(fields[5]), hex(fields[6]));

        let mut buf = vec![0xaa; packet.len() + 3];
        let len = emit_echo(&mut buf, request, source, destination, ident, seq, &data);
        assert_eq!(buf[..len], packet);
        assert_eq!(
            buf[len..],
            [0xaa; 3],
            "nothing is written behind the packet"
        );

        let echo = parse_echo(&buf).expect("a right packet");
        assert_eq!(
            (echo.request, echo.source, echo.destination),
            (request, source, destination)
        );
        assert_eq!((echo.ident, echo.seq), (ident, seq));
        assert_eq!(buf[echo.data], data);

        // A request becomes exactly the reply that would be made from nothing; a reply, none.
        let mut reply = vec![0xaa; packet.len() + 3];
        emit_echo(&mut reply, false, destination, source, ident, seq, &data);
        assert_eq!(turn_echo_request_into_reply(&mut buf), request);
        if request {
            assert_eq!(buf, reply);
        }
    }
}

/// The header worked through in many texts on the IPv4 checksum, b861.
#[test]
fn published_ipv4_header() {
    let mut packet = hex("45000073000040004011b861c0a80001c0a800c7");
    packet.resize(0x73, 0);
    let header = parse(&packet).expect("a right header");
    assert_eq!(header.source, number::<IpAddr>("192.168.0.1"));
    assert_eq!(header.destination, number::<IpAddr>("192.168.0.199"));
    assert_eq!((header.version, header.protocol, header.ecn), (4, 17, 0));
    assert_eq!((header.total_len, header.payload), (0x73, 20..0x73));
}
