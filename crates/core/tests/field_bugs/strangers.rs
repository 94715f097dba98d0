//! Keys that no peer has: let in, asked about, refused.

use crate::net::{Net, Sent};
use wiremesh_core::{Admission, DropReason, Event, PeerConfig, PeerState, Usage};

/// Node 0 is the hub with this admission, the others know it and it knows none of them.
fn hub(admission: Admission, strangers: usize) -> Net {
    let mut net = Net::new();
    net.add_with_admission(admission);
    for n in 1..=strangers {
        net.add(|_| ());
        net.introduce(n, 0);
    }
    net
}

fn nothing() -> Usage {
    Usage::default()
}

#[test]
fn allow_list_leaves_no_state_and_no_byte() {
    let mut net = hub(Admission::AllowList, 1);
    net.connect(1, 0);
    net.run(60_000);
    assert_eq!(net.hosts[0].node.usage(), nothing());
    assert_eq!(net.sent_by(0).count(), 0);
    assert_eq!(net.hosts[0].node.poll_timeout(), None);
    let tries = net.initiations_of(1).len() as u64;
    assert_eq!(
        net.hosts[0]
            .node
            .counters()
            .dropped(DropReason::NotAdmitted),
        tries
    );
    let refused = |e: &Event| matches!(e, Event::Refused { node_id, .. } if *node_id == net.id(1));
    assert!(net.hosts[0].events.iter().any(refused));
}

#[test]
fn allow_all_lets_in_up_to_its_bound_and_room_comes_back() {
    let mut net = hub(Admission::AllowAll { provisional_max: 2 }, 3);
    for n in 1..=3 {
        net.send(n, 0, &[n as u8]);
    }
    net.run(100);
    assert_eq!(net.payloads(0).len(), 2);
    assert_eq!(net.hosts[0].node.usage().provisional_peers, 2);
    assert_eq!(
        net.hosts[0]
            .node
            .counters()
            .dropped(DropReason::LimitReached),
        1
    );
    assert!(!net.ready(3, 0));
    // The two fall silent, their sessions end, they are forgotten.
    net.run(200_000);
    let usage = net.hosts[0].node.usage();
    assert_eq!(usage, nothing());
    let forgotten = |e: &&Event| matches!(e, Event::PeerForgotten { .. });
    assert_eq!(net.hosts[0].events.iter().filter(forgotten).count(), 2);
    net.send(3, 0, b"now");
    net.run(100);
    assert_eq!(net.payloads(0), [b"now".to_vec()]);
}

#[test]
fn a_provisional_peer_stays_as_long_as_it_has_a_session_and_can_be_answered() {
    let mut net = hub(Admission::AllowAll { provisional_max: 1 }, 1);
    for second in 0..400u32 {
        net.send(1, 0, &second.to_le_bytes());
        net.run(500);
        net.send(0, 1, &second.to_le_bytes());
        net.run(500);
    }
    assert_eq!(net.payloads(0).len(), 400);
    assert_eq!(net.payloads(1).len(), 400);
    assert!(net.status(0, 1).provisional);
}

#[test]
fn replayed_initiation_of_a_stranger_vanishes_after_10_s() {
    let mut net = hub(Admission::AllowAll { provisional_max: 8 }, 1);
    net.lost = Box::new(|_| true);
    net.connect(1, 0);
    let captured = net.last(1, Sent::is_initiation);
    net.hosts.truncate(1);
    net.lost = Box::new(|_| false);
    let source = crate::net::addr(200);
    net.deliver(source, 0, &captured.bytes);
    assert_eq!(net.hosts[0].node.usage().provisional_peers, 1);
    net.run(9_900);
    assert_eq!(net.hosts[0].node.usage().provisional_peers, 1);
    net.run(200);
    assert_eq!(net.hosts[0].node.usage(), nothing());
    assert_eq!(
        net.sent_by(0).count(),
        1,
        "one response, smaller than the initiation"
    );
}

