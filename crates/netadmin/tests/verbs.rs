//! The text of the verbs: known ones, the bounds, and any bytes at all.
#![cfg(target_os = "linux")]

use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use wiremesh_netadmin::verbs::{
    ALLOWED_IPS_MAX, FIGURES_MAX, Figures, Interface, Key, MTU_BYTES_MIN, Name, PeerChange,
    PeerFigures, Prefix, RATE_BITS, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reason, Refusal, Reply,
    Request, WireguardSettings,
};
use zeroize::Zeroizing;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("address/bits")
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| prefix(text)).collect()
}

fn interface(name: &str, addresses: &[&str], routes: &[&str]) -> Interface {
    Interface {
        name: Name::parse(name).expect("a good name"),
        mtu_bytes: 1420,
        addresses: prefixes(addresses),
        routes: prefixes(routes),
    }
}

fn settings(listen_port: u16) -> WireguardSettings {
    WireguardSettings {
        private_key: Zeroizing::new([0x50; 32]),
        listen_port,
        rate_bits: None,
    }
}

fn limited(rate_bits: u64) -> WireguardSettings {
    WireguardSettings {
        rate_bits: Some(rate_bits),
        ..settings(0)
    }
}

fn peer(allowed_ips: Option<Vec<Prefix>>) -> PeerChange {
    PeerChange {
        public_key: [0xa1; 32],
        replace: false,
        preshared_key: None,
        endpoint: None,
        keepalive_seconds: None,
        allowed_ips,
    }
}

fn full_peer() -> PeerChange {
    PeerChange {
        replace: true,
        preshared_key: Some(Zeroizing::new([0x52; 32])),
        endpoint: Some("192.0.2.1:51821".parse().expect("an endpoint")),
        keepalive_seconds: Some(25),
        ..peer(Some(prefixes(&["fd77:6d00::7/128", "10.1.0.0/16"])))
    }
}

fn emit(request: &Request) -> Result<String, Refusal> {
    let bytes = request.emit()?;
    Ok(String::from_utf8(bytes.to_vec()).expect("text"))
}

fn refused(request: &Request) -> Option<Refusal> {
    request.emit().err()
}

/// Written by hand from the layout in `verbs.rs`.
fn known() -> [(String, Request); 8] {
    let key = "a1".repeat(32);
    let host = interface("wm0", &["fd77:6d00::1/128"], &["10.1.2.0/24"]);
    let bare = interface("wmx", &[], &[]);
    [
        (
            "1 make wm0 1420 fd77:6d00::1/128 10.1.2.0/24".into(),
            Request::Make(host, None),
        ),
        (
            format!("1 make wmx 1420   {} 51820", "50".repeat(32)),
            Request::Make(bare.clone(), Some(settings(51820))),
        ),
        (
            format!("1 make wmx 1420   {} 0 9500000", "50".repeat(32)),
            Request::Make(bare, Some(limited(9_500_000))),
        ),
        (
            format!(
                "1 peer {key} replace {} 192.0.2.1:51821 25 fd77:6d00::7/128,10.1.0.0/16",
                "52".repeat(32)
            ),
            Request::SetPeer(full_peer()),
        ),
        (
            format!("1 peer {key} change - - - -"),
            Request::SetPeer(peer(None)),
        ),
        (
            format!("1 peer {key} change - - - "),
            Request::SetPeer(peer(Some(Vec::new()))),
        ),
        (format!("1 remove {key}"), Request::RemovePeer([0xa1; 32])),
        ("1 figures 128".into(), Request::ReadFigures(128)),
    ]
}

#[test]
fn known_requests_read_and_write() {
    for (text, request) in known() {
        assert_eq!(emit(&request), Ok(text.clone()));
        assert!(Request::parse(text.as_bytes()) == Ok(request), "{text}");
    }
}

#[test]
fn one_changed_byte_is_another_request_or_none() {
    for (text, _) in known() {
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                if let Ok(request) = Request::parse(&bytes) {
                    assert_eq!(request.emit().expect("parsed")[..], bytes);
                }
            }
        }
        for longer in [format!("{text} "), format!("{text}\0"), format!(" {text}")] {
            assert!(Request::parse(longer.as_bytes()).is_err(), "{longer:?}");
        }
    }
}

