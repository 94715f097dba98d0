//! IP packets: ranges stay inside, what parses is written again as a packet that says the same,
//! and an echo request turns into the reply to it.

use std::net::SocketAddr;

use wiremesh_wire::ip;

/// Parses a packet in every way and writes it again.
pub fn run(bytes: &[u8]) {
    let header = ip::parse(bytes);
    if let Ok(header) = &header {
        assert!(header.total_len <= bytes.len() && header.payload.end == header.total_len);
        assert!(header.payload.start <= header.payload.end);
        assert_eq!(ip::parse(&bytes[..header.total_len]).as_ref(), Ok(header));
    }
    udp(bytes);
    echo(bytes);
}

fn udp(bytes: &[u8]) {
    let Ok(udp) = ip::parse_udp(bytes) else {
        return;
    };
    let payload = &bytes[udp.payload.clone()];
    let room = match udp.source {
        SocketAddr::V4(_) => ip::IPV4_UDP_HEADER_LEN,
        SocketAddr::V6(_) => ip::IPV6_UDP_HEADER_LEN,
    };
    let mut packet = vec![0; room];
    packet.extend_from_slice(payload);
    let len = match (udp.source, udp.destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let (from, to) = ((*from.ip(), from.port()), (*to.ip(), to.port()));
            ip::emit_ipv4_udp(&mut packet, from, to, payload.len(), udp.ecn)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let (from, to) = ((*from.ip(), from.port()), (*to.ip(), to.port()));
            ip::emit_ipv6_udp(&mut packet, from, to, payload.len(), udp.ecn)
        }
        _ => panic!("one packet has addresses of two families"),
    };
    assert_eq!(len, packet.len());
    let again = ip::parse_udp(&packet).expect("our own packet");
    assert_eq!(
        (again.source, again.destination, again.ecn),
        (udp.source, udp.destination, udp.ecn)
    );
    assert_eq!(&packet[again.payload], payload);
}

fn echo(bytes: &[u8]) {
    let mut packet = bytes.to_vec();
    let Some(echo) = ip::parse_echo(bytes) else {
        assert!(!ip::turn_echo_request_into_reply(&mut packet));
        assert_eq!(packet, bytes, "a packet that is no echo was changed");
        return;
    };
    let data = &bytes[echo.data.clone()];
    if ip::turn_echo_request_into_reply(&mut packet) {
        let reply = ip::parse_echo(&packet).expect("our own reply");
        assert!(echo.request && !reply.request);
        assert_eq!(
            (reply.source, reply.destination, reply.ident, reply.seq),
            (echo.destination, echo.source, echo.ident, echo.seq)
        );
        assert_eq!(&packet[reply.data], data);
    } else {
        assert_eq!(packet, bytes, "a refused echo was changed");
    }
    let mut own = vec![0; ip::echo_len(&echo.source, data.len())];
    let (source, destination) = (echo.source, echo.destination);
    let (request, ident, seq) = (echo.request, echo.ident, echo.seq);
    let len = ip::emit_echo(&mut own, request, source, destination, ident, seq, data);
    assert_eq!(len, own.len());
    let again = ip::parse_echo(&own).expect("our own packet");
    assert_eq!(
        (again.request, again.source, again.destination),
        (request, source, destination)
    );
    assert_eq!((again.ident, again.seq), (ident, seq));
    assert_eq!(&own[again.data], data);
}
