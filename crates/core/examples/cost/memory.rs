//! Memory that one node holds for each of its peers, and for an exchange.

use crate::cpu::{Sides, key};
use crate::heap::{held, held_by};
use crate::nodes::{Host, meet, start};
use crate::report::Report;
use std::time::Duration;
use wiremesh_control::{Level, Machine, Policy};
use wiremesh_wire::NodeId;

/// Peers that never had a session.
const CONFIGURED: u32 = 20_000;
/// Peers with a session: as many as can be met within the life of one.
const LIVE: u32 = 500;

/// Adds all figures.
pub fn measure(report: &mut Report) {
    const GROUP: &str = "memory per peer of one node";
    let l3 = Policy {
        static_kem: true,
        ..Policy::default()
    };
    let planes = [
        ("plain WireGuard", None),
        ("L2", Some(Policy::default())),
        ("L3", Some(l3)),
    ];
    let ids: Vec<NodeId> = (0..CONFIGURED).map(|n| key(n + 1_000).1).collect();
    for (name, policy) in planes {
        let idle = configured(policy, &ids);
        let [live, gone] = met(policy);
        let mut add = |what: &str, bytes| report.add(GROUP, &format!("{name}: {what}"), bytes, "B");
        add("configured, never seen", idle);
        add("with a live session", live);
        add("with none any more", gone);
    }
    exchange(report);
}

fn configured(policy: Option<Policy>, ids: &[NodeId]) -> f64 {
    let now = start();
    let mut hub = Host::new(1, policy, now);
    let (held, ()) = held_by(|| {
        for (number, id) in ids.iter().enumerate() {
            hub.add(now, *id, number as u32);
        }
    });
    held as f64 / ids.len() as f64
}

/// Bytes per peer while its session lives, and 20 minutes later.
fn met(policy: Option<Policy>) -> [f64; 2] {
    let mut now = start();
    let mut hub = Host::new(1, policy, now);
    let before = held();
    for number in 0..LIVE {
        let mut remote = Host::new(number + 1_000, policy, now);
        let (hub_id, id) = (hub.node.node_id(), remote.node.node_id());
        remote.add(now, hub_id, hub.number);
        hub.add(now, id, remote.number);
        let reached = meet([&mut remote, &mut hub], &mut now, 0);
        assert!(
            reached[1] >= policy.map(|_| Level::PostQuantum),
            "{reached:?}"
        );
    }
    let per_peer = || held().wrapping_sub(before) as f64 / f64::from(LIVE);
    let live = per_peer();
    for _ in 0..120 {
        now = now + Duration::from_secs(10);
        hub.node.handle_timeout(now);
        while hub.node.poll_event().is_some() {}
        while hub.node.poll_transmit().is_some() {}
    }
    [live, per_peer()]
}

/// What is held beyond that while an exchange runs: the message is kept to be repeated.
fn exchange(report: &mut Report) {
    const GROUP: &str = "memory of one exchange";
    let mut add = |name: &str, bytes: usize| report.add(GROUP, name, bytes as f64, "B");
    for (level, is_static) in [("L2", false), ("L3", true)] {
        let sides = Sides::new(is_static);
        let (by_a, (offered, offer)) = held_by(|| {
            let (offered, offer) = sides.offer();
            (Box::new(offered), offer)
        });
        let parsed = Sides::parse_offer(&offer);
        let (by_b, (replied, reply)) = held_by(|| {
            let (replied, reply) = sides.reply(&parsed, &offer);
            (Box::new(replied), reply)
        });
        add(&format!("{level}: A, OFFER is out"), by_a);
        add(&format!("{level}: B, REPLY is out"), by_b);
        drop((offered, replied, reply));
    }
    add(
        "Machine alone, in the figures above once a session was there",
        size_of::<Machine>(),
    );
}
