//! Transport data: counters, order, and what is shown when nothing flows.

use crate::net::{Net, Sent, packet};
use std::time::Duration;
use wiremesh_core::{DropReason, PeerState};

/// `count` sealed packets of node 0 that are not on the wire yet.
fn sealed(net: &mut Net, count: u32) -> Vec<Sent> {
    net.log.clear();
    net.lost = Box::new(|_| true);
    for n in 0..count {
        net.send(0, 1, &n.to_le_bytes());
    }
    net.lost = Box::new(|_| false);
    net.log
        .iter()
        .filter(|sent| sent.is_data())
        .cloned()
        .collect()
}

fn opens(net: &mut Net, sent: &Sent) -> bool {
    net.deliver(sent.from, 1, &sent.bytes);
    !net.payloads(1).is_empty()
}

#[test]
fn replay_window_takes_packets_8128_behind_once_and_none_further() {
    let mut net = Net::connected_pair();
    let sent = sealed(&mut net, 8_200);
    let newest = sent.len() - 1;
    assert!(opens(&mut net, &sent[newest]));
    assert!(!opens(&mut net, &sent[newest - 8_129]), "behind the window");
    assert!(opens(&mut net, &sent[newest - 8_128]), "the last one in it");
    for behind in &sent[newest - 8_127..newest] {
        assert!(opens(&mut net, behind), "{}", behind.counter());
    }
    for n in [newest, newest - 1, newest - 4_000, newest - 8_128] {
        assert!(!opens(&mut net, &sent[n]), "a counter is taken once");
    }
    assert_eq!(
        net.hosts[1].node.counters().dropped(DropReason::Replayed),
        5
    );
}

#[test]
fn replay_is_marked_only_after_decryption() {
    let mut net = Net::connected_pair();
    let sent = sealed(&mut net, 2);
    let mut forged = sent[0].clone();
    *forged.bytes.last_mut().unwrap() ^= 1;
    assert!(!opens(&mut net, &forged));
    // A forgery with a huge counter must not move the window either.
    let mut far = sent[1].clone();
    far.bytes[8..16].copy_from_slice(&1_000_000u64.to_le_bytes());
    assert!(!opens(&mut net, &far));
    assert_eq!(
        net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::Unauthenticated),
        2
    );
    assert!(opens(&mut net, &sent[1]) && opens(&mut net, &sent[0]));
}

#[test]
fn counter_zero_is_accepted_once_also_when_late() {
    let mut net = Net::pair();
    net.send(0, 1, b"zero");
    net.send(0, 1, b"one");
    net.lost = Box::new(|sent| sent.kind() == 4);
    net.run(100);
    let data: Vec<Sent> = net
        .sent_by(0)
        .filter(|sent| sent.is_data())
        .cloned()
        .collect();
    assert_eq!((data[0].counter(), data[1].counter()), (0, 1));
    assert!(opens(&mut net, &data[1]), "also as the confirming one");
    assert!(opens(&mut net, &data[0]));
    assert!(!opens(&mut net, &data[0]) && !opens(&mut net, &data[1]));
}

#[test]
fn packets_leave_in_the_order_of_their_nonces_and_of_their_arrival() {
    let mut net = Net::pair();
    for n in 0..20u8 {
        net.send(0, 1, &[n]);
    }
    net.run(100);
    for n in 20..40u8 {
        net.send(0, 1, &[n]);
    }
    net.rekey(0, 1);
    for n in 40..80u8 {
        net.send(0, 1, &[n]);
        net.run(1);
    }
    net.run(100);
    let mut last: Option<(u32, u64)> = None;
    for sent in net.sent_by(0).filter(|sent| sent.kind() == 4) {
        let this = (sent.receiver(), sent.counter());
        if let Some((receiver, counter)) = last.filter(|(receiver, _)| *receiver == this.0) {
            assert_eq!(this, (receiver, counter + 1));
        } else {
            assert_eq!(this.1, 0, "a session starts at counter zero");
        }
        last = Some(this);
    }
    let order: Vec<u8> = net.payloads(1).iter().map(|payload| payload[0]).collect();
    assert_eq!(order, (0..80).collect::<Vec<u8>>());
}

