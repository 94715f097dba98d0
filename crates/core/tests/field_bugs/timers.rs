//! The timers of the WireGuard paper, section 6, seen from outside.

use crate::net::{Net, Sent};
use std::time::Duration;
use wiremesh_core::{DropReason, Event, HandshakeFailure, PeerState, Usage};
use wiremesh_wire::Instant;

fn gaps(times: &[Instant]) -> Vec<Duration> {
    times
        .windows(2)
        .map(|pair| pair[1].saturating_since(pair[0]))
        .collect()
}

#[test]
fn initiations_are_at_least_40_ms_apart() {
    let mut net = Net::pair();
    for _ in 0..2_000 {
        net.rekey(0, 1);
        net.run(1);
    }
    let gaps = gaps(&net.initiations_of(0));
    assert!(gaps.len() >= 40, "they do go out");
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(40)));
    let dropped = |reason| net.hosts[1].node.counters().dropped(reason);
    assert_eq!(
        dropped(DropReason::HandshakeFlood) + dropped(DropReason::HandshakeReplayed),
        0
    );
}

#[test]
fn initiations_repeat_every_5_s_with_jitter_for_90_s_and_then_an_event() {
    let mut net = Net::pair();
    net.lost = Box::new(|_| true);
    net.connect(0, 1);
    let began = net.now.instant;
    net.run(89_000);
    assert_eq!(net.hosts[0].failures(), 0);
    assert_eq!(net.state(0, 1), PeerState::Handshaking);
    net.run(8_000);
    let key = net.key(0, 1);
    let failure = HandshakeFailure::NoAnswer;
    assert!(
        net.hosts[0]
            .events
            .contains(&Event::HandshakeFailed { peer: key, failure })
    );
    let times = net.initiations_of(0);
    let last = times.last().unwrap().saturating_since(began);
    assert!(last < Duration::from_secs(90) && last > Duration::from_secs(84));
    let gaps = gaps(&times);
    let bounds = Duration::from_secs(5)..Duration::from_millis(5_340);
    assert!(gaps.iter().all(|gap| bounds.contains(gap)), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "no jitter");
    // And then silence.
    net.run_for(Duration::from_secs(3_600));
    assert_eq!(net.initiations_of(0).len(), times.len());
    assert_eq!(net.hosts[0].failures(), 1);
}

#[test]
fn passive_keepalive_answers_data_after_10_s() {
    let mut net = Net::connected_pair();
    let before = net.sent_by(1).count();
    net.send(0, 1, b"one way");
    net.run(9_900);
    assert_eq!(net.sent_by(1).count(), before);
    net.run(200);
    assert_eq!(net.sent_by(1).count(), before + 1);
    assert!(net.last(1, |_| true).is_keepalive());
    // A keepalive is not answered by a keepalive, and nothing else goes on.
    let all = net.log.len();
    net.run(60_000);
    assert_eq!(net.log.len(), all);
}

#[test]
fn data_without_an_answer_starts_a_handshake_after_15_s_on_either_side() {
    for speaks in [0, 1] {
        let mut net = Net::connected_pair();
        net.run(1_000);
        let before = net.initiations_of(speaks).len();
        net.lost = Box::new(|sent| sent.kind() == 4);
        net.send(speaks, 1 - speaks, b"lost");
        net.run(14_990);
        assert_eq!(net.initiations_of(speaks).len(), before, "{speaks}");
        net.run(360);
        assert_eq!(net.initiations_of(speaks).len(), before + 1, "{speaks}");
    }
}

#[test]
fn an_answer_in_time_stops_that() {
    let mut net = Net::connected_pair();
    net.send(0, 1, b"one way");
    net.run(60_000);
    assert_eq!(net.initiations_of(0).len(), 1);
    assert!(net.initiations_of(1).is_empty());
}

