//! Two nodes agree and data flows, whatever each of them runs.

use crate::host::Make;
use crate::world::World;
use std::collections::BTreeSet;
use std::time::Duration;
use wiremesh_control::{Level, Phase, Policy, Stage};
use wiremesh_core::{Event, PeerState};
use wiremesh_wire::PresharedKey;
use wiremesh_wire::address::{control_address, overlay_address};

const MIXED: [[Make; 2]; 3] = [
    [Make::Kernel, Make::Kernel],
    [Make::Kernel, Make::Engine],
    [Make::Engine, Make::Kernel],
];

#[test]
fn two_nodes_in_kernel_mode_agree_on_l2() {
    let mut world = World::pair([Make::Kernel; 2]);
    let took = world.run_until_up(20);
    assert!(took < Duration::from_secs(8), "{took:?}");
    for at in 0..2 {
        let security = world.security(at, 1 - at);
        assert_eq!(security.level, Some(Level::PostQuantum));
        assert_eq!(security.required, Some(Level::PostQuantum));
        assert_eq!(security.waiting, None);
        assert_eq!(security.phase, Some(Phase::Up));
        assert!(security.theirs.is_some());
        let status = world.status(at, 1 - at);
        assert_eq!(status.state, PeerState::Connected);
        assert_eq!(status.path.unwrap().remote, world.hosts[1 - at].addr);
        assert_eq!(status.session_level, Some(2));
        assert!(status.rx_bytes > 0 && status.tx_bytes > 0);
        let established = |e: &&Event| matches!(e, Event::SessionEstablished { .. });
        assert_eq!(world.hosts[at].events.iter().filter(established).count(), 1);
        let known: Vec<_> = world.mind(at).known_suites().collect();
        assert_eq!(known.len(), 1);
        assert!(world.hosts[at].disk.record_seq > 0);
    }
}

#[test]
fn no_traffic_is_needed_for_it() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.chatter = None;
    world.run_secs(15);
    assert!(
        world.is_open(0, 1) && world.is_open(1, 0),
        "{}",
        world.describe()
    );
    world.run_secs(3_000);
    assert!(
        world.is_open(0, 1) && world.is_open(1, 0),
        "{}",
        world.describe()
    );
    let replaced = *world.hosts[0].replaced.values().next().unwrap();
    assert!(replaced <= 3, "an idle peer is left alone: {replaced}");
}

#[test]
fn the_kernel_and_our_engine_agree_on_l2_in_either_role() {
    for makes in MIXED {
        let mut world = World::pair(makes);
        world.run_until_up(20);
        let up = world.instant;
        world.run_secs(300);
        assert!(world.is_up(0, 1), "{}", world.describe());
        assert_eq!(world.lost(up), 0, "{makes:?}");
        for at in 0..2 {
            assert_eq!(world.security(at, 1 - at).level, Some(Level::PostQuantum));
            // The kernel gives nobody a packet that is not IP.
            assert!(!world.status(at, 1 - at).bare_streams);
        }
    }
}

#[test]
fn preshared_keys_rotate_under_traffic_and_nothing_is_lost() {
    for makes in MIXED {
        let mut world = World::new();
        for make in makes {
            world.add_rotating(make, Policy::default(), Duration::from_secs(60));
        }
        world.introduce(0, 1);
        world.chatter = Some(Duration::from_millis(200));
        world.run_until_up(20);
        let up = world.instant;
        let mut epochs = BTreeSet::new();
        for _ in 0..100 {
            world.run_secs(10);
            epochs.insert(world.security(0, 1).psk_epoch);
            assert!(world.is_up(0, 1), "{makes:?}: {}", world.describe());
        }
        assert!(epochs.len() >= 5, "{makes:?}: {epochs:?}");
        assert_eq!(world.lost(up), 0, "{makes:?}");
    }
}

