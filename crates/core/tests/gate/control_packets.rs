//! Between control addresses nothing passes but the control protocol, whatever the gate.

use crate::net::{Net, Sent, packet};
use crate::raw::{Raw, udp};
use crate::{
    L2, dropped, made_with, pair_below_the_gate, pair_with_both, send_control, set_gate,
    upgraded_pair,
};
use std::net::{IpAddr, Ipv6Addr};
use wiremesh_core::{DropReason, GATE_CLOSED, NotReady, Rejected};
use wiremesh_wire::address::{CONTROL_NET, CONTROL_PORT, control_address, overlay_address};

/// An address of the control network that belongs to nobody here.
fn nobody() -> Ipv6Addr {
    "fd77:6d80::1".parse().unwrap()
}

fn counts(net: &Net, at: usize) -> [u64; 3] {
    [
        DropReason::ControlUnexpected,
        DropReason::ControlOnly,
        DropReason::SourceNotAllowed,
    ]
    .map(|reason| dropped(net, at, reason))
}

#[test]
fn control_packets_pass_on_every_session() {
    // The control protocol is off: it tells that the packet has come by dropping it.
    for mut net in [
        Net::connected_pair(),
        pair_below_the_gate(),
        upgraded_pair(),
    ] {
        for from in 0..2 {
            assert!(send_control(&mut net, from, b"message"));
            net.run(100);
            assert_eq!(counts(&net, 1 - from), [1, 0, 0]);
            assert!(net.payloads(1 - from).is_empty(), "and nobody else gets it");
        }
    }
}

#[test]
fn a_control_packet_on_its_way_survives_a_rekey_below_the_gate() {
    let mut net = pair_below_the_gate();
    net.lost = Box::new(|sent| sent.is_data());
    send_control(&mut net, 0, b"late");
    let late = net.last(0, Sent::is_data);
    net.lost = Box::new(|_| false);
    net.rekey(0, 1);
    net.run(100);
    net.deliver(late.from, 1, &late.bytes);
    assert_eq!(counts(&net, 1), [1, 0, 0]);
}

#[test]
fn control_packets_pass_a_gate_that_has_just_closed() {
    let mut net = upgraded_pair();
    set_gate(&mut net, 1, GATE_CLOSED);
    assert!(send_control(&mut net, 0, b"there"));
    assert!(send_control(&mut net, 1, b"back"));
    net.run(6_000);
    assert_eq!(counts(&net, 0)[0] + counts(&net, 1)[0], 2);
}

#[test]
fn without_a_session_or_room_no_control_packet_is_sent_or_kept() {
    let mut net = crate::gated_pair();
    assert!(!send_control(&mut net, 0, b"message"));
    assert!(net.log.is_empty(), "nor is a handshake started");
    assert_eq!(net.hosts[0].node.usage().links, 0);

    let mut net = pair_below_the_gate();
    let sent = net.log.len();
    assert!(!send_control(&mut net, 0, &[0; 1_420 - 47]), "too long");
    assert_eq!(net.log.len(), sent);
    assert!(send_control(&mut net, 0, &[0; 1_420 - 48]));
    let (key, now) = (net.key(0, 1), net.now);
    let node = &mut net.hosts[0].node;
    let queued = (0..10_000)
        .take_while(|_| node.test_send_control(now, key, b"x"))
        .count();
    assert_eq!(queued, 8_192);
}

#[test]
fn control_packets_go_on_the_session_that_the_peer_proved_last() {
    let mut net = pair_with_both();
    assert_eq!(made_with(&net, 0), Some((1, L2)), "data goes on that one");
    // Host 1 loses its memory and comes back; host 0 does not know yet that the old ones are dead.
    net.restart(1, 9, true);
    net.introduce(1, 0);
    set_gate(&mut net, 1, L2);
    net.connect(1, 0);
    net.run(6_000);
    assert_eq!(made_with(&net, 1), Some((0, 1)));
    assert_eq!(made_with(&net, 0), Some((1, L2)));
    assert!(send_control(&mut net, 0, b"message"));
    net.run(100);
    assert_eq!(counts(&net, 1), [1, 0, 0]);
    assert_eq!(dropped(&net, 1, DropReason::UnknownIndex), 0);
}

