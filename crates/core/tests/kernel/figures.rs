//! When figures are read, and whose they are; one node alone.

use crate::host::Make;
use crate::world::World;
use crate::{at, id, node, peer, tasks};
use std::time::Duration;
use wiremesh_core::{KernelFigures, KernelTask};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{Now, UnixTime};

fn figures(n: u16, handshake: Option<u64>) -> KernelFigures {
    KernelFigures {
        node_id: id(n),
        endpoint: Some(([192, 0, 2, 1], 1).into()),
        last_handshake: handshake.map(|at| UnixTime::from_secs_nanos(at, 0)),
        rx_bytes: 1_000,
        tx_bytes: 1_000,
    }
}

fn readings(tasks: &[KernelTask]) -> usize {
    let reads = |task: &&KernelTask| matches!(task, KernelTask::ReadFigures);
    tasks.iter().filter(reads).count()
}

fn later(now: Now, millis: u64) -> Now {
    now + Duration::from_millis(millis)
}

#[test]
fn nothing_is_read_without_peers_and_everything_at_once_with_some() {
    let mut node = node(1);
    assert_eq!(node.poll_timeout(), None);
    node.handle_timeout(at(5));
    assert!(tasks(&mut node).is_empty());
    for n in 0..3 {
        node.add_peer(at(5), peer(n)).unwrap();
    }
    assert_eq!(readings(&tasks(&mut node)), 0);
    let due = node.poll_timeout().unwrap();
    assert!(due <= at(6).instant);
    node.handle_timeout(at(6));
    assert_eq!(readings(&tasks(&mut node)), 1);
    node.handle_figures(at(6), &[]);
    assert_eq!(node.poll_timeout(), Some(at(7).instant));
}

#[test]
fn figures_are_not_asked_for_twice_until_they_came_or_five_seconds_are_over() {
    let mut node = node(1);
    node.add_peer(at(0), peer(1)).unwrap();
    let mut now = at(1);
    let mut asked = 0;
    for _ in 0..99 {
        node.handle_timeout(now);
        asked += readings(&tasks(&mut node));
        now = later(now, 100);
    }
    assert_eq!(asked, 2, "at 1 s and at 6 s");
    assert_eq!(node.poll_timeout(), Some(at(11).instant));
    node.handle_figures(now, &[figures(1, None)]);
    assert_eq!(node.poll_timeout(), Some(later(now, 1_000).instant));
}

#[test]
fn the_figures_of_a_removed_peer_are_not_those_of_its_successor() {
    let mut node = node(1);
    let old = node.add_peer(at(0), peer(1)).unwrap();
    node.handle_timeout(at(1));
    assert!(node.remove_peer(old));
    let new = node.add_peer(at(1), peer(1)).unwrap();
    assert_ne!(old, new);
    tasks(&mut node);
    let begin = 1_700_000_000;
    node.handle_figures(at(1), &[figures(1, Some(begin))]);
    let status = node.status(at(1), new).unwrap();
    assert_eq!((status.last_handshake, status.rx_bytes), (None, 0));
    assert!(tasks(&mut node).is_empty(), "it is not missing either");
    assert!(node.status(at(1), old).is_none());
    node.handle_timeout(at(2));
    node.handle_figures(at(2), &[figures(1, Some(begin + 2))]);
    assert!(node.status(at(2), new).unwrap().last_handshake.is_some());
    assert_eq!(node.counters().handshakes, 1);
}

