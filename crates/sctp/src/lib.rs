//! SCTP (RFC 9260) inside the tunnel, in user space: many streams of messages in one association.
//!
//! ```no_run
//! # async fn example(node: wiremesh::Node, peer: wiremesh::NodeId) -> Result<(), Box<dyn std::error::Error>> {
//! use wiremesh::Priority;
//! use wiremesh_sctp::{SctpExt, SendMode};
//!
//! let association = node.sctp()?.connect(peer, 5000).await?;
//! association.set_priority(1, Priority::Urgent);
//! association.send(1, 0, b"first".to_vec(), SendMode::default()).await?;
//! let answer = association.recv().await?;
//! # drop(answer);
//! # Ok(())
//! # }
//! ```
//!
//! Messages are ordered or not, and may be given up after a time or a number of retransmissions
//! (RFC 3758); a large one does not block a small one of another stream (RFC 8260, where the peer
//! has it). Packets travel as IP protocol 132, or in UDP (RFC 6951), to our own nodes and to any other
//! SCTP: the kernel of a stock WireGuard peer has one. The state machine is dcsctp's.
//!
//! The peer is the one whose key the tunnel proved: packets come only from addresses that belong to
//! it. Layer 4; it owns associations, and knows nothing of keys and sessions. docs/sctp.md.
#![deny(unsafe_op_in_unsafe_fn)]

mod association;
#[allow(unsafe_code)]
mod confined;
mod driver;
mod error;
mod handle;
mod packet;
mod stack;

pub use error::{ConnectError, EndError, ListenError, SctpError, SendError};
pub use handle::{Association, Listener, Received, SendMode};

use driver::{Handle, PROTOCOL_SCTP, Shared};
use stack::{Remote, Stack};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use wiremesh::{Node, NodeId, RawBindError, address};

/// The UDP port of SCTP (RFC 6951, section 5.1).
pub const UDP_PORT: u16 = 9899;
/// IPv6 header in front of a packet.
const IPV6_HEADER_LEN: usize = 40;

/// Limits and settings of an [`Sctp`].
#[derive(Clone, Debug)]
pub struct SctpConfig {
    /// Associations, 1,024 by default. Beyond it connecting fails, and who connects to us gets no
    /// answer.
    pub associations_max: usize,
    /// Associations with one peer, 64 by default.
    pub associations_per_peer_max: usize,
    /// The largest message that can be sent, in bytes: 1 MiB by default.
    pub message_max: usize,
    /// Bytes given and not yet sent, per association: 4 MiB by default. A quarter of it is kept for
    /// urgent streams.
    pub send_bytes: usize,
    /// Bytes received and not yet read, per association: 5 MiB by default. A message must fit.
    pub receive_bytes: usize,
    /// Whether message interleaving (RFC 8260) is offered: yes by default.
    pub interleaving: bool,
    /// Whether the UDP port 9899 of the node is taken for RFC 6951: yes by default. In `tun` and
    /// `kernel` mode it is the only way: protocol 132 is the host's there.
    pub udp: bool,
    /// How long connecting may take, 15 s by default.
    pub connect_timeout: Duration,
}

impl Default for SctpConfig {
    fn default() -> Self {
        Self {
            associations_max: 1_024,
            associations_per_peer_max: 64,
            message_max: 1 << 20,
            send_bytes: 4 << 20,
            receive_bytes: 5 << 20,
            interleaving: true,
            udp: true,
            connect_timeout: Duration::from_secs(15),
        }
    }
}

/// Whom to connect to: a node, or an address that belongs to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whom(IpAddr);

impl From<NodeId> for Whom {
    fn from(id: NodeId) -> Self {
        Self(address::overlay_address(&id).into())
    }
}

impl From<IpAddr> for Whom {
    fn from(address: IpAddr) -> Self {
        Self(address)
    }
}

impl From<Ipv6Addr> for Whom {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.into())
    }
}

/// The SCTP of a node. Cheap to clone. It ends with the node, or when all handles, associations and
/// listeners are gone and what they sent has arrived.
#[derive(Clone)]
pub struct Sctp(Arc<Handle>);

