//! What a node and its peers are made from, with every default and limit.
//!
//! Owns no state. Source: WireGuard paper section 6; limits are ours.

use crate::allowed_ips::Overlap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use wiremesh_control::{PeerSettings, Pin, Policy, PolicyError};
use wiremesh_wire::{InvalidNodeId, IpNet, NetworkId, NodeId, PresharedKey, SecretKey, Tai64n};

/// Where datagrams of a peer come from and go to.
///
/// `local` is the address of ours that the peer used; answers leave from it, so that a host with
/// several addresses keeps using the one the peer knows (endpoint stickiness).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The peer's UDP address.
    pub remote: SocketAddr,
    /// Our own address on this path, when known.
    pub local: Option<IpAddr>,
}

impl Path {
    /// A path whose local address is left to the operating system.
    pub fn to(remote: SocketAddr) -> Self {
        Self {
            remote,
            local: None,
        }
    }
}

/// Who may open a session without having been added as a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Admission {
    /// Only peers that were added. The default.
    #[default]
    AllowList,
    /// Every valid key, as a provisional peer; at most `provisional_max` of them at a time.
    AllowAll {
        /// Provisional peers at a time; a further stranger is dropped.
        provisional_max: u32,
    },
    /// The application decides: see [`crate::Event::AdmissionRequested`].
    Ask {
        /// Questions open at a time; a further stranger is dropped.
        pending_max: u32,
    },
    /// The application decides by a proof that the stranger shows in the exchange: until then it
    /// is a provisional peer with nothing but the control address. Needs the control protocol;
    /// without it, it is as [`Admission::AllowList`].
    Proof {
        /// Strangers at a time; a further one is dropped.
        pending_max: u32,
    },
}

/// Bounds on what a node keeps. Nothing in a node grows without one of these.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Peers, configured and provisional. Default 131,072. A further one is refused.
    pub peers_max: u32,
    /// Packets waiting for a session, per peer. Default 128. A further one is given back, and
    /// counted.
    pub staged_packets_max: usize,
    /// Bytes of all packets waiting for a session, with 128 bytes for each. Default 64 MiB. A
    /// further packet is given back, and counted.
    pub staged_bytes_max: usize,
    /// Datagrams waiting in [`crate::Node::poll_transmit`]. Default 8,192. Handshake messages
    /// beyond it are dropped and counted.
    pub transmits_max: usize,
    /// Events waiting in [`crate::Node::poll_event`]. Default 16,384. Beyond it the event is
    /// dropped and counted.
    pub events_max: usize,
    /// Valid handshake messages per second above which cookies are demanded. Default 1,000;
    /// 0 demands them always. Source: WireGuard paper section 5.3.
    pub handshakes_per_second_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_max: 131_072,
            staged_packets_max: 128,
            staged_bytes_max: 64 << 20,
            transmits_max: 8_192,
            events_max: 16_384,
            handshakes_per_second_max: 1_000,
        }
    }
}

/// Which addresses are a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Routing {
    /// The two that follow from its key, and further prefixes that it shares with nobody. The
    /// default.
    #[default]
    Overlay,
    /// The prefixes that it was given and no others, as in WireGuard: the longest one decides,
    /// and one that is given to a second peer moves. No address has a meaning of its own, so this
    /// is not for a node with the control protocol.
    AsGiven,
}

/// What a node is made from.
#[derive(Debug)]
pub struct NodeConfig {
    /// The WireGuard secret key.
    pub secret_key: SecretKey,
    /// Who may come in unasked.
    pub admission: Admission,
    /// Bounds.
    pub limits: Limits,
    /// Largest IP packet inside the tunnel, bytes. Padding never goes beyond it. Default 1,420.
    pub mtu_bytes: u16,
    /// Every timestamp this key used before is smaller than this or equal. Load it from where
    /// [`crate::Event::ReserveTimestamps`] was saved.
    pub timestamp_floor: Option<Tai64n>,
    /// The control protocol; `None` (the default) is plain WireGuard, in which every peer is L1.
    pub control: Option<ControlConfig>,
    /// Which addresses are a peer's.
    pub routing: Routing,
}

/// How a node takes part in the control protocol, which agrees on suites.
#[derive(Debug)]
pub struct ControlConfig {
    /// Our network. Default: the one with the empty name.
    pub network: NetworkId,
    /// What we list, promise and demand. Default: at least L2.
    pub policy: Policy,
    /// The seed of the static ML-KEM key; needed if the policy turns L3 on.
    pub kem_seed: Option<[u8; 64]>,
    /// Whether stream packets travel without IP and UDP headers to peers that take them. Ignored
    /// by a [`crate::KernelNode`]. Default: yes.
    pub bare_streams: bool,
    /// No record of ours had a sequence number above this. Load it from where
    /// [`crate::Event::SaveRecordSeq`] was saved.
    pub record_seq_floor: u64,
    /// A preshared key is replaced after this much time in use. Default 15 minutes.
    pub rotate_after: Duration,
    /// What is remembered of peers for good. Load it from where [`crate::Event::SavePin`] was saved.
    pub pins: Vec<(NodeId, Pin)>,
    /// Whether each transition is told in [`crate::Event::ControlMoved`]. Default: no.
    pub trace: bool,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            network: NetworkId::default(),
            policy: Policy::default(),
            kem_seed: None,
            bare_streams: true,
            record_seq_floor: 0,
            rotate_after: Duration::from_secs(900),
            pins: Vec::new(),
            trace: false,
        }
    }
}

impl NodeConfig {
    /// A configuration with all defaults.
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            secret_key,
            admission: Admission::default(),
            limits: Limits::default(),
            mtu_bytes: 1_420,
            timestamp_floor: None,
            control: None,
            routing: Routing::default(),
        }
    }
}

/// What a peer is made from. With [`Routing::Overlay`] its two overlay addresses are always among
/// its allowed IPs.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The peer's public key.
    pub node_id: NodeId,
    /// Where it is reached; without one we wait for it to come.
    pub endpoint: Option<SocketAddr>,
    /// Mixed into the next handshake. All zero means none.
    pub preshared_key: PresharedKey,
    /// Prefixes beside the overlay addresses, for a stock WireGuard peer.
    pub allowed_ips: Vec<IpNet>,
    /// A keepalive after this long without traffic. Range 1 s to 65,535 s.
    pub persistent_keepalive: Option<Duration>,
    /// The operator names it as stock WireGuard: L1, and no control protocol.
    pub stock: bool,
    /// What application data with it needs at least, and what is shown to it. Ignored for a stock
    /// peer and without the control protocol.
    pub security: PeerSettings,
}

impl PeerConfig {
    /// A peer known by its key only.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            endpoint: None,
            preshared_key: PresharedKey::default(),
            allowed_ips: Vec::new(),
            persistent_keepalive: None,
            stock: false,
            security: PeerSettings::default(),
        }
    }
}

/// Why a node was not made. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewNodeError {
    /// Admission of unknown keys, of which the kernel tells nothing.
    Admission,
    /// The secret key has no valid public key: never in practice.
    Key(InvalidNodeId),
    /// The policy contradicts itself.
    Policy(PolicyError),
}

/// Why a peer was not added. The caller is at fault, or a limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddPeerError {
    /// The node's own key.
    OwnKey,
    /// A peer with this key exists.
    Exists,
    /// An allowed IP belongs to another peer.
    Overlap(Overlap),
    /// [`Limits::peers_max`] is reached.
    TooManyPeers,
}
