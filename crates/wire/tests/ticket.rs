//! Tickets: each way to be wrong, limits, and properties of the text and the layout.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use blake2::{Blake2s256, Digest};
use data_encoding::BASE32_NOPAD;
use proptest::collection::vec;
use proptest::prelude::*;
use wiremesh_wire::ticket::{ENDPOINTS_MAX, LayoutError, RELAYS_MAX};
use wiremesh_wire::{
    Endpoint, InvalidNodeId, NetworkId, NodeId, Ticket, TicketError, TicketSecret, network_id,
};

fn node_id(first: u8) -> NodeId {
    let mut bytes = [0; 32];
    bytes[0] = first;
    NodeId::from_bytes(&bytes).expect("a small number on the curve")
}

/// A ticket with one of everything.
fn full() -> Ticket {
    Ticket {
        node_id: node_id(9),
        network: network_id("home"),
        endpoints: vec![endpoint("192.0.2.1:51820"), endpoint("[2001:db8::1]:2")],
        relays: vec![endpoint("relay.example:3")],
        secret: Some(TicketSecret::from_bytes([0x5a; 16])),
    }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().expect(text)
}

/// The bytes of a ticket's text, without its checksum.
fn body_of(ticket: &Ticket) -> Vec<u8> {
    let text = ticket.to_string().to_uppercase();
    let mut bytes = BASE32_NOPAD.decode(&text.as_bytes()[2..]).expect("base32");
    bytes.truncate(bytes.len() - 4);
    bytes
}

/// The text of an undamaged ticket with these bytes.
fn text_of(body: &[u8]) -> String {
    let sum = &Blake2s256::digest(body)[..4];
    format!(
        "wm{}",
        BASE32_NOPAD.encode(&[body, sum].concat()).to_lowercase()
    )
}

fn layout(body: &[u8]) -> TicketError {
    text_of(body).parse::<Ticket>().expect_err("a bad layout")
}

#[test]
fn smallest_ticket_is_short() {
    let ticket = Ticket::new(node_id(9));
    assert_eq!(ticket.to_string().len(), 66);
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

#[test]
fn case_and_white_space_do_not_matter() {
    let text = full().to_string();
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    );
    assert_eq!(text.to_uppercase().parse(), Ok(full()));
    let spaced: String = text
        .chars()
        .flat_map(|c| [c, ' ', '\n', '\u{a0}'])
        .collect();
    assert_eq!(format!("\t{spaced}\r\n").parse(), Ok(full()));
}

#[test]
fn other_texts_are_not_tickets() {
    for text in ["", " ", "w", "m", "hello", "mw", "1wm", "https://wm"] {
        assert_eq!(
            text.parse::<Ticket>(),
            Err(TicketError::NotATicket),
            "{text}"
        );
    }
}

#[test]
fn foreign_characters_are_placed() {
    let text = full().to_string();
    for bad in ['0', '1', '8', '9', '=', '-', 'é', '\0'] {
        let damaged = format!("{}{bad}{}", &text[..20], &text[21..]);
        assert_eq!(damaged.parse::<Ticket>(), Err(TicketError::Character(20)));
        let spaced = format!(" {}  {bad}{}", &text[..20], &text[21..]);
        assert_eq!(spaced.parse::<Ticket>(), Err(TicketError::Character(23)));
    }
}

#[test]
fn every_cut_is_called_truncated() {
    for ticket in [full(), Ticket::new(node_id(9))] {
        let text = ticket.to_string();
        for len in 2..text.len() {
            assert_eq!(
                text[..len].parse::<Ticket>(),
                Err(TicketError::Truncated),
                "{len}"
            );
        }
    }
}

#[test]
fn every_wrong_character_is_found() {
    let text = full().to_string();
    for index in 2..text.len() {
        for other in ["a", "b", "q", "7"] {
            let mut changed = text.clone();
            changed.replace_range(index..=index, other);
            if changed != text {
                // A changed length or count can ask for more than there is.
                let error = changed.parse::<Ticket>().expect_err("damaged");
                assert!(
                    matches!(error, TicketError::Damaged | TicketError::Truncated),
                    "{index}: {error:?}"
                );
            }
        }
    }
    assert_eq!(
        (text.clone() + "aa").parse::<Ticket>(),
        Err(TicketError::Damaged)
    );
    assert_eq!(
        (text.clone() + &text).parse::<Ticket>(),
        Err(TicketError::Damaged)
    );
}

