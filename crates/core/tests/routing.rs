//! Which addresses are a peer's: by its key, as given, and changed while it is a peer.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;

use net::Net;
use std::net::IpAddr;
use wiremesh_core::{AddPeerError, DropReason, PeerConfig, Routing};
use wiremesh_wire::IpNet;
use wiremesh_wire::address::{control_address, overlay_address};

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with two peers that have these prefixes.
fn three(routing: Routing, first: &[&str], second: &[&str]) -> Net {
    let mut net = Net::new();
    net.add(|config| config.routing = routing);
    net.add(|_| ());
    net.add(|_| ());
    net.introduce_with(0, 1, |config| config.allowed_ips = nets(first));
    net.introduce_with(0, 2, |config| config.allowed_ips = nets(second));
    net
}

#[test]
fn prefixes_of_a_peer_are_replaced_all_or_none() {
    let mut net = three(
        Routing::Overlay,
        &["10.0.0.0/24", "10.1.0.0/24"],
        &["10.2.0.0/24"],
    );
    let (a, b) = (net.key(0, 1), net.key(0, 2));
    let overlay = IpAddr::from(overlay_address(&net.id(1)));
    let node = &mut net.hosts[0].node;
    let overlap = node.set_allowed_ips(a, &nets(&["10.3.0.0/24", "10.2.0.7/32"]));
    assert_eq!(overlap.unwrap_err().owner, b);
    assert_eq!(node.peer_by_address(ip("10.3.0.1")), None, "none is added");
    assert_eq!(
        node.peer_by_address(ip("10.0.0.1")),
        Some(a),
        "none is taken"
    );

    let wanted = nets(&["10.1.0.0/24", "10.3.0.0/24"]);
    assert_eq!(node.set_allowed_ips(a, &wanted), Ok(true));
    assert_eq!(node.peer_by_address(ip("10.0.0.1")), None);
    assert_eq!(node.peer_by_address(ip("10.1.0.1")), Some(a));
    assert_eq!(node.peer_by_address(ip("10.3.0.1")), Some(a));
    assert_eq!(node.set_allowed_ips(a, &[]), Ok(true));
    assert_eq!(node.peer_by_address(overlay), Some(a), "its own stays");
    assert_eq!(*net.status(0, 1).allowed_ips, []);
}

#[test]
fn own_addresses_named_among_the_prefixes_stay_when_those_go() {
    let mut net = three(Routing::Overlay, &[], &[]);
    let a = net.key(0, 1);
    let overlay = IpNet::from(overlay_address(&net.id(1)));
    let node = &mut net.hosts[0].node;
    assert_eq!(node.set_allowed_ips(a, &[overlay]), Ok(true));
    assert_eq!(node.set_allowed_ips(a, &[]), Ok(true));
    assert_eq!(node.peer_by_address(overlay.addr()), Some(a));
}

#[test]
fn as_given_means_nested_moving_and_nothing_by_key() {
    let mut net = three(
        Routing::AsGiven,
        &["0.0.0.0/0", "10.0.0.2/32"],
        &["10.0.0.2/32"],
    );
    let (a, b) = (net.key(0, 1), net.key(0, 2));
    assert_eq!(
        *net.status(0, 1).allowed_ips,
        nets(&["0.0.0.0/0"]),
        "it moved"
    );
    let own = [overlay_address(&net.id(1)), control_address(&net.id(1))];
    let node = &mut net.hosts[0].node;
    assert_eq!(node.peer_by_address(ip("10.0.0.2")), Some(b));
    assert_eq!(node.peer_by_address(ip("10.0.0.3")), Some(a));
    for address in own {
        assert_eq!(node.peer_by_address(address.into()), None);
    }
    assert_eq!(node.set_allowed_ips(a, &nets(&["10.0.0.2/32"])), Ok(true));
    assert_eq!(
        node.peer_by_address(ip("10.0.0.2")),
        Some(a),
        "the last one has it"
    );
    assert!(node.remove_peer(b));
    assert_eq!(
        node.peer_by_address(ip("10.0.0.2")),
        Some(a),
        "b had lost it"
    );
}

#[test]
fn as_given_a_packet_from_the_address_of_a_key_is_dropped() {
    let mut net = Net::new();
    net.add(|_| ());
    net.add(|config| config.routing = Routing::AsGiven);
    net.introduce(0, 1);
    net.introduce(1, 0);
    net.send(0, 1, b"hello");
    net.run(200);
    assert_eq!(net.payloads(1), Vec::<Vec<u8>>::new());
    let dropped = net.hosts[1].node.counters();
    assert_eq!(dropped.dropped(DropReason::SourceNotAllowed), 1);

    let key = net.key(1, 0);
    let given = [IpNet::from(overlay_address(&net.id(0)))];
    let node = &mut net.hosts[1].node;
    assert_eq!(node.set_allowed_ips(key, &given), Ok(true));
    net.send(0, 1, b"again");
    net.run(200);
    assert_eq!(net.payloads(1), [b"again".to_vec()]);
}

#[test]
fn a_peer_whose_prefix_is_taken_is_not_added() {
    let mut net = three(Routing::Overlay, &["10.0.0.0/24"], &[]);
    let taker = net.add(|_| ());
    let mut config = PeerConfig::new(net.id(taker));
    config.allowed_ips = nets(&["10.9.0.0/24", "10.0.0.0/8"]);
    let (now, node) = (net.now, &mut net.hosts[0].node);
    let refused = node.add_peer(now, config);
    assert!(matches!(refused, Err(AddPeerError::Overlap(_))));
    assert_eq!(
        node.peer_by_address(ip("10.9.0.1")),
        None,
        "nothing of it stays"
    );
}
