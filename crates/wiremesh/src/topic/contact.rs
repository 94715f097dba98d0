//! Where a node is, as topics pass it on: a few socket addresses in a few bytes.
//!
//! Owns their layout (docs/spec.md section 9.2) and which of the addresses that strangers name are
//! worth a packet. Never sends one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use wiremesh_gossip::ADDRESSES_MAX;

const V4: u8 = 4;
const V6: u8 = 6;

/// As many of the addresses as fit, in their order.
pub(super) fn emit(addresses: &[SocketAddr]) -> Vec<u8> {
    let mut out = Vec::new();
    for address in addresses {
        let mut one = Vec::with_capacity(19);
        match address.ip() {
            IpAddr::V4(ip) => {
                one.push(V4);
                one.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                one.push(V6);
                one.extend_from_slice(&ip.octets());
            }
        }
        one.extend_from_slice(&address.port().to_be_bytes());
        if out.len() + one.len() <= ADDRESSES_MAX {
            out.extend_from_slice(&one);
        }
    }
    out
}

/// The addresses in front of the first byte that makes no sense. Only such as a node can have;
/// loopback ones only if this node is to be found there itself.
pub(super) fn parse(mut bytes: &[u8], on_loopback: bool) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    while let Some((address, rest)) = one(bytes) {
        bytes = rest;
        let ip = address.ip();
        let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        let nowhere = ip.is_unspecified() || ip.is_multicast() || broadcast || address.port() == 0;
        if !nowhere && (on_loopback || !ip.to_canonical().is_loopback()) {
            found.push(address);
        }
    }
    found
}

fn one(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (ip, rest) = match *kind {
        V4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
        }
        V6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_written_is_read_and_what_does_not_fit_is_left_out() {
        let v6 = address("[2001:db8::1]:4000");
        let v4 = address("192.0.2.1:5000");
        assert_eq!(emit(&[v4]), [4, 192, 0, 2, 1, 0x13, 0x88]);
        assert_eq!(parse(&emit(&[v6, v4]), false), [v6, v4]);
        let many = [v6, v6, v6, v6, v4];
        assert_eq!(parse(&emit(&many), false), [v6, v6, v6, v4]);
        assert!(emit(&many).len() <= ADDRESSES_MAX);
    }

    #[test]
    fn addresses_that_no_node_has_are_passed_over_and_nonsense_ends_the_list() {
        let bad = [
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.1:0",
        ];
        let local = ["127.0.0.1:7", "[::1]:7", "[::ffff:127.0.0.1]:7"];
        let good = address("192.0.2.9:9");
        let mut all: Vec<SocketAddr> = bad.map(address).to_vec();
        all.push(good);
        assert_eq!(parse(&emit(&all), true), [good]);
        let local = local.map(address);
        assert_eq!(parse(&emit(&local), false), []);
        assert_eq!(parse(&emit(&local), true), local);
        let mut cut = emit(&[good, good]);
        cut.pop();
        assert_eq!(parse(&cut, false), [good]);
        assert_eq!(parse(&[5, 1, 2, 3, 4, 5, 6], false), []);
        assert_eq!(parse(&[], false), []);
    }
}