#[test]
fn l3_is_agreed_on_where_both_have_it() {
    let policy = Policy {
        minimum: Level::PostQuantumAuthenticated,
        static_kem: true,
        ..Policy::default()
    };
    for makes in MIXED {
        let mut world = World::new();
        for make in makes {
            world.add(make, policy);
        }
        world.introduce(0, 1);
        world.chatter = Some(Duration::from_millis(200));
        world.run_until_up(20);
        for at in 0..2 {
            let security = world.security(at, 1 - at);
            assert_eq!(security.level, Some(Level::PostQuantumAuthenticated));
        }
    }
}

#[test]
fn two_who_know_nothing_better_agree_on_l1() {
    for makes in MIXED {
        let mut world = World::new();
        for make in makes {
            world.add(make, Policy::at(Stage::OldOnly));
        }
        world.floors.insert((0, 1), 1);
        world.introduce(0, 1);
        world.chatter = Some(Duration::from_millis(200));
        world.run_until_up(20);
        world.run_secs(2);
        for at in 0..2 {
            let security = world.security(at, 1 - at);
            assert_eq!(security.level, Some(Level::Classical));
            assert_eq!(security.phase, Some(Phase::Legacy));
        }
    }
}

#[test]
fn a_boot_key_of_the_operator_is_no_level_of_its_own() {
    let psk = PresharedKey::from_bytes([77; 32]);
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Engine, Policy::default());
    for (at, whom) in [(0, 1), (1, 0)] {
        let endpoint = Some(world.hosts[whom].addr);
        world.introduce_with(at, whom, |config| {
            config.endpoint = endpoint;
            config.preshared_key = psk.clone();
        });
    }
    assert_eq!(world.hosts[0].told[0].preshared_key, Some(psk));
    world.chatter = Some(Duration::from_millis(200));
    world.run_until_up(20);
    assert_eq!(world.security(0, 1).level, Some(Level::PostQuantum));
}

#[test]
fn a_stock_peer_has_its_key_and_all_prefixes_at_once_and_is_l1() {
    let psk = PresharedKey::from_bytes([77; 32]);
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Stock, Policy::default());
    world.floors.insert((0, 1), 1);
    let endpoint = Some(world.hosts[1].addr);
    let lan = "10.7.0.0/24".parse().unwrap();
    let key = world.introduce_with(0, 1, |config| {
        config.endpoint = endpoint;
        config.preshared_key = psk.clone();
        config.allowed_ips = vec![lan];
    });
    world.introduce_with(1, 0, |config| config.preshared_key = psk.clone());
    let stock = world.hosts[1].id;
    let told = &world.hosts[0].told[0];
    assert!(told.replace);
    assert_eq!(told.preshared_key, Some(psk));
    assert_eq!(told.persistent_keepalive, None, "the operator set none");
    let nets = told.allowed_ips.as_ref().unwrap();
    assert!(nets.contains(&overlay_address(&stock).into()) && nets.contains(&lan));
    assert!(!nets.contains(&control_address(&stock).into()));
    world.chatter = Some(Duration::from_millis(200));
    world.run_until_up(3);
    world.run_secs(2);
    assert_eq!(world.hosts[0].told.len(), 1, "nothing is agreed with it");
    let security = world.security(0, 1);
    assert!(security.stock);
    assert_eq!(security.level, Some(Level::Classical));
    assert_eq!(world.status(0, 1).state, PeerState::Connected);
    // Others need not wait for it, nor it for them.
    let third = world.add(Make::Kernel, Policy::default());
    world.introduce(0, third);
    world.run_secs(15);
    assert_eq!(world.security(0, third).level, Some(Level::PostQuantum));
    assert!(world.mind(0).remove_peer(key));
}

#[test]
fn a_stock_peer_is_called_when_somebody_wants_it() {
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Stock, Policy::default());
    world.introduce(0, 1);
    world.run_secs(10);
    assert_eq!(world.status(0, 1).state, PeerState::Idle);
    let (now, key) = (world.now_of(0), world.key(0, 1));
    assert!(world.mind(0).connect(now, key));
    assert_eq!(world.status(0, 1).state, PeerState::Handshaking);
    world.run_secs(2);
    assert_eq!(world.status(0, 1).state, PeerState::Connected);
    let last = world.hosts[0].told.last().unwrap();
    assert_eq!(last.persistent_keepalive, Some(Duration::ZERO), "as it was");
}
