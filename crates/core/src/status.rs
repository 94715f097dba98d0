//! What a node tells about a peer.
//!
//! Owns plain values, copied out; holds no secrets.

use crate::config::Path;
use alloc::boxed::Box;
use core::net::Ipv6Addr;
use core::time::Duration;
use wiremesh_control::{Level, Phase, Pin, SuiteId, Suites, WaitReason};
use wiremesh_wire::{IpNet, NodeId, UnixTime};

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// No session, none wanted.
    Idle,
    /// Initiations go out and no response came yet.
    Handshaking,
    /// We answered its initiation and wait for its first data.
    AwaitingConfirmation,
    /// A session is live and the peer owes us nothing: all data sent until 12 s ago is answered.
    Connected,
    /// A session is there, but data sent 12 s ago, or a handshake begun 5 s ago, has no answer.
    Silent,
    /// The last attempt was given up: the peer is off, elsewhere, or does not admit us.
    NoAnswer,
}

/// What protects the traffic with a peer.
#[derive(Clone, Debug)]
pub struct PeerSecurity {
    /// Level of the session in use; `None` while no session carries data.
    pub level: Option<Level>,
    /// Its suite.
    pub suite: Option<SuiteId>,
    /// What data needs; `None` while nothing may pass.
    pub required: Option<Level>,
    /// Epoch of the preshared key that made the session in use.
    pub psk_epoch: Option<u32>,
    /// Since when the preshared key, or the agreement on L1, is in force, Unix seconds.
    pub since: Option<u64>,
    /// What is remembered of the peer for good.
    pub pin: Option<Pin>,
    /// The suites that it listed last.
    pub theirs: Option<Suites>,
    /// Why it waits for the level that it needs, and since when, Unix seconds.
    pub waiting: Option<(WaitReason, u64)>,
    /// Where the control protocol stands.
    pub phase: Option<Phase>,
    /// Whether it has yet to be admitted.
    pub stranger: bool,
    /// Whether it takes no part in the control protocol by configuration.
    pub stock: bool,
}

/// A snapshot of one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its key.
    pub node_id: NodeId,
    /// Its overlay address.
    pub overlay: Ipv6Addr,
    /// Where it is reached.
    pub path: Option<Path>,
    /// Prefixes beside its overlay addresses.
    pub allowed_ips: Box<[IpNet]>,
    /// A keepalive goes out after this long without traffic.
    pub persistent_keepalive: Option<Duration>,
    /// Where it stands.
    pub state: PeerState,
    /// Whether both ends take stream packets without IP and UDP headers.
    pub bare_streams: bool,
    /// Whether it was let in by admission rather than configured.
    pub provisional: bool,
    /// The level that a session needs to carry more than control packets.
    pub gate: u8,
    /// Age of the session in use: the one for data, else one below the gate.
    pub session_age: Option<Duration>,
    /// Whether the session in use was initiated by us.
    pub initiator: Option<bool>,
    /// Epoch of the preshared key that made the session in use.
    pub session_psk_epoch: Option<u32>,
    /// Security level of the session in use; data flows on it if it is at least `gate`.
    pub session_level: Option<u8>,
    /// Wall time of the last completed handshake.
    pub last_handshake: Option<UnixTime>,
    /// Initiation to response of the last handshake that we initiated.
    pub handshake_time: Option<Duration>,
    /// Bytes received, UDP payload, authenticated.
    pub rx_bytes: u64,
    /// Bytes sent, UDP payload.
    pub tx_bytes: u64,
    /// Time since anything authenticated came in.
    pub last_received: Option<Duration>,
}
