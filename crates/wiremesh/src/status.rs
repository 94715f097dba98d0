//! What a node tells about itself.
//!
//! Owns plain values, copied out; nothing secret is in them.

use crate::egress::EgressStatus;
use crate::plane::Mode;
use crate::security::{open_level, wall_time};
use crate::topic::TopicStatus;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};
use wiremesh_control::{Level, Pin, Policy, SuiteId, WaitReason};
use wiremesh_core::PeerSecurity;
pub use wiremesh_core::PeerState;
use wiremesh_wire::{Endpoint, IpNet, NodeId};

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 32;
/// Least time between two refusals in the log.
const LOGGED_APART: Duration = Duration::from_secs(1);

/// A snapshot of a node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its key.
    pub node_id: NodeId,
    /// Name of its network.
    pub network: String,
    /// What it lists, promises and demands.
    pub policy: Policy,
    /// Its addresses inside the tunnel, the overlay address first.
    pub addresses: Vec<IpAddr>,
    /// Where its UDP sockets listen.
    pub listen: Vec<SocketAddr>,
    /// Who runs WireGuard, and who can use it.
    pub mode: Mode,
    /// The interface of the host, if it has one.
    pub device: Option<String>,
    /// Its peers, by key.
    pub peers: Vec<PeerStatus>,
    /// What was dropped, by reason; reasons that never occurred are left out.
    pub dropped: Vec<(&'static str, u64)>,
    /// The latest nodes that were turned away, newest last.
    pub refusals: Vec<Refusal>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Stream packets sent without IP and UDP headers.
    pub bare_sent: u64,
    /// Stream packets received without IP and UDP headers.
    pub bare_received: u64,
    /// What the egress scheduler did.
    pub egress: EgressStatus,
    /// The topics that it is in.
    pub topics: Vec<TopicStatus>,
}

/// A snapshot of one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its key.
    pub node_id: NodeId,
    /// The operator's name for it.
    pub name: Option<String>,
    /// Whether the operator named it as stock WireGuard.
    pub stock: bool,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// Its further prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// A keepalive goes out after this long without traffic.
    pub persistent_keepalive: Option<Duration>,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Where it stands.
    pub state: PeerState,
    /// Why it is not connected, or below the level that is required, and what to look at; `None`
    /// when nothing is wrong.
    pub reason: Option<String>,
    /// The suite in which application data travels; `None` while it cannot.
    pub suite: Option<SuiteId>,
    /// The level at which application data travels; `None` while it cannot.
    pub level: Option<Level>,
    /// Since when the level is reached, without a break.
    pub since: Option<SystemTime>,
    /// When the preshared key in use was agreed on; it is replaced every 15 minutes of use.
    pub last_rotation: Option<SystemTime>,
    /// The level that application data needs; `None` for a stranger that is not admitted yet.
    pub required: Option<Level>,
    /// What is remembered of the peer for good.
    pub pin: Option<Pin>,
    /// What it waits for to reach the level, and since when. With a level beside it, an older
    /// session is still in use, or what was agreed before.
    pub waiting: Option<(WaitReason, SystemTime)>,
    /// Whether stream packets travel without IP and UDP headers to it.
    pub bare_streams: bool,
    /// Whether admission let it in, rather than the configuration.
    pub provisional: bool,
    /// Age of the session in use.
    pub session_age: Option<Duration>,
    /// Epoch of the preshared key that made the session in use; 0 is the configured key or none.
    pub psk_epoch: Option<u32>,
    /// Wall time of the last completed handshake.
    pub last_handshake: Option<SystemTime>,
    /// Initiation to response, of the last handshake that we initiated.
    pub handshake_time: Option<Duration>,
    /// Bytes received, as UDP payload.
    pub rx_bytes: u64,
    /// Bytes sent, as UDP payload.
    pub tx_bytes: u64,
    /// Time since anything authenticated came in.
    pub last_received: Option<Duration>,
}

/// A node that was turned away.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its key, as it claimed: a node that is not in an allow list is not asked to prove it.
    pub node_id: NodeId,
    /// Where it asked from.
    pub source: SocketAddr,
    /// When.
    pub time: SystemTime,
    /// Why.
    pub reason: String,
}

