//! Commands while the node runs: peers, prefixes, keys, places, policy, pins.

use crate::host::Make;
use crate::world::World;
use crate::{at, config, id, node, peer, tasks};
use std::time::Duration;
use wiremesh_control::{Level, PeerSettings, Policy, PolicyError, Stage, WaitReason};
use wiremesh_core::{
    AddPeerError, Admission, Event, KERNEL_PEERS_MAX, KernelNode, KernelPeerChange, KernelTask,
    NewNodeError, PeerConfig, PeerState,
};
use wiremesh_wire::PresharedKey;
use wiremesh_wire::address::{control_address, overlay_address};

fn changes(node: &mut KernelNode) -> Vec<KernelPeerChange> {
    let change = |task| match task {
        KernelTask::SetPeer(change) => Some(change),
        _ => None,
    };
    tasks(node).into_iter().filter_map(change).collect()
}

#[test]
fn only_an_allow_list_can_be_had() {
    let mut config = config(1);
    config.admission = Admission::AllowAll { provisional_max: 1 };
    let refused = KernelNode::new(config, [1; 32], at(0));
    assert_eq!(refused.err(), Some(NewNodeError::Admission));
}

#[test]
fn a_peer_begins_with_its_control_address_and_a_keepalive() {
    let mut node = node(1);
    node.add_peer(at(0), peer(1)).unwrap();
    let mut second = peer(2);
    second.persistent_keepalive = Some(Duration::from_secs(7));
    second.endpoint = Some(([192, 0, 2, 9], 9).into());
    node.add_peer(at(0), second.clone()).unwrap();
    let all = changes(&mut node);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].persistent_keepalive, Some(Duration::from_secs(25)));
    assert_eq!(all[1].persistent_keepalive, second.persistent_keepalive);
    assert_eq!(all[1].endpoint, second.endpoint);
    for (change, n) in all.iter().zip([1, 2]) {
        assert!(change.replace);
        assert_eq!(change.node_id, id(n));
        assert_eq!(change.preshared_key, Some(PresharedKey::default()));
        assert_eq!(
            change.allowed_ips,
            Some(vec![control_address(&id(n)).into()])
        );
    }
}

#[test]
fn peers_have_a_limit_and_prefixes_one_owner() {
    let mut config = config(1);
    config.limits.peers_max = 2;
    let mut node = KernelNode::new(config, [1; 32], at(0)).unwrap();
    let own = PeerConfig::new(node.node_id());
    assert_eq!(node.add_peer(at(0), own), Err(AddPeerError::OwnKey));
    let mut first = peer(1);
    first.allowed_ips = vec!["10.0.0.0/8".parse().unwrap()];
    let key = node.add_peer(at(0), first.clone()).unwrap();
    assert_eq!(node.add_peer(at(0), first), Err(AddPeerError::Exists));
    let mut second = peer(2);
    second.allowed_ips = vec!["10.1.0.0/16".parse().unwrap()];
    let refused = node.add_peer(at(0), second);
    assert!(matches!(refused, Err(AddPeerError::Overlap(overlap)) if overlap.owner == key));
    assert_eq!(node.peer_by_address(overlay_address(&id(2)).into()), None);
    let other = node.add_peer(at(0), peer(2)).unwrap();
    let taken = ["10.2.0.0/16".parse().unwrap()];
    assert!(node.set_allowed_ips(other, &taken).is_err());
    assert_eq!(
        node.add_peer(at(0), peer(3)),
        Err(AddPeerError::TooManyPeers)
    );
    assert!(node.remove_peer(key));
    assert_eq!(node.set_allowed_ips(other, &taken), Ok(true));
    assert_eq!(node.set_allowed_ips(key, &taken), Ok(false));
    assert!(!node.remove_peer(key) && !node.rekey(at(0), other));
}

