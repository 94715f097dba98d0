//! Stream packets without IP and UDP headers: who sends them, who takes them, and what becomes of
//! the others. docs/spec.md section 4.1.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;

use net::{Net, Sent};
use std::net::SocketAddr;
use wiremesh_control::{Policy, Stage};
use wiremesh_core::{ControlConfig, DropReason, NodeConfig, NotReady, Path};
use wiremesh_wire::address::{STREAM_PORT, overlay_address};
use wiremesh_wire::{Content, ip};

/// A packet with a short header, and one with a long one.
const SHORT: u8 = 0x41;
const LONG: u8 = 0xc3;

fn with_bare_streams(allowed: bool) -> impl FnOnce(&mut NodeConfig) {
    move |config: &mut NodeConfig| {
        config.control = Some(ControlConfig {
            bare_streams: allowed,
            ..ControlConfig::default()
        });
    }
}

/// Nodes that know each other, without a session.
fn nodes(allowed: &[bool]) -> Net {
    let mut net = Net::new();
    for allowed in allowed {
        net.add(with_bare_streams(*allowed));
    }
    for (at, _) in allowed.iter().enumerate() {
        for whom in (0..allowed.len()).filter(|whom| *whom != at) {
            net.introduce(at, whom);
        }
    }
    net
}

/// Two nodes that have agreed.
fn pair(allowed: [bool; 2]) -> Net {
    let mut net = nodes(&allowed);
    meet(&mut net, 0, 1);
    net
}

fn meet(net: &mut Net, at: usize, whom: usize) {
    net.connect(at, whom);
    net.run(1_000);
    assert!(net.ready(at, whom) && net.ready(whom, at), "no session");
}

fn stream_packet(first: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0x77; len];
    packet[0] = first;
    packet
}

/// Seals a stream packet and puts it on the wire; gives the datagram.
fn send(net: &mut Net, from: usize, to: usize, packet: &[u8]) -> Result<Vec<u8>, NotReady> {
    let (now, key, addr) = (net.now, net.key(from, to), net.hosts[from].addr);
    let mut datagram = Vec::new();
    let node = &mut net.hosts[from].node;
    let path = node.seal_stream_packet(now, key, packet, &mut datagram);
    if path.is_err() {
        assert!(datagram.is_empty());
    }
    assert_eq!(path?, Path::to(net.hosts[to].addr));
    net.inject(addr, to, &datagram);
    net.run(50);
    Ok(datagram)
}

/// The same packet with IPv6 and UDP headers.
fn in_ip(net: &Net, from: usize, to: usize, packet: &[u8], ecn: u8) -> Vec<u8> {
    let mut bytes = vec![0; ip::IPV6_UDP_HEADER_LEN];
    bytes.extend_from_slice(packet);
    let end = |host: usize| (overlay_address(&net.id(host)), STREAM_PORT);
    ip::emit_ipv6_udp(&mut bytes, end(from), end(to), packet.len(), ecn);
    bytes
}

fn send_in_ip(net: &mut Net, from: usize, to: usize, packet: &[u8], ecn: u8) -> Vec<u8> {
    let packet = in_ip(net, from, to, packet, ecn);
    let now = net.now;
    net.hosts[from]
        .node
        .handle_packet(now, packet.clone())
        .unwrap();
    net.run(50);
    packet
}

fn take(net: &mut Net, at: usize) -> Vec<Vec<u8>> {
    net.hosts[at].sources.clear();
    std::mem::take(&mut net.hosts[at].received)
}

fn bare(net: &Net, at: usize, whom: usize) -> bool {
    net.status(at, whom).bare_streams
}

fn dropped(net: &Net, at: usize, reason: DropReason) -> u64 {
    net.hosts[at].node.counters().dropped(reason)
}