#[test]
fn other_ways_to_write_the_same_are_malformed() {
    let key = "a1".repeat(32);
    for text in [
        "1 make wm0 01420  ",
        "1 make wm0 +1420  ",
        "1 make wm0 1420 FD77::1/128 ",
        "1 make wm0 1420 fd77:0::1/128 ",
        "1 make wm0 1420 10.0.0.1/032 ",
        "1 make wm0 1420 10.0.0.1/32, ",
        "1 make wm0 1420 10.0.0.1 ",
        "1 make wm0 1420",
        "1 make wm0 1420   50 1",
        "1 figures  1",
        "1 figures -1",
        "1 figures 65536",
        "1 unmake wm0",
        &format!("1 remove {}", key.to_uppercase()),
        &format!("1 remove {}", &key[2..]),
        &format!("1 remove {key}a1"),
        &format!("1 remove {}zz", &key[2..]),
        &format!("1 peer {key} add - - - -"),
        &format!("1 peer {key} change - 192.0.2.1 - -"),
        &format!("1 peer {key} change - - - - -"),
        &format!("1 peer {key} change  - - -"),
    ] {
        let refused = Request::parse(text.as_bytes()).err();
        assert_eq!(refused, Some(Reason::Malformed.into()), "{text}");
    }
    for (bytes, reason) in [
        (&b"2 figures 0"[..], Reason::Version),
        (b"", Reason::Version),
        (b"\xff", Reason::Malformed),
        (b"1 make eth0 1420  ", Reason::Name),
    ] {
        assert_eq!(Request::parse(bytes).err(), Some(reason.into()));
    }
}

#[test]
fn names_have_the_prefix_and_few_characters() {
    for good in ["wm0", "wm-", "wmabcdefghijklm"] {
        assert_eq!(Name::parse(good).expect("good").as_str(), good);
    }
    for bad in [
        "",
        "wm",
        "eth0",
        "wm0 ",
        "wmA",
        "wm/",
        "wm.",
        "wm%d",
        "wm\0x",
        "wmabcdefghijklmn",
        "wmü",
    ] {
        assert_eq!(Name::parse(bad), Err(Reason::Name.into()), "{bad:?}");
    }
}

#[test]
fn only_private_networks_may_be_asked_for() {
    let routed = |net| Request::Make(interface("wm0", &[], &[net]), None);
    let addressed = |net| Request::Make(interface("wm0", &[net], &[]), None);
    let allowed = |net| Request::SetPeer(peer(Some(prefixes(&[net]))));
    for good in [
        "10.0.0.0/8",
        "172.31.0.0/16",
        "192.168.1.0/24",
        "100.64.0.0/10",
        "fd77:6d00::/25",
        "fc00::/7",
    ] {
        for request in [routed(good), addressed(good), allowed(good)] {
            assert_eq!(refused(&request), None, "{good}");
        }
    }
    for bad in [
        "0.0.0.0/0",
        "::/0",
        "8.8.8.0/24",
        "10.0.0.0/7",
        "10.0.0.0/33",
        "fd00::/129",
        "2000::/3",
        "fe80::/64",
        "127.0.0.0/8",
        "ff00::/8",
        "::ffff:10.0.0.0/104",
    ] {
        let expected = Some(Refusal::with(Reason::NotPrivate, bad));
        for request in [routed(bad), addressed(bad), allowed(bad)] {
            assert_eq!(refused(&request), expected);
        }
        // As a program would say it that does not check itself.
        let text = format!("1 make wm0 1420  {bad}");
        assert_eq!(Request::parse(text.as_bytes()).err(), expected);
        let text = format!("1 peer {} change - - - {bad}", "a1".repeat(32));
        assert_eq!(Request::parse(text.as_bytes()).err(), expected);
    }
    let expected = Some(Refusal::with(Reason::NoNetwork, "10.0.0.1/24"));
    assert_eq!(refused(&routed("10.0.0.1/24")), expected);
    assert_eq!(refused(&allowed("10.0.0.1/24")), expected);
    assert_eq!(refused(&addressed("10.0.0.1/24")), None);
}