#[test]
fn four_thousand_peers_are_the_most() {
    let mut node = node(1);
    for n in 0..KERNEL_PEERS_MAX as u16 {
        node.add_peer(at(0), peer(n)).unwrap();
    }
    let one_more = peer(KERNEL_PEERS_MAX as u16);
    assert_eq!(
        node.add_peer(at(0), one_more),
        Err(AddPeerError::TooManyPeers)
    );
}

#[test]
fn prefixes_are_told_only_while_the_gate_is_open() {
    let mut world = World::pair([Make::Kernel; 2]);
    let key = world.key(0, 1);
    let lan = "10.7.0.0/24".parse().unwrap();
    let told = world.hosts[0].told.len();
    assert_eq!(world.mind(0).set_allowed_ips(key, &[lan]), Ok(true));
    world.drain();
    assert_eq!(
        world.hosts[0].told.len(),
        told,
        "a closed gate stays closed"
    );
    world.run_until_up(20);
    let has = |world: &World| {
        world.hosts[0]
            .node
            .peer_by_address([10, 7, 0, 1].into())
            .is_some()
    };
    assert!(has(&world));
    assert_eq!(world.mind(0).set_allowed_ips(key, &[]), Ok(true));
    world.drain();
    assert!(!has(&world) && world.is_open(0, 1));
    world.run_secs(5);
    assert!(world.is_up(0, 1));
}

#[test]
fn a_peer_removed_at_any_moment_is_gone_and_may_come_back() {
    for step in 0..30 {
        let mut world = World::pair([Make::Kernel; 2]);
        world.run_for(Duration::from_millis(20 + 70 * step));
        let old = world.key(0, 1);
        // The world panics where a task names a peer that is not there.
        world.remove(0, 1);
        let told = world.hosts[0].told.len();
        world.run_secs(4);
        assert_eq!(world.hosts[0].told.len(), told);
        replay(&mut world);
        let now = world.now_of(0);
        assert!(world.mind(0).status(now, old).is_none());
        assert_eq!(world.hosts[0].told.len(), told, "late frames are nobody's");
        let endpoint = Some(world.hosts[1].addr);
        world.introduce_with(0, 1, |config| config.endpoint = endpoint);
        replay(&mut world);
        assert!(!world.is_open(0, 1), "it begins anew");
        world.run_until_up(100);
    }
}

/// Gives the first host once more all control messages that it ever got.
fn replay(world: &mut World) {
    let now = world.now_of(0);
    for (from, frame) in world.hosts[0].frames.clone() {
        world.mind(0).handle_control(now, from, &frame);
    }
    world.drain();
}

#[test]
fn a_peer_that_comes_back_has_its_pin() {
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Kernel, Policy::at(Stage::NewOnly));
    world.introduce(0, 1);
    world.chatter = Some(Duration::from_millis(200));
    world.run_until_up(20);
    let whom = world.hosts[1].id;
    let pin = world.mind(0).pin(&whom).unwrap();
    assert_eq!(pin.level, Level::PostQuantum);
    assert_eq!(world.hosts[0].disk.pins[&whom], pin);
    world.remove(0, 1);
    assert_eq!(world.mind(0).pins().collect::<Vec<_>>(), [(whom, pin)]);
    world.introduce_with(0, 1, |_| {});
    assert_eq!(world.security(0, 1).pin, Some(pin));
    // It breaks its word, and we would take anything: nothing passes.
    world.set_policy(0, Policy::at(Stage::Both));
    world.set_policy(1, Policy::at(Stage::OldOnly));
    world.run_secs(100);
    assert!(!world.is_open(0, 1), "{}", world.describe());
    let waiting = world.security(0, 1).waiting.unwrap().0;
    assert!(matches!(
        waiting,
        WaitReason::BelowPin { .. } | WaitReason::NoCommonSuite { .. }
    ));
    // The operator knows why.
    let now = world.now_of(0);
    assert!(world.mind(0).lower_pin(now, &whom, Level::Classical));
    assert!(!world.mind(0).lower_pin(now, &whom, Level::Classical));
    world.floors.insert((0, 1), 1);
    world.drain();
    assert_eq!(world.hosts[0].disk.pins[&whom].level, Level::Classical);
    world.run_until_up(200);
}

