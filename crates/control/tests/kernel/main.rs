//! The control protocol over the kernel's WireGuard: each pair with a kernel in it, through every
//! loss and crash (docs/spec.md section 7.3, "First upgrade, safe with the kernel").
//!
//! Three things are checked at each step of each test. The application's prefixes are in the
//! allowed IPs only while no session lives that is below the gate. No application packet is sealed
//! on a session below the level of the test. After a fault both are up again within 200 s.

mod node;
#[path = "../support/pair.rs"]
mod pair;
mod tunnel;
mod world;

use pair::Seeded;
use std::time::Duration;
use tunnel::Make::{self, Engine, Kernel};
use tunnel::{Datagram, Inner, Millis};
use wiremesh_control::frame::MessageType;
use wiremesh_control::{Level, Phase, Policy, Random, Stage, SuiteId};
use wiremesh_wire::PresharedKey;
use world::{Fate, RECOVERY, World};

const PAIRS: [[Make; 2]; 3] = [[Kernel, Kernel], [Engine, Kernel], [Kernel, Engine]];
const SECOND: Millis = 1_000;
/// More steps than a first upgrade takes.
const STEPS: u64 = 60;

/// Whatever happened, both come up, with one key, and stay so.
fn recovers(world: &mut World) -> Millis {
    let took = world.run_until_up(RECOVERY);
    world.run_for(15 * SECOND);
    world.chatter = true;
    world.run_for(2 * SECOND);
    assert!(
        world.is_up(),
        "up after {took} ms but did not stay so: {}\n{}",
        world.describe(),
        world.log.join("\n")
    );
    let [a, b] = [world.status(0), world.status(1)];
    assert_eq!(a.epoch, b.epoch, "{}", world.log.join("\n"));
    assert!(a.epoch != 0);
    took
}

#[test]
fn first_upgrade_ends_at_l2() {
    for makes in PAIRS {
        let mut world = World::new(makes);
        let took = recovers(&mut world);
        println!("{makes:?}: {took} ms");
        assert!(took < SECOND);
        for (at, make) in makes.into_iter().enumerate() {
            assert_eq!(world.status(at).suite, Some(SuiteId::HYBRID));
            assert_eq!(world.status(at).waiting, None);
            if make == Kernel {
                // The first time it was added is not counted.
                assert_eq!(world.nodes[at].replaced, 1);
            }
        }
    }
}

#[test]
fn any_one_datagram_may_be_lost() {
    for makes in PAIRS {
        let mut worst = 0;
        for lost in 0..STEPS {
            let mut world = World::new(makes);
            let mut number = 0;
            world.fate = Box::new(move |_, _| {
                number += 1;
                number - 1 == lost
            });
            let took = recovers(&mut world);
            assert!(took < 15 * SECOND, "{makes:?} {lost}: {took} ms");
            worst = worst.max(took);
        }
        println!("{makes:?}: worst {worst} ms");
    }
}

/// Loses each message of one type, by one sender, of the first exchange.
fn loses_of_first_exchange(kind: MessageType, from: usize) -> Fate {
    let mut first = None;
    Box::new(move |_, letter| {
        if letter.message() == Some(MessageType::Offer) && first.is_none() {
            first = letter.exchange();
        }
        letter.message() == Some(kind) && letter.to != from && letter.exchange() == first
    })
}

const SENDERS: [(MessageType, usize); 6] = [
    (MessageType::Offer, 0),
    (MessageType::Reply, 1),
    (MessageType::Fin, 0),
    (MessageType::Done, 1),
    (MessageType::Live, 0),
    (MessageType::Live, 1),
];

#[test]
fn any_message_may_be_lost_for_good() {
    for makes in PAIRS {
        for (kind, from) in SENDERS {
            let mut world = World::new(makes);
            world.fate = loses_of_first_exchange(kind, from);
            let took = recovers(&mut world);
            println!("{makes:?} {kind:?} of {from}: {took} ms");
            assert!(
                took < 60 * SECOND,
                "{makes:?} {kind:?} of {from}: {took} ms"
            );
        }
    }
}

