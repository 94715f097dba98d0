//! What can be changed while a node runs, as `wg set` changes an interface.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use wiremesh::{AddPeerError, BindError, IpNet, Node, PeerConfig};

const PATIENCE: Duration = Duration::from_secs(10);

async fn node(address: &str) -> Node {
    let net: IpNet = "10.0.0.0/24".parse().unwrap();
    let builder = Node::builder().address(address.parse().unwrap(), net);
    builder.bind().await.unwrap()
}

fn at(node: &Node) -> SocketAddr {
    let mut own = node.listen_addresses();
    own.retain(SocketAddr::is_ipv4);
    SocketAddr::from(([127, 0, 0, 1], own[0].port()))
}

fn stock(other: &Node, allowed_ips: &[&str]) -> PeerConfig {
    PeerConfig {
        endpoints: vec![at(other).into()],
        allowed_ips: allowed_ips.iter().map(|net| net.parse().unwrap()).collect(),
        stock: true,
        ..PeerConfig::new(other.id())
    }
}

async fn reaches(node: &Node, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    node.ping(address, 8, PATIENCE).await.is_ok()
}

#[tokio::test]
async fn prefixes_endpoint_and_port_change_under_a_session() {
    let (a, b) = (node("10.0.0.1").await, node("10.0.0.2").await);
    let there = a.add_peer(stock(&b, &[])).unwrap();
    let here = b.add_peer(stock(&a, &["10.0.0.1/32"])).unwrap();
    assert!(!reaches(&a, "10.0.0.2").await, "nobody has the address");
    there
        .set_allowed_ips(&["10.0.0.2/32".parse().unwrap()])
        .unwrap();
    assert!(reaches(&a, "10.0.0.2").await);
    let overlay = IpNet::from(wiremesh::address::overlay_address(&b.id()));
    let third = node("10.0.0.3").await;
    let third = a.add_peer(stock(&third, &[])).unwrap();
    let taken = third.set_allowed_ips(&[overlay]).unwrap_err();
    assert!(matches!(taken, AddPeerError::Overlap { owner, .. } if owner == Some(b.id())));

    // The peer is told of the new port.
    let before = at(&b);
    b.listen_on(0).unwrap();
    assert_ne!(at(&b), before);
    assert!(reaches(&b, "10.0.0.1").await);
    assert!(reaches(&a, "10.0.0.2").await);
    assert_eq!(there.status().unwrap().endpoint, Some(at(&b)));

    // One that nobody is told of has to be said.
    let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    there.replace_endpoint(nowhere.local_addr().unwrap());
    let waited = Duration::from_millis(300);
    let lost = a.ping("10.0.0.2".parse().unwrap(), 8, waited).await;
    assert!(lost.is_err(), "it went to the endpoint that was set");
    there.replace_endpoint(at(&b));
    assert!(reaches(&a, "10.0.0.2").await);
    here.set_persistent_keepalive(Some(Duration::from_secs(25)));
    let kept = here.status().unwrap().persistent_keepalive;
    assert_eq!(kept, Some(Duration::from_secs(25)));
}

#[tokio::test]
async fn a_port_that_is_taken_changes_nothing() {
    let node = node("10.0.0.1").await;
    let before = node.listen_addresses();
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = node.listen_on(port).unwrap_err();
    assert!(matches!(refused, BindError::Sockets(_)), "{refused}");
    assert_eq!(node.listen_addresses(), before);
}
