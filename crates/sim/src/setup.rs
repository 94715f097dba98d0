//! The world that a seed describes: who is there, who knows whom, how good the links are.
//!
//! Owns nothing after it. A pair of hosts always has one with a fixed address, so that after
//! healing at least one of the two can reach the other.

use crate::attacker::Attacker;
use crate::check::Checker;
use crate::disk::Disk;
use crate::host::{Host, Wanted, make_node, now_at};
use crate::levels::Terms;
use crate::link::{Link, Profile, SECOND};
use crate::options::Options;
use crate::random::Random;
use crate::suites::Theme;
use crate::trace::Trace;
use crate::world::{Action, Simulation};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_core::{Admission, Limits};

/// Length of the phases after chaos.
pub(crate) const HEALING: u64 = 240 * SECOND;
pub(crate) const WINDOW: u64 = 25 * SECOND;

pub(crate) fn address_of(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host as u8 + 1], 51_820))
}

fn limits(random: &mut Random) -> Limits {
    Limits {
        peers_max: 12,
        staged_packets_max: random.between(1, 20) as usize,
        // Room for a few dozen packets of all peers together.
        staged_bytes_max: 16 << 10,
        transmits_max: random.between(16, 64) as usize,
        events_max: random.between(16, 64) as usize,
        handshakes_per_second_max: match random.below(6) {
            0 => 0,
            1 => 1,
            2 => random.between(2, 20) as u32,
            _ => 1_000,
        },
    }
}

fn admission(random: &mut Random, fixed: bool) -> Admission {
    match random.below(4) {
        0 if fixed => Admission::AllowAll { provisional_max: 8 },
        1 if fixed => Admission::Ask { pending_max: 8 },
        _ => Admission::AllowList,
    }
}

fn make_host(random: &mut Random, number: usize, fixed: bool) -> Host {
    let secret = random.bytes32();
    let settings = (admission(random, fixed), limits(random));
    let instant_offset = random.below(1 << 50);
    // Clocks are a few seconds apart, and on some machines years.
    let apart = random.below(6 * SECOND) as i64 - 3 * SECOND as i64;
    let wall_offset = match random.below(20) {
        0 => apart - 1_600_000_000 * SECOND as i64,
        _ => apart,
    };
    let now = now_at(0, instant_offset, wall_offset);
    let seed = random.bytes32();
    let node = make_node(secret, settings, (&Disk::default(), None), seed, now);
    Host {
        id: node.node_id(),
        node,
        secret,
        address: address_of(number),
        fixed,
        has_lan: true,
        life: 0,
        disk: Disk::default(),
        backup: None,
        stamped: None,
        seed,
        suites: None,
        crash_in: None,
        instant_offset,
        wall_offset,
        wall_offset_max: wall_offset,
        wall_base: wall_offset,
        sleep: None,
        admission: settings.0,
        limits: settings.1,
        wanted: BTreeMap::new(),
    }
}

/// Lets hosts `a` and `b` know each other; `a` has a fixed address.
fn introduce(random: &mut Random, hosts: &mut [Host], (a, b): (usize, usize), keepalives: bool) {
    let open = hosts[a].admission != Admission::AllowList;
    let stranger = open && random.permille(500);
    let psk_epoch = if stranger { 0 } else { random.below(3) as u32 };
    let mut keepalive = || {
        let some = keepalives && random.permille(300);
        some.then(|| Duration::from_secs(random.between(5, 60)))
    };
    let (keepalive_a, keepalive_b) = (keepalive(), keepalive());
    let address_b = hosts[b].address;
    let knows_b = hosts[b].fixed || random.permille(300);
    let address_a = hosts[a].address;
    let common = |endpoint, keepalive| Wanted {
        endpoint,
        psk_epoch,
        keepalive,
        present: true,
        stranger: false,
        terms: Terms::default(),
    };
    let at_a = Wanted {
        present: !stranger,
        stranger,
        ..common(knows_b.then_some(address_b), keepalive_a)
    };
    hosts[a].wanted.insert(b, at_a);
    hosts[b]
        .wanted
        .insert(a, common(Some(address_a), keepalive_b));
}

impl Simulation {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut random = Random::new(seed, options.script.clone());
        let count = match options.control {
            true => random.between(2, 5) as usize,
            false => random.between(2, 6) as usize,
        };
        let fixed = random.between(1, count as u64 + 1) as usize;
        let mut hosts: Vec<Host> = (0..count)
            .map(|n| make_host(&mut random, n, n < fixed))
            .collect();
        let keepalives = random.permille(500);
        for a in 0..fixed {
            for b in a + 1..count {
                if (a, b) == (0, 1) || random.permille(700) {
                    introduce(&mut random, &mut hosts, (a, b), keepalives);
                }
            }
        }
        let mut links = BTreeMap::new();
        for a in 0..count {
            for b in a + 1..count {
                let profile = match random.below(3) {
                    0 => Profile::clean(&mut random),
                    _ => Profile::bad(&mut random),
                };
                links.insert((a, b), Link::new(profile));
            }
        }
        let chaos = match options.chaos {
            Some(chaos) => chaos.as_nanos() as u64,
            None => random.between(100 * SECOND, 400 * SECOND),
        };
        let secrets: Vec<[u8; 32]> = hosts.iter().map(|host| host.secret).collect();
        let mut simulation = Self {
            seed,
            options: options.clone(),
            checker: Checker::new(&secrets),
            attacker: Attacker::new(&mut random),
            traffic_gap: random.between(SECOND / 10, 3 * SECOND),
            fault_gap: random.between(SECOND, 40 * SECOND),
            attack_gap: random.between(SECOND / 10, 8 * SECOND),
            random,
            keepalives,
            trace: Trace::new(options.trace),
            time: 0,
            chaos_end: chaos,
            queue: BTreeMap::new(),
            serial: 0,
            hosts,
            links,
            timer_calls: vec![(0, 0); count],
            sent: 0,
            datagrams: 0,
            attacks: 0,
            faults: 0,
            handshakes: 0,
            policy_changes: 0,
            agreements: 0,
            theme: Theme::Anything,
            watch: None,
        };
        if options.control {
            simulation.add_suites();
        }
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            self.add_wanted_peers(host);
            let at = self.random.below(self.traffic_gap);
            self.after(at, Action::Traffic(host));
        }
        self.after(self.fault_gap / 2, Action::Fault);
        self.after(self.attack_gap, Action::Attack);
    }

    /// Adds every peer that the configuration of a host names.
    pub(crate) fn add_wanted_peers(&mut self, host: usize) {
        let others: Vec<usize> = self.hosts[host].wanted.keys().copied().collect();
        for other in others {
            if self.hosts[host].wanted[&other].present {
                self.add_peer(host, other);
            }
        }
    }

    pub(crate) fn add_peer(&mut self, host: usize, other: usize) {
        let (time, id) = (self.time, self.hosts[other].id);
        self.hosts[host].add_peer(time, host, other, id);
        let wanted = &self.hosts[host].wanted[&other];
        self.checker.on_peer_added(host, other, wanted.endpoint);
        self.checker.on_psk(host, other, wanted.psk_epoch);
    }
}