#[test]
fn any_kind_of_message_may_be_lost_for_minutes() {
    for makes in PAIRS {
        for (kind, from) in SENDERS {
            for end in [12, 35, 119, 150, 400] {
                let mut world = World::new(makes);
                world.fate = Box::new(move |now, letter| {
                    now < end * SECOND && letter.message() == Some(kind) && letter.to != from
                });
                world.run_to(end * SECOND);
                let took = recovers(&mut world);
                println!("{makes:?} {kind:?} of {from} until {end} s: {took} ms");
            }
        }
    }
}

#[test]
fn a_crash_at_any_step_heals() {
    for makes in PAIRS {
        for chatter in [true, false] {
            let mut worst = (0, 0, 0, 0);
            for who in 0..2 {
                for step in 1..STEPS {
                    for downtime in [0, 7] {
                        let mut world = World::new(makes);
                        world.chatter = chatter;
                        world.crash = Some((step, who, downtime * SECOND));
                        while world.crashed_at.is_none() {
                            world.run_for(SECOND);
                        }
                        let took = recovers(&mut world);
                        worst = worst.max((took, who, step, downtime));
                    }
                }
            }
            println!("{makes:?} chatter {chatter}: worst {worst:?}");
        }
    }
}

#[test]
fn a_program_killed_at_any_time_heals() {
    for makes in PAIRS {
        for who in (0..2).filter(|who| makes[*who] == Kernel) {
            for after in (0..60).map(|n| n * 20) {
                for downtime in [10, 3_000, 40_000] {
                    let mut world = World::new(makes);
                    world.run_to(after);
                    world.kill(who, downtime);
                    world.run_for(downtime);
                    recovers(&mut world);
                }
            }
        }
    }
}

#[test]
fn both_may_crash() {
    for makes in PAIRS {
        for downtimes in [[0, 0], [0, 9], [9, 0], [40, 3]] {
            for after in [0, 200, 300, 400, 500, 30_000] {
                let mut world = World::new(makes);
                world.run_to(after);
                world.power_off(0, downtimes[0] * SECOND);
                world.power_off(1, downtimes[1] * SECOND);
                recovers(&mut world);
            }
        }
    }
}

#[test]
fn a_silent_peer_is_dead_after_25_s() {
    for makes in [[Kernel, Kernel], [Kernel, Engine], [Engine, Kernel]] {
        let dead = usize::from(makes[0] == Kernel);
        let mut world = World::new(makes);
        recovers(&mut world);
        let off = world.time;
        world.power_off(dead, 1_000 * SECOND);
        world.run_for(24 * SECOND);
        assert!(world.is_open(1 - dead), "{makes:?}: too early");
        world.run_for(3 * SECOND);
        assert!(!world.is_open(1 - dead), "{makes:?}");
        assert_eq!(world.status(1 - dead).epoch, 0, "{makes:?}");
        // Nothing can be sent any more, so nothing is said to be dead again and again.
        let replaced = world.nodes[1 - dead].replaced;
        world.run_for(300 * SECOND);
        assert_eq!(world.nodes[1 - dead].replaced, replaced, "since {off}");
    }
}

#[test]
fn a_peer_that_lost_its_key_is_dead_after_three_knocks() {
    for makes in PAIRS {
        let survivor = usize::from(makes[0] == Engine);
        for chatter in [false, true] {
            let mut world = World::new(makes);
            recovers(&mut world);
            world.chatter = chatter;
            world.power_off(1 - survivor, 0);
            let took = recovers(&mut world);
            println!("{makes:?} chatter {chatter}: {took} ms");
            assert!(took <= 20 * SECOND, "{makes:?}: {took} ms");
        }
    }
}

#[test]
fn knocks_beside_data_are_no_lost_key() {
    let mut world = World::new([Kernel, Kernel]);
    recovers(&mut world);
    world.chatter_every = 3 * SECOND;
    // As in a rotation whose DONE is missing: the session lives, the next handshake fails.
    world.nodes[1].tunnel.keys = vec![PresharedKey::from_bytes([9; 32])];
    let replaced = world.nodes[0].replaced;
    for _ in 0..10 {
        world.handshake(1);
        world.run_for(5 * SECOND);
    }
    assert_eq!(world.nodes[0].replaced, replaced);
    assert!(world.is_up());
}