/// The latest refusals, one per node.
#[derive(Default)]
pub(crate) struct Refusals {
    latest: VecDeque<Refusal>,
    logged_at: Option<Instant>,
}

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        // Keys cost a stranger nothing: they must not fill the log.
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOGGED_APART) {
            self.logged_at = Some(Instant::now());
            let Refusal {
                node_id,
                source,
                reason,
                ..
            } = &refusal;
            tracing::warn!(%node_id, %source, reason, "refused a node; more may follow unlogged");
        }
        self.latest.retain(|known| known.node_id != refusal.node_id);
        if self.latest.len() >= REFUSALS_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(refusal);
    }

    pub(crate) fn list(&self) -> Vec<Refusal> {
        self.latest.iter().cloned().collect()
    }
}

/// What the operator said of peers beyond what the engine needs.
#[derive(Default)]
pub(crate) struct PeerNames(HashMap<NodeId, PeerNote>);

/// One such note.
#[derive(Clone, Default)]
pub(crate) struct PeerNote {
    pub(crate) name: Option<String>,
    pub(crate) stock: bool,
    pub(crate) streams: bool,
    /// Endpoints that are to be looked up.
    pub(crate) hosts: Vec<Endpoint>,
}

impl PeerNames {
    pub(crate) fn set(&mut self, node_id: NodeId, note: PeerNote) {
        self.0.insert(node_id, note);
    }

    /// Whether the operator named it as stock WireGuard.
    pub(crate) fn is_stock(&self, node_id: &NodeId) -> bool {
        self.0.get(node_id).is_some_and(|note| note.stock)
    }

    /// Whether it can be asked for streams.
    pub(crate) fn speaks_streams(&self, node_id: &NodeId) -> bool {
        let note = self.0.get(node_id);
        note.is_none_or(|note| !note.stock || note.streams)
    }

    pub(crate) fn of(&self, node_id: &NodeId) -> PeerNote {
        self.0.get(node_id).cloned().unwrap_or_default()
    }

    /// Where it is has been said anew.
    pub(crate) fn forget_hosts(&mut self, node_id: &NodeId) {
        if let Some(note) = self.0.get_mut(node_id) {
            note.hosts.clear();
        }
    }

    pub(crate) fn remove(&mut self, node_id: &NodeId) {
        self.0.remove(node_id);
    }
}

pub(crate) fn peer_status(
    core: wiremesh_core::PeerStatus,
    security: &PeerSecurity,
    since: Option<SystemTime>,
    note: PeerNote,
) -> PeerStatus {
    let has_endpoint = core.path.is_some();
    let level = open_level(security);
    let waiting = security.waiting.map(|(reason, at)| (reason, wall_time(at)));
    // Agreeing on the next key while the last one is in use is no reason to worry.
    let waiting = waiting.filter(|(why, _)| level.is_none() || *why != WaitReason::Exchanging);
    let reason = match (reason(core.state, has_endpoint), waiting) {
        (None, Some((reason, _))) => Some(reason.to_string()),
        (reason, _) => reason.map(str::to_owned),
    };
    // Without a key there is nothing to rotate.
    let rotated = security.since.filter(|_| level > Some(Level::Classical));
    PeerStatus {
        node_id: core.node_id,
        name: note.name,
        stock: note.stock,
        address: core.overlay,
        allowed_ips: core.allowed_ips.to_vec(),
        persistent_keepalive: core.persistent_keepalive,
        endpoint: core.path.map(|path| path.remote),
        state: core.state,
        reason,
        suite: security.suite.filter(|_| level.is_some()),
        level,
        since,
        last_rotation: rotated.map(wall_time),
        required: security.required,
        pin: security.pin,
        waiting,
        bare_streams: core.bare_streams,
        provisional: core.provisional,
        session_age: core.session_age,
        psk_epoch: core.session_psk_epoch,
        last_handshake: core
            .last_handshake
            .map(|at| SystemTime::UNIX_EPOCH + at.as_duration()),
        handshake_time: core.handshake_time,
        rx_bytes: core.rx_bytes,
        tx_bytes: core.tx_bytes,
        last_received: core.last_received,
    }
}

fn reason(state: PeerState, has_endpoint: bool) -> Option<&'static str> {
    match state {
        PeerState::Connected => None,
        PeerState::Idle if has_endpoint => None,
        PeerState::Idle => Some("no endpoint is known: waiting for the peer to come"),
        PeerState::Handshaking if !has_endpoint => Some("no endpoint is known"),
        PeerState::Handshaking => Some("no answer to the handshake yet"),
        PeerState::AwaitingConfirmation => {
            Some("our response was sent; waiting for its first data")
        }
        PeerState::Silent => Some("data was sent and nothing comes back"),
        PeerState::NoAnswer if !has_endpoint => Some("no endpoint is known"),
        PeerState::NoAnswer => {
            Some("no answer for 90 s: it is off, not reached there, or does not admit our key")
        }
    }
}
