//! Networks under crashes, partitions, churn and load, and what holds whatever happens: everybody
//! who is there from publication to expiry gets each object once, urgent ones do not wait for bulk,
//! nothing expired is delivered, memory stays in its bound, and the same seed does the same.
//!
//! A thousand nodes: `cargo test --release -p wiremesh-gossip --test simulation -- --ignored`.

#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use net::{Net, Random, Settings};
use wiremesh_gossip::{ObjectId, PublishError};
use wiremesh_wire::{Instant, Priority};

const SECOND: Duration = Duration::from_secs(1);

/// An object, who published it, and when.
struct Published {
    id: ObjectId,
    at: usize,
    when: Instant,
}

fn content(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.word() as u8).collect()
}

/// A network that has found itself.
fn formed(settings: Settings) -> Net {
    let mut net = Net::new(settings);
    net.join_all(SECOND / 20);
    net.run(SECOND * 20);
    net
}

fn publish(
    net: &mut Net,
    random: &mut Random,
    at: usize,
    class: Priority,
    len: usize,
) -> Published {
    let content = content(random, len);
    let when = net.now.instant;
    let id = net.publish(at, content, class, SECOND * 3_600);
    Published {
        id: id.expect("room"),
        at,
        when,
    }
}

/// All nodes that run since before an object was published have it, once.
fn check(net: &Net, objects: &[Published]) {
    let bound = net.settings.config.memory_max();
    for (number, node) in net.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
        assert_eq!(node.twice, 0, "node {number}");
        assert_eq!(node.late, 0, "node {number} was given something expired");
        assert!(node.topic.memory().bytes() <= bound);
        for object in objects {
            let there = node.since <= object.when && object.at != number;
            let has = node.delivered.contains_key(&object.id);
            assert!(
                has || !there,
                "node {number} misses {:?}, seed {}; {:?}, {:?}",
                object.id,
                net.settings.seed,
                node.topic.counters(),
                node.topic.memory(),
            );
        }
    }
}

fn mixed_load(net: &mut Net, random: &mut Random, count: usize, each: Duration) -> Vec<Published> {
    let mut objects = Vec::new();
    while objects.len() < count {
        let at = random.below(net.nodes.len() as u64) as usize;
        if net.nodes[at].alive {
            let class = Priority::ALL[objects.len() % 3];
            let len = [200, 2_000, 40_000][random.below(3) as usize];
            objects.push(publish(net, random, at, class, len));
        }
        net.run(each);
    }
    objects
}

fn crashes(nodes: usize, seed: u64) -> u64 {
    let mut net = formed(Settings::new(nodes, seed));
    let mut random = Random::new(seed);
    let mut objects = mixed_load(&mut net, &mut random, 20, SECOND / 10);
    net.run(SECOND * 2);
    let victims: Vec<usize> = (0..nodes).filter(|at| at % 5 == 3).collect();
    for victim in &victims {
        net.crash(*victim, SECOND * 3);
    }
    objects.extend(mixed_load(&mut net, &mut random, 20, SECOND / 10));
    net.run(SECOND * 10);
    for victim in &victims {
        net.restart(*victim);
    }
    objects.extend(mixed_load(&mut net, &mut random, 20, SECOND / 10));
    net.run(SECOND * 60);
    check(&net, &objects);
    net.trace
}

#[test]
fn nobody_misses_an_object_when_a_fifth_of_the_nodes_crash_and_come_back() {
    crashes(60, 11);
}

#[test]
fn the_same_seed_does_the_same() {
    assert_eq!(crashes(20, 12), crashes(20, 12));
    assert_ne!(crashes(20, 12), crashes(20, 13));
}

#[test]
#[ignore = "slow in debug builds"]
fn a_thousand_nodes_miss_nothing_when_a_fifth_of_them_crash() {
    crashes(1_000, 14);
}

#[test]
fn a_network_that_was_split_makes_up_for_it() {
    let mut net = formed(Settings::new(40, 21));
    let mut random = Random::new(21);
    net.partition(15, SECOND * 3);
    let mut objects = mixed_load(&mut net, &mut random, 30, SECOND / 2);
    // Long enough that nobody knows a living contact of the other side any more.
    net.run(SECOND * 2_400);
    net.split = None;
    net.run(SECOND * 90);
    check(&net, &objects);
    objects.extend(mixed_load(&mut net, &mut random, 10, SECOND / 10));
    net.run(SECOND * 20);
    check(&net, &objects);
}