#[test]
fn spare_characters_and_bits_are_found() {
    // 40 bytes fill 64 characters, so one more carries no byte.
    let text = Ticket::new(node_id(9)).to_string();
    assert_eq!(
        format!("{text}a").parse::<Ticket>(),
        Err(TicketError::Damaged)
    );
    // 47 bytes leave four spare bits in the last character.
    let mut ticket = Ticket::new(node_id(9));
    ticket.endpoints.push(endpoint("192.0.2.1:51820"));
    let text = ticket.to_string();
    let (front, last) = text.split_at(text.len() - 1);
    let other = match last {
        "a" => "b",
        _ => "r",
    };
    assert!(matches!(last, "a" | "q"));
    assert_eq!(
        format!("{front}{other}").parse::<Ticket>(),
        Err(TicketError::Damaged)
    );
}

#[test]
fn endless_text_is_refused() {
    let text = format!("wm{}", "a".repeat(100_000));
    assert_eq!(text.parse::<Ticket>(), Err(TicketError::TooLong));
}

#[test]
fn newer_version_is_named() {
    let body = body_of(&full());
    for version in [0, 2, 255] {
        let mut newer = body.clone();
        newer[0] = version;
        assert_eq!(layout(&newer), TicketError::UnknownVersion(version));
    }
    // Even if nothing else of it is understood.
    assert_eq!(layout(&[2, 0]), TicketError::UnknownVersion(2));
}

#[test]
fn invalid_node_id_is_named() {
    let mut body = body_of(&full());
    body[2] = 2;
    assert_eq!(
        layout(&body),
        TicketError::NodeId(InvalidNodeId::NotOnCurve)
    );
    body[2] = 0;
    assert_eq!(
        layout(&body),
        TicketError::NodeId(InvalidNodeId::SmallOrder)
    );
    body[33] = 0x80;
    assert_eq!(layout(&body), TicketError::NodeId(InvalidNodeId::TopBit));
}

#[test]
fn wrong_layouts_are_named() {
    use LayoutError::*;
    let plain = body_of(&Ticket::new(node_id(9)));
    assert_eq!(plain.len(), 36);
    let (head, key) = (&plain[..1], &plain[2..34]);
    let body = |flags: u8, rest: &[u8]| [head, &[flags], key, rest].concat();
    let default = NetworkId::default();
    let upper = [&[1, 1, 1][..], b"H", &[0, 1, 0]].concat();
    let number = [&[1, 1, 1][..], b"7", &[0, 1, 0]].concat();
    let endpoint = [4, 192, 0, 2, 1, 0, 1];
    let many = |count: u8| [&[count][..], &endpoint.repeat(count.into())].concat();
    let table = [
        (body(4, &[0, 0]), UnknownFlag),
        (body(0x80, &[0, 0]), UnknownFlag),
        (
            body(1, &[default.as_bytes(), &[0, 0][..]].concat()),
            DefaultNetwork,
        ),
        (body(0, &[many(17), vec![0]].concat()), TooManyEndpoints),
        (body(0, &[vec![0], many(9)].concat()), TooManyRelays),
        (body(0, &[1, 5, 0]), EndpointKind(5)),
        (body(0, &[1, 0, 0]), EndpointKind(0)),
        (body(0, &upper), HostName),
        (body(0, &number), HostName),
        (body(0, &[1, 1, 0, 0, 1, 0]), HostName),
        (body(0, &[1, 1, 2, 0xff, 0xff, 0, 1, 0]), HostName),
        (body(0, &[1, 1, 2, b'h', b'.', 0, 1, 0]), HostName),
        (body(0, &[1, 4, 192, 0, 2, 1, 0, 0, 0]), PortZero),
        (body(0, &[0, 0, 0]), ExtraBytes),
    ];
    for (body, error) in table {
        assert_eq!(layout(&body), TicketError::Layout(error));
    }
    // An undamaged ticket whose fields ask for more than there is.
    assert_eq!(layout(&body(2, &[0, 0])), TicketError::Truncated);
    assert_eq!(layout(&body(0, &[1, 1, 253, b'h'])), TicketError::Truncated);
    assert_eq!(layout(&[]), TicketError::Truncated);
    // The limits themselves are allowed.
    let ticket = text_of(&body(0, &[many(16), many(8)].concat())).parse::<Ticket>();
    assert_eq!(
        ticket.map(|t| (t.endpoints.len(), t.relays.len())),
        Ok((16, 8))
    );
}

