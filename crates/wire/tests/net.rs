//! IP networks: text, limits, and agreement with a model that compares bits.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use wiremesh_wire::address::{ALL_NET, CONTROL_NET, OVERLAY_NET};
use wiremesh_wire::{IpNet, IpNetError};

fn net(text: &str) -> IpNet {
    text.parse().expect(text)
}

#[test]
fn host_bits_are_cleared() {
    let table = [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("255.255.255.255/0", "0.0.0.0/0"),
        ("255.255.255.255/31", "255.255.255.254/31"),
        ("fd77:6dff::1/25", "fd77:6d80::/25"),
        ("::1", "::1/128"),
        ("ffff::/0", "::/0"),
        ("::ffff:10.0.0.1/128", "::ffff:10.0.0.1/128"),
        ("10.0.0.0/008", "10.0.0.0/8"),
    ];
    for (text, shown) in table {
        assert_eq!(net(text).to_string(), shown);
        assert_eq!(format!("{:?}", net(text)), shown);
    }
}

#[test]
fn wrong_texts_are_named() {
    use IpNetError::{Address, Prefix, PrefixTooLong};
    let table = [
        ("", Address),
        ("/8", Address),
        ("10.0.0/8", Address),
        (" 10.0.0.0/8", Address),
        ("host/8", Address),
        ("fe80::1%1/64", Address),
        ("10.0.0.0/", Prefix),
        ("10.0.0.0/+8", Prefix),
        ("10.0.0.0/8 ", Prefix),
        ("10.0.0.0/8/8", Prefix),
        ("10.0.0.0/255.0.0.0", Prefix),
        ("10.0.0.0/33", PrefixTooLong(32)),
        ("10.0.0.0/256", PrefixTooLong(32)),
        ("::/129", PrefixTooLong(128)),
        ("::/99999999999999999999", PrefixTooLong(128)),
    ];
    for (text, error) in table {
        assert_eq!(text.parse::<IpNet>(), Err(error), "{text}");
    }
}

#[test]
fn overlay_networks_split_the_whole() {
    assert_eq!(OVERLAY_NET, net("fd77:6d00::/25"));
    assert_eq!(CONTROL_NET, net("fd77:6d80::/25"));
    assert_eq!(ALL_NET, net("fd77:6d00::/24"));
    assert!(!OVERLAY_NET.overlaps(&CONTROL_NET));
    assert!(ALL_NET.overlaps(&OVERLAY_NET) && CONTROL_NET.overlaps(&ALL_NET));
}

#[test]
fn families_never_meet() {
    assert!(!net("0.0.0.0/0").contains("::".parse().expect("an address")));
    assert!(!net("::/0").contains("0.0.0.0".parse().expect("an address")));
    assert!(!net("::/0").overlaps(&net("0.0.0.0/0")));
    assert!(!net("0.0.0.0/32").overlaps(&net("::/0")));
}

/// The address as text of zeros and ones, which tells the families apart by its length.
fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    // Few different bits, so that networks often meet.
    let v4 = (0..=32u8, 0..4u32, 0..4u32)
        .prop_map(|(prefix, high, low)| (Ipv4Addr::from_bits(high << 30 | low).into(), prefix));
    let v6 = (0..=128u8, 0..4u128, 0..4u128)
        .prop_map(|(prefix, high, low)| (Ipv6Addr::from_bits(high << 126 | low).into(), prefix));
    prop_oneof![v4, v6].prop_map(|(addr, prefix)| IpNet::new(addr, prefix).expect("in range"))
}

proptest! {
    #[test]
    fn contains_and_overlaps_agree_with_the_bits(a in any_net(), b in any_net()) {
        let (a_bits, b_bits) = (bits(a.addr()), bits(b.addr()));
        let same = a_bits.len() == b_bits.len();
        let holds = same && b_bits.starts_with(&a_bits[..a.prefix().into()]);
        prop_assert_eq!(a.contains(b.addr()), holds);
        let both = usize::from(a.prefix().min(b.prefix()));
        let overlap = same && a_bits[..both] == b_bits[..both];
        prop_assert_eq!(a.overlaps(&b), overlap);
        prop_assert_eq!(b.overlaps(&a), overlap);
        prop_assert!(!a_bits[a.prefix().into()..].contains('1'));
    }

    #[test]
    fn text_comes_back(address: IpAddr, prefix: u8) {
        let limit = if address.is_ipv4() { 32 } else { 128 };
        match IpNet::new(address, prefix) {
            Ok(net) => {
                prop_assert!(prefix <= limit);
                prop_assert!(net.contains(address));
                prop_assert_eq!(net.to_string().parse(), Ok(net));
            }
            Err(error) => {
                prop_assert!(prefix > limit);
                prop_assert_eq!(error, IpNetError::PrefixTooLong(limit));
            }
        }
        prop_assert_eq!(IpNet::from(address), address.to_string().parse().expect("an address"));
    }

    #[test]
    fn no_text_panics(text in "[0-9a-f:./%+ ]{0,50}", any in any::<String>()) {
        for text in [text, any] {
            if let Ok(net) = text.parse::<IpNet>() {
                prop_assert_eq!(net.to_string().parse(), Ok(net));
            }
        }
    }
}