#[test]
fn two_nodes_that_agree_leave_the_headers_out_and_do_not_pad() {
    let mut net = pair([true, true]);
    let mut sent = 0;
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(bare(&net, from, to));
        for len in (1..40).chain([1_199, 1_200, 1_419, 1_420]) {
            for first in [SHORT, LONG, 0x7f, 0xff, 0x60, 0x40] {
                let packet = stream_packet(first, len);
                let datagram = send(&mut net, from, to, &packet).unwrap();
                assert_eq!(datagram.len(), len + 32);
                let key = net.key(to, from);
                assert_eq!(net.hosts[to].sources, [(Content::Stream, key)]);
                assert_eq!(take(&mut net, to), [packet]);
                sent += 1;
            }
        }
    }
    let counted = |at: usize| {
        let counters = net.hosts[at].node.counters();
        (counters.bare_sent, counters.bare_received)
    };
    assert_eq!(counted(0), (sent / 2, sent / 2));
    assert_eq!(counted(1), (sent / 2, sent / 2));
    // The other form goes on, for everything else.
    net.send(0, 1, b"data");
    net.run(50);
    assert_eq!(net.hosts[1].sources[0].0, Content::Packet);
    assert_eq!(net.payloads(1), [b"data".to_vec()]);
}

#[test]
fn unless_both_say_so_streams_keep_their_headers_both_ways() {
    for allowed in [[true, false], [false, true], [false, false]] {
        let mut net = pair(allowed);
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(!bare(&net, from, to), "{allowed:?}");
            let packet = stream_packet(SHORT, 100);
            let sent = send(&mut net, from, to, &packet);
            assert_eq!(sent, Err(NotReady::BareNotAgreed), "{allowed:?}");
            let packet = send_in_ip(&mut net, from, to, &packet, 2);
            assert_eq!(take(&mut net, to), [packet], "{allowed:?}");
            assert_eq!(net.hosts[from].node.counters().bare_sent, 0);
        }
    }
}

#[test]
fn at_l1_streams_keep_their_headers() {
    let mut net = nodes(&[true, true]);
    for host in &mut net.hosts {
        let policy = Policy::at(Stage::OldOnly);
        host.node.set_policy(net.now, policy).unwrap();
    }
    meet(&mut net, 0, 1);
    let packet = stream_packet(SHORT, 100);
    let sent = send(&mut net, 0, 1, &packet);
    assert_eq!(sent, Err(NotReady::BareNotAgreed));
    // Both move on to L2 while they run, and one of them back.
    for (stage, expected) in [(Stage::Both, true), (Stage::OldOnly, false)] {
        let now = net.now;
        for host in &mut net.hosts {
            host.node.set_policy(now, Policy::at(stage)).unwrap();
        }
        for _ in 0..2 {
            let sent = send_in_ip(&mut net, 0, 1, &packet, 0);
            net.run(2_000);
            let taken = take(&mut net, 1);
            assert!(taken == [sent] || taken == [&packet[..]], "{stage:?}");
        }
        assert_eq!(bare(&net, 0, 1), expected, "{stage:?}");
        assert_eq!(bare(&net, 1, 0), expected, "{stage:?}");
    }
}

/// Host 0 knows host 1 as stock WireGuard, which it is.
fn beside_a_stock_peer() -> Net {
    let mut net = Net::new();
    net.add(with_bare_streams(true));
    net.add(|_| ());
    let endpoint = Some(net.hosts[1].addr);
    net.introduce_with(0, 1, |config| {
        config.endpoint = endpoint;
        config.stock = true;
    });
    net.introduce(1, 0);
    meet(&mut net, 0, 1);
    net
}

