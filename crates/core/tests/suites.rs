//! The control protocol between whole nodes: levels, the gate, round trips.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;

use net::Net;
use std::time::Duration;
use wiremesh_control::exchange::Role;
use wiremesh_control::{Level, Policy, SignedRecord, Stage, SuiteId, WaitReason};
use wiremesh_core::{Admission, ControlConfig, Event, NodeConfig};
use wiremesh_wire::{Now, UnixTime};

/// Two nodes with the control protocol, host 0 being A, the one with the smaller id.
fn pair(policies: [Policy; 2]) -> Net {
    let mut net = Net::new();
    for _ in 0..2 {
        net.add(|config: &mut NodeConfig| config.control = Some(ControlConfig::default()));
    }
    if net.id(1) < net.id(0) {
        net.hosts.swap(0, 1);
    }
    for (host, policy) in policies.into_iter().enumerate() {
        let now = net.now;
        net.hosts[host].node.set_policy(now, policy).unwrap();
    }
    net.introduce(0, 1);
    net.introduce(1, 0);
    net
}

fn level(net: &Net, at: usize) -> Option<Level> {
    let key = net.key(at, 1 - at);
    net.hosts[at].node.security(net.now, key).unwrap().level
}

/// Milliseconds from the first packet until its answer is back.
fn first_response(net: &mut Net, from: usize) -> u64 {
    let to = 1 - from;
    let began = net.now.instant;
    net.send(from, to, b"request");
    let mut answered = false;
    for _ in 0..2_000 {
        net.run(1);
        if !answered && net.payloads(to).contains(&b"request".to_vec()) {
            net.send(to, from, b"response");
            answered = true;
        }
        if net.payloads(from).contains(&b"response".to_vec()) {
            return net.now.instant.saturating_since(began).as_millis() as u64;
        }
    }
    panic!("no response within 2 s");
}

#[test]
fn two_nodes_end_at_l2_without_any_setting() {
    let mut net = pair([Policy::default(); 2]);
    net.send(0, 1, b"secret");
    net.run(1_000);
    assert_eq!(net.payloads(1), [b"secret".to_vec()]);
    for at in 0..2 {
        assert_eq!(level(&net, at), Some(Level::PostQuantum));
    }
}

#[test]
fn the_first_response_takes_four_round_trips_from_a_and_five_from_b() {
    let round_trip = 2 * net::LATENCY.as_millis() as u64;
    for (from, round_trips) in [(0, 4), (1, 5)] {
        let mut net = pair([Policy::default(); 2]);
        let took = first_response(&mut net, from);
        assert!(
            took <= round_trips * round_trip + 2,
            "{took} ms are more than {round_trips} round trips of {round_trip} ms"
        );
    }
}

/// How long a request takes from the first datagram on, over a network that was changed.
fn first_request(from: usize, change: impl FnOnce(&mut Net)) -> Duration {
    let mut net = pair([Policy::default(); 2]);
    change(&mut net);
    let began = net.now.instant;
    net.send(from, 1 - from, b"request");
    while net.payloads(1 - from).is_empty() {
        net.run(1);
    }
    net.now.instant.saturating_since(began)
}

#[test]
fn datagrams_that_overtake_each_other_delay_nothing_for_seconds() {
    for seed in 1..300_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let took = first_request((seed % 2) as usize, |net| {
            net.late = Box::new(move |_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                Duration::from_micros(state % 8_000)
            });
        });
        assert!(took < Duration::from_millis(300), "seed {seed}: {took:?}");
    }
}

#[test]
fn an_upgrade_that_loses_its_handshake_is_repeated_within_a_second() {
    for (from, lost) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let took = first_request(from, |net| {
            // The first is of the session that carries the exchange.
            let mut seen = 0;
            net.lost = Box::new(move |sent| {
                seen += u32::from(sent.kind() == lost);
                sent.kind() == lost && seen == 2
            });
        });
        assert!(
            took < Duration::from_millis(1_300),
            "message {lost} of {from}: {took:?}"
        );
    }
}