#[test]
fn endpoints_are_outside_the_overlay_and_ports_are_not_the_systems() {
    for (endpoint, expected) in [
        ("[fd77:6d00::7]:2708", Some(Reason::Endpoint)),
        ("[fd77:6dff::7]:2708", Some(Reason::Endpoint)),
        ("[fd77:6e00::7]:2708", None),
        ("[fe80::1%3]:51820", None),
        ("127.0.0.1:9", None),
    ] {
        let text = format!("1 peer {} change - {endpoint} - -", "a1".repeat(32));
        let refused = Request::parse(text.as_bytes()).err();
        assert_eq!(refused.map(|refusal| refusal.reason), expected, "{text}");
    }
    for (port, expected) in [
        (0, None),
        (1, Some(Reason::Port)),
        (1023, Some(Reason::Port)),
        (1024, None),
    ] {
        let request = Request::Make(interface("wm0", &[], &[]), Some(settings(port)));
        assert_eq!(refused(&request).map(|refusal| refusal.reason), expected);
    }
}

#[test]
fn a_rate_is_within_bounds_and_of_one_form() {
    for (rate, expected) in [
        ("7999", Some(Reason::Rate)),
        ("8000", None),
        ("1000000000000", None),
        ("1000000000001", Some(Reason::Rate)),
        ("0", Some(Reason::Rate)),
        ("-", Some(Reason::Malformed)),
        ("", Some(Reason::Malformed)),
        ("08000", Some(Reason::Malformed)),
        ("18446744073709551616", Some(Reason::Malformed)),
        ("10000 10000", Some(Reason::Malformed)),
    ] {
        let text = format!("1 make wm0 1420   {} 0 {rate}", "50".repeat(32));
        let refused = Request::parse(text.as_bytes()).err();
        assert_eq!(refused.map(|refusal| refusal.reason), expected, "{rate}");
    }
    let request = Request::Make(interface("wm0", &[], &[]), Some(limited(7_999)));
    assert_eq!(refused(&request), Some(Refusal::with(Reason::Rate, 7_999)));
}

#[test]
fn sizes_have_limits() {
    let full = interface("wm0", &["10.0.0.1/32"; 8], &["10.0.0.1/32"; 64]);
    let make = |interface| Request::Make(interface, None);
    assert_eq!(refused(&make(full.clone())), None);
    let mut more = full.clone();
    more.addresses.push(more.routes[0]);
    assert_eq!(refused(&make(more)), Some(Reason::Malformed.into()));
    let mut more = full;
    more.routes.push(more.routes[0]);
    assert_eq!(refused(&make(more)), Some(Reason::Malformed.into()));
    let mut small = interface("wm0", &[], &[]);
    small.mtu_bytes = MTU_BYTES_MIN - 1;
    assert_eq!(refused(&make(small.clone())), Some(Reason::Mtu.into()));
    small.mtu_bytes += 1;
    assert_eq!(refused(&make(small)), None);
    let net = prefix("fd77:1234:1234:1234:1234:1234:1234:1234/128");
    let mut change = full_peer();
    change.endpoint = Some(longest_endpoint());
    change.allowed_ips = Some(vec![net; ALLOWED_IPS_MAX]);
    let longest = emit(&Request::SetPeer(change.clone())).expect("as many as go");
    assert!(longest.len() <= REQUEST_BYTES_MAX, "{}", longest.len());
    change.allowed_ips = Some(vec![net; ALLOWED_IPS_MAX + 1]);
    let refusal = refused(&Request::SetPeer(change));
    assert_eq!(refusal, Some(Reason::Malformed.into()));
    let longer = format!("{longest},{net}");
    let refusal = Request::parse(longer.as_bytes()).err();
    assert_eq!(refusal, Some(Reason::Malformed.into()));
}

fn longest_endpoint() -> SocketAddr {
    let address = prefix("2001:1234:1234:1234:1234:1234:1234:1234/128").address;
    match address {
        IpAddr::V6(address) => SocketAddrV6::new(address, 65535, 0, u32::MAX).into(),
        IpAddr::V4(_) => unreachable!("it is IPv6"),
    }
}

