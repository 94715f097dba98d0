//! The kernel's WireGuard, driven and read back, with `wg` as the witness.
//!
//! Needs root, and a kernel with WireGuard: `interop` runs it in its guest too.
#![cfg(target_os = "linux")]

use rustix::thread::UnshareFlags;
use std::net::IpAddr;
use std::process::Command;
use wiremesh_netlink::wireguard::{self, Key, PeerSettings};
use wiremesh_netlink::{interface, nftables};

const NAME: &str = "wm0";
/// Where a test must not be skipped.
const REQUIRED: &str = "WIREMESH_KERNEL_WIREGUARD";

/// Clamped, so that the kernel gives the same back: `wg genkey` makes such keys.
const SECRET: Key = [0x50; 32];
const PSK: Key = [0x52; 32];

fn index() -> u32 {
    let links = interface::links().expect("a list");
    let link = links.iter().find(|link| link.name == NAME);
    link.expect("it was made").index
}

fn net(text: &str) -> (IpAddr, u8) {
    let (address, bits) = text.split_once('/').expect("address/bits");
    (
        address.parse().expect("an address"),
        bits.parse().expect("bits"),
    )
}

fn wg(what: &str) -> String {
    let output = Command::new("wg").args(["show", NAME, what]).output();
    let output = output.expect("wg of wireguard-tools");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Public keys are any points; these have their top bit clear, as the kernel gives them back.
fn key(byte: u8) -> Key {
    [byte & 0x7f; 32]
}

#[test]
fn kernel_takes_what_is_set_and_shows_it() {
    // Deprecated for its flag FILES, which is not given.
    #[allow(deprecated)]
    let made = rustix::thread::unshare(UnshareFlags::NEWNET);
    let made = made.map_err(std::io::Error::from);
    if let Err(error) = made.and_then(|()| wireguard::create(NAME)) {
        assert!(std::env::var_os(REQUIRED).is_none(), "{error}");
        eprintln!("skipped: no namespace, or a kernel without WireGuard: {error}");
        return;
    }
    assert!(wireguard::create(NAME).is_err(), "the name is in use");
    device_and_peers();
    many_allowed_ips();
    interface::delete(index()).expect("ours");
    assert!(
        interface::links()
            .expect("a list")
            .iter()
            .all(|link| link.name != NAME)
    );
    // The other half of the helper's work on the same kernel.
    let guard = nftables::Guard {
        interface: NAME,
        addresses: &[],
        uid: 7,
    };
    nftables::set(&guard).expect("nftables");
    nftables::set(&guard).expect("a table of before is replaced");
    assert_eq!(nftables::interfaces().expect("a list"), [NAME]);
    nftables::remove(NAME).expect("it is there");
    assert!(nftables::interfaces().expect("a list").is_empty());
}

fn device_and_peers() {
    let index = index();
    wireguard::set(index, &SECRET, 51820).expect("settings");
    let first = PeerSettings {
        public_key: &key(0xa1),
        replace: false,
        preshared_key: Some(&PSK),
        endpoint: Some("192.0.2.1:51821".parse().expect("an endpoint")),
        keepalive_seconds: Some(25),
        allowed_ips: Some(&[net("fd77:6d80::1/128"), net("10.1.0.0/16")]),
    };
    wireguard::set_peer(index, &first).expect("a peer");
    let second = PeerSettings {
        public_key: &key(0x32),
        replace: false,
        preshared_key: None,
        endpoint: Some("[2001:db8::9]:9".parse().expect("an endpoint")),
        keepalive_seconds: None,
        allowed_ips: None,
    };
    wireguard::set_peer(index, &second).expect("another");

    let device = wireguard::device(index).expect("it is read");
    assert_eq!(device.listen_port, 51820);
    assert!(device.public_key.is_some());
    assert_eq!(device.peers.len(), 2);
    for (peer, set) in [(&key(0xa1), &first), (&key(0x32), &second)] {
        let found = device.peers.iter().find(|known| known.public_key == *peer);
        let found = found.expect("both are there");
        assert_eq!(found.endpoint, set.endpoint);
        assert_eq!(found.keepalive_seconds, set.keepalive_seconds.unwrap_or(0));
        let mut nets = found.allowed_ips.clone();
        let mut wanted = set.allowed_ips.unwrap_or(&[]).to_vec();
        nets.sort();
        wanted.sort();
        assert_eq!(nets, wanted);
    }
    assert_eq!(wg("listen-port"), "51820\n");
    let endpoints = wg("endpoints");
    assert!(endpoints.contains("\t192.0.2.1:51821\n") && endpoints.contains("\t[2001:db8::9]:9\n"));
    // 32 times 0x52 in base64.
    assert!(wg("preshared-keys").contains("\tUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlI=\n"));
    assert_eq!(wg("preshared-keys").matches("(none)").count(), 1);

    // In place: nothing else changes.
    let change = PeerSettings {
        preshared_key: Some(&[0; 32]),
        endpoint: None,
        keepalive_seconds: None,
        allowed_ips: None,
        ..first
    };
    wireguard::set_peer(index, &change).expect("a change");
    assert_eq!(wg("preshared-keys").matches("(none)").count(), 2);
    assert_eq!(wireguard::device(index).expect("it is read"), device);
    // Removed and made anew by one message: nothing that was set before stays.
    let anew = PeerSettings {
        replace: true,
        keepalive_seconds: None,
        allowed_ips: Some(&[net("10.1.0.0/16")]),
        endpoint: None,
        ..first
    };
    wireguard::set_peer(index, &anew).expect("a change");
    let peers = wireguard::device(index).expect("it is read").peers;
    let found = peers.iter().find(|known| known.public_key == key(0xa1));
    let found = found.expect("it is there again");
    assert_eq!((found.endpoint, found.keepalive_seconds), (None, 0));
    assert_eq!(found.allowed_ips, [net("10.1.0.0/16")]);
    assert_eq!(peers.len(), 2);
    assert_eq!(wg("preshared-keys").matches("(none)").count(), 1);
    wireguard::remove_peer(index, &key(0x32)).expect("it is there");
    wireguard::remove_peer(index, &key(0x32)).expect("none is none");
    assert_eq!(wireguard::device(index).expect("it is read").peers.len(), 1);
}

/// More than one message, both ways.
fn many_allowed_ips() {
    let nets: Vec<_> = (0..2500u16)
        .map(|n| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]), 128))
        .collect();
    let peer = PeerSettings {
        public_key: &key(0x44),
        replace: false,
        preshared_key: None,
        endpoint: None,
        keepalive_seconds: None,
        allowed_ips: Some(&nets),
    };
    wireguard::set_peer(index(), &peer).expect("a peer");
    let device = wireguard::device(index()).expect("it is read");
    let found = device
        .peers
        .iter()
        .find(|known| known.public_key == key(0x44));
    let mut found = found.expect("it is there").allowed_ips.clone();
    found.sort();
    assert_eq!(found, nets);
}