#[test]
fn a_removed_peer_that_the_kernel_still_shows_is_removed_again() {
    let mut node = node(1);
    let only = node.add_peer(at(0), peer(1)).unwrap();
    node.handle_timeout(at(1));
    node.handle_figures(at(1), &[figures(1, None)]);
    assert!(node.remove_peer(only));
    tasks(&mut node);
    // The helper could not, and later can.
    for (second, shown) in [(3, true), (5, true), (7, false)] {
        assert!(node.poll_timeout().is_some(), "it wants to know");
        node.handle_timeout(at(second));
        assert!(matches!(*tasks(&mut node), [KernelTask::ReadFigures]));
        let shown = shown.then(|| figures(1, None));
        node.handle_figures(at(second), shown.as_slice());
        let again = matches!(*tasks(&mut node), [KernelTask::RemovePeer(_)]);
        assert_eq!(again, shown.is_some());
    }
    assert_eq!(node.poll_timeout(), None);
}

#[test]
fn figures_of_nobody_are_ignored() {
    let mut node = node(1);
    node.add_peer(at(0), peer(1)).unwrap();
    tasks(&mut node);
    let both = [figures(2, Some(1_700_000_000)), figures(1, None)];
    node.handle_figures(at(1), &both);
    assert!(tasks(&mut node).is_empty());
    assert_eq!(node.counters().handshakes, 0);
}

#[test]
fn an_endpoint_that_was_just_set_is_not_overwritten_by_older_figures() {
    let mut node = node(1);
    let key = node.add_peer(at(0), peer(1)).unwrap();
    node.handle_timeout(at(1));
    let new = ([203, 0, 113, 1], 2).into();
    assert!(node.set_endpoint(key, new));
    node.handle_figures(at(1), &[figures(1, None)]);
    let shown = |node: &wiremesh_core::KernelNode| node.status(at(1), key).unwrap().path;
    assert_eq!(shown(&node).unwrap().remote, new);
    node.handle_figures(at(2), &[figures(1, None)]);
    assert_eq!(
        shown(&node).unwrap().remote,
        figures(1, None).endpoint.unwrap()
    );
}

#[test]
fn a_peer_that_is_missing_or_was_not_told_is_added_anew() {
    for missing in [true, false] {
        let mut world = World::pair([Make::Kernel; 2]);
        world.run_until_up(20);
        let id = world.hosts[1].id;
        let before = world.hosts[0].replaced[&id];
        match missing {
            true => {
                let key = world.hosts[0].node.peer_by_id(&id).unwrap();
                world.hosts[0].node.remove_peer(key);
            }
            false => world.mind(0).handle_failure(&id),
        }
        world.run_secs(2);
        assert_eq!(world.hosts[0].replaced[&id], before + 1);
        assert!(!world.is_open(0, 1), "until they have agreed anew");
        world.run_until_up(60);
    }
}

#[test]
fn without_figures_nothing_opens_and_they_are_asked_for_again() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.hosts[0].deaf = true;
    world.run_secs(60);
    assert!(!world.is_open(0, 1) && !world.is_open(1, 0));
    world.hosts[0].deaf = false;
    world.run_until_up(60);
}

#[test]
fn a_peer_that_was_not_told_is_not_opened_before_it_is_added_anew() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.run_until_up(20);
    let (whom, key) = (world.hosts[1].id, world.key(0, 1));
    world.hosts[0].deaf = true;
    world.mind(0).handle_failure(&whom);
    assert_eq!(world.mind(0).set_allowed_ips(key, &[]), Ok(true));
    world.drain();
    assert!(!world.is_open(0, 1));
    world.hosts[0].deaf = false;
    world.run_secs(8);
    world.run_until_up(60);
}

#[test]
fn the_kernel_is_not_sent_into_the_tunnel_when_a_peer_is_added_anew() {
    let mut node = node(1);
    let key = node.add_peer(at(0), peer(1)).unwrap();
    let outside = figures(1, None);
    node.handle_figures(at(1), &[outside]);
    let inside = KernelFigures {
        endpoint: Some((overlay_address(&id(1)), 51_820).into()),
        ..outside
    };
    node.handle_figures(at(2), &[inside]);
    assert_eq!(
        node.status(at(2), key)
            .unwrap()
            .path
            .map(|path| path.remote),
        outside.endpoint
    );
}