#[test]
fn at_l1_by_configuration_the_first_response_takes_two_round_trips() {
    let round_trip = 2 * net::LATENCY.as_millis() as u64;
    let mut net = Net::pair();
    assert!(first_response(&mut net, 0) <= 2 * round_trip + 2);
}

#[test]
fn old_nodes_meet_at_l1_and_move_on_without_a_lost_packet() {
    let mut net = pair([Policy::at(Stage::OldOnly); 2]);
    net.send(0, 1, b"0");
    net.run(1_000);
    assert_eq!(level(&net, 0), Some(Level::Classical));
    let mut sent = 1u8;
    for (who, stage) in [
        (0, Stage::Both),
        (1, Stage::Both),
        (0, Stage::OldOnly),
        (0, Stage::Both),
        (1, Stage::NewOnly),
        (0, Stage::NewOnly),
    ] {
        let now = net.now;
        net.hosts[who]
            .node
            .set_policy(now, Policy::at(stage))
            .unwrap();
        for _ in 0..20 {
            net.send(0, 1, &[sent]);
            net.send(1, 0, &[sent]);
            sent += 1;
            net.run(17);
        }
    }
    net.run(2_000);
    assert_eq!(net.payloads(1).len(), usize::from(sent));
    assert_eq!(net.payloads(0).len(), usize::from(sent) - 1);
    for at in 0..2 {
        assert_eq!(level(&net, at), Some(Level::PostQuantum));
    }
    let key = net.key(0, 1);
    let security = net.hosts[0].node.security(net.now, key).unwrap();
    assert_eq!(security.suite, Some(SuiteId::HYBRID));
    assert_eq!(security.pin.unwrap().level, Level::PostQuantum);
}

#[test]
fn a_restarted_node_is_back_at_l2_within_a_second() {
    for who in 0..2 {
        let mut net = pair([Policy::default(); 2]);
        net.send(0, 1, b"before");
        net.run(1_000);
        let control = |config: &mut NodeConfig| config.control = Some(ControlConfig::default());
        net.hosts[who].node = net.make(who_number(&net, who), 9, control);
        net.introduce(who, 1 - who);
        net.send(who, 1 - who, b"after");
        net.run(1_000);
        assert_eq!(level(&net, who), Some(Level::PostQuantum), "side {who}");
        assert!(net.payloads(1 - who).contains(&b"after".to_vec()));
    }
}

/// The number whose key the host has: hosts may have been swapped.
fn who_number(net: &Net, who: usize) -> usize {
    let id = net.id(who);
    (0..2)
        .find(|n| net.make(*n, 1, |_| ()).node_id() == id)
        .unwrap()
}

#[test]
fn a_change_of_stage_closes_the_gate_for_a_few_round_trips_only() {
    for who in 0..2 {
        let mut net = pair([Policy::at(Stage::OldOnly); 2]);
        net.send(0, 1, b"0");
        net.run(1_000);
        let now = net.now;
        let both = Policy::at(Stage::Both);
        net.hosts[1 - who].node.set_policy(now, both).unwrap();
        net.run(500);
        let now = net.now;
        net.hosts[who].node.set_policy(now, both).unwrap();
        let mut closed_ms = 0;
        for _ in 0..3_000 {
            net.run(1);
            closed_ms += u64::from((0..2).any(|at| level(&net, at).is_none()));
        }
        let round_trip = 2 * net::LATENCY.as_millis() as u64;
        assert!(closed_ms <= 4 * round_trip, "side {who}: {closed_ms} ms");
        assert_eq!(level(&net, who), Some(Level::PostQuantum));
    }
}

/// A node with the control protocol, and one without, whom the first names as stock or not.
fn beside_a_node_without_control(stock: bool, role: Role) -> Net {
    let with = |config: &mut NodeConfig| config.control = Some(ControlConfig::default());
    let mut net = Net::new();
    net.add(with);
    net.add(|_| ());
    if Role::of(&net.id(0), &net.id(1)) != role {
        net.hosts.clear();
        net.add(|_| ());
        net.add(with);
        net.hosts.swap(0, 1);
    }
    let endpoint = Some(net.hosts[1].addr);
    net.introduce_with(0, 1, |config| {
        config.endpoint = endpoint;
        config.stock = stock;
    });
    net.introduce(1, 0);
    net.send(0, 1, b"secret");
    net.send(1, 0, b"hello");
    net.run(60_000);
    net
}

