//! Two whole nodes from cold to the first packet that passes: CPU of each side.

use crate::cpu::{key, median};
use crate::report::Report;
use std::net::SocketAddr;
use std::time::{Duration, Instant as Clock};
use wiremesh_control::{Level, Policy, Stage};
use wiremesh_core::{ControlConfig, Node, NodeConfig, Path, PeerConfig, PeerKey};
use wiremesh_wire::{Instant, NodeId, Now, UnixTime};

const MEETINGS: usize = 200;
/// Time for timers in a meeting: two initiations are 40 ms apart.
const MEETING_TIME: Duration = Duration::from_millis(80);

/// Time at the start of everything.
pub fn start() -> Now {
    let unix = UnixTime::from_secs_nanos(1_700_000_000, 0);
    Now::new(Instant::from_nanos(1_000_000_000), unix)
}

/// The address of a node.
pub fn address(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 51_820))
}

/// A node; `None` is plain WireGuard.
pub fn node(number: u32, policy: Option<Policy>, now: Now) -> Node {
    let mut config = NodeConfig::new(key(number).0);
    config.control = policy.map(|policy| ControlConfig {
        policy,
        kem_seed: Some([number as u8; 64]),
        ..ControlConfig::default()
    });
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    Node::new(config, seed, now).expect("a consistent policy")
}

/// A node with its number, and the time that its calls took.
pub struct Host {
    pub node: Node,
    pub number: u32,
    pub busy: Duration,
}

impl Host {
    pub fn new(number: u32, policy: Option<Policy>, now: Now) -> Self {
        Self {
            node: node(number, policy, now),
            number,
            busy: Duration::ZERO,
        }
    }

    pub fn add(&mut self, now: Now, id: NodeId, at: u32) -> PeerKey {
        let mut config = PeerConfig::new(id);
        config.endpoint = Some(address(at));
        self.node.add_peer(now, config).expect("a new peer")
    }

    fn timed<T>(&mut self, call: impl FnOnce(&mut Node) -> T) -> T {
        let began = Clock::now();
        let result = call(&mut self.node);
        self.busy += began.elapsed();
        result
    }

    /// Takes what is to be sent; drops what is to be known.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        while self.node.poll_event().is_some() {}
        std::iter::from_fn(|| self.node.poll_transmit())
            .map(|transmit| transmit.datagram)
            .collect()
    }
}

/// Connects two hosts from `hosts[from]` and lets them talk over a perfect network until nothing is
/// left to say. Tells the level of the session for data on each side.
pub fn meet(mut hosts: [&mut Host; 2], now: &mut Now, from: usize) -> [Option<Level>; 2] {
    let ids = [0, 1].map(|at| hosts[1 - at].node.node_id());
    let keys = [0, 1].map(|at| hosts[at].node.peer_by_id(&ids[at]).expect("known"));
    hosts[from].timed(|node| node.connect(*now, keys[from]));
    let end = now.instant + MEETING_TIME;
    loop {
        let sent = [0, 1].map(|at| hosts[at].drain());
        let quiet = sent.iter().all(Vec::is_empty);
        for (at, datagrams) in sent.into_iter().enumerate() {
            let source = Path::to(address(hosts[at].number));
            for mut datagram in datagrams {
                hosts[1 - at].timed(|node| node.handle_datagram(*now, source, &mut datagram));
            }
        }
        if !quiet {
            continue;
        }
        let deadlines = hosts.iter().filter_map(|host| host.node.poll_timeout());
        let Some(next) = deadlines.min().filter(|at| *at <= end) else {
            break;
        };
        // 1 ms at least, as a timer of the system would.
        let step = next
            .saturating_since(now.instant)
            .max(Duration::from_millis(1));
        *now = *now + step;
        for host in &mut hosts {
            host.timed(|node| node.handle_timeout(*now));
        }
    }
    *now = *now + end.saturating_since(now.instant);
    [0, 1].map(|at| {
        hosts[at]
            .node
            .security(*now, keys[at])
            .expect("known")
            .level
    })
}

/// CPU of both sides at each level.
pub fn measure(report: &mut Report) {
    const GROUP: &str = "from cold to a session that carries data, CPU of a whole node";
    let default = Policy::default();
    let cases = [
        ("plain WireGuard", None, Level::Classical),
        (
            "L1 agreed on",
            Some(Policy::at(Stage::OldOnly)),
            Level::Classical,
        ),
        ("L2", Some(default), Level::PostQuantum),
        (
            "L3",
            Some(Policy {
                static_kem: true,
                ..default
            }),
            Level::PostQuantumAuthenticated,
        ),
    ];
    let (a, b) = match key(1).1 < key(2).1 {
        true => (1, 2),
        false => (2, 1),
    };
    for (name, policy, expected) in cases {
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..MEETINGS {
            let mut now = start();
            let mut hosts = [a, b].map(|number| Host::new(number, policy, now));
            let ids = [0, 1].map(|at| hosts[at].node.node_id());
            for at in 0..2 {
                let other = hosts[1 - at].number;
                hosts[at].add(now, ids[1 - at], other);
            }
            let [first, second] = &mut hosts;
            let reached = meet([first, second], &mut now, 0);
            assert_eq!(reached, [Some(expected); 2], "{name}");
            for (samples, host) in samples.iter_mut().zip(&hosts) {
                samples.push(host.busy.as_secs_f64() * 1e6);
            }
        }
        for (mut samples, side) in samples.into_iter().zip(["A", "B"]) {
            report.add(
                GROUP,
                &format!("{name}: {side}"),
                median(&mut samples),
                "us",
            );
        }
    }
}
