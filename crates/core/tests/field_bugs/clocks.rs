//! Clocks that jump, stop, or were restored with the whole machine.

use crate::net::{Net, Sent, addr, packet, secret};
use std::time::Duration;
use wiremesh_core::{DropReason, Event, Node, NodeConfig, NotReady, Path, PeerConfig};
use wiremesh_noise::{LocalIdentity, RemoteIdentity, open_initiation};
use wiremesh_wire::{Message, Now, Tai64n, UnixTime};

const HOUR: Duration = Duration::from_secs(3_600);

/// The timestamp in an initiation to node 1 of a [`Net`].
fn timestamp_of(sent: &Sent) -> Tai64n {
    let local = LocalIdentity::new(secret(2)).unwrap();
    let Ok(Message::Initiation(message)) = Message::parse(&sent.bytes) else {
        panic!("an initiation");
    };
    let opened = open_initiation(&local, &message).unwrap();
    let remote = RemoteIdentity::new(&local, opened.peer());
    opened.authenticate(&remote).unwrap().timestamp()
}

#[test]
fn tai64n_goes_on_from_the_persisted_floor_after_the_clock_went_back() {
    let mut net = Net::connected_pair();
    let first = timestamp_of(&net.last(0, Sent::is_initiation));
    net.step_wall_back(HOUR);
    net.restart(0, 9, true);
    net.introduce(0, 1);
    net.send(0, 1, b"again");
    net.run(1_000);
    assert_eq!(net.payloads(1), [b"again".to_vec()]);
    assert!(timestamp_of(&net.last(0, Sent::is_initiation)) > first);
}

#[test]
fn without_the_floor_the_peer_refuses_until_it_has_a_reason_to_initiate() {
    let mut net = Net::connected_pair();
    net.step_wall_back(HOUR);
    net.restart(0, 9, false);
    net.introduce(0, 1);
    net.send(0, 1, b"again");
    net.run(12_000);
    assert!(!net.ready(0, 1));
    let dropped = net.hosts[1]
        .node
        .counters()
        .dropped(DropReason::HandshakeReplayed);
    assert_eq!(dropped, 3);
    // The other side finds out by itself and its own timestamps are fine.
    net.send(1, 0, b"hello?");
    net.run(16_000);
    assert!(net.ready(0, 1) && net.ready(1, 0));
}

#[test]
fn tai64n_rises_within_one_life_whatever_the_clock_does() {
    let mut net = Net::pair();
    let mut last = Tai64n::ZERO;
    for n in 0..40u64 {
        match n % 4 {
            0 => net.step_wall_back(HOUR),
            1 => net.step_wall(Duration::from_secs(29)),
            2 => net.step_wall_back(Duration::from_millis(1)),
            _ => (),
        }
        net.rekey(0, 1);
        net.run(50);
        let this = timestamp_of(&net.last(0, Sent::is_initiation));
        assert!(this > last, "step {n}");
        assert!(
            net.hosts[0].floor.unwrap() > this,
            "reserved before it is used"
        );
        last = this;
    }
    assert_eq!(
        net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::HandshakeReplayed),
        0
    );
}

#[test]
fn a_reservation_that_found_no_room_is_asked_for_again() {
    let mut net = Net::new();
    net.add(|config| config.limits.events_max = 0);
    net.add(|_| ());
    net.introduce(0, 1);
    net.introduce(1, 0);
    net.connect(0, 1);
    net.run(100);
    net.rekey(0, 1);
    net.run(100);
    assert!(net.hosts[0].events.is_empty());
    assert!(net.hosts[0].node.counters().dropped(DropReason::EventsFull) >= 4);
}

/// Node 0 and its peer, made from the same seed each time: what a snapshot gives.
fn snapshot() -> (Node, Node, Now) {
    let now = Net::new().now;
    let make = |n: u8, peer: u8| {
        let mut node = Node::new(NodeConfig::new(secret(n)), [n; 32], now).unwrap();
        let id = LocalIdentity::new(secret(peer)).unwrap().node_id();
        let mut config = PeerConfig::new(id);
        config.endpoint = Some(addr(usize::from(peer)));
        let key = node.add_peer(now, config).unwrap();
        (node, key)
    };
    let ((mut a, to_b), (mut b, _)) = (make(1, 2), make(2, 1));
    a.connect(now, to_b);
    for _ in 0..3 {
        while let Some(mut sent) = a.poll_transmit() {
            b.handle_datagram(now, Path::to(addr(1)), &mut sent.datagram);
        }
        while let Some(mut sent) = b.poll_transmit() {
            a.handle_datagram(now, Path::to(addr(2)), &mut sent.datagram);
        }
    }
    assert!(a.is_ready(now, to_b));
    (a, b, now)
}