#[test]
fn status_does_not_say_connected_while_no_data_flows() {
    let mut net = Net::connected_pair();
    assert_eq!(net.state(0, 1), PeerState::Connected);
    net.lost = Box::new(|_| true);
    let mut shown = Vec::new();
    for _ in 0..170u32 {
        net.send(0, 1, b"anyone there?");
        net.run(1_000);
        shown.push(net.state(0, 1));
    }
    assert!(
        shown[13..].iter().all(|state| *state == PeerState::Silent),
        "{shown:?}"
    );
    net.run_for(Duration::from_secs(30));
    assert_ne!(net.state(0, 1), PeerState::Connected);
    net.lost = Box::new(|_| false);
    net.send(0, 1, b"now");
    net.run(6_000);
    assert_eq!(net.state(0, 1), PeerState::Connected);
}

#[test]
fn status_stays_connected_for_one_way_traffic_and_for_idleness() {
    let mut net = Net::connected_pair();
    for second in 0..110u32 {
        if second % 13 == 0 {
            net.send(0, 1, b"one way");
        }
        net.run(1_000);
        assert_eq!(net.state(0, 1), PeerState::Connected, "second {second}");
        assert_eq!(net.state(1, 0), PeerState::Connected, "second {second}");
    }
}

#[test]
fn packet_from_outside_the_allowed_ips_is_dropped() {
    let mut net = Net::connected_pair();
    net.add(|_| ());
    net.introduce(0, 2);
    net.introduce(1, 2);
    net.introduce(2, 1);
    // Node 0 seals for node 1 a packet that says it is from node 2.
    let forged = packet(&net.id(2), &net.id(1), b"I am 2");
    net.hosts[0].node.handle_packet(net.now, forged).unwrap();
    net.run(100);
    assert!(net.payloads(1).is_empty());
    assert_eq!(
        net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::SourceNotAllowed),
        1
    );
}

#[test]
fn staged_packets_are_bounded_and_given_back() {
    let mut net = Net::new();
    net.add(|config| config.limits.staged_packets_max = 3);
    net.add(|_| ());
    net.introduce(0, 1);
    net.introduce(1, 0);
    net.lost = Box::new(|_| true);
    for n in 0..3 {
        net.send(0, 1, &[n]);
    }
    assert!(net.try_send(0, 1, &[3]).is_err());
    net.lost = Box::new(|_| false);
    net.run(6_000);
    assert_eq!(net.payloads(1), [[0], [1], [2]].map(|p| p.to_vec()));
}

#[test]
fn staged_packets_of_all_peers_share_one_pool() {
    let mut net = Net::new();
    net.add(|config| {
        config.limits.staged_packets_max = 100;
        config.limits.staged_bytes_max = 2_000;
    });
    net.add(|_| ());
    net.add(|_| ());
    net.introduce(0, 1);
    net.introduce(0, 2);
    net.lost = Box::new(|_| true);
    let mut taken = 0;
    while net.try_send(0, 1 + taken % 2, &[7; 100]).is_ok() {
        taken += 1;
    }
    let usage = net.hosts[0].node.usage();
    assert_eq!(usage.staged_packets, taken);
    assert!((1_500..=2_000).contains(&usage.staged_bytes), "{usage:?}");
    for to in [1, 2] {
        assert!(net.try_send(0, to, &[7; 100]).is_err());
    }
    let counters = net.hosts[0].node.counters();
    assert_eq!(counters.dropped(DropReason::StagedFull), 3);
    // Whatever forgets the packets gives their room back.
    let key = net.hosts[0].node.peers().next().expect("two peers");
    net.hosts[0].node.remove_peer(key);
    assert!(net.hosts[0].node.usage().staged_bytes <= 1_200);
    net.run(100_000);
    assert_eq!(net.hosts[0].node.usage().staged_bytes, 0);
}