#[test]
fn several_places_are_tried_in_turn() {
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Kernel, Policy::default());
    let key = world.introduce_with(0, 1, |_| {});
    world.introduce_with(1, 0, |_| {});
    let nobody = |n: u8| ([203, 0, 113, n], 1).into();
    let places = [nobody(1), nobody(2), world.hosts[1].addr];
    assert!(world.mind(0).set_candidates(key, &places));
    world.drain();
    assert_eq!(world.status(0, 1).path.unwrap().remote, places[0]);
    world.chatter = Some(Duration::from_millis(200));
    let took = world.run_until_up(30);
    assert!(took > Duration::from_secs(12), "6 s for each: {took:?}");
    let told = world.hosts[0]
        .told
        .iter()
        .filter_map(|change| change.endpoint);
    let told: Vec<_> = told.take(3).collect();
    assert_eq!(told, places);
    // It stays there, and the others are tried when it is gone.
    world.run_secs(60);
    assert_eq!(world.status(0, 1).path.unwrap().remote, places[2]);
    world.hosts[1].addr = places[1];
    world.fate = Box::new(move |_, sent| (sent.from == 0).then_some(Duration::ZERO));
    world.run_secs(60);
    world.fate = Box::new(|_, _| Some(Duration::ZERO));
    world.run_until_up(100);
    assert_eq!(world.status(0, 1).path.unwrap().remote, places[1]);
}

#[test]
fn a_policy_that_is_raised_closes_the_gate_at_once() {
    for makes in [[Make::Kernel; 2], [Make::Kernel, Make::Engine]] {
        let mut world = World::new();
        for make in makes {
            world.add(make, Policy::at(Stage::OldOnly));
        }
        world.introduce(0, 1);
        world.floors.insert((0, 1), 1);
        world.chatter = Some(Duration::from_millis(200));
        world.run_until_up(20);
        assert!(world.send(0, 1));
        let seq = world.hosts[0].disk.record_seq;
        world.set_policy(0, Policy::default());
        assert!(world.hosts[0].disk.record_seq > seq);
        assert!(!world.is_open(0, 1) && !world.send(0, 1));
        assert_eq!(world.security(0, 1).level, None);
        assert_eq!(world.security(0, 1).required, Some(Level::PostQuantum));
        world.run_secs(30);
        assert!(!world.is_open(0, 1), "the other one lists nothing better");
        assert!(world.security(0, 1).waiting.is_some());
        world.set_policy(1, Policy::default());
        world.floors.clear();
        world.run_until_up(120);
        assert_eq!(world.security(0, 1).level, Some(Level::PostQuantum));
    }
}

#[test]
fn l3_can_be_demanded_of_a_network_that_runs() {
    for makes in [[Make::Kernel; 2], [Make::Kernel, Make::Engine]] {
        let mut world = World::pair(makes);
        world.run_until_up(20);
        let policy = Policy {
            minimum: Level::PostQuantumAuthenticated,
            static_kem: true,
            ..Policy::default()
        };
        world.set_policy(0, policy);
        assert!(!world.is_open(0, 1));
        world.set_policy(1, policy);
        world.run_secs(1);
        world.run_until_up(120);
        for at in 0..2 {
            let security = world.security(at, 1 - at);
            assert_eq!(security.level, Some(Level::PostQuantumAuthenticated));
        }
    }
}

