//! Verbs of the privileged helper: what parses is within bounds, and has one form.

use std::net::{IpAddr, Ipv4Addr};
use wiremesh_netadmin::verbs::{
    ADDRESSES_MAX, ALLOWED_IPS_MAX, DETAIL_BYTES_MAX, Interface, MTU_BYTES_MIN, PeerChange, Prefix,
    REPLY_BYTES_MAX, REQUEST_BYTES_MAX, ROUTES_MAX, Reply, Request,
};

/// Reads a request and a reply, and writes them again.
pub fn run(bytes: &[u8]) {
    match Request::parse(bytes) {
        Ok(request) => {
            let emitted = request.emit().expect("it was within bounds");
            assert_eq!(emitted[..], *bytes, "two forms");
            assert!(bytes.len() <= REQUEST_BYTES_MAX);
            match request {
                Request::Make(interface, settings) => {
                    check_interface(&interface);
                    if let Some(settings) = settings {
                        assert!(settings.listen_port == 0 || settings.listen_port > 1023);
                        let rate = settings.rate_bits.unwrap_or(8_000);
                        assert!((8_000..=1_000_000_000_000).contains(&rate), "{rate}");
                    }
                }
                Request::SetPeer(change) => check_change(&change),
                Request::RemovePeer(_) | Request::ReadFigures(_) => {}
            }
        }
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            let reply = Reply::Refused(refusal);
            let emitted = reply.to_string();
            assert!(emitted.len() <= REPLY_BYTES_MAX);
            assert_eq!(Reply::parse(emitted.as_bytes()), Some(reply));
        }
    }
    if let Some(reply) = Reply::parse(bytes) {
        assert_eq!(reply.to_string().as_bytes(), bytes, "two forms");
        if let Reply::Refused(refusal) = reply {
            assert!(refusal.detail.len() <= DETAIL_BYTES_MAX);
        }
    }
}

/// The bounds, in other words than the parser's.
fn check_interface(interface: &Interface) {
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
    for prefix in &interface.addresses {
        let (first, last) = ends(prefix);
        assert!(is_private(first) && is_private(last), "{prefix}");
    }
    interface.routes.iter().for_each(check_network);
}

fn check_change(change: &PeerChange) {
    let allowed_ips = change.allowed_ips.as_deref().unwrap_or(&[]);
    assert!(allowed_ips.len() <= ALLOWED_IPS_MAX);
    allowed_ips.iter().for_each(check_network);
    if let Some(IpAddr::V6(address)) = change.endpoint.map(|endpoint| endpoint.ip()) {
        assert_ne!(address.octets()[..3], [0xfd, 0x77, 0x6d], "{address}");
    }
}

fn check_network(prefix: &Prefix) {
    let (first, last) = ends(prefix);
    assert!(is_private(first) && is_private(last), "{prefix}");
    assert_eq!(first, prefix.address, "{prefix}");
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
