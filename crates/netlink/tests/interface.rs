//! Requests to a real kernel, in a network namespace that a thread makes for itself.
#![cfg(target_os = "linux")]

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::io;
use std::net::IpAddr;
use wiremesh_netlink::interface::{self, Link};

/// Runs the test in a namespace with nothing but `lo`, which is down; not without root.
fn in_namespace(test: impl FnOnce(u32) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // Deprecated for its flag FILES, which is not given.
        #[allow(deprecated)]
        let made = rustix::thread::unshare(UnshareFlags::NEWNET);
        match made {
            Ok(()) => test(lo().index),
            Err(error) => eprintln!("skipped: no network namespace: {error}"),
        }
    });
    thread.join().expect("the test passes");
}

fn lo() -> Link {
    let links = interface::links().expect("a list");
    links
        .into_iter()
        .find(|link| link.name == "lo")
        .expect("always there")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn errno(result: io::Result<()>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn addresses_and_routes_of_both_families_are_there_when_they_were_added() {
    in_namespace(|lo| {
        interface::set_up(lo).expect("up");
        for (own, bits, net, net_bits) in [
            ("10.9.0.1", 24, "192.168.9.0", 24),
            ("fd00:9::1", 128, "fd00:10::", 64),
        ] {
            interface::add_address(lo, address(own), bits).expect("added");
            interface::add_route(lo, address(net), net_bits).expect("added");
            let networks = interface::networks().expect("a list");
            assert!(networks.contains(&(address(own), bits)), "{networks:?}");
            assert!(networks.contains(&(address(net), net_bits)), "{networks:?}");
        }
    });
}

#[test]
fn errors_are_the_kernels() {
    in_namespace(|lo| {
        let (own, net) = (address("10.9.0.1"), address("192.168.9.0"));
        assert_eq!(
            errno(interface::add_route(lo, net, 24)),
            Some(Errno::NETDOWN)
        );
        interface::set_up(lo).expect("up");
        interface::add_address(lo, own, 24).expect("added");
        assert_eq!(
            errno(interface::add_address(lo, own, 24)),
            Some(Errno::EXIST)
        );
        interface::add_route(lo, net, 24).expect("added");
        assert_eq!(errno(interface::add_route(lo, net, 24)), Some(Errno::EXIST));
        let nobody = u32::from(u16::MAX);
        assert_eq!(errno(interface::set_up(nobody)), Some(Errno::NODEV));
        assert_eq!(
            errno(interface::add_address(nobody, own, 24)),
            Some(Errno::NODEV)
        );
        assert_eq!(errno(interface::delete(nobody)), Some(Errno::NODEV));
        assert_eq!(errno(interface::delete(lo)), Some(Errno::OPNOTSUPP));
    });
}
