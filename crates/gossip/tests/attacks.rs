//! Neighbours that misbehave: what they do is bounded in memory, and delays nobody else much.
//!
//! Each attack runs in a network of 30 nodes, 3 of them hostile. The same run without the attack is
//! the measure: honest objects take at most twice as long, all of them arrive, and no node needs
//! more memory than `Config::memory_max`.

#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use net::{Net, Random, Settings, node_id};
use wiremesh_gossip::message::{Range, Wish};
use wiremesh_gossip::{
    CHUNK_LEN, Config, Contact, Header, MESSAGE_MAX, Message, OBJECT_MAX, ObjectId, Verdict,
};
use wiremesh_wire::{NodeId, Priority};

const SECOND: Duration = Duration::from_secs(1);
const NODES: usize = 30;
const HOSTILE: [usize; 3] = [5, 14, 23];
const UNIX_MS: u64 = 1_700_000_000_000;

/// What the hostile nodes do, every 50 ms, each to everybody it has a link with.
type Attack = fn(&mut Net, &mut Random, usize, usize);

struct Outcome {
    /// The time that nine of ten objects need to reach all honest nodes.
    reach_ms: f64,
    banned: u64,
    /// The most memory of a node.
    memory: usize,
    net: Net,
}

fn small_limits() -> Config {
    Config {
        store_bytes_max: 4 * 1024 * 1024,
        seen_max: 8_192,
        queue_bytes_max: 256 * 1024,
        missing_max: 512,
        incomplete_max: 8,
        ..Config::default()
    }
}

fn run(config: Config, before: fn(&mut Net, usize), attack: Attack) -> Outcome {
    let mut settings = Settings::new(NODES, 77);
    settings.config = config;
    settings.loss_permille = 0;
    let bound = settings.config.memory_max();
    let mut net = Net::new(settings);
    net.join_all(SECOND / 10);
    net.run(SECOND * 20);
    for at in HOSTILE {
        net.nodes[at].hostile = true;
        before(&mut net, at);
    }
    let mut random = Random::new(78);
    let mut objects = Vec::new();
    let mut memory = 0;
    for step in 0..400 {
        if step % 5 == 0 {
            let at = 1 + random.below(4) as usize;
            let content = [&[1][..], &random.word().to_be_bytes(), &[0; 1_000]].concat();
            let when = net.now.instant;
            let id = net.publish(at, content, Priority::Urgent, SECOND * 600);
            objects.push((id.expect("room"), when));
        }
        for at in HOSTILE {
            for peer in net.linked(at) {
                attack(&mut net, &mut random, at, peer);
            }
        }
        net.run(SECOND / 20);
        let sizes = net.nodes.iter().map(|node| node.topic.memory().bytes());
        memory = sizes.max().unwrap_or_default().max(memory);
        assert!(memory <= bound, "{memory} bytes of {bound}");
    }
    net.run(SECOND * 20);
    let times = net.reach_ms(objects.iter().copied(), 1.0);
    assert!(
        net.nodes
            .iter()
            .all(|node| node.twice == 0 && node.late == 0)
    );
    let honest = net.nodes.iter().filter(|node| !node.hostile);
    let banned = honest.map(|node| node.topic.counters().banned).sum();
    Outcome {
        reach_ms: times[times.len() * 9 / 10],
        banned,
        memory,
        net,
    }
}

/// Compares a run under attack with one without.
fn check(config: Config, before: fn(&mut Net, usize), attack: Attack) -> Outcome {
    let calm = run(config.clone(), |_, _| {}, |_, _, _, _| {});
    assert_eq!(calm.banned, 0);
    let outcome = run(config, before, attack);
    println!(
        "{:.0} ms, {:.0} ms without; {} bans, {} KiB",
        outcome.reach_ms,
        calm.reach_ms,
        outcome.banned,
        outcome.memory / 1024
    );
    assert!(
        outcome.reach_ms <= calm.reach_ms * 2.0,
        "{} ms, {} ms without",
        outcome.reach_ms,
        calm.reach_ms
    );
    outcome
}

fn nothing(_: &mut Net, _: usize) {}

fn header(random: &mut Random, size: usize, expiry_ms: u64) -> Header {
    Header {
        priority: Priority::Urgent,
        expiry_ms,
        size_bytes: size as u32,
        salt: random.word(),
    }
}

fn object(header: &Header, body: &[u8]) -> Vec<u8> {
    Message::Object {
        header: *header,
        body,
    }
    .emit()
}

fn random_id(random: &mut Random) -> ObjectId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&random.word().to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn total(outcome: &Outcome, count: fn(&wiremesh_gossip::Counters) -> u64) -> u64 {
    let nodes = outcome.net.nodes.iter();
    nodes.map(|node| count(node.topic.counters())).sum()
}

#[test]
fn duplicate_flood() {
    let outcome = check(small_limits(), nothing, |net, _, at, peer| {
        let header = header(&mut Random::new(at as u64), 1_000, UNIX_MS + 600_000);
        for _ in 0..20 {
            net.inject(at, peer, object(&header, &[1; 1_000]));
        }
    });
    assert!(outcome.banned > 0);
}

#[test]
fn oversize_announcements() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        let mut header = header(random, OBJECT_MAX, UNIX_MS + 600_000);
        header.size_bytes += 1;
        net.inject(at, peer, object(&header, &[1; 1_000]));
        net.inject(at, peer, vec![10; MESSAGE_MAX + 1]);
    });
    assert!(outcome.banned > 0);
}