#[test]
fn stock_peers_keep_the_headers_and_cannot_leave_them_out() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut net = beside_a_stock_peer();
        assert!(!bare(&net, from, to));
        let packet = stream_packet(SHORT, 100);
        let sent = send(&mut net, from, to, &packet);
        assert_eq!(sent, Err(NotReady::BareNotAgreed));
        let key = net.key(from, to);
        net.hosts[from].node.test_send_bare_streams(key);
        send(&mut net, from, to, &packet).unwrap();
        assert_eq!(dropped(&net, to, DropReason::BareNotAgreed), 1);
        assert_eq!(take(&mut net, to), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn from_a_peer_that_did_not_announce_them_they_are_dropped_and_counted() {
    for allowed in [[false, true], [true, false]] {
        let mut net = pair(allowed);
        let key = net.key(0, 1);
        net.hosts[0].node.test_send_bare_streams(key);
        let mut sent = 0;
        for first in [SHORT, LONG, 0x7f, 0xff] {
            send(&mut net, 0, 1, &stream_packet(first, 1_200)).unwrap();
            sent += 1;
        }
        assert_eq!(dropped(&net, 1, DropReason::BareNotAgreed), sent);
        assert_eq!(take(&mut net, 1), Vec::<Vec<u8>>::new());
        assert_eq!(net.hosts[1].node.counters().bare_received, 0);
        net.send(1, 0, b"as before");
        net.run(50);
        assert_eq!(net.payloads(0), [b"as before".to_vec()]);
    }
}

/// Host 0 is put in place of one that had agreed: it has its key and nothing else.
fn with_a_thief() -> Net {
    let mut net = pair([true, true]);
    net.hosts[0].node = net.make(0, 9, |_| ());
    net.introduce(0, 1);
    let key = net.key(0, 1);
    net.hosts[0].node.test_send_bare_streams(key);
    net.connect(0, 1);
    // Every second answer is under the boot key.
    net.run(12_000);
    assert!(net.ready(0, 1), "no session");
    net
}

#[test]
fn on_a_session_below_the_gate_they_are_dropped_and_counted() {
    let mut net = with_a_thief();
    assert!(bare(&net, 1, 0), "it was agreed once");
    send(&mut net, 0, 1, &stream_packet(SHORT, 1_200)).unwrap();
    send(&mut net, 0, 1, &stream_packet(LONG, 1_200)).unwrap();
    assert_eq!(dropped(&net, 1, DropReason::BelowLevel), 2);
    assert_eq!(take(&mut net, 1), Vec::<Vec<u8>>::new());
    assert_eq!(net.hosts[1].node.counters().bare_received, 0);
}

#[test]
fn they_belong_to_the_peer_of_the_session_wherever_they_come_from() {
    let mut net = nodes(&[true, true, true]);
    meet(&mut net, 1, 0);
    meet(&mut net, 2, 0);
    let (now, key) = (net.now, net.key(1, 0));
    let mut datagram = Vec::new();
    let packet = stream_packet(SHORT, 60);
    let node = &mut net.hosts[1].node;
    node.seal_stream_packet(now, key, &packet, &mut datagram)
        .unwrap();
    let elsewhere: SocketAddr = net.hosts[2].addr;
    net.inject(elsewhere, 0, &datagram);
    // Once: replay protection is that of every packet.
    net.inject(elsewhere, 0, &datagram);
    net.run(50);
    assert_eq!(net.hosts[0].sources, [(Content::Stream, net.key(0, 1))]);
    assert_eq!(dropped(&net, 0, DropReason::Replayed), 1);
}

#[test]
fn a_packet_without_the_fixed_bit_is_counted_and_not_sent() {
    let mut net = pair([true, true]);
    let before = net.status(0, 1).tx_bytes;
    let mut refused = 0;
    for first in (0..=255u8).filter(|first| first & 0x40 == 0) {
        let sent = send(&mut net, 0, 1, &stream_packet(first, 100));
        assert_eq!(sent, Err(NotReady::NoFixedBit), "{first:#x}");
        refused += 1;
    }
    assert_eq!(send(&mut net, 0, 1, &[]), Err(NotReady::NoFixedBit));
    assert_eq!(dropped(&net, 0, DropReason::NoFixedBit), refused + 1);
    assert_eq!(net.status(0, 1).tx_bytes, before);
    // No nonce was used up.
    send(&mut net, 0, 1, &stream_packet(SHORT, 100)).unwrap();
    assert_eq!(take(&mut net, 1).len(), 1);
}

#[test]
fn what_waited_for_the_agreement_goes_without_headers_and_keeps_its_mark() {
    let mut net = nodes(&[true, true]);
    let packet = stream_packet(LONG, 1_200);
    send_in_ip(&mut net, 0, 1, &packet, 2);
    net.run(1_000);
    assert_eq!(net.hosts[1].sources, [(Content::Stream, net.key(1, 0))]);
    assert_eq!(take(&mut net, 1), [packet]);
    let sent = net.last(0, |sent| sent.bytes.len() >= 1_200 && sent.is_data());
    assert_eq!((sent.bytes.len(), sent.ecn), (1_232, 2));
    // Other ports, other sources and packets without the fixed bit keep their headers.
    let near = in_ip(&net, 0, 1, &stream_packet(0x20, 100), 2);
    let mut other_port = in_ip(&net, 0, 1, &stream_packet(SHORT, 100), 2);
    other_port[41] ^= 1;
    for packet in [near, other_port] {
        let now = net.now;
        net.hosts[0]
            .node
            .handle_packet(now, packet.clone())
            .unwrap();
        net.run(50);
        assert_eq!(net.hosts[1].sources[0].0, Content::Packet);
        assert_eq!(take(&mut net, 1), [packet]);
    }
}

#[test]
fn an_upgrade_and_a_rollback_of_one_side_lose_no_stream_packet() {
    for who in 0..2 {
        let mut net = pair([true, true]);
        for (life, allowed) in [(1, false), (2, true), (3, false)] {
            net.hosts[who].node = net.make(who, life, with_bare_streams(allowed));
            net.introduce(who, 1 - who);
            let packet = stream_packet(SHORT, 200);
            send_in_ip(&mut net, who, 1 - who, &packet, 0);
            net.run(2_000);
            assert_eq!(take(&mut net, 1 - who).len(), 1, "life {life} of {who}");
            send_in_ip(&mut net, 1 - who, who, &packet, 0);
            assert_eq!(take(&mut net, who).len(), 1, "life {life} of {who}");
            assert_eq!(bare(&net, who, 1 - who), allowed);
            assert_eq!(bare(&net, 1 - who, who), allowed);
        }
        for at in 0..2 {
            assert_eq!(dropped(&net, at, DropReason::BareNotAgreed), 0);
        }
    }
}

#[test]
fn rekeys_and_rotations_keep_the_form() {
    let mut net = pair([true, true]);
    let mut epochs = Vec::new();
    for minute in 0..40 {
        let packet = stream_packet(SHORT, 300 + minute);
        send(&mut net, 0, 1, &packet).unwrap();
        send(&mut net, 1, 0, &packet).unwrap();
        assert_eq!(take(&mut net, 1), std::slice::from_ref(&packet));
        assert_eq!(take(&mut net, 0), [packet]);
        epochs.extend(net.status(0, 1).session_psk_epoch);
        net.run(60_000);
    }
    epochs.dedup();
    assert!(epochs.len() >= 2, "the key was replaced: {epochs:?}");
    assert!(net.sent_by(0).filter(|sent| Sent::is_data(sent)).count() > 0);
}

#[test]
fn reserved_first_bytes_are_dropped_as_before() {
    let mut net = pair([true, true]);
    let (now, key, addr) = (net.now, net.key(0, 1), net.hosts[0].addr);
    let mut sent = 0;
    for first in (0..0x80u8).filter(|first| !matches!(first >> 4, 4 | 6)) {
        let mut datagram = Vec::new();
        let fill = |out: &mut [u8]| out[0] = first;
        let node = &mut net.hosts[0].node;
        node.seal_packet(now, key, 64, &mut datagram, fill).unwrap();
        net.inject(addr, 1, &datagram);
        sent += 1;
    }
    net.run(50);
    assert_eq!(dropped(&net, 1, DropReason::NotIp), sent);
    assert_eq!(take(&mut net, 1), Vec::<Vec<u8>>::new());
}
