//! One simulated machine: a node, its clocks, its address, and what survives a restart.
//!
//! Owns the translation between the time of the world and the clocks of the machine.

use crate::disk::Disk;
use crate::levels::Terms;
use crate::random::Random;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wiremesh_control::{PeerSettings, Policy};
use wiremesh_core::{
    Admission, ControlConfig, DropReason, Event, Limits, Node, NodeConfig, Path, PeerConfig,
};
use wiremesh_wire::{Instant, IpNet, NodeId, Now, PresharedKey, SecretKey, Tai64n, UnixTime};

/// Nanoseconds since 1970 at the start of the world.
const WALL_START: i64 = 1_700_000_000_000_000_000;

/// What the operator of a host wrote down about a peer.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its address, if it is a fixed one.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Which of the pair's preshared keys is set.
    pub(crate) psk_epoch: u32,
    pub(crate) keepalive: Option<Duration>,
    /// Whether it is in the configuration. A stranger never is.
    pub(crate) present: bool,
    pub(crate) stranger: bool,
    /// What the control protocol is told of it.
    pub(crate) terms: Terms,
}

/// What the operator of a host wrote down about suites.
#[derive(Clone, Debug)]
pub(crate) struct SuiteSettings {
    pub(crate) policy: Policy,
    pub(crate) kem_seed: Option<[u8; 64]>,
    pub(crate) rotate_after: Duration,
}

impl SuiteSettings {
    /// The configuration of a node, with what is on its disk.
    pub(crate) fn config(&self, disk: &Disk) -> ControlConfig {
        ControlConfig {
            policy: self.policy,
            kem_seed: self.kem_seed,
            // Some lives of a host are of a build that did not know them.
            bare_streams: disk.record_seq % 4 != 3,
            record_seq_floor: disk.record_seq,
            rotate_after: self.rotate_after,
            pins: disk.pins.iter().map(|(id, pin)| (*id, *pin)).collect(),
            trace: true,
            ..ControlConfig::default()
        }
    }
}

/// A machine that sleeps: nothing of it runs.
pub(crate) struct Sleep {
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// Its monotonic clock does not count the time.
    pub(crate) clock_stops: bool,
}

/// A machine.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) id: NodeId,
    pub(crate) secret: [u8; 32],
    pub(crate) address: SocketAddr,
    /// Whether it keeps its address, so that others can write it down.
    pub(crate) fixed: bool,
    /// Whether hosts have an IPv4 network behind them, beside the overlay.
    pub(crate) has_lan: bool,
    pub(crate) life: u32,
    pub(crate) disk: Disk,
    /// An older state of the disk.
    pub(crate) backup: Option<Disk>,
    /// The highest floor that any disk of it had: no timestamp was sent at or above it.
    pub(crate) stamped: Option<Tai64n>,
    /// The seed of the node that runs.
    pub(crate) seed: [u8; 32],
    /// None for a node without the control protocol.
    pub(crate) suites: Option<SuiteSettings>,
    /// It crashes after so many more events and datagrams.
    pub(crate) crash_in: Option<u32>,
    pub(crate) instant_offset: u64,
    pub(crate) wall_offset: i64,
    pub(crate) wall_offset_max: i64,
    /// How far its clock is off when it is right.
    pub(crate) wall_base: i64,
    pub(crate) sleep: Option<Sleep>,
    pub(crate) admission: Admission,
    pub(crate) limits: Limits,
    pub(crate) wanted: BTreeMap<usize, Wanted>,
}

/// The preshared key of a pair in an epoch; epoch 0 has none.
pub(crate) fn preshared_key(a: usize, b: usize, epoch: u32) -> PresharedKey {
    if epoch == 0 {
        return PresharedKey::default();
    }
    let mut bytes = [0x5a; 32];
    bytes[0] = a.min(b) as u8;
    bytes[1] = a.max(b) as u8;
    bytes[2..6].copy_from_slice(&epoch.to_le_bytes());
    PresharedKey::from_bytes(bytes)
}

/// The IPv4 network of a host, which its peers allow beside its overlay address.
pub(crate) fn lan_of(host: usize) -> IpNet {
    IpNet::new(IpAddr::from([10, host as u8, 0, 0]), 16).expect("16 bits are a prefix")
}

pub(crate) fn now_at(time: u64, instant_offset: u64, wall_offset: i64) -> Now {
    let wall = (WALL_START + wall_offset)
        .saturating_add_unsigned(time)
        .max(0);
    Now::new(
        Instant::from_nanos(time + instant_offset),
        UnixTime::from_duration(Duration::from_nanos(wall as u64)),
    )
}

