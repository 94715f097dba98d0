//! One simulated machine: a node, its clocks, its address, and what survives a restart.
//!
//! Owns the translation between the time of the world and the clocks of the machine.

use crate::random::Random;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wiremesh_core::{Admission, DropReason, Limits, Node, NodeConfig, Path, PeerConfig};
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
    pub(crate) life: u32,
    /// The disk.
    pub(crate) floor: Option<Tai64n>,
    pub(crate) instant_offset: u64,
    pub(crate) wall_offset: i64,
    pub(crate) wall_offset_max: i64,
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
    floor: Option<Tai64n>,
    seed: [u8; 32],
    now: Now,
) -> Node {
    let mut config = NodeConfig::new(SecretKey::from_bytes(secret));
    config.admission = admission;
    config.limits = limits;
    config.timestamp_floor = floor;
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

    /// Everything in memory is lost.
    pub(crate) fn restart(&mut self, time: u64, random: &mut Random, keep_floor: bool) {
        self.life += 1;
        if !keep_floor {
            self.floor = None;
        }
        let now = self.now(time);
        let seed = random.bytes32();
        let settings = (self.admission, self.limits);
        self.node = make_node(self.secret, settings, self.floor, seed, now);
    }

    /// Adds a peer as the configuration has it, in place of one that is there.
    pub(crate) fn add_peer(&mut self, time: u64, own: usize, other: usize, id: NodeId) {
        let wanted = &self.wanted[&other];
        let mut config = PeerConfig::new(id);
        config.endpoint = wanted.endpoint;
        config.preshared_key = preshared_key(own, other, wanted.psk_epoch);
        config.persistent_keepalive = wanted.keepalive;
        config.allowed_ips = vec![lan_of(other)];
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
                    | DropReason::NoAnswer
            )
        };
        let reasons = DropReason::ALL.iter().filter(authentic);
        reasons.map(|reason| counters.dropped(*reason)).sum()
    }
}
