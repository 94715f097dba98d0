//! What goes wrong around two nodes, and that they come back by themselves.

use crate::host::Make;
use crate::world::World;
use std::time::Duration;
use wiremesh_control::Policy;
use wiremesh_core::{Event, HandshakeFailure, PeerState};

const MIXED: [[Make; 2]; 3] = [
    [Make::Kernel, Make::Kernel],
    [Make::Kernel, Make::Engine],
    [Make::Engine, Make::Kernel],
];

/// Numbers that follow from a seed.
fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}

#[test]
fn loss_and_reordering_delay_it_and_no_more() {
    for seed in 0..12 {
        let makes = MIXED[seed as usize % 3];
        let mut world = World::pair(makes);
        let mut roll = dice(seed + 1);
        world.fate = Box::new(move |_, _| match roll() % 10 {
            0..2 => None,
            2..5 => Some(Duration::from_millis(roll() % 300)),
            _ => Some(Duration::ZERO),
        });
        world.run_until_up(200);
        world.run_secs(400);
        world.fate = Box::new(|_, _| Some(Duration::ZERO));
        world.run_until_up(200);
    }
}

#[test]
fn each_side_restarts_and_they_agree_anew() {
    for makes in MIXED {
        for who in 0..2 {
            let mut world = World::pair(makes);
            world.run_until_up(20);
            world.run_secs(7);
            world.restart(who);
            assert!(!world.is_open(who, 1 - who) || makes[who] == Make::Engine);
            world.run_secs(1);
            let took = world.run_until_up(200);
            assert!(took < Duration::from_secs(60), "{makes:?} {who}: {took:?}");
        }
    }
}

#[test]
fn a_kill_without_goodbye_closes_the_gate_of_the_other_until_it_is_back() {
    for makes in MIXED {
        for who in 0..2 {
            let mut world = World::pair(makes);
            world.run_until_up(20);
            world.run_secs(5);
            world.kill(who);
            world.run_secs(20);
            let other = 1 - who;
            assert_eq!(
                world.status(other, who).state,
                PeerState::Silent,
                "{makes:?} {who}"
            );
            world.run_secs(220);
            if makes[other] == Make::Kernel {
                assert!(!world.is_open(other, who), "{}", world.describe());
                let lost = |e: &&Event| matches!(e, Event::SessionLost { .. });
                assert_eq!(world.hosts[other].events.iter().filter(lost).count(), 1);
            }
            world.start(who);
            let took = world.run_until_up(100);
            assert!(took < Duration::from_secs(60), "{makes:?} {who}: {took:?}");
        }
    }
}

#[test]
fn a_restart_at_any_moment_of_the_first_exchange_is_survived() {
    for makes in MIXED {
        for who in 0..2 {
            for step in 0..24 {
                let mut world = World::pair(makes);
                world.run_for(Duration::from_millis(20 + 90 * step));
                world.restart(who);
                world.run_secs(1);
                world.run_until_up(120);
            }
        }
    }
}

#[test]
fn both_restart_at_once() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.run_until_up(20);
    world.kill(0);
    world.kill(1);
    world.run_secs(3);
    world.start(0);
    world.start(1);
    world.run_until_up(30);
}

#[test]
fn a_peer_that_is_not_there_is_told_once_per_attempt() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.chatter = None;
    world.kill(1);
    world.run_secs(80);
    assert_eq!(world.status(0, 1).state, PeerState::Handshaking);
    world.run_secs(20);
    let failed = |e: &Event| match e {
        Event::HandshakeFailed { failure, .. } => Some(*failure),
        _ => None,
    };
    let failures: Vec<_> = world.hosts[0].events.iter().filter_map(failed).collect();
    assert_eq!(failures, [HandshakeFailure::NoAnswer]);
    world.start(1);
    world.chatter = Some(Duration::from_millis(200));
    world.run_until_up(40);
}

#[test]
fn an_attempt_without_a_place_to_go_fails_too() {
    let mut world = World::pair([Make::Kernel; 2]);
    let third = world.add(Make::Kernel, Policy::default());
    let key = world.introduce_with(0, third, |_| {});
    let now = world.now_of(0);
    assert!(world.mind(0).connect(now, key));
    let told = world.hosts[0].told.len();
    assert!(world.mind(0).connect(now, key));
    world.drain();
    assert_eq!(world.hosts[0].told.len(), told + 2, "once in 5 s");
    world.run_secs(100);
    let failure = HandshakeFailure::NoEndpoint;
    let failed = Event::HandshakeFailed { peer: key, failure };
    assert!(world.hosts[0].events.contains(&failed));
    assert_eq!(world.status(0, third).state, PeerState::NoAnswer);
}

#[test]
fn the_wall_clock_may_step_either_way() {
    for makes in MIXED {
        for seconds in [-86_400, -10, 10, 86_400, 40_000] {
            let mut world = World::pair(makes);
            world.run_until_up(20);
            world.run_secs(30);
            world.step_wall(0, seconds);
            world.run_secs(20);
            world.run_until_up(60);
            world.run_secs(400);
            assert!(
                world.is_up(0, 1),
                "{makes:?} {seconds}: {}",
                world.describe()
            );
            let stepped = |e: &&Event| matches!(e, Event::ClockStepped);
            let told = world.hosts[0].events.iter().filter(stepped).count();
            // The plain node in the role of the kernel keeps its events to itself.
            assert_eq!(told, usize::from(seconds > 30));
        }
    }
}

#[test]
fn both_go_on_after_the_record_has_run_out() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.chatter = Some(Duration::from_secs(20));
    let seq = world.hosts[0].disk.record_seq;
    world.run_secs(13 * 3_600);
    assert!(
        world.hosts[0].disk.record_seq > seq,
        "signed anew after 12 h"
    );
    assert!(world.is_open(0, 1) && world.is_open(1, 0));
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.run_until_up(20);
    world.hosts[1].addr = ([198, 51, 100, 7], 4_000).into();
    world.run_secs(3);
    assert_eq!(world.status(0, 1).path.unwrap().remote, world.hosts[1].addr);
    let moved = |e: &&Event| matches!(e, Event::EndpointChanged { .. });
    assert_eq!(world.hosts[0].events.iter().filter(moved).count(), 1);
    // Added anew, it is still found there, though it does not call.
    world.restart(1);
    world.run_secs(1);
    world.run_until_up(60);
    let told = world.hosts[0].told.iter().rfind(|change| change.replace);
    assert_eq!(told.unwrap().endpoint, Some(world.hosts[1].addr));
}