pub(crate) fn make_node(
    secret: [u8; 32],
    (admission, limits): (Admission, Limits),
    (disk, suites): (&Disk, Option<&SuiteSettings>),
    seed: [u8; 32],
    now: Now,
) -> Node {
    let mut config = NodeConfig::new(SecretKey::from_bytes(secret));
    config.admission = admission;
    config.limits = limits;
    config.timestamp_floor = disk.floor;
    config.control = suites.map(|suites| suites.config(disk));
    Node::new(config, seed, now).expect("a random secret key has a public one")
}

impl Host {
    pub(crate) fn now(&self, time: u64) -> Now {
        now_at(time, self.instant_offset, self.wall_offset)
    }

    /// When the node wants to be called, in the time of the world.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        if self.sleep.is_some() {
            return None;
        }
        let at = self.node.poll_timeout()?;
        Some(at.as_nanos().saturating_sub(self.instant_offset))
    }

    pub(crate) fn path_from(&self, remote: SocketAddr) -> Path {
        Path {
            remote,
            local: Some(self.address.ip()),
        }
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn step_wall(&mut self, by: i64) {
        self.wall_offset = self.wall_offset.saturating_add(by);
        self.wall_offset_max = self.wall_offset_max.max(self.wall_offset);
    }

    /// Sets the wall clock ahead of all that it showed before.
    pub(crate) fn step_wall_ahead(&mut self, by: u64) {
        let ahead = self.wall_offset_max + by as i64;
        self.step_wall(ahead - self.wall_offset);
    }

    pub(crate) fn wake(&mut self, time: u64) {
        let Some(sleep) = self.sleep.take().filter(|sleep| sleep.clock_stops) else {
            return;
        };
        let slept = time.saturating_sub(sleep.since).min(self.instant_offset);
        self.instant_offset -= slept;
    }

    /// Whether it crashes before what is polled next.
    pub(crate) fn crashes_now(&mut self) -> bool {
        match &mut self.crash_in {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// Everything in memory is lost; the disk is as it is.
    pub(crate) fn restart(&mut self, time: u64, random: &mut Random) {
        self.life += 1;
        self.crash_in = None;
        let now = self.now(time);
        self.seed = random.bytes32();
        let settings = (self.admission, self.limits);
        let kept = (&self.disk, self.suites.as_ref());
        self.node = make_node(self.secret, settings, kept, self.seed, now);
    }

    /// Writes to the disk what an event asks for.
    pub(crate) fn write(&mut self, event: &Event) {
        self.disk.on_event(event);
        self.stamped = self.stamped.max(self.disk.floor);
    }

    /// Whether it may have sent timestamps that are ahead of the right time by more than this.
    pub(crate) fn stamped_ahead(&self, time: u64, by: Duration) -> bool {
        let right = now_at(time, 0, 0).unix.as_duration() + by;
        let limit = Tai64n::from_unix(UnixTime::from_duration(right));
        self.stamped.is_some_and(|stamped| stamped > limit)
    }

    /// What the operator says of another host.
    pub(crate) fn settings_for(&self, other: usize) -> PeerSettings {
        PeerSettings {
            minimum: self.wanted.get(&other).and_then(|w| w.terms.minimum),
            ..PeerSettings::default()
        }
    }

    /// Adds a peer as the configuration has it, in place of one that is there.
    pub(crate) fn add_peer(&mut self, time: u64, own: usize, other: usize, id: NodeId) {
        let wanted = &self.wanted[&other];
        let mut config = PeerConfig::new(id);
        config.endpoint = wanted.endpoint;
        config.preshared_key = preshared_key(own, other, wanted.psk_epoch);
        config.persistent_keepalive = wanted.keepalive;
        if self.has_lan {
            config.allowed_ips = vec![lan_of(other)];
        }
        config.stock = wanted.terms.stock;
        config.security = self.settings_for(other);
        let now = self.now(time);
        if let Some(old) = self.node.peer_by_id(&id) {
            self.node.remove_peer(old);
        }
        let key = self
            .node
            .add_peer(now, config)
            .expect("within limits and without overlap");
        let psk = preshared_key(own, other, wanted.psk_epoch);
        self.node.set_preshared_key(key, psk, wanted.psk_epoch);
        if let Some(endpoint) = wanted.endpoint {
            self.node.set_candidates(key, &[endpoint]);
        }
    }

    /// Datagrams that the node did not take for authentic.
    pub(crate) fn refused(&self) -> u64 {
        let counters = self.node.counters();
        let authentic = |reason: &&DropReason| {
            !matches!(
                reason,
                DropReason::SourceNotAllowed
                    | DropReason::ControlOnly
                    | DropReason::ControlUnexpected
                    | DropReason::ControlRefused
                    | DropReason::BelowLevel
                    | DropReason::NotIp
                    | DropReason::LimitReached
                    | DropReason::EventsFull
                    | DropReason::StagedFull
                    | DropReason::NoAnswer
            )
        };
        let reasons = DropReason::ALL.iter().filter(authentic);
        reasons.map(|reason| counters.dropped(*reason)).sum()
    }
}
