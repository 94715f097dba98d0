//! One node under figures, frames, times and commands in any order: it never panics, and opens the
//! gate of nobody who has not agreed on a level.

use crate::host::{Frame, Make};
use crate::world::World;
use crate::{at, config, id, peer};
use proptest::prelude::*;
use std::sync::OnceLock;
use std::time::Duration;
use wiremesh_control::{Level, PeerSettings, Policy, Stage};
use wiremesh_core::{DropReason, KernelFigures, KernelNode, KernelTask, PeerConfig, PeerKey};
use wiremesh_wire::address::control_address;
use wiremesh_wire::{Now, PresharedKey, UnixTime};

#[derive(Clone, Debug)]
enum Step {
    Figures(Vec<(u16, Option<u64>, u64, u64)>),
    Frame(u16, Vec<u8>),
    /// One that a node of the same key got in another life.
    Replay(usize),
    Wait(u64),
    Wall(i64),
    Add(u16),
    Remove(u16),
    Policy(u8),
    Settings(u16, bool),
    Key(u16, u8),
    Connect(u16),
    Candidates(u16, u8),
    LowerPin(u16),
    Failure(u16),
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(32),
        Just(92),
        Just(148),
        Just(296),
        Just(444),
        any::<u64>()
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    // Version, type, number and count of fragments, exchange, length: near to what is taken.
    let near = (0u8..10, 0u8..3, 0u8..4, 0u8..3, 0u8..60).prop_map(|(kind, at, of, id, len)| {
        let mut frame = vec![1, kind, at, of];
        frame.extend([id; 8]);
        frame.extend([len, 0, 0, 0]);
        frame.extend(vec![id; len.into()]);
        frame
    });
    prop_oneof![near, proptest::collection::vec(any::<u8>(), 0..1_200)]
}

fn step() -> impl Strategy<Value = Step> {
    let figures = (0u16..4, proptest::option::of(0u64..400), bytes(), bytes());
    prop_oneof![
        8 => proptest::collection::vec(figures, 0..4).prop_map(Step::Figures),
        4 => (0u16..4, frame()).prop_map(|(who, frame)| Step::Frame(who, frame)),
        6 => (0usize..400).prop_map(Step::Replay),
        6 => (0u64..40_000).prop_map(Step::Wait),
        1 => (-100i64..100).prop_map(Step::Wall),
        2 => (0u16..3).prop_map(Step::Add),
        1 => (0u16..3).prop_map(Step::Remove),
        1 => (0u8..4).prop_map(Step::Policy),
        1 => (0u16..3, any::<bool>()).prop_map(|(who, more)| Step::Settings(who, more)),
        1 => (0u16..3, any::<u8>()).prop_map(|(who, key)| Step::Key(who, key)),
        1 => (0u16..3).prop_map(Step::Connect),
        1 => (0u16..3, 0u8..4).prop_map(|(who, count)| Step::Candidates(who, count)),
        1 => (0u16..3).prop_map(Step::LowerPin),
        1 => (0u16..3).prop_map(Step::Failure),
    ]
}

fn figures_of(all: &[(u16, Option<u64>, u64, u64)]) -> Vec<KernelFigures> {
    let figures =
        |(who, handshake, rx_bytes, tx_bytes): &(u16, Option<u64>, u64, u64)| KernelFigures {
            node_id: id(*who),
            endpoint: rx_bytes
                .is_multiple_of(2)
                .then(|| ([192, 0, 2, 1], 1).into()),
            last_handshake: handshake.map(|at| UnixTime::from_secs_nanos(1_700_000_000 + at, 0)),
            rx_bytes: *rx_bytes,
            tx_bytes: *tx_bytes,
        };
    all.iter().map(figures).collect()
}

/// What two nodes told each other, as each of them got it.
fn recorded() -> &'static [Vec<Frame>; 2] {
    static RECORDED: OnceLock<[Vec<Frame>; 2]> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut world = World::pair([Make::Kernel; 2]);
        world.run_until_up(20);
        // Exchanges of all kinds.
        for stage in [Stage::NewOnly, Stage::BothPreferOld] {
            let policy = Policy {
                stage,
                ..Policy::default()
            };
            world.set_policy(0, policy);
            world.set_policy(1, policy);
            world.run_secs(10);
        }
        [0, 1].map(|at| std::mem::take(&mut world.hosts[at].frames))
    })
}

fn take(node: &mut KernelNode, now: &mut Now, frames: &[Frame], step: Step) {
    match step {
        Step::Figures(all) => node.handle_figures(*now, &figures_of(&all)),
        Step::Frame(who, frame) => node.handle_control(*now, control_address(&id(who)), &frame),
        Step::Replay(which) => {
            let (from, frame) = &frames[which % frames.len()];
            node.handle_control(*now, *from, frame);
        }
        Step::Wait(millis) => {
            *now = *now + Duration::from_millis(millis);
            node.handle_timeout(*now);
        }
        Step::Wall(seconds) => {
            let wall = now
                .unix
                .as_duration()
                .as_secs()
                .saturating_add_signed(seconds);
            now.unix = UnixTime::from_secs_nanos(wall, 0);
        }
        Step::Add(who) => drop(node.add_peer(*now, peer(who))),
        Step::Policy(which) => drop(node.set_policy(*now, policy(which)).is_ok()),
        Step::LowerPin(who) => {
            node.lower_pin(*now, &id(who), Level::Classical);
        }
        Step::Failure(who) => node.handle_failure(&id(who)),
        Step::Remove(who)
        | Step::Connect(who)
        | Step::Settings(who, _)
        | Step::Key(who, _)
        | Step::Candidates(who, _) => {
            if let Some(key) = node.peer_by_id(&id(who)) {
                command(node, *now, key, step);
            }
        }
    }
}

