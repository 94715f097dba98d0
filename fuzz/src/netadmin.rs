//! Verbs of the privileged helper: what parses is within bounds, and has one form.

use std::net::{IpAddr, Ipv4Addr};
use wiremesh_netadmin::verbs::{
    ADDRESSES_MAX, DETAIL_BYTES_MAX, Interface, MTU_BYTES_MIN, Prefix, REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX, ROUTES_MAX, Reply, Request,
};

/// Reads a request and a reply, and writes them again.
pub fn run(bytes: &[u8]) {
    match Request::parse(bytes) {
        Ok(request) => {
            assert_eq!(request.emit().as_deref(), Ok(bytes), "two forms");
            assert!(bytes.len() <= REQUEST_BYTES_MAX);
            let Request::MakeTun(interface) = request;
            check(&interface);
        }
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            let reply = Reply(Err(refusal));
            let emitted = reply.emit();
            assert!(emitted.len() <= REPLY_BYTES_MAX);
            assert_eq!(Reply::parse(&emitted), Some(reply));
        }
    }
    if let Some(reply) = Reply::parse(bytes) {
        assert_eq!(reply.emit(), bytes, "two forms");
        assert!(reply.0.map_or_else(|r| r.detail.len(), |_| 0) <= DETAIL_BYTES_MAX);
    }
}

/// The bounds, in other words than the parser's.
fn check(interface: &Interface) {
    let name = interface.name.as_str();
    assert!(
        name.starts_with("wm") && (3..=15).contains(&name.len()),
        "{name}"
    );
    assert!(
        name.chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-')),
        "{name}"
    );
    assert!(interface.mtu_bytes >= MTU_BYTES_MIN);
    assert!(interface.addresses.len() <= ADDRESSES_MAX && interface.routes.len() <= ROUTES_MAX);
    for prefix in interface.addresses.iter().chain(&interface.routes) {
        let (first, last) = ends(prefix);
        assert!(is_private(first) && is_private(last), "{prefix}");
    }
    for route in &interface.routes {
        assert_eq!(ends(route).0, route.address, "{route}");
    }
}

/// The first and the last address.
fn ends(prefix: &Prefix) -> (IpAddr, IpAddr) {
    match prefix.address {
        IpAddr::V4(address) => {
            let host = u64::from(u32::MAX) >> prefix.bits;
            let first = u32::from(address) & !(host as u32);
            (
                Ipv4Addr::from(first).into(),
                Ipv4Addr::from(first | host as u32).into(),
            )
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
            let first = u128::from(address) & !host;
            (
                IpAddr::from(first.to_be_bytes()),
                IpAddr::from((first | host).to_be_bytes()),
            )
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}
