//! The bytes of the verbs: known ones, the bounds, and any bytes at all.
#![cfg(target_os = "linux")]

use proptest::prelude::*;
use std::net::IpAddr;
use wiremesh_netadmin::verbs::{
    Interface, MTU_BYTES_MIN, Name, Prefix, REPLY_BYTES_MAX, Reason, Refusal, Reply, Request,
};
use zeroize::Zeroizing;

fn prefix(text: &str) -> Prefix {
    let (address, bits) = text.split_once('/').expect("address/bits");
    Prefix {
        address: address.parse().expect("an address"),
        bits: bits.parse().expect("bits"),
    }
}

fn interface(name: &str, addresses: &[&str], routes: &[&str]) -> Interface {
    Interface {
        name: Name::parse(name).expect("a good name"),
        mtu_bytes: 1420,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        routes: routes.iter().map(|text| prefix(text)).collect(),
    }
}

fn emit(interface: Interface) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    Request::MakeTun(interface).emit()
}

/// Written by hand from the layout in `verbs.rs`.
const KNOWN: &[u8] = b"\x01\x01\x3c\x00wm0\0\0\0\0\0\0\0\0\0\0\0\0\0\x8c\x05\x01\x01\
    \x06\xfd\x77\x6d\0\0\0\0\0\0\0\0\0\0\0\0\x01\x80\
    \x04\x0a\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x18";

#[test]
fn known_request_reads_and_writes() {
    let known = interface("wm0", &["fd77:6d00::1/128"], &["10.1.2.0/24"]);
    assert_eq!(*emit(known.clone()).expect("good"), KNOWN);
    assert_eq!(Request::parse(KNOWN), Ok(Request::MakeTun(known)));
}

#[test]
fn one_changed_byte_is_another_request_or_none() {
    for place in 0..KNOWN.len() {
        for bit in 0..8 {
            let mut bytes = KNOWN.to_vec();
            bytes[place] ^= 1 << bit;
            if let Ok(request) = Request::parse(&bytes) {
                assert_eq!(*request.emit().expect("parsed"), bytes);
            }
        }
    }
    for length in 0..KNOWN.len() {
        assert!(Request::parse(&KNOWN[..length]).is_err(), "{length}");
    }
    let longer = [KNOWN, b"\0"].concat();
    assert_eq!(Request::parse(&longer), Err(Reason::Malformed.into()));
    let mut verb = KNOWN.to_vec();
    verb[1] = 2;
    assert_eq!(Request::parse(&verb), Err(Reason::Malformed.into()));
    let mut version = KNOWN.to_vec();
    version[0] = 2;
    assert_eq!(Request::parse(&version), Err(Reason::Version.into()));
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
    for good in [
        "10.0.0.0/8",
        "172.31.0.0/16",
        "192.168.1.0/24",
        "100.64.0.0/10",
        "fd77:6d00::/25",
        "fc00::/7",
    ] {
        assert!(emit(interface("wm0", &[], &[good])).is_ok(), "{good}");
    }
    for bad in [
        "0.0.0.0/0",
        "::/0",
        "8.8.8.0/24",
        "10.0.0.0/7",
        "2000::/3",
        "fe80::/64",
        "127.0.0.0/8",
        "ff00::/8",
    ] {
        let refused = Err(Refusal::with(Reason::NotPrivate, bad));
        assert_eq!(emit(interface("wm0", &[], &[bad])), refused);
        assert_eq!(emit(interface("wm0", &[bad], &[])), refused);
    }
    let bits = prefix("10.0.0.1/24");
    assert_eq!(
        emit(interface("wm0", &[], &["10.0.0.1/24"])),
        Err(Refusal::with(Reason::NoNetwork, bits))
    );
    assert!(emit(interface("wm0", &["10.0.0.1/24"], &[])).is_ok());
}

#[test]
fn sizes_have_limits() {
    let full = interface("wm0", &["10.0.0.1/32"; 8], &["10.0.0.1/32"; 64]);
    assert!(emit(full.clone()).is_ok());
    let mut more = full.clone();
    more.addresses.push(more.routes[0]);
    assert_eq!(emit(more), Err(Reason::Malformed.into()));
    let mut more = full;
    more.routes.push(more.routes[0]);
    assert_eq!(emit(more), Err(Reason::Malformed.into()));
    let mut small = interface("wm0", &[], &[]);
    small.mtu_bytes = MTU_BYTES_MIN - 1;
    assert_eq!(emit(small.clone()), Err(Reason::Mtu.into()));
    small.mtu_bytes += 1;
    assert!(emit(small).is_ok());
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

#[test]
fn replies_come_back_as_they_were() {
    let mut replies = vec![Reply::Made(1), Reply::Made(u32::MAX), Reply::Done];
    for &reason in Reason::ALL {
        let details = ["", "10.0.0.0/8", &"ü".repeat(150)];
        let refusals = details.map(|detail| Reply::Refused(Refusal::with(reason, detail)));
        replies.extend(refusals);
    }
    for reply in replies {
        let bytes = reply.emit();
        assert!(bytes.len() <= REPLY_BYTES_MAX);
        assert_eq!(Reply::parse(&bytes), Some(reply.clone()));
        assert_eq!(Reply::parse(&bytes[1..]), None);
        if let Reply::Refused(refusal) = reply {
            assert!(refusal.to_string().contains(&refusal.detail));
        }
    }
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    let address = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        any::<u64>()
            .prop_map(|low| IpAddr::from((0xfd77_u128 << 112 | u128::from(low)).to_be_bytes())),
    ];
    (address, 8u8..=32).prop_map(|(address, bits)| Prefix { address, bits })
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were(
        name in "wm[a-z0-9-]{1,13}",
        mtu_bytes in 1280u16..,
        addresses in prop::collection::vec(any_prefix(), 0..=8),
    ) {
        let name = Name::parse(&name).expect("by construction");
        let request = Request::MakeTun(Interface { name, mtu_bytes, addresses, routes: vec![] });
        let bytes = request.emit().expect("within bounds");
        prop_assert_eq!(Request::parse(&bytes), Ok(request));
    }

    #[test]
    fn no_bytes_have_two_forms(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert_eq!(&*request.emit().expect("parsed"), &bytes);
        }
        if let Some(reply) = Reply::parse(&bytes) {
            prop_assert_eq!(&reply.emit()[..], &bytes[..]);
        }
    }

    #[test]
    fn damaged_requests_never_come_back_different(place in 0..60usize, value: u8) {
        let mut bytes = KNOWN.to_vec();
        bytes[place] = value;
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert_eq!(&*request.emit().expect("parsed"), &bytes);
        }
    }
}