#[test]
fn persistent_keepalive_goes_out_on_its_beat_and_connects() {
    let mut net = Net::new();
    net.add(|_| ());
    net.add(|_| ());
    let endpoint = Some(net.hosts[1].addr);
    net.introduce_with(0, 1, |config| {
        config.endpoint = endpoint;
        config.persistent_keepalive = Some(Duration::from_secs(25));
    });
    net.introduce_with(1, 0, |_| ());
    net.run(1_000);
    assert!(net.ready(1, 0), "it connects without any packet");
    net.log.clear();
    net.run(100_500);
    let times: Vec<Instant> = net.sent_by(0).map(|sent| sent.at).collect();
    assert!(net.sent_by(0).all(Sent::is_keepalive));
    assert_eq!(times.len(), 4);
    for gap in gaps(&times) {
        assert!(
            gap >= Duration::from_secs(25) && gap < Duration::from_millis(25_010),
            "{gap:?}"
        );
    }
    // Over an hour the session is always there.
    net.run_for(Duration::from_secs(3_600));
    assert!(net.ready(0, 1) && net.ready(1, 0));
}

#[test]
fn responder_does_not_rekey_by_time_and_the_initiator_does_so_on_receipt_at_165_s() {
    let mut net = Net::connected_pair();
    let born = net.now.instant;
    for second in 0..175u32 {
        net.send(1, 0, &second.to_le_bytes());
        net.run(1_000);
    }
    assert!(net.initiations_of(1).is_empty());
    // The initiator itself sent nothing but passive keepalives, the one after 120 s rekeys.
    let times = net.initiations_of(0);
    assert_eq!(times.len(), 2);
    let age = times[1].saturating_since(born);
    assert!(
        age > Duration::from_secs(119) && age < Duration::from_secs(131),
        "{age:?}"
    );
    assert_eq!(net.payloads(0).len(), 175);
}

#[test]
fn initiator_that_only_receives_rekeys_once_before_expiry() {
    let mut net = Net::connected_pair();
    let born = net.now.instant;
    net.run(160_000);
    net.lost = Box::new(Sent::is_initiation);
    for second in 0..8u32 {
        net.send(1, 0, &second.to_le_bytes());
        net.run(1_000);
    }
    let times = net.initiations_of(0);
    assert_eq!(times.len(), 2);
    let age = times[1].saturating_since(born);
    assert!(
        age > Duration::from_secs(164) && age < Duration::from_secs(167),
        "{age:?}"
    );
}

#[test]
fn a_session_older_than_180_s_neither_seals_nor_opens() {
    let mut net = Net::connected_pair();
    net.lost = Box::new(Sent::is_initiation);
    net.run(178_000);
    net.send(0, 1, b"in time");
    net.run(100);
    assert_eq!(net.payloads(1), [b"in time".to_vec()]);
    net.lost = Box::new(|_| true);
    net.send(0, 1, b"late on the way");
    let late = net.last(0, Sent::is_data);
    net.sleep(Duration::from_secs(3));
    net.deliver(late.from, 1, &late.bytes);
    assert!(net.payloads(1).is_empty());
    assert_eq!(
        net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::SessionExpired),
        1
    );
    net.log.clear();
    net.send(0, 1, b"not on the old session");
    assert!(net.log.iter().all(Sent::is_initiation));
    assert!(!net.ready(0, 1));
}

#[test]
fn session_state_is_freed_after_expiry() {
    let empty = Usage {
        peers: 1,
        ..Usage::default()
    };
    let mut net = Net::connected_pair();
    net.send(0, 1, b"data");
    net.run(100);
    let late = net.last(0, Sent::is_data);
    net.rekey(0, 1);
    net.run(200_000);
    for n in [0, 1] {
        assert_eq!(net.hosts[n].node.usage(), empty, "{n}");
        assert_eq!(net.state(n, 1 - n), PeerState::Idle);
        let peer = net.key(n, 1 - n);
        assert!(net.hosts[n].events.contains(&Event::SessionLost { peer }));
    }
    net.deliver(late.from, 1, &late.bytes);
    assert_eq!(
        net.hosts[1]
            .node
            .counters()
            .dropped(DropReason::UnknownIndex),
        1
    );
    net.run(1_000);
    assert_eq!(
        net.hosts[0].node.poll_timeout(),
        None,
        "nothing is scheduled any more"
    );
}