#[test]
fn overlap_is_by_the_shorter_network() {
    for (a, b, expected) in [
        ("10.0.0.0/8", "10.1.2.3/32", true),
        ("10.0.0.0/8", "11.0.0.0/8", false),
        ("0.0.0.0/0", "11.0.0.0/8", true),
        ("10.0.0.1/32", "10.0.0.1/32", true),
        ("10.0.0.0/32", "10.0.0.1/32", false),
        ("fd77:6d00::/25", "fd77:6d80::/25", false),
        ("fd77:6d00::/24", "fd77:6d80::1/128", true),
        ("::/0", "fd77:6d80::1/128", true),
        ("0.0.0.0/0", "::/0", false),
    ] {
        assert_eq!(prefix(a).overlaps(&prefix(b)), expected, "{a} {b}");
        assert_eq!(prefix(b).overlaps(&prefix(a)), expected, "{b} {a}");
    }
}

fn figures(public_key: Key, endpoint: Option<SocketAddr>) -> PeerFigures {
    PeerFigures {
        public_key,
        endpoint,
        last_handshake: Duration::new(1_700_000_000, 250_000_000),
        rx_bytes: 3,
        tx_bytes: u64::MAX,
    }
}

#[test]
fn replies_come_back_as_they_were() {
    let peers = vec![
        figures([0xa1; 32], Some(longest_endpoint())),
        figures([0xb2; 32], None),
    ];
    let mut longest = figures([0xc3; 32], Some(longest_endpoint()));
    longest.last_handshake = Duration::from_nanos(u64::MAX);
    longest.rx_bytes = u64::MAX;
    let listen_port = 51820;
    let many = Figures {
        listen_port,
        peers: vec![longest; FIGURES_MAX],
    };
    let mut replies = vec![
        Reply::Done(1),
        Reply::Done(u32::MAX),
        Reply::Figures(Figures::default(), 0),
        Reply::Figures(Figures { listen_port, peers }, 7),
        Reply::Figures(many, u16::MAX),
    ];
    for &reason in Reason::ALL {
        let details = ["", "10.0.0.0/8", "it  is ", &"ü".repeat(150)];
        let refusals = details.map(|detail| Reply::Refused(Refusal::with(reason, detail)));
        replies.extend(refusals);
    }
    for reply in replies {
        let bytes = reply.to_string().into_bytes();
        assert!(bytes.len() <= REPLY_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Reply::parse(&bytes), Some(reply.clone()));
        assert_eq!(Reply::parse(&bytes[1..]), None);
        if let Reply::Refused(refusal) = reply {
            assert!(refusal.to_string().contains(&refusal.detail));
        }
    }
    let known = format!("1 figures 51820 0 {} - 0 1 2", "a1".repeat(32));
    let peer = PeerFigures {
        last_handshake: Duration::ZERO,
        rx_bytes: 1,
        tx_bytes: 2,
        ..figures([0xa1; 32], None)
    };
    let peers = vec![peer];
    let expected = Reply::Figures(Figures { listen_port, peers }, 0);
    assert_eq!(Reply::parse(known.as_bytes()), Some(expected));
}

#[test]
fn nothing_shows_a_secret() {
    let shown = format!("{:?}", full_peer());
    assert!(shown.contains("a1a1") && !shown.contains("52, 52") && !shown.contains("5252"));
    // Requests and settings have no `Debug`: this compiles only while replies alone have it.
    let _ = format!("{:?}", Reply::Done(1));
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    let address = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        any::<u64>()
            .prop_map(|low| IpAddr::from((0xfd77_u128 << 112 | u128::from(low)).to_be_bytes())),
    ];
    (address, 8u8..=32).prop_map(|(address, bits)| Prefix { address, bits })
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let addresses = prop::collection::vec(any_prefix(), 0..=8);
    let routes = prop::collection::vec(any_network(), 0..=64);
    ("wm[a-z0-9-]{1,13}", 1280u16.., addresses, routes).prop_map(
        |(name, mtu_bytes, addresses, routes)| Interface {
            name: Name::parse(&name).expect("by construction"),
            mtu_bytes,
            addresses,
            routes,
        },
    )
}

fn any_network() -> impl Strategy<Value = Prefix> {
    let address = prop_oneof![
        any::<u16>().prop_map(|n| IpAddr::from([10, n.to_be_bytes()[0], n.to_be_bytes()[1], 0])),
        any::<u16>().prop_map(|n| IpAddr::from([0xfd77, n, 0, 0, 0, 0, 0, 0])),
    ];
    address.prop_map(|address| {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        Prefix { address, bits }
    })
}

