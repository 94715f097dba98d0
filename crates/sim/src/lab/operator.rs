//! What a test does to the hosts of a lab: policies, deaths, disks, clocks and addresses.
//!
//! Owns how a host is made and how it starts anew.

use super::{Lab, Start, place_of};
use crate::disk::Disk;
use crate::host::{Host, SuiteSettings, make_node, now_at};
use crate::link::SECOND;
use crate::options::Failure;
use crate::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;
use wiremesh_control::Policy;
use wiremesh_core::{Admission, Limits};

impl Lab {
    /// Changes the policy of a running node.
    ///
    /// # Errors
    ///
    /// The first broken invariant.
    ///
    /// # Panics
    ///
    /// If the policy contradicts itself.
    pub fn set_policy(&mut self, host: usize, policy: Policy) -> Result<(), Box<Failure>> {
        let now = self.hosts[host].now(self.time);
        let h = &mut self.hosts[host];
        h.node.set_policy(now, policy).expect("a consistent policy");
        if let Some(suites) = &mut h.suites {
            suites.policy = policy;
        }
        self.watch.levels.on_policy(host, self.time, policy);
        self.drain(host).map_err(|broken| self.failure(broken))
    }

    /// Kills a node: what it did not write is lost.
    pub fn kill(&mut self, host: usize) {
        self.up[host] = false;
        self.schedule(host);
    }

    /// Keeps a copy of a host's disk.
    pub fn back_up(&mut self, host: usize) {
        self.hosts[host].backup = Some(self.hosts[host].disk.clone());
    }

    /// Starts a node anew, running or killed.
    ///
    /// # Errors
    ///
    /// The first broken invariant.
    pub fn start(&mut self, host: usize, start: Start) -> Result<(), Box<Failure>> {
        let h = &mut self.hosts[host];
        match start {
            Start::WithDisk => {}
            Start::WithoutDisk => h.disk = Disk::default(),
            Start::FromBackup => h.disk = h.backup.clone().unwrap_or_default(),
        }
        h.restart(self.time, &mut self.random);
        self.watch.on_restart(host, self.time, h.seed);
        self.up[host] = true;
        let others: Vec<usize> = self.hosts[host].wanted.keys().copied().collect();
        for other in others {
            self.add_peer(host, other);
        }
        self.drain(host).map_err(|broken| self.failure(broken))
    }

    /// Sets the wall clock of a host forward, or back with a negative number of seconds.
    pub fn set_clock(&mut self, host: usize, by_secs: i64) {
        self.hosts[host].wall_offset += by_secs * SECOND as i64;
    }

    /// A NAT gives a host another address, which neither it nor its peers are told.
    pub fn move_host(&mut self, host: usize) {
        self.moves += 1;
        self.places.remove(&self.hosts[host].address);
        let address = place_of(host, self.moves);
        self.hosts[host].address = address;
        self.places.insert(address, host);
    }
}

pub(super) fn make_host(
    random: &mut Random,
    number: usize,
    secret: [u8; 32],
    policy: Policy,
    rotate_after: Duration,
) -> Host {
    let mut kem_seed = [0; 64];
    random.fill(&mut kem_seed);
    let suites = SuiteSettings {
        policy,
        kem_seed: policy.static_kem.then_some(kem_seed),
        rotate_after,
    };
    let seed = random.bytes32();
    let instant_offset = random.below(1 << 50);
    let wall_offset = random.below(2 * SECOND) as i64 - SECOND as i64;
    let settings = (Admission::default(), Limits::default());
    let disk = Disk::default();
    let now = now_at(0, instant_offset, wall_offset);
    let node = make_node(secret, settings, (&disk, Some(&suites)), seed, now);
    Host {
        id: node.node_id(),
        node,
        secret,
        address: place_of(number, 0),
        fixed: true,
        has_lan: false,
        life: 0,
        disk,
        backup: None,
        stamped: None,
        seed,
        suites: Some(suites),
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