#[test]
fn churn_costs_nobody_an_object() {
    let nodes = 40;
    let mut net = formed(Settings::new(nodes, 31));
    let mut random = Random::new(31);
    let mut objects = Vec::new();
    let mut down = Vec::new();
    for round in 0..60 {
        // The first ten publish and stay.
        let at = random.below(10) as usize;
        let class = Priority::ALL[round % 3];
        objects.push(publish(&mut net, &mut random, at, class, 1_000));
        let victim = 10 + random.below(nodes as u64 - 10) as usize;
        if net.nodes[victim].alive {
            net.crash(victim, SECOND);
            down.push(victim);
        }
        if down.len() > 5 {
            net.restart(down.remove(0));
        }
        net.run(SECOND);
    }
    net.run(SECOND * 60);
    check(&net, &objects);
}

#[test]
fn urgent_objects_do_not_wait_for_bulk() {
    let mut settings = Settings::new(20, 41);
    settings.rate = Some(1_250_000);
    settings.loss_permille = 0;
    let run = |load: bool| {
        let mut net = formed(settings.clone());
        let mut random = Random::new(41);
        let mut objects = Vec::new();
        for round in 0..40 {
            if load && round % 4 == 0 {
                let big = content(&mut random, 400_000);
                let _ = net.publish(round % 20, big, Priority::Bulk, SECOND * 600);
            }
            objects.push(publish(&mut net, &mut random, 5, Priority::Urgent, 1_000));
            net.run(SECOND / 4);
        }
        net.run(SECOND * 60);
        check(&net, &objects);
        net.reach_ms(objects.iter().map(|object| (object.id, object.when)), 1.0)
    };
    let (idle, loaded) = (run(false), run(true));
    let worst = |times: &[f64]| times[times.len() * 9 / 10];
    println!(
        "idle {:.0} ms, loaded {:.0} ms",
        worst(&idle),
        worst(&loaded)
    );
    // 16 KiB of a chunk take 13 ms at each hop.
    assert!(worst(&loaded) < worst(&idle) * 1.3 + 60.0);
}

#[test]
fn what_has_expired_is_not_delivered() {
    let mut settings = Settings::new(20, 51);
    settings.latency_ms = (100, 400);
    let mut net = formed(settings);
    let mut random = Random::new(51);
    let mut reached = 0;
    for round in 0..20 {
        let content = content(&mut random, 500);
        let lifetime = Duration::from_millis(300);
        let id = net
            .publish(round, content, Priority::Normal, lifetime)
            .expect("room");
        net.run(SECOND * 3);
        reached += net
            .nodes
            .iter()
            .filter(|node| node.delivered.contains_key(&id))
            .count();
    }
    let expired: u64 = net
        .nodes
        .iter()
        .map(|node| node.topic.counters().expired)
        .sum();
    assert!(
        expired > 0 && reached < 20 * 19,
        "{expired} expired, {reached} reached"
    );
    assert!(net.nodes.iter().all(|node| node.late == 0));
}

#[test]
fn a_publisher_feels_that_its_neighbours_are_slow() {
    let mut settings = Settings::new(6, 61);
    settings.rate = Some(200_000);
    let mut net = formed(settings);
    let mut random = Random::new(61);
    let mut objects = Vec::new();
    let mut refused = 0;
    while objects.len() < 600 {
        let content = content(&mut random, 10_000);
        let when = net.now.instant;
        match net.publish(0, content, Priority::Normal, SECOND * 600) {
            Ok(id) => objects.push(Published { id, at: 0, when }),
            Err(PublishError::Full) => {
                refused += 1;
                let rooms = net.nodes[0].rooms;
                while net.nodes[0].rooms == rooms {
                    net.run(SECOND / 100);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 10, "{refused}");
    net.run(SECOND * 200);
    check(&net, &objects);
}

#[test]
fn a_large_object_goes_on_from_others_when_nodes_vanish() {
    let mut settings = Settings::new(20, 71);
    settings.rate = Some(1_000_000);
    let mut net = formed(settings);
    let mut random = Random::new(71);
    let object = publish(&mut net, &mut random, 3, Priority::Bulk, 2_000_000);
    net.run(SECOND * 2);
    let fetching = |net: &Net| {
        let fetching = net
            .nodes
            .iter()
            .filter(|node| node.alive && node.topic.memory().pulls > 0);
        fetching.count()
    };
    assert!(fetching(&net) > 10, "{} fetch it", fetching(&net));
    // Two neighbours of the publisher go, noticed late; it stays.
    let gone: Vec<usize> = net.linked(3).into_iter().take(2).collect();
    for node in gone {
        net.crash(node, SECOND * 15);
    }
    net.run(SECOND * 60);
    check(&net, &[object]);
    assert_eq!(fetching(&net), 0);
}