fn any_endpoint() -> impl Strategy<Value = SocketAddr> {
    let v6 = (any::<u64>(), any::<u16>(), any::<u32>()).prop_map(|(low, port, scope)| {
        let address = (0x2001_u128 << 112 | u128::from(low)).into();
        SocketAddrV6::new(address, port, 0, scope).into()
    });
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(address, port)| (address, port).into()),
        v6
    ]
}

fn any_change() -> impl Strategy<Value = PeerChange> {
    let nets = prop::option::of(prop::collection::vec(any_network(), 0..=ALLOWED_IPS_MAX));
    (
        any::<(Key, bool, Option<Key>, Option<u16>)>(),
        prop::option::of(any_endpoint()),
        nets,
    )
        .prop_map(
            |((key, replace, psk, keepalive), endpoint, nets)| PeerChange {
                public_key: key,
                replace,
                preshared_key: psk.map(Zeroizing::new),
                endpoint,
                keepalive_seconds: keepalive,
                allowed_ips: nets,
            },
        )
}

/// Without `Debug`, so as its text, which `known_requests_read_and_write` ties to the request.
fn any_request_text() -> impl Strategy<Value = String> {
    let port = prop_oneof![Just(0u16), 1024u16..];
    let settings = prop::option::of((any::<Key>(), port, prop::option::of(RATE_BITS)));
    let text = |request: Request| emit(&request).expect("within bounds");
    prop_oneof![
        (any_interface(), settings).prop_map(move |(interface, settings)| {
            let settings = settings.map(|(key, listen_port, rate_bits)| WireguardSettings {
                private_key: Zeroizing::new(key),
                listen_port,
                rate_bits,
            });
            text(Request::Make(interface, settings))
        }),
        any_change().prop_map(move |change| text(Request::SetPeer(change))),
        any::<Key>().prop_map(move |key| text(Request::RemovePeer(key))),
        any::<u16>().prop_map(move |from| text(Request::ReadFigures(from))),
    ]
}

/// One form, or none.
fn check(bytes: &[u8]) {
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(request.emit().expect("parsed")[..], *bytes);
    }
    if let Some(reply) = Reply::parse(bytes) {
        assert_eq!(reply.to_string().as_bytes(), bytes);
    }
}

proptest! {
    #[test]
    fn changes_come_back_as_they_were(change in any_change()) {
        let request = Request::SetPeer(change);
        let bytes = request.emit().expect("within bounds");
        prop_assert!(Request::parse(&bytes) == Ok(request));
    }

    #[test]
    fn interfaces_come_back_as_they_were(
        interface in any_interface(),
        key: Key,
        rate_bits in prop::option::of(RATE_BITS),
    ) {
        let private_key = Zeroizing::new(key);
        let settings = WireguardSettings { private_key, listen_port: 51820, rate_bits };
        for settings in [None, Some(settings)] {
            let request = Request::Make(interface.clone(), settings);
            let bytes = request.emit().expect("within bounds");
            prop_assert!(Request::parse(&bytes) == Ok(request));
        }
    }

    #[test]
    fn figures_come_back_as_they_were(
        listen_port: u16,
        left: u16,
        peers in prop::collection::vec((any::<(Key, u64, u64, u64)>(), prop::option::of(any_endpoint())), 0..8),
    ) {
        let peers = peers.into_iter().map(|((public_key, time, rx_bytes, tx_bytes), endpoint)| PeerFigures {
            public_key,
            endpoint,
            last_handshake: Duration::from_nanos(time),
            rx_bytes,
            tx_bytes,
        });
        let reply = Reply::Figures(Figures { listen_port, peers: peers.collect() }, left);
        prop_assert_eq!(Reply::parse(reply.to_string().as_bytes()), Some(reply));
    }

    #[test]
    fn no_bytes_have_two_forms(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
        check(&bytes);
        check(&[b"1 ", &bytes[..]].concat());
    }

    #[test]
    fn no_words_have_two_forms(words in "1 (make|peer|remove|figures|done|refused)( [-0-9a-f:./,+%\\[\\]]{0,20}){0,8}") {
        check(words.as_bytes());
    }

    #[test]
    fn damaged_requests_never_come_back_different(text in any_request_text(), place: prop::sample::Index, value: u8) {
        check(text.as_bytes());
        let mut bytes = text.into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = value;
        check(&bytes);
        bytes.remove(place);
        check(&bytes);
    }
}
