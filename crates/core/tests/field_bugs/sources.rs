//! Where a peer is: endpoints, allowed IPs, and what goes to whom.

use crate::net::{Net, Sent};
use std::net::SocketAddr;
use wiremesh_core::{AddPeerError, DropReason, Event, Path, PeerConfig};
use wiremesh_wire::{IpNet, SecretKey};

fn attacker() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 6_666))
}

fn endpoint(net: &Net, at: usize, of: usize) -> Option<SocketAddr> {
    net.status(at, of).path.map(|path| path.remote)
}

#[test]
fn endpoint_is_not_learned_from_unauthenticated_bytes() {
    let mut net = Net::connected_pair();
    net.send(0, 1, b"genuine");
    net.run(100);
    net.rekey(0, 1);
    net.run(100);
    let home = Some(net.hosts[0].addr);
    assert_eq!(endpoint(&net, 1, 0), home);
    let captured: Vec<Sent> = net.sent_by(0).cloned().collect();
    for sent in &captured {
        // Replayed as it was, and with each of some bits flipped.
        net.deliver(attacker(), 1, &sent.bytes);
        for bit in (0..sent.bytes.len() * 8).step_by(61) {
            let mut bytes = sent.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            net.deliver(attacker(), 1, &bytes);
        }
        net.deliver(attacker(), 1, &sent.bytes[..sent.bytes.len() - 1]);
    }
    net.deliver(attacker(), 1, &[4, 0, 0, 0]);
    net.deliver(attacker(), 1, &[]);
    net.run(100);
    assert_eq!(endpoint(&net, 1, 0), home);
    assert!(
        net.log.iter().all(|sent| sent.to != attacker()),
        "nothing goes there"
    );
}

#[test]
fn endpoint_moves_on_the_newest_authenticated_data_and_not_back_by_a_late_packet() {
    let mut net = Net::connected_pair();
    net.lost = Box::new(|_| true);
    net.send(0, 1, b"late, from the old address");
    net.lost = Box::new(|_| false);
    let late = net.last(0, Sent::is_data);
    let old = net.hosts[0].addr;
    let new = SocketAddr::from(([198, 51, 100, 7], 40_000));
    net.hosts[0].addr = new;
    net.send(0, 1, b"from the new address");
    net.run(100);
    assert_eq!(endpoint(&net, 1, 0), Some(new));
    let peer = net.key(1, 0);
    let path = Path::to(new);
    assert!(
        net.hosts[1]
            .events
            .contains(&Event::EndpointChanged { peer, path })
    );
    net.deliver(old, 1, &late.bytes);
    assert_eq!(net.payloads(1).len(), 2, "it is delivered");
    assert_eq!(endpoint(&net, 1, 0), Some(new), "and moves nothing");
    net.send(1, 0, b"answer");
    net.run(100);
    assert_eq!(net.payloads(0), [b"answer".to_vec()]);
}

#[test]
fn an_initiation_alone_gives_no_endpoint() {
    // Node 1 knows the key of node 0 but not its address, and has a packet for it. An attacker
    // replays an initiation of node 0 that node 1 never saw.
    let mut net = Net::new();
    net.add(|_| ());
    net.add(|_| ());
    net.introduce(0, 1);
    net.introduce_with(1, 0, |_| ());
    net.lost = Box::new(|_| true);
    net.connect(0, 1);
    let captured = net.last(0, Sent::is_initiation);
    net.lost = Box::new(|_| false);
    net.log.clear();
    net.deliver(attacker(), 1, &captured.bytes);
    assert_eq!(endpoint(&net, 1, 0), None);
    net.send(1, 0, b"secret");
    net.run(60_000);
    let to_attacker: usize = net
        .log
        .iter()
        .filter(|sent| sent.to == attacker())
        .map(|sent| sent.bytes.len())
        .sum();
    assert!(
        to_attacker <= captured.bytes.len(),
        "{to_attacker} bytes for 148"
    );
}

#[test]
fn an_unconfirmed_session_does_not_move_the_endpoint() {
    let mut net = Net::connected_pair();
    let home = Some(net.hosts[0].addr);
    net.lost = Box::new(|_| true);
    net.rekey(0, 1);
    net.lost = Box::new(|_| false);
    let captured = net.last(0, Sent::is_initiation);
    net.deliver(attacker(), 1, &captured.bytes);
    net.run(100);
    assert_eq!(endpoint(&net, 1, 0), home);
    net.send(1, 0, b"still on the old session");
    net.run(100);
    assert_eq!(net.payloads(0), [b"still on the old session".to_vec()]);
}

#[test]
fn overlapping_allowed_ips_are_refused_and_never_moved() {
    let mut net = Net::pair();
    let lan: IpNet = "10.1.0.0/16".parse().unwrap();
    let third = SecretKey::from_bytes([77; 32]);
    let id = wiremesh_noise::LocalIdentity::new(third).unwrap().node_id();
    let (now, owner) = (net.now, net.key(0, 1));
    let node = &mut net.hosts[0].node;
    node.remove_peer(owner);
    let mut config = PeerConfig::new(id);
    config.allowed_ips = vec![lan];
    let owner = node.add_peer(now, config).unwrap();
    let other = net.id(1);
    let node = &mut net.hosts[0].node;
    for wanted in [
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
    ] {
        let mut config = PeerConfig::new(other);
        config.allowed_ips = vec!["192.168.0.0/24".parse().unwrap(), wanted.parse().unwrap()];
        let refused = node.add_peer(now, config);
        assert!(matches!(refused, Err(AddPeerError::Overlap(_))), "{wanted}");
        assert_eq!(
            node.peer_by_address("10.1.2.3".parse().unwrap()),
            Some(owner)
        );
        assert_eq!(
            node.peer_by_address("192.168.0.1".parse().unwrap()),
            None,
            "no half"
        );
        assert_eq!(node.usage().peers, 1);
    }
}

#[test]
fn each_answer_to_an_unauthenticated_source_is_smaller_than_the_question() {
    // Under load and not, to known and unknown keys.
    for handshakes_per_second_max in [0, 1_000] {
        let mut net = Net::new();
        net.add(|_| ());
        net.add(|config| config.limits.handshakes_per_second_max = handshakes_per_second_max);
        net.introduce(0, 1);
        net.introduce_with(1, 0, |_| ());
        net.lost = Box::new(|_| true);
        net.connect(0, 1);
        let initiation = net.last(0, Sent::is_initiation);
        net.lost = Box::new(|_| false);
        for n in 0..100u16 {
            let source = SocketAddr::from(([203, 0, 113, 9], 1_000 + n));
            let before = net.log.len();
            net.deliver(source, 1, &initiation.bytes);
            let answers: usize = net.log[before..].iter().map(|sent| sent.bytes.len()).sum();
            assert!(answers <= 148, "{answers}");
        }
        net.run(60_000);
        let answers: usize = net.sent_by(1).map(|sent| sent.bytes.len()).sum();
        assert!(answers <= 100 * 148);
        let replayed = net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::HandshakeReplayed);
        assert_eq!(
            replayed,
            if handshakes_per_second_max == 0 {
                0
            } else {
                99
            }
        );
    }
}