/// A command for a peer that is there.
fn command(node: &mut KernelNode, now: Now, key: PeerKey, step: Step) {
    match step {
        Step::Remove(_) => drop(node.remove_peer(key)),
        Step::Connect(_) => drop(node.connect(now, key)),
        Step::Settings(_, more) => {
            let settings = PeerSettings {
                minimum: more.then_some(Level::PostQuantum),
                proof: more.then(|| vec![1; 3]),
                needs_admission: more,
            };
            node.set_peer_settings(now, key, settings);
        }
        Step::Key(_, byte) => {
            node.set_preshared_key(key, PresharedKey::from_bytes([byte; 32]), 0);
        }
        Step::Candidates(_, count) => {
            let place = |n| ([192, 0, 2, n], 1).into();
            let places: Vec<_> = (0..count).map(place).collect();
            node.set_candidates(key, &places);
        }
        _ => {}
    }
}

/// Never L1 as the most: the silence of a peer may open the gate there.
fn policy(which: u8) -> Policy {
    match which {
        0 => Policy::default(),
        1 => Policy::at(Stage::NewOnly),
        2 => Policy {
            stage: Stage::BothPreferOld,
            ..Policy::default()
        },
        _ => Policy {
            minimum: Level::PostQuantumAuthenticated,
            static_kem: true,
            ..Policy::default()
        },
    }
}

/// No task gives a peer more than its control address.
fn check(node: &mut KernelNode) -> Result<(), TestCaseError> {
    while node.poll_event().is_some() {}
    while let Some(task) = node.poll_task() {
        if let KernelTask::SetPeer(change) = task
            && let Some(nets) = change.allowed_ips
        {
            prop_assert_eq!(nets, vec![control_address(&change.node_id).into()]);
        }
    }
    Ok(())
}

#[test]
fn a_replayed_offer_is_answered_and_leads_nowhere() {
    let mut answered = 0;
    for role in 0..2 {
        let mut node = KernelNode::new(config(1 + role as u8), [1; 32], at(1_020)).unwrap();
        let other = crate::node(2 - role as u8).node_id();
        let key = node.add_peer(at(1_020), PeerConfig::new(other)).unwrap();
        for (second, (from, frame)) in (1_020..).zip(&recorded()[role]) {
            node.handle_control(at(second), *from, frame);
            let tasks = crate::tasks(&mut node);
            let sent = |task: &&KernelTask| matches!(task, KernelTask::Send { .. });
            answered += tasks.iter().filter(sent).count();
        }
        assert_eq!(node.security(at(1_020), key).unwrap().level, None);
        assert_eq!(node.counters().dropped(DropReason::ControlUnexpected), 0);
        assert!(node.counters().dropped(DropReason::ControlRefused) > 0);
    }
    assert!(answered > 0, "the frames are good as far as they go");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_opens_the_gate_without_an_agreement(
        role in 0usize..2,
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let mut config = config(1 + role as u8);
        config.control.as_mut().unwrap().kem_seed = Some([3; 64]);
        // When those frames came.
        let mut now = at(1_020);
        let mut node = KernelNode::new(config, [1; 32], now).unwrap();
        node.add_peer(now, peer(0)).unwrap();
        node.add_peer(now, PeerConfig::new(crate::node(2 - role as u8).node_id())).unwrap();
        for step in steps {
            take(&mut node, &mut now, &recorded()[role], step);
            check(&mut node)?;
            for key in node.peers().collect::<Vec<_>>() {
                prop_assert_eq!(node.security(now, key).unwrap().level, None);
                node.status(now, key).unwrap();
            }
            prop_assert!(node.poll_timeout().is_none_or(|due| due <= (now + Duration::from_secs(6)).instant));
        }
    }

    /// A network in which figures are read late, and datagrams are lost, doubled and held back;
    /// the world looks at each packet.
    #[test]
    fn a_bad_network_never_lowers_the_level(
        seed in any::<u64>(),
        kinds in 0usize..3,
        acts in proptest::collection::vec((0u8..6, 0usize..2, 10u64..4_000), 1..20),
    ) {
        let makes = [
            [Make::Kernel, Make::Kernel],
            [Make::Kernel, Make::Engine],
            [Make::Engine, Make::Kernel],
        ][kinds];
        let mut world = World::pair(makes);
        let mut state = seed | 1;
        world.fate = Box::new(move |_, _| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let roll = state >> 40;
            (roll % 8 != 0).then(|| Duration::from_millis(roll % 200))
        });
        for (act, who, millis) in acts {
            match act {
                0 => world.restart(who),
                1 => world.hosts[who].deaf ^= true,
                2 if makes[who] == Make::Kernel => {
                    let other = world.hosts[1 - who].id;
                    world.mind(who).handle_failure(&other);
                }
                3 => world.step_wall(who, 100),
                _ => {}
            }
            world.run_for(Duration::from_millis(millis * 5));
        }
        for host in &mut world.hosts {
            host.deaf = false;
        }
        world.fate = Box::new(|_, _| Some(Duration::ZERO));
        world.run_until_up(250);
    }
}
