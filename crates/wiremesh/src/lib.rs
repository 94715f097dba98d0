//! WireGuard as the transport security of a peer-to-peer application.
//!
//! A [`Node`] is a WireGuard key pair on UDP sockets. Between two nodes runs a WireGuard tunnel;
//! inside it the application gets QUIC streams and datagrams without a second encryption
//! ([`Connection`], with quinn's own streams under it), UDP sockets ([`UdpSocket`]) on which any
//! UDP protocol runs unchanged, and ping. No root, no daemon, no certificates.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wiremesh::Node;
//!
//! let server = Node::builder().protocol("echo/1").bind().await?;
//! let ticket = server.ticket();
//! tokio::spawn(async move {
//!     while let Some(connection) = server.accept().await {
//!         println!("{} speaks {}", connection.peer(), connection.protocol());
//!     }
//! });
//!
//! let client = Node::builder().bind().await?;
//! let connection = client.connect(&ticket, "echo/1").await?;
//! let (mut send, mut recv) = connection.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! let answer = recv.read_to_end(1024).await?;
//! # drop(answer);
//! # Ok(())
//! # }
//! ```
//!
//! Everything runs on tokio. A connection's peer is the tunnel's key: [`Connection::peer`].
//!
//! Two nodes agree on a post-quantum key by themselves, and no application data flows before: level
//! L2, X25519 and ML-KEM-768 together. What is recorded today stays secret from tomorrow's quantum
//! computer; who may connect is still proven by X25519 alone, unless both have turned L3 on.
//! [`Connection::security`] tells, [`Node::require`] demands, [`NodeBuilder::security`] and
//! [`Node::set_policy`] decide. A peer that the operator names as stock WireGuard is L1.
#![forbid(unsafe_code)]

mod accept;
mod admission;
mod alarm;
mod bind;
mod budget;
mod builder;
mod connect;
mod connection;
mod device;
mod driver;
mod egress;
mod engine;
mod error;
mod events;
mod host;
mod host_interface;
mod inbound;
mod kernel;
mod last_words;
mod node;
mod outbox;
mod peer;
mod ping;
mod pins;
mod plane;
mod port;
mod priority;
mod raw_socket;
mod security;
mod settings;
mod sign;
mod state_dir;
mod status;
mod streams;
mod target;
mod topic;
mod tunnel;
mod udp_socket;
#[cfg(feature = "virtual")]
mod virtual_network;

pub use admission::{Admission, AdmissionRequest};
pub use builder::NodeBuilder;
pub use connection::{Connection, PathInfo};
pub use device::{Device, DeviceError};
pub use egress::EgressStatus;
pub use error::{BindError, ConnectError, PingError, SetPolicyError, UdpBindError, UdpSendError};
pub use host_interface::{HELPER_SOCKET, HostInterface, InterfaceError};
pub use node::Node;
pub use peer::{AddPeerError, Peer, PeerConfig};
pub use pins::PinsError;
pub use plane::Mode;
pub use priority::PrioritySend;
pub use quinn;
pub use raw_socket::{RawBindError, RawSendError, RawSocket};
pub use security::{Security, SecurityError};
pub use sign::{InvalidSignature, SIGNATURE_LEN, sign, verify};
pub use state_dir::{PinStore, StateError};
pub use status::{NodeStatus, PeerState, PeerStatus, Refusal};
pub use target::Target;
pub use topic::{
    Object, ObjectId, PublishError, Subscription, Topic, TopicCounters, TopicError, TopicId,
    TopicMemory, TopicStatus, Verdict,
};
pub use udp_socket::UdpSocket;
pub use wiremesh_control::{Level, Pin, Policy, PolicyError, Stage, SuiteId, Suites, WaitReason};
pub use wiremesh_core::{ClassDelays, EgressConfig, InvalidEgress};
pub use wiremesh_quic::default_transport;
pub use wiremesh_wire::address;
pub use wiremesh_wire::{
    Endpoint, InvalidNodeId, IpNet, IpNetError, KeyTextError, NetworkId, NodeId, ParseNodeIdError,
    PresharedKey, Priority, SecretKey, Ticket, TicketError, TicketSecret, UnknownPriority,
    network_id, ticket,
};

/// The node id of a secret key: its WireGuard public key.
///
/// # Errors
///
/// The public key is not a valid node id; for a random secret key that never happens.
pub fn node_id(secret_key: &SecretKey) -> Result<NodeId, InvalidNodeId> {
    wiremesh_noise::LocalIdentity::new(secret_key.clone()).map(|identity| identity.node_id())
}

/// Compiles and runs the program of the readme.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