#[test]
fn without_any_figures_a_session_ends_after_180_s() {
    let mut world = World::new([Kernel, Kernel]);
    recovers(&mut world);
    world.nodes[0].told = Some(world.nodes[0].view());
    world.power_off(1, 1_000 * SECOND);
    world.run_for(150 * SECOND);
    assert!(world.is_open(0));
    world.run_for(60 * SECOND);
    assert!(!world.is_open(0));
    assert_eq!(world.status(0).epoch, 0);
}

#[test]
fn live_that_is_there_before_its_session_is_seen_changes_nothing() {
    let after = Duration::from_secs(60);
    let policies = [Policy::default(); 2];
    let mut world = World::with_rotation([Kernel, Kernel], policies, after);
    recovers(&mut world);
    // After the exchange of the second session, no third comes up before that one is over.
    world.fate = Box::new(|now, letter| {
        let data = matches!(letter.datagram, Datagram::Data { .. });
        (200 * SECOND..303 * SECOND).contains(&now) && !data
    });
    let replaced = world.nodes[1].replaced;
    world.run_to(301 * SECOND);
    let last = world.nodes[0].tunnel.last_handshake;
    while world.nodes[0].tunnel.last_handshake == last {
        world.run_for(10);
    }
    // B reads its figures late.
    world.nodes[1].poll_at = world.time + 1_500;
    world.run_for(10 * SECOND);
    assert!(world.is_up(), "{}", world.describe());
    assert_eq!(
        world.nodes[1].replaced,
        replaced,
        "{}",
        world.log.join("\n")
    );
}

#[test]
fn a_quiet_peer_is_not_dead() {
    for makes in PAIRS {
        let hour = Duration::from_secs(3_600);
        let mut world = World::with_rotation(makes, [Policy::default(); 2], hour);
        recovers(&mut world);
        world.chatter = false;
        let replaced = world.nodes.each_ref().map(|node| node.replaced);
        for _ in 0..1_200 {
            world.run_for(SECOND);
            assert!(world.is_open(0) && world.is_open(1), "{}", world.describe());
        }
        assert_eq!(world.nodes.each_ref().map(|node| node.replaced), replaced);
        assert_eq!(world.status(0).epoch, 1);
    }
}

/// Minutes of traffic with rotations; the packets that were lost and the epoch in the end.
fn rotate(makes: [Make; 2], fate: Fate, minutes: u64) -> (usize, u32) {
    rotate_while(makes, fate, minutes, 100)
}

/// The same with an application that sends so often.
fn rotate_while(makes: [Make; 2], fate: Fate, minutes: u64, every: Millis) -> (usize, u32) {
    let after = Duration::from_secs(60);
    let mut world = World::with_rotation(makes, [Policy::default(); 2], after);
    recovers(&mut world);
    world.fate = fate;
    world.chatter_every = every;
    world.log.clear();
    let settled = |world: &World| world.lost(world.time - 2 * SECOND);
    let before = settled(&world);
    let replaced = world.nodes.each_ref().map(|node| node.replaced);
    world.run_for(minutes * 60 * SECOND);
    let lost = settled(&world) - before;
    println!("{makes:?}: lost {lost}, epoch {}", world.status(0).epoch);
    assert_eq!(
        world.nodes.each_ref().map(|node| node.replaced),
        replaced,
        "{}",
        world.log.join("\n")
    );
    (lost, world.status(0).epoch)
}

#[test]
fn rotation_loses_no_packet() {
    for makes in PAIRS {
        let (lost, epoch) = rotate(makes, Box::new(|_, _| false), 20);
        assert_eq!(lost, 0, "{makes:?}");
        // The key of an exchange is used from the next handshake on, and that begins the next.
        assert!(epoch >= 5, "{makes:?}: {epoch}");
    }
}