#[test]
fn invalid_objects_are_not_forwarded() {
    let config = Config {
        validate: true,
        ..small_limits()
    };
    let validate = |net: &mut Net, _| {
        for node in &mut net.nodes {
            node.validate = |content| match content[0] {
                1 => Verdict::Accept,
                _ => Verdict::Reject,
            };
        }
    };
    let outcome = check(config, validate, |net, random, at, peer| {
        let header = header(random, 1_000, UNIX_MS + 600_000);
        net.inject(at, peer, object(&header, &[2; 1_000]));
    });
    assert!(outcome.banned > 0);
    // Three from each hostile node to each neighbour, at most; nobody else saw one.
    let rejected = total(&outcome, |counters| counters.rejected);
    assert!(rejected <= 3 * 3 * 64, "{rejected}");
}

#[test]
fn objects_that_expire_too_late_or_long_ago() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        for expiry in [UNIX_MS - 600_000, UNIX_MS + 36_000_000, u64::MAX, 0] {
            let header = header(random, 100, expiry);
            net.inject(at, peer, object(&header, &[1; 100]));
        }
    });
    assert!(outcome.banned > 0);
}

#[test]
fn neighbours_that_never_read_are_dropped() {
    let outcome = check(small_limits(), |net, at| net.deafen(at), |_, _, _, _| {});
    assert!(total(&outcome, |counters| counters.stuck) > 0);
}

#[test]
fn neighbours_that_graft_and_drop() {
    let silence = |net: &mut Net, at: usize| net.nodes[at].mute = true;
    check(small_limits(), silence, |net, _, at, peer| {
        for priority in Priority::ALL {
            let graft = Message::Graft {
                priority,
                push: true,
                ids: Vec::new(),
            };
            net.inject(at, peer, graft.emit());
        }
    });
}

#[test]
fn grafts_and_prunes_in_turn() {
    check(small_limits(), nothing, |net, random, at, peer| {
        for _ in 0..10 {
            let priority = Priority::Urgent;
            let graft = Message::Graft {
                priority,
                push: true,
                ids: (0..20).map(|_| random_id(random)).collect(),
            };
            net.inject(at, peer, graft.emit());
            net.inject(at, peer, Message::Prune { priority }.emit());
        }
    });
}

#[test]
fn announcements_of_what_does_not_exist() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        for priority in Priority::ALL {
            let ids = (0..256).map(|_| random_id(random)).collect();
            net.inject(at, peer, Message::IHave { priority, ids }.emit());
        }
    });
    assert!(total(&outcome, |counters| counters.missing_dropped) > 0);
}

#[test]
fn headers_of_objects_that_nobody_has() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        let header = header(random, 1_000_000, UNIX_MS + 600_000);
        let body = vec![7; header.body_len()];
        net.inject(at, peer, object(&header, &body));
    });
    assert!(total(&outcome, |counters| counters.abandoned) > 0);
}

#[test]
fn wrong_chunks_are_fetched_elsewhere() {
    let damage = |net: &mut Net, at: usize| {
        net.nodes[at].damages = true;
        if at == HOSTILE[0] {
            net.run(SECOND);
            let content = vec![9; 20 * CHUNK_LEN];
            net.publish(2, content, Priority::Normal, SECOND * 600)
                .expect("room");
        }
    };
    let outcome = check(small_limits(), damage, |_, _, _, _| {});
    assert!(total(&outcome, |counters| counters.wrong_chunks) > 0);
    for node in outcome.net.nodes.iter().filter(|node| !node.hostile) {
        let objects = 80 + 1 - node.topic.counters().published;
        assert_eq!(node.topic.counters().delivered, objects);
    }
}

#[test]
fn chunks_that_nobody_asked_for_and_asking_for_everything() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        let id = random_id(random);
        for index in 0..20 {
            let bytes = &[3; CHUNK_LEN];
            net.inject(at, peer, Message::Chunk { id, index, bytes }.emit());
        }
        let ranges = vec![
            Range {
                start: 0,
                count: 4_096
            };
            64
        ];
        net.inject(at, peer, Message::Want { id, ranges }.emit());
    });
    assert!(outcome.banned > 0);
}

fn stranger(random: &mut Random) -> NodeId {
    node_id(1_000 + random.below(200))
}

#[test]
fn contacts_that_do_not_exist() {
    let outcome = check(small_limits(), nothing, |net, random, at, peer| {
        for _ in 0..3 {
            let contacts = (0..8).map(|_| Contact {
                node: stranger(random),
                addresses: vec![0; 64],
            });
            let mut contacts: Vec<Contact> = contacts.collect();
            let contact = contacts[0].clone();
            let nonce = random.word();
            net.inject(at, peer, Message::ForwardJoin { hops: 0, contact }.emit());
            contacts.truncate(8);
            let shuffle = Message::Shuffle {
                hops: 0,
                nonce,
                contacts,
            };
            net.inject(at, peer, shuffle.emit());
        }
    });
    // A walk makes one link a second and node, beside those that look for neighbours.
    assert!(
        outcome.net.failed_links < 40 * NODES as u64 * 2,
        "{}",
        outcome.net.failed_links
    );
}

#[test]
fn asking_to_be_a_neighbour_all_the_time() {
    let outcome = check(small_limits(), nothing, |net, _, at, peer| {
        let addresses = &[0; 64];
        let wish = Wish::Near(1);
        net.inject(at, peer, Message::Join { addresses }.emit());
        net.inject(at, peer, Message::Neighbor { wish, addresses }.emit());
    });
    assert!(outcome.banned > 0);
}