#[test]
fn a_peer_may_need_more_than_the_others() {
    let mut world = World::pair([Make::Kernel; 2]);
    world.run_until_up(20);
    let (now, key) = (world.now_of(0), world.key(0, 1));
    let settings = PeerSettings {
        minimum: Some(Level::PostQuantumAuthenticated),
        ..PeerSettings::default()
    };
    assert!(world.mind(0).set_peer_settings(now, key, settings.clone()));
    assert_eq!(world.mind(0).peer_settings(key), Some(settings));
    world.drain();
    assert!(!world.is_open(0, 1));
    world.run_secs(30);
    assert!(!world.is_open(0, 1), "it has no static key");
    let now = world.now_of(0);
    assert!(
        world
            .mind(0)
            .set_peer_settings(now, key, PeerSettings::default())
    );
    world.run_until_up(60);
}

#[test]
fn the_boot_key_changes_in_place() {
    let psk = PresharedKey::from_bytes([66; 32]);
    let mut world = World::pair([Make::Kernel; 2]);
    world.boots.insert(*psk.as_bytes());
    world.run_until_up(20);
    let told = world.hosts[0].told.len();
    for at in 0..2 {
        let key = world.key(at, 1 - at);
        assert!(world.mind(at).set_preshared_key(key, psk.clone(), 0));
    }
    world.drain();
    assert_eq!(world.hosts[0].told.len(), told, "another key is in use");
    world.run_secs(10);
    assert!(world.is_up(0, 1));
    // After a silence both begin with it again.
    world.fate = Box::new(|_, _| None);
    world.run_secs(60);
    let whom = world.hosts[1].id;
    assert_eq!(world.hosts[0].slots[&whom], psk);
    world.fate = Box::new(|_, _| Some(Duration::ZERO));
    world.run_until_up(60);
    // While it is what the interface has, it is told at once.
    let mut alone = node(1);
    let key = alone.add_peer(at(0), peer(1)).unwrap();
    changes(&mut alone);
    assert!(alone.set_preshared_key(key, psk.clone(), 0));
    let all = changes(&mut alone);
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].replace, all[0].preshared_key.as_ref()),
        (false, Some(&psk))
    );
    assert_eq!(all[0].allowed_ips, None);
}

#[test]
fn a_keepalive_is_told_and_one_stays() {
    let mut node = node(1);
    let own = node.add_peer(at(0), peer(1)).unwrap();
    let mut stock = peer(2);
    stock.stock = true;
    let stock = node.add_peer(at(0), stock).unwrap();
    changes(&mut node);
    for (key, every, told) in [
        (own, Some(7), 7),
        (own, None, 25),
        (stock, Some(7), 7),
        (stock, None, 0),
    ] {
        node.set_persistent_keepalive(at(1), key, every.map(Duration::from_secs));
        let all = changes(&mut node);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].persistent_keepalive, Some(Duration::from_secs(told)));
    }
}

#[test]
fn without_the_control_protocol_every_peer_is_stock() {
    let mut config = config(1);
    config.control = None;
    let mut node = KernelNode::new(config, [1; 32], at(0)).unwrap();
    let key = node.add_peer(at(0), peer(1)).unwrap();
    let all = changes(&mut node);
    let nets = all[0].allowed_ips.as_ref().unwrap();
    assert!(nets.contains(&overlay_address(&id(1)).into()));
    assert_eq!(node.policy(), None);
    assert_eq!(
        node.set_policy(at(0), Policy::default()),
        Err(PolicyError::NoControl)
    );
    assert!(node.security(at(0), key).unwrap().stock);
    assert_eq!(node.status(at(0), key).unwrap().state, PeerState::Idle);
}

#[test]
fn the_pin_is_on_disk_before_what_follows_from_it() {
    let mut world = World::new();
    world.add(Make::Kernel, Policy::default());
    world.add(Make::Kernel, Policy::at(Stage::NewOnly));
    world.introduce(0, 1);
    world.run_secs(15);
    let pin = |e: &Event| matches!(e, Event::SavePin { .. });
    let open = |e: &Event| matches!(e, Event::SessionEstablished { .. });
    let events = &world.hosts[0].events;
    let saved = events.iter().position(pin).unwrap();
    assert!(saved < events.iter().position(open).unwrap());
    assert!(matches!(events[0], Event::SaveRecordSeq(_)));
}
