//! The library's errors, one per operation.
//!
//! Each says who is at fault and what to do about it; none holds a secret.

use crate::host_interface::InterfaceError;
use crate::state_dir::StateError;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wiremesh_control::message::PROOF_MAX;
use wiremesh_control::{Level, PolicyError, WaitReason};
use wiremesh_core::InvalidEgress;
use wiremesh_quic::{InvalidProtocols, SettingOutOfRange};
use wiremesh_wire::{InvalidNodeId, NetworkId, NodeId};

/// Why a node could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The secret key has no valid public key.
    Key(InvalidNodeId),
    /// A protocol name cannot be used.
    Protocols(InvalidProtocols),
    /// A protocol name belongs to the node itself.
    ReservedProtocol(&'static str),
    /// The transport configuration grants less than every node must.
    Transport(SettingOutOfRange),
    /// The MTU is outside 1,280 to 65,535 bytes.
    Mtu(u16),
    /// The settings of the egress scheduler cannot be met.
    Egress(InvalidEgress),
    /// The UDP sockets could not be opened.
    Sockets(wiremesh_udp::BindError),
    /// The security policy contradicts itself.
    Policy(PolicyError),
    /// The state directory cannot be used.
    State(StateError),
    /// There is no interface of the host.
    Interface(InterfaceError),
    /// The operating system gave no randomness, or quinn could not start.
    System(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "the secret key cannot be used: {error}"),
            Self::Protocols(error) => write!(f, "{error}"),
            Self::ReservedProtocol(name) => write!(
                f,
                "the protocol {name} belongs to the node itself; fix: take another name, or use \
                 `Node::topic` for what it does"
            ),
            Self::Transport(error) => write!(f, "{error}"),
            Self::Mtu(mtu) => write!(f, "an MTU of {mtu} bytes: use 1280 to 65535"),
            Self::Egress(error) => write!(f, "the pace of what leaves: {error}"),
            Self::Sockets(error) => write!(f, "{error}"),
            Self::Policy(error) => write!(f, "the security policy: {error}"),
            Self::State(error) => write!(f, "the state directory cannot be used: {error}"),
            Self::Interface(error) => write!(f, "{error}"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Why a policy was not put into force. Nothing has changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetPolicyError {
    /// It contradicts itself.
    Policy(PolicyError),
    /// The static ML-KEM key that it asks for cannot be kept.
    State(StateError),
}

impl fmt::Display for SetPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => write!(f, "{error}"),
            Self::State(error) => write!(f, "the static key cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for SetPolicyError {}

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The node id is our own.
    OwnKey,
    /// The ticket belongs to another network.
    OtherNetwork {
        /// The ticket's.
        ticket: NetworkId,
        /// Ours.
        ours: NetworkId,
    },
    /// No address of this peer is known.
    NoEndpoint(NodeId),
    /// No host name among the peer's endpoints could be resolved.
    Resolve {
        /// The name that failed.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The peer cannot be added, for example because [`crate::AddPeerError::TooManyPeers`].
    Peer(crate::AddPeerError),
    /// The peer is a stock WireGuard node: it speaks no streams. Use [`crate::UdpSocket`].
    StockPeer(NodeId),
    /// The protocol name cannot be used.
    Protocol(InvalidProtocols),
    /// No answer to the handshake.
    NoAnswer {
        /// Where it was sent.
        endpoint: Option<SocketAddr>,
        /// For how long.
        waited: Duration,
    },
    /// The peer answers, and the level that application data needs is not reached.
    Security {
        /// The level.
        required: Level,
        /// What it waits for, or who refuses what.
        reason: Option<WaitReason>,
        /// For how long it was tried.
        waited: Duration,
    },
    /// The proof for the peer is longer than 4,096 bytes.
    ProofTooLong(usize),
    /// The node has this many connections, incoming ones among them: as many as
    /// [`crate::NodeBuilder::unread_max`] allows.
    TooManyConnections(usize),
    /// The tunnel is up, but the streams did not connect; holds the peer's reason.
    Streams(quinn::ConnectionError),
    /// The node was closed.
    Closed,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnKey => write!(f, "this is our own key; a node cannot connect to itself"),
            Self::OtherNetwork { .. } => {
                write!(
                    f,
                    "the ticket belongs to another network; start this node with its name"
                )
            }
            Self::NoEndpoint(id) => {
                write!(
                    f,
                    "no address of {id} is known; use its ticket, or give an endpoint"
                )
            }
            Self::Resolve { host, error } => write!(f, "host name {host}: {error}"),
            Self::Peer(error) => write!(f, "{error}"),
            Self::StockPeer(id) => {
                write!(f, "{id} is a stock WireGuard peer and speaks no streams")
            }
            Self::Protocol(error) => write!(f, "{error}"),
            Self::NoAnswer { endpoint, waited } => {
                write!(f, "no answer")?;
                if let Some(endpoint) = endpoint {
                    write!(f, " from {endpoint}")?;
                }
                write!(
                    f,
                    " for {} s: the node is off, is not reached there, or does not admit our key",
                    waited.as_secs()
                )
            }
            Self::Security {
                required,
                reason,
                waited,
            } => {
                let waited = waited.as_secs();
                write!(
                    f,
                    "the peer is there, but {required} is not reached after {waited} s"
                )?;
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Self::ProofTooLong(len) => {
                write!(
                    f,
                    "a proof of {len} bytes, at most {PROOF_MAX} are possible"
                )
            }
            Self::TooManyConnections(most) => write!(
                f,
                "the node has {most} connections, as many as it may have; fix: close some, or raise \
                 `NodeBuilder::unread_max`"
            ),
            Self::Streams(error) => write!(f, "{error}"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a ping has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PingError {
    /// No peer owns the address.
    NoRoute(IpAddr),
    /// We have no address of that family inside the tunnel.
    NoSource(IpAddr),
    /// The payload does not fit the tunnel's MTU.
    TooLong,
    /// In kernel mode: this user may not ping.
    NotPermitted,
    /// No reply in time.
    Timeout,
}

impl fmt::Display for PingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute(ip) => write!(f, "{ip} is in no peer's allowed IPs"),
            Self::NoSource(ip) => write!(f, "no address of ours can talk to {ip}: {ADD_ADDRESS}"),
            Self::TooLong => write!(f, "the payload does not fit the tunnel's MTU"),
            Self::NotPermitted => write!(
                f,
                "the host lets no ordinary user ping: set the sysctl net.ipv4.ping_group_range to \
                 \"0 2147483647\""
            ),
            Self::Timeout => write!(f, "no reply in time"),
        }
    }
}

impl std::error::Error for PingError {}

/// Why a port inside the tunnel cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpBindError {
    /// Ports 2707 and 2708 belong to the node.
    Reserved(u16),
    /// The port is bound already, or for port 0, all are.
    InUse(u16),
    /// In kernel mode: the host gives no socket.
    Host(io::ErrorKind),
}

impl fmt::Display for UdpBindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(port) => {
                write!(
                    f,
                    "port {port} belongs to the node itself; take another one"
                )
            }
            Self::InUse(port) => write!(f, "port {port} is in use; take another one, or 0"),
            Self::Host(error) => write!(f, "the host gives no socket: {error}"),
        }
    }
}

impl std::error::Error for UdpBindError {}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpSendError {
    /// No peer owns the destination.
    NoRoute(IpAddr),
    /// We have no address of that family inside the tunnel.
    NoSource(IpAddr),
    /// The payload does not fit the tunnel's MTU.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// The node was closed.
    Closed,
}

const ADD_ADDRESS: &str = "give the node one in the configuration";

impl fmt::Display for UdpSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute(ip) => write!(f, "{ip} is in no peer's allowed IPs"),
            Self::NoSource(ip) => write!(f, "no address of ours can talk to {ip}: {ADD_ADDRESS}"),
            Self::TooLong { len, max } => write!(f, "{len} bytes, at most {max} fit a datagram"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for UdpSendError {}