#[test]
fn rotation_without_done_loses_no_packet() {
    for makes in PAIRS {
        // With little data the knocks of B, while A has the other key, stand alone.
        for every in [100, 3_000] {
            let fate = |_, letter: &world::Letter| letter.message() == Some(MessageType::Done);
            let (lost, epoch) = rotate_while(makes, Box::new(fate), 60, every);
            println!("{makes:?}: epoch {epoch}");
            assert_eq!(lost, 0, "{makes:?}");
            assert!(epoch > 8, "{makes:?}: {epoch}");
        }
    }
}

#[test]
fn a_handshake_between_two_fins_decides_nothing() {
    for initiator in 0..2 {
        let after = Duration::from_secs(60);
        let policies = [Policy::default(); 2];
        let mut world = World::with_rotation([Kernel, Kernel], policies, after);
        recovers(&mut world);
        let mut fins = 0;
        world.fate = Box::new(move |_, letter| match letter.message() {
            Some(MessageType::Fin) => {
                fins += 1;
                fins < 4
            }
            kind => kind == Some(MessageType::Done),
        });
        while world.status(0).phase != Phase::RotateFinished {
            world.run_for(100);
        }
        world.run_for(5 * SECOND);
        world.handshake(initiator);
        let before = world.lost(world.time - SECOND);
        let replaced = world.nodes[0].replaced;
        world.run_for(300 * SECOND);
        assert_eq!(
            world.lost(world.time - SECOND),
            before,
            "{}",
            world.describe()
        );
        assert_eq!(world.nodes[0].replaced, replaced);
        assert_eq!(world.nodes[0].tunnel.keys, world.nodes[1].tunnel.keys);
    }
}

#[test]
fn handshakes_over_a_slow_network_are_no_knocks() {
    let mut world = World::new([Kernel, Kernel]);
    recovers(&mut world);
    world.chatter = false;
    world.delay = 600;
    let replaced = world.nodes[0].replaced;
    for _ in 0..6 {
        world.handshake(1);
        world.run_for(5 * SECOND);
        assert_eq!(
            world.nodes[0].replaced,
            replaced,
            "{}",
            world.log.join("\n")
        );
    }
}

#[test]
fn rotation_without_fin_loses_no_packet() {
    for makes in PAIRS {
        let fate = |_, letter: &world::Letter| letter.message() == Some(MessageType::Fin);
        let (lost, epoch) = rotate(makes, Box::new(fate), 30);
        assert_eq!(lost, 0, "{makes:?}");
        assert_eq!(epoch, 1, "{makes:?}");
    }
}

#[test]
fn rotation_with_handshakes_lost_loses_no_packet() {
    for makes in PAIRS {
        let mut random = Seeded(5);
        let fate = move |_, letter: &world::Letter| {
            let data = matches!(
                letter.datagram,
                Datagram::Data {
                    inner: Inner::Application(_) | Inner::Keepalive,
                    ..
                }
            );
            !data && chance(&mut random, 10)
        };
        let (lost, epoch) = rotate(makes, Box::new(fate), 60);
        println!("{makes:?}: epoch {epoch}");
        assert_eq!(lost, 0, "{makes:?}");
        assert!(epoch > 15, "{makes:?}: {epoch}");
    }
}

fn chance(random: &mut Seeded, percent: u8) -> bool {
    number(random, 100) < u64::from(percent)
}

fn number(random: &mut Seeded, below: u64) -> u64 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    u64::from(u32::from_le_bytes(bytes)) % below
}

#[test]
fn an_old_node_is_met_at_l1_only_where_policy_allows() {
    for makes in PAIRS {
        for old in 0..2 {
            let mut policies = [Policy::at(Stage::Both); 2];
            policies[old] = Policy::at(Stage::OldOnly);
            let mut world = World::with_policies(makes, policies);
            world.floor = Level::Classical;
            world.run_until_up(15 * SECOND);
            world.run_for(400 * SECOND);
            assert!(world.is_up(), "{makes:?}: {}", world.describe());
            policies[1 - old] = Policy::default();
            let mut world = World::with_policies(makes, policies);
            world.run_for(400 * SECOND);
            assert!(!world.is_open(0) && !world.is_open(1), "{makes:?}");
            assert!(world.status(1 - old).waiting.is_some());
        }
    }
}