#[test]
fn restored_snapshot_repeats_neither_nonces_nor_randomness() {
    // The machine runs on from the snapshot for a while, and then the snapshot is restored: the
    // monotonic clock goes on where it was, the wall clock has moved.
    let (mut running, peer, now) = snapshot();
    let (mut restored, _, _) = snapshot();
    let key = running.peer_by_id(&peer.node_id()).unwrap();
    let bytes = packet(&running.node_id(), &peer.node_id(), b"secret");
    let seal = |node: &mut Node, now: Now| {
        let mut out = Vec::new();
        let fill = |to: &mut [u8]| to.copy_from_slice(&bytes);
        node.seal_packet(now, key, bytes.len(), &mut out, fill)
            .map(|_| out)
    };
    assert!(seal(&mut running, now).is_ok());
    let soon = now + Duration::from_millis(50);
    let later = Now::new(soon.instant, soon.unix + HOUR);
    assert_eq!(seal(&mut restored, later), Err(NotReady::NoSession));
    let events: Vec<Event> = std::iter::from_fn(|| restored.poll_event()).collect();
    assert!(events.contains(&Event::ClockStepped));
    assert!(events.contains(&Event::SessionLost { peer: key }));

    let mut initiations = Vec::new();
    running.rekey(soon, key);
    for node in [&mut running, &mut restored] {
        let sent: Vec<_> = std::iter::from_fn(|| node.poll_transmit()).collect();
        initiations.extend(sent.into_iter().filter(|sent| sent.datagram[0] == 1));
    }
    assert_eq!(initiations.len(), 2);
    let (one, other) = (&initiations[0].datagram, &initiations[1].datagram);
    assert_ne!(one[4..8], other[4..8], "indices repeat");
    assert_ne!(one[8..40], other[8..40], "ephemeral keys repeat");
}

#[test]
fn an_instant_that_stops_in_suspend_keeps_no_session_alive() {
    let mut net = Net::connected_pair();
    net.run(1_000);
    // Node 0 slept eight hours and only its wall clock shows it; the packet comes first.
    net.step_wall(8 * HOUR);
    net.log.clear();
    net.send(0, 1, b"good morning");
    assert!(net.log.iter().all(Sent::is_initiation) && !net.log.is_empty());
    assert!(net.hosts[0].events.contains(&Event::ClockStepped));
    net.run(1_000);
    assert_eq!(net.payloads(1), [b"good morning".to_vec()]);
}

#[test]
fn a_jump_of_the_instant_by_hours_expires_sessions_and_traffic_recovers() {
    let mut net = Net::connected_pair();
    net.send(0, 1, b"old");
    let old = net.last(0, Sent::is_data);
    net.run(1_000);
    net.payloads(1);
    net.sleep(8 * HOUR);
    net.deliver(old.from, 1, &old.bytes);
    assert!(net.payloads(1).is_empty());
    assert!(!net.ready(0, 1) && !net.ready(1, 0));
    net.send(1, 0, b"from the responder");
    net.send(0, 1, b"from the initiator");
    net.run(1_000);
    assert_eq!(net.payloads(0), [b"from the responder".to_vec()]);
    assert_eq!(net.payloads(1), [b"from the initiator".to_vec()]);
}

#[test]
fn what_was_staged_outlives_a_step_of_the_clock() {
    let mut net = Net::pair();
    net.lost = Box::new(|_| true);
    net.send(0, 1, b"waiting");
    net.run(1_000);
    net.lost = Box::new(|_| false);
    // As the first synchronisation of a clock that started wrong.
    net.step_wall(HOUR);
    net.run(6_000);
    assert_eq!(net.payloads(1), [b"waiting".to_vec()]);
}

#[test]
fn a_wall_clock_that_goes_back_ends_nothing() {
    let mut net = Net::connected_pair();
    net.step_wall_back(30 * HOUR);
    net.send(0, 1, b"goes on");
    net.run(100);
    assert_eq!(net.payloads(1), [b"goes on".to_vec()]);
    assert_eq!(net.hosts[0].established(), 1);
    net.now.unix = UnixTime::EPOCH;
    net.rekey(0, 1);
    net.run(100);
    assert_eq!(net.hosts[0].established(), 2);
}