#[test]
fn longest_ticket_is_read() {
    let name = format!("{}.{}", [&"a".repeat(63)[..]; 3].join("."), "b".repeat(61));
    let host = endpoint(&format!("{name}:65535"));
    let ticket = Ticket {
        endpoints: vec![host.clone(); ENDPOINTS_MAX],
        relays: vec![host; RELAYS_MAX],
        ..full()
    };
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

#[test]
fn what_a_ticket_cannot_hold_is_left_out() {
    let port_zero = Endpoint::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let scoped = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 8, 9));
    let mut ticket = full();
    ticket.endpoints = vec![port_zero, scoped.into()];
    ticket.endpoints.extend(vec![endpoint("h.example:1"); 20]);
    ticket.relays = vec![endpoint("h.example:1"); 20];
    let read: Ticket = ticket.to_string().parse().expect("our own ticket");
    assert_eq!(read.endpoints.len(), ENDPOINTS_MAX);
    assert_eq!(read.endpoints[0], endpoint("[::1]:7"));
    assert_eq!(read.relays.len(), RELAYS_MAX);
}

#[test]
fn debug_hides_the_secret() {
    let shown = format!("{:?}", full());
    assert!(
        shown.contains("TicketSecret(..)") && !shown.contains("90"),
        "{shown}"
    );
    assert_ne!(
        TicketSecret::from_bytes([1; 16]),
        TicketSecret::from_bytes([2; 16])
    );
}

#[test]
fn errors_read_as_sentences() {
    let message = |text: &str| text.parse::<Ticket>().expect_err("bad").to_string();
    assert_eq!(message("x"), "not a ticket: a ticket begins with \"wm\"");
    assert_eq!(message("wm0"), "character 3 cannot be part of a ticket");
    assert_eq!(message("wmaa"), "the end of the ticket is missing");
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let address = any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip(), 1));
    let address = (address, 1..=u16::MAX).prop_map(|(mut address, port)| {
        address.set_port(port);
        Endpoint::Address(address)
    });
    let host = (
        "[a-z0-9_]{1,20}(\\.[a-z]([a-z0-9-]{0,40}[a-z0-9])?){1,3}",
        1..=u16::MAX,
    )
        .prop_map(|(name, port)| Endpoint::Host(name.parse().expect(&name), port));
    prop_oneof![address, host]
}

fn any_ticket() -> impl Strategy<Value = Ticket> {
    let node_ids = any::<[u8; 32]>().prop_filter_map("not a key", |mut bytes| {
        bytes[31] &= 0x7f;
        NodeId::from_bytes(&bytes).ok()
    });
    let network = prop_oneof![
        Just(NetworkId::default()),
        any::<[u8; 32]>().prop_map(NetworkId::from_bytes)
    ];
    let secret = proptest::option::of(any::<[u8; 16]>().prop_map(TicketSecret::from_bytes));
    let endpoints = vec(any_endpoint(), 0..=ENDPOINTS_MAX);
    let relays = vec(any_endpoint(), 0..=RELAYS_MAX);
    (node_ids, network, endpoints, relays, secret).prop_map(
        |(node_id, network, endpoints, relays, secret)| Ticket {
            node_id,
            network,
            endpoints,
            relays,
            secret,
        },
    )
}

proptest! {
    #[test]
    fn emit_then_parse_is_identity(ticket in any_ticket()) {
        prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }

    /// Changed bytes with a right checksum reach every branch of the layout.
    #[test]
    fn parse_then_emit_is_identity(
        ticket in any_ticket(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop_oneof![3 => Just(0usize), 1 => 0..8usize],
    ) {
        let mut body = body_of(&ticket);
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        body.truncate(body.len() - cut);
        let text = text_of(&body);
        if let Ok(ticket) = text.parse::<Ticket>() {
            prop_assert_eq!(ticket.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_panic(body in vec(any::<u8>(), 0..200)) {
        let _ = text_of(&body).parse::<Ticket>();
    }

    #[test]
    fn no_text_panics(any in any::<String>(), near in "[Ww][Mm][a-zA-Z2-7 \n]{0,200}") {
        let _ = any.parse::<Ticket>();
        let _ = near.parse::<Ticket>();
        let _ = format!("wm{any}").parse::<Ticket>();
    }

    #[test]
    fn endpoint_texts_come_back(endpoint in any_endpoint()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn no_endpoint_text_panics(
        any in any::<String>(),
        near in "[0-9a-fg.:\\[\\]%-]{0,40}:[0-9]{0,6}",
    ) {
        for text in [any, near] {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
    }
}