#[test]
fn stages_change_while_they_talk_and_back() {
    for makes in PAIRS {
        for second in 0..2 {
            let mut world = World::with_policies(makes, [Policy::at(Stage::OldOnly); 2]);
            world.floor = Level::Classical;
            world.run_until_up(15 * SECOND);
            for (who, stage, suite) in [
                (0, Stage::Both, SuiteId::WIREGUARD),
                (1, Stage::Both, SuiteId::HYBRID),
                (second, Stage::OldOnly, SuiteId::WIREGUARD),
                (second, Stage::Both, SuiteId::HYBRID),
                (second, Stage::NewOnly, SuiteId::HYBRID),
                (1 - second, Stage::NewOnly, SuiteId::HYBRID),
            ] {
                world.set_policy(who, Policy::at(stage));
                world.run_for(20 * SECOND);
                let context = format!(
                    "{makes:?} {who} {stage}: {}\n{}",
                    world.describe(),
                    world.log.join("\n")
                );
                assert!(world.is_up(), "{context}");
                assert_eq!(world.status(0).suite, Some(suite), "{context}");
                assert_eq!(world.status(1).suite, Some(suite), "{context}");
            }
            assert_eq!(world.status(0).pin.level, Level::PostQuantum);
        }
    }
}

#[test]
fn l3_follows_l2_at_run_time() {
    for makes in PAIRS {
        let mut world = World::new(makes);
        recovers(&mut world);
        let policy = Policy {
            static_kem: true,
            ..Policy::default()
        };
        world.set_policy(0, policy);
        world.run_for(20 * SECOND);
        assert!(world.is_up(), "{makes:?}");
        world.set_policy(1, policy);
        world.run_for(40 * SECOND);
        assert!(
            world.is_up(),
            "{makes:?}: {}\n{}",
            world.describe(),
            world.log.join("\n")
        );
        for at in 0..2 {
            assert_eq!(world.status(at).suite, Some(SuiteId::HYBRID_STATIC));
        }
    }
}

/// Two minutes of loss, crashes, kills and silence, then calm.
fn wander(makes: [Make; 2], seed: u64) -> Millis {
    let after = Duration::from_secs(40);
    let mut world = World::with_rotation(makes, [Policy::default(); 2], after);
    let mut random = Seeded(seed * 2_654_435_761 + 1);
    let percent = [0, 5, 20, 50][number(&mut random, 4) as usize];
    let storm = (30 + number(&mut random, 300)) * SECOND;
    let deaf = number(&mut random, 4) as usize;
    let mut loss = Seeded(seed + 1_000_003);
    world.fate = Box::new(move |now, letter| {
        let cut_off = letter.to == deaf && now / (20 * SECOND) % 3 == 1;
        now < storm && (cut_off || chance(&mut loss, percent))
    });
    world.chatter = chance(&mut random, 50);
    while world.time < storm {
        world.run_for(number(&mut random, 40 * SECOND));
        let who = number(&mut random, 2) as usize;
        let downtime = [0, 500, 4_000, 30_000][number(&mut random, 4) as usize];
        match number(&mut random, 3) {
            0 => world.power_off(who, downtime),
            1 if makes[who] == Kernel => world.kill(who, downtime),
            _ => {}
        }
        if chance(&mut random, 20) {
            world.chatter = !world.chatter;
        }
    }
    // The last fault is over when the last is switched on.
    world.run_to(storm);
    while !world.is_on() {
        world.run_for(SECOND);
    }
    recovers(&mut world)
}

#[test]
fn random_faults_heal() {
    let seeds = std::env::var("WIREMESH_KERNEL_SEEDS").ok();
    let seeds: u64 = seeds.and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut worst = (0, [Kernel; 2], 0);
    for seed in 0..seeds {
        let makes = PAIRS[(seed % 3) as usize];
        let took = wander(makes, seed);
        if took > worst.0 {
            worst = (took, makes, seed);
        }
    }
    println!("worst: {worst:?}");
}