#[test]
fn a_node_without_the_control_protocol_stays_outside_with_that_reason() {
    for role in [Role::A, Role::B] {
        let mut net = beside_a_node_without_control(false, role);
        assert!(net.payloads(0).is_empty() && net.payloads(1).is_empty());
        let key = net.key(0, 1);
        let security = net.hosts[0].node.security(net.now, key).unwrap();
        let reason = security.waiting.map(|(reason, _)| reason);
        assert_eq!(reason, Some(WaitReason::NoControlAnswer), "{role:?}");
        assert_eq!(security.level, None);
    }
}

#[test]
fn a_node_that_the_operator_names_as_stock_is_l1() {
    let mut net = beside_a_node_without_control(true, Role::A);
    assert_eq!(net.payloads(1), [b"secret".to_vec()]);
    assert_eq!(net.payloads(0), [b"hello".to_vec()]);
    let key = net.key(0, 1);
    let security = net.hosts[0].node.security(net.now, key).unwrap();
    assert_eq!(security.level, Some(Level::Classical));
    assert!(security.stock);
}

#[test]
fn a_record_is_signed_anew_when_the_clock_goes_forward() {
    let mut net = pair([Policy::default(); 2]);
    net.run(1_000);
    let before = net.hosts[0].node.own_record().unwrap().to_vec();
    let hours = std::time::Duration::from_secs(7 * 3_600);
    let unix = UnixTime::from_duration(net.now.unix.as_duration() + hours);
    let later = Now::new(net.now.instant, unix);
    net.hosts[0].node.handle_timeout(later);
    let after = net.hosts[0].node.own_record().unwrap().to_vec();
    assert_ne!(before, after);
    let id = net.id(0);
    let number = |bytes: &[u8]| SignedRecord::open(bytes, &id).unwrap().record().seq;
    let due = unix.as_duration().as_secs();
    assert_eq!(number(&after), due);
    let mut saved = std::iter::from_fn(|| net.hosts[0].node.poll_event());
    assert!(saved.any(|event| event == Event::SaveRecordSeq(due)));
}

#[test]
fn a_peer_that_comes_back_at_l1_is_talked_to_on_its_new_session() {
    for who in 0..2 {
        let mut net = pair([Policy::at(Stage::Both); 2]);
        net.send(0, 1, b"before");
        net.run(1_000);
        assert_eq!(level(&net, who), Some(Level::PostQuantum));
        let old_only = |config: &mut NodeConfig| {
            config.control = Some(ControlConfig {
                policy: Policy::at(Stage::OldOnly),
                ..ControlConfig::default()
            });
        };
        net.hosts[who].node = net.make(who_number(&net, who), 9, old_only);
        net.introduce(who, 1 - who);
        net.send(who, 1 - who, b"after");
        net.run(1_000);
        net.send(1 - who, who, b"answer");
        net.run(100);
        assert!(net.payloads(1 - who).contains(&b"after".to_vec()), "{who}");
        assert!(net.payloads(who).contains(&b"answer".to_vec()), "{who}");
        assert_eq!(level(&net, 1 - who), Some(Level::Classical));
    }
}

#[test]
fn pins_of_strangers_are_saved_when_they_stay() {
    let mut net = pair([Policy::at(Stage::NewOnly); 2]);
    let admission = |config: &mut NodeConfig| {
        config.control = Some(ControlConfig::default());
        config.admission = Admission::AllowAll { provisional_max: 1 };
    };
    net.hosts[0].node = net.make(who_number(&net, 0), 9, admission);
    net.send(1, 0, b"x");
    net.run(1_000);
    assert_eq!(net.payloads(0), [b"x".to_vec()]);
    assert_eq!(net.hosts[0].node.pins().count(), 0);
    let key = net.key(0, 1);
    net.hosts[0].node.keep_peer(key);
    let pin = net.hosts[0].node.pin(&net.id(1)).unwrap();
    assert_eq!(pin.level, Level::PostQuantum);
}
