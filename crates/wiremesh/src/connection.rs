//! A stream connection to a peer.
//!
//! Owns quinn's connection and what the tunnel knows of it. The peer's identity is the tunnel's
//! key, never something that the stream layer says.

use crate::accept::Permit;
use crate::node::Node;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use wiremesh_wire::NodeId;

/// A connection: quinn's streams and datagrams, of one protocol, with one peer.
///
/// Everything of [`quinn::Connection`] is there through `Deref`: `open_bi`, `accept_uni`,
/// `send_datagram`, `close` and so on. Clones are handles of the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    linked: Linked,
    peer: NodeId,
    protocol: String,
    node: Node,
    /// Counts an incoming connection as long as it is held.
    _permit: Option<Arc<Permit>>,
}

/// quinn's connection, and its flow in the egress scheduler (0 without one).
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    pub(crate) quinn: quinn::Connection,
    pub(crate) flow: u64,
}

/// How a connection's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// The peer's UDP address now; it may move.
    pub endpoint: Option<SocketAddr>,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Largest QUIC packet that is known to get through, bytes.
    pub mtu_bytes: u16,
}

impl Connection {
    pub(crate) fn new(
        linked: Linked,
        peer: NodeId,
        protocol: String,
        node: Node,
        permit: Option<Arc<Permit>>,
    ) -> Self {
        Self {
            linked,
            peer,
            protocol,
            node,
            _permit: permit,
        }
    }

    /// Whose connection it is: the key that the tunnel proved.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn linked(&self) -> &Linked {
        &self.linked
    }

    /// The protocol that was negotiated.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// How it travels now.
    pub fn path(&self) -> PathInfo {
        PathInfo {
            endpoint: self
                .node
                .peer_status(&self.peer)
                .and_then(|peer| peer.endpoint),
            rtt: self.linked.quinn.rtt(),
            mtu_bytes: self.linked.quinn.stats().path.current_mtu,
        }
    }
}

impl Deref for Connection {
    type Target = quinn::Connection;

    fn deref(&self) -> &quinn::Connection {
        &self.linked.quinn
    }
}