impl fmt::Debug for Sctp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sctp({} associations)", self.associations())
    }
}

/// SCTP as a method of the node.
pub trait SctpExt {
    /// Claims SCTP of the node, with the default settings. Must be called within a tokio runtime,
    /// once: clone what it gives.
    ///
    /// # Errors
    ///
    /// [`SctpError`].
    fn sctp(&self) -> Result<Sctp, SctpError>;
}

impl SctpExt for Node {
    fn sctp(&self) -> Result<Sctp, SctpError> {
        Sctp::with_config(self, SctpConfig::default())
    }
}

impl Sctp {
    /// As [`SctpExt::sctp`], with other settings.
    ///
    /// # Errors
    ///
    /// [`SctpError`].
    pub fn with_config(node: &Node, config: SctpConfig) -> Result<Self, SctpError> {
        let raw = match node.raw_socket(PROTOCOL_SCTP) {
            Ok(raw) => Some(raw),
            Err(RawBindError::Host(_)) if config.udp => None,
            Err(error) => return Err(SctpError::Protocol(error)),
        };
        let udp = config.udp.then(|| node.udp_socket(UDP_PORT)).transpose();
        let udp = udp.map_err(SctpError::Udp)?;
        let mtu = match (&raw, &udp) {
            (Some(raw), _) => raw.mtu_bytes(),
            (None, Some(udp)) => udp.payload_max() + IPV6_HEADER_LEN + 8,
            (None, None) => return Err(SctpError::NoTransport),
        };
        let IpAddr::V6(source) = node.address() else {
            return Err(SctpError::NoTransport);
        };
        let stack = Stack::new(config, mtu - IPV6_HEADER_LEN);
        let shared = Arc::new(Shared::new(stack, raw, udp, source));
        tokio::spawn(driver::drive(Arc::clone(&shared)));
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Opens an association with a port of a peer, over IP protocol 132; where that is the host's,
    /// over UDP.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        peer: impl Into<Whom>,
        port: u16,
    ) -> Result<Association, ConnectError> {
        let udp_port = self.0.0.raw.is_none().then_some(UDP_PORT);
        self.open(peer.into(), port, udp_port).await
    }

    /// As [`Sctp::connect`], over UDP (RFC 6951).
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_over_udp(
        &self,
        peer: impl Into<Whom>,
        port: u16,
    ) -> Result<Association, ConnectError> {
        if self.0.0.udp.is_none() {
            return Err(ConnectError::NoUdp);
        }
        self.open(peer.into(), port, Some(UDP_PORT)).await
    }

    async fn open(
        &self,
        whom: Whom,
        port: u16,
        udp_port: Option<u16>,
    ) -> Result<Association, ConnectError> {
        let IpAddr::V6(address) = whom.0 else {
            return Err(ConnectError::NotIpv6(whom.0));
        };
        if port == 0 {
            return Err(ConnectError::NoPort);
        }
        let remote = Remote { address, udp_port };
        let shared = &self.0.0;
        let (key, serial, waited) = {
            let now = shared.now();
            let mut stack = shared.stack();
            let (key, serial) = stack.connect(now, remote, port)?;
            (key, serial, stack.config.connect_timeout)
        };
        shared.wake.notify_one();
        let association = Association::new(Arc::clone(&self.0), key, serial, remote);
        match tokio::time::timeout(waited, association.opened()).await {
            Ok(Ok(())) => Ok(association),
            Ok(Err(end)) => Err(ConnectError::Refused(end)),
            Err(_) => {
                association.abort("nobody answers");
                Err(ConnectError::TimedOut { address, waited })
            }
        }
    }

    /// Listens on a port, on both transports; 0 takes one that is free.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn listen(&self, port: u16) -> Result<Listener, ListenError> {
        let port = self.0.0.stack().listen(port)?;
        Ok(Listener::new(Arc::clone(&self.0), port))
    }

    /// How many associations there are, in any state.
    pub fn associations(&self) -> usize {
        self.0.0.stack().len()
    }

    /// How many peers were refused, since a limit was reached.
    pub fn refused(&self) -> u64 {
        self.0.0.stack().refused
    }
}