#[test]
fn ask_admits_when_the_application_says_so() {
    let mut net = hub(Admission::Ask { pending_max: 4 }, 1);
    net.send(1, 0, b"let me in");
    net.run(1_000);
    assert_eq!(
        net.sent_by(0).count(),
        0,
        "silence until there is an answer"
    );
    let node_id = net.id(1);
    let asked = |e: &&Event| matches!(e, Event::AdmissionRequested { node_id: asked, .. } if *asked == node_id);
    assert_eq!(net.hosts[0].events.iter().filter(asked).count(), 1);
    let now = net.now;
    net.hosts[0]
        .node
        .admit(now, PeerConfig::new(node_id))
        .unwrap();
    net.run(100);
    assert_eq!(net.payloads(0), [b"let me in".to_vec()]);
    assert!(!net.status(0, 1).provisional);
}

#[test]
fn ask_refused_leaves_no_state_and_no_byte() {
    let mut net = hub(Admission::Ask { pending_max: 4 }, 1);
    net.connect(1, 0);
    net.run(100);
    let node_id = net.id(1);
    let now = net.now;
    net.hosts[0].node.refuse(now, &node_id);
    assert_eq!(net.hosts[0].node.usage(), nothing());
    assert_eq!(net.hosts[0].node.poll_timeout(), None);
    assert_eq!(net.sent_by(0).count(), 0);
    assert_eq!(
        net.hosts[0]
            .node
            .counters()
            .dropped(DropReason::NotAdmitted),
        1
    );
    // Nobody answers the next question: it ends by itself.
    net.run(120_000);
    assert_eq!(net.hosts[0].node.usage(), nothing());
    assert_eq!(net.sent_by(0).count(), 0);
    assert_eq!(net.state(1, 0), PeerState::NoAnswer);
}

#[test]
fn a_question_that_nobody_answers_is_put_again() {
    let mut net = hub(Admission::Ask { pending_max: 4 }, 1);
    net.connect(1, 0);
    net.run(60_000);
    let asked = |e: &&Event| matches!(e, Event::AdmissionRequested { .. });
    let times = net.hosts[0].events.iter().filter(asked).count();
    assert!((4..=6).contains(&times), "{times}");
}

#[test]
fn questions_are_bounded_and_one_key_has_one() {
    let mut net = hub(Admission::Ask { pending_max: 2 }, 4);
    for n in 1..=4 {
        net.connect(n, 0);
    }
    net.run(6_000);
    assert_eq!(net.hosts[0].node.usage().pending_admissions, 2);
    let asked = |e: &&Event| matches!(e, Event::AdmissionRequested { .. });
    assert_eq!(net.hosts[0].events.iter().filter(asked).count(), 2);
}

#[test]
fn an_older_initiation_does_not_replace_a_question() {
    let mut net = hub(Admission::Ask { pending_max: 2 }, 1);
    net.lost = Box::new(|_| true);
    net.connect(1, 0);
    let old = net.last(1, Sent::is_initiation);
    net.lost = Box::new(|_| false);
    net.run(6_000);
    let source = crate::net::addr(200);
    net.deliver(source, 0, &old.bytes);
    let (now, node_id) = (net.now, net.id(1));
    net.hosts[0]
        .node
        .admit(now, PeerConfig::new(node_id))
        .unwrap();
    net.run(100);
    assert!(net.ready(1, 0), "the answer goes to the newest initiation");
    assert!(net.sent_by(0).all(|sent| sent.to != source));
}

#[test]
fn a_stranger_with_our_own_key_is_dropped() {
    let mut net = hub(Admission::AllowAll { provisional_max: 8 }, 0);
    // Another machine with the same key as the hub, for example a restored backup.
    net.add(|config| config.secret_key = crate::net::secret(1));
    let own = net.id(0);
    let now = net.now;
    let refused = net.hosts[1].node.add_peer(now, PeerConfig::new(own));
    assert!(refused.is_err());
}