#[test]
fn nothing_else_comes_in_from_or_to_a_control_address() {
    let mut net = Net::new();
    let mut raw = Raw::connect(&mut net);
    let (own, peer) = (net.id(0), raw.id);
    let (ours, theirs) = (control_address(&own), control_address(&peer));
    let (our_overlay, their_overlay) = (overlay_address(&own), overlay_address(&peer));
    let port = CONTROL_PORT;
    assert!(CONTROL_NET.contains(IpAddr::V6(nobody())));

    let fine = udp((theirs, port), (ours, port), b"message");
    raw.send(&mut net, &fine);
    assert_eq!(counts(&net, 0), [1, 0, 0]);

    let mut not_udp = fine.clone();
    not_udp[6] = 6;
    let mut icmp = fine.clone();
    icmp[6] = 58;
    let mut extended = fine.clone();
    extended[6] = 0;
    let mut damaged = fine.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut no_udp_header = fine[..44].to_vec();
    no_udp_header[4..6].copy_from_slice(&[0, 4]);
    let bad = [
        udp((theirs, port + 1), (ours, port), b"x"),
        udp((theirs, port), (ours, port + 1), b"x"),
        udp((theirs, 0), (ours, 53), b"x"),
        udp((their_overlay, port), (ours, port), b"x"),
        udp((their_overlay, 53), (ours, 53), b"x"),
        udp((theirs, port), (our_overlay, port), b"x"),
        udp((theirs, 2_708), (our_overlay, 2_708), b"x"),
        udp((theirs, port), (nobody(), port), b"x"),
        udp((their_overlay, 1), (nobody(), 1), b"x"),
        udp((theirs, 1), (Ipv6Addr::LOCALHOST, 1), b"x"),
        not_udp,
        icmp,
        extended,
        damaged,
        no_udp_header,
    ];
    for (n, packet) in bad.iter().enumerate() {
        raw.send(&mut net, packet);
        let [unexpected, control_only, source] = counts(&net, 0);
        assert_eq!((unexpected, control_only), (1, n as u64 + 1), "packet {n}");
        assert_eq!(source, 0);
    }
    // Someone else's control address is not the peer's to use at all.
    raw.send(&mut net, &udp((nobody(), port), (ours, port), b"x"));
    assert_eq!(counts(&net, 0), [1, bad.len() as u64, 1]);
    assert!(net.payloads(0).is_empty());
    // Just beside the control network all is as ever.
    raw.send_data(&mut net, b"data");
    assert_eq!(net.payloads(0), [b"data".to_vec()]);
}

#[test]
fn nothing_is_sent_from_or_to_a_control_address() {
    let mut net = Net::connected_pair();
    let (own, peer) = (net.id(0), net.id(1));
    let (ours, theirs) = (control_address(&own), control_address(&peer));
    let (key, now) = (net.key(0, 1), net.now);
    let sent = net.log.len();
    let bad = [
        udp((ours, CONTROL_PORT), (theirs, CONTROL_PORT), b"x"),
        udp((overlay_address(&own), 7), (theirs, 7), b"x"),
        udp((ours, 7), (overlay_address(&peer), 7), b"x"),
        udp((ours, 7), (nobody(), 7), b"x"),
    ];
    let node = &mut net.hosts[0].node;
    for packet in &bad {
        let refused = node.handle_packet(now, packet.clone());
        assert_eq!(refused, Err(Rejected::NoRoute(packet.clone())));
        let mut out = b"before".to_vec();
        let fill = |room: &mut [u8]| room.copy_from_slice(packet);
        let refused = node.seal_packet(now, key, packet.len(), &mut out, fill);
        assert_eq!(refused, Err(NotReady::ControlOnly));
        assert_eq!(out, b"before");
    }
    let count = node.counters().dropped(DropReason::ControlOnly);
    assert_eq!(count, 2 * bad.len() as u64);

    // No counter of the session was used up.
    net.send(0, 1, b"data");
    assert_eq!(net.log.len(), sent + 1);
    assert_eq!(net.log[sent].counter(), 1);

    // Nor is such a packet staged, and no handshake is started for it.
    let mut net = Net::pair();
    let now = net.now;
    let node = &mut net.hosts[0].node;
    assert!(node.handle_packet(now, bad[1].clone()).is_err());
    assert_eq!(node.usage().staged_packets, 0);
    net.run(1_000);
    assert!(net.log.is_empty());
    let fine = packet(&own, &peer, b"data");
    assert!(net.hosts[0].node.handle_packet(now, fine).is_ok());
}
