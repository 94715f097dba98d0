//! A peer as the application holds it.
//!
//! Owns a handle that outlives connections: it reconnects when asked for a connection and the
//! last one is gone.

use crate::connection::{Connection, Linked};
use crate::error::ConnectError;
use crate::node::Node;
use crate::port::lock;
use crate::status::PeerStatus;
use crate::tunnel::State;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use wiremesh_control::Level;
use wiremesh_control::message::PROOF_MAX;
use wiremesh_core::Overlap;
use wiremesh_wire::{Endpoint, IpNet, NodeId, PresharedKey};

/// What a peer is made from.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its public key.
    pub node_id: NodeId,
    /// The operator's name for it.
    pub name: Option<String>,
    /// Where it may be reached; all are tried at once, the one that answers is used.
    pub endpoints: Vec<Endpoint>,
    /// Mixed into the handshake; zero is none.
    pub preshared_key: PresharedKey,
    /// Prefixes beside its overlay addresses, for a stock WireGuard peer.
    pub allowed_ips: Vec<IpNet>,
    /// A keepalive after this long without traffic.
    pub persistent_keepalive: Option<Duration>,
    /// A stock WireGuard peer: it answers ping and UDP, speaks no streams, and stays at L1.
    pub stock: bool,
    /// A peer that is named as stock speaks streams all the same: a node of ours, whose operator says
    /// so of us. Nothing is agreed on then: the first response takes two round trips instead of
    /// four, and has WireGuard's protection and no more.
    pub streams: bool,
    /// The level that application data with this peer needs, when it is above the node's minimum.
    pub minimum: Option<Level>,
    /// Shown to the peer before it lets anything in, see [`crate::Admission::proof`]; at most
    /// 4,096 bytes.
    pub proof: Option<Vec<u8>>,
}

impl PeerConfig {
    /// A peer known by its key only.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            name: None,
            endpoints: Vec::new(),
            preshared_key: PresharedKey::default(),
            allowed_ips: Vec::new(),
            persistent_keepalive: None,
            stock: false,
            streams: false,
            minimum: None,
            proof: None,
        }
    }
}

/// Why a peer was not added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddPeerError {
    /// It is our own key.
    OwnKey,
    /// There is a peer with this key.
    Exists,
    /// A prefix shares addresses with another peer's.
    Overlap {
        /// The prefix that was to be added.
        wanted: IpNet,
        /// The prefix in the way.
        taken: IpNet,
        /// Who has it.
        owner: Option<NodeId>,
    },
    /// The node's limit of peers is reached.
    TooManyPeers,
    /// A proof of this many bytes; at most 4,096 are possible.
    ProofTooLong(usize),
}

impl fmt::Display for AddPeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnKey => write!(f, "this is our own key"),
            Self::Exists => write!(f, "there is a peer with this key already"),
            Self::Overlap {
                wanted,
                taken,
                owner,
            } => {
                write!(f, "{wanted} overlaps {taken}")?;
                match owner {
                    Some(owner) => write!(f, " of peer {owner}; prefixes must not overlap"),
                    None => write!(f, "; prefixes must not overlap"),
                }
            }
            Self::TooManyPeers => write!(f, "the limit of peers is reached"),
            Self::ProofTooLong(len) => {
                write!(
                    f,
                    "a proof of {len} bytes, at most {PROOF_MAX} are possible"
                )
            }
        }
    }
}

impl std::error::Error for AddPeerError {}

/// An overlap as the application sees it.
pub(crate) fn overlap_error(state: &State, overlap: Overlap) -> AddPeerError {
    AddPeerError::Overlap {
        wanted: overlap.wanted,
        taken: overlap.taken,
        owner: state.engine.node_id_of(overlap.owner),
    }
}

/// The connection of one protocol; locked while it is being made, so that many who want it at
/// once share one. It is quinn's: ours hold the node, which holds this.
type Slot = Arc<AsyncMutex<Option<Linked>>>;

/// Connections of a peer, by protocol, kept for reuse.
pub(crate) type Kept = Arc<Mutex<HashMap<String, Slot>>>;

/// Whether one of them is open or being made.
pub(crate) fn in_use(kept: &Kept) -> bool {
    let open = |slot: &Slot| match slot.try_lock() {
        Ok(connection) => connection.as_ref().is_some_and(is_open),
        Err(_) => true,
    };
    lock(kept).values().any(open)
}

fn is_open(connection: &Linked) -> bool {
    connection.quinn.close_reason().is_none()
}

/// A peer of a node. Cheap to clone; stays valid while connections come and go.
#[derive(Clone)]
pub struct Peer {
    node: Node,
    node_id: NodeId,
    kept: Kept,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.node_id)
    }
}

impl Peer {
    pub(crate) fn new(node: Node, node_id: NodeId, kept: Kept) -> Self {
        Self {
            node,
            node_id,
            kept,
        }
    }

    /// Its key.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Its address inside the tunnel.
    pub fn address(&self) -> IpAddr {
        wiremesh_wire::address::overlay_address(&self.node_id).into()
    }

    /// The connection of this protocol: the last one while it lives, else a new one. Those who ask
    /// while it is being made get the same.
    ///
    /// # Errors
    ///
    /// As [`Node::connect`].
    pub async fn connection(&self, protocol: &str) -> Result<Connection, ConnectError> {
        let slot = lock(&self.kept)
            .entry(protocol.to_owned())
            .or_default()
            .clone();
        let waited = self.node.connect_timeout();
        let Ok(mut slot) = tokio::time::timeout(waited, slot.lock()).await else {
            return Err(self.node.no_connection(&self.node_id, waited));
        };
        if let Some(linked) = slot.clone().filter(is_open) {
            let protocol = protocol.to_owned();
            return Ok(self.node.connection(linked, self.node_id, protocol, None));
        }
        let connection = self.node.connect(self.node_id, protocol).await?;
        *slot = Some(connection.linked().clone());
        Ok(connection)
    }

    /// Opens a bidirectional stream on [`Peer::connection`]; connects anew, once, if the kept
    /// connection ends before there is one.
    ///
    /// # Errors
    ///
    /// As [`Node::connect`].
    pub async fn open_bi(
        &self,
        protocol: &str,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), ConnectError> {
        match self.connection(protocol).await?.open_bi().await {
            Ok(streams) => Ok(streams),
            // It is closed now, so this makes a new one.
            Err(_) => {
                let connection = self.connection(protocol).await?;
                connection.open_bi().await.map_err(ConnectError::Streams)
            }
        }
    }

    /// A snapshot; `None` once the peer was removed.
    pub fn status(&self) -> Option<PeerStatus> {
        self.node.peer_status(&self.node_id)
    }

    /// Sets where it is reached.
    pub fn set_endpoint(&self, endpoint: SocketAddr) {
        self.node.with_peer(&self.node_id, |state, _, key| {
            state.engine.set_endpoint(key, endpoint)
        });
    }

    /// Sets the only place where it is looked for: what was known before is forgotten, host names
    /// too.
    pub fn replace_endpoint(&self, endpoint: SocketAddr) {
        self.node.with_peer(&self.node_id, |state, _, key| {
            state.engine.set_candidates(key, &[]);
            state.engine.set_endpoint(key, endpoint);
            state.names.forget_hosts(&self.node_id);
        });
    }

    /// Replaces the prefixes that it has beside its overlay addresses; sessions go on. Nothing
    /// happens once the peer was removed.
    ///
    /// # Errors
    ///
    /// [`AddPeerError::Overlap`] with another peer; nothing has changed then. Never where prefixes
    /// move as in WireGuard, see [`crate::NodeBuilder::plain_wireguard`].
    pub fn set_allowed_ips(&self, allowed_ips: &[IpNet]) -> Result<(), AddPeerError> {
        let set = self.node.with_peer(&self.node_id, |state, _, key| {
            let set = state.engine.set_allowed_ips(key, allowed_ips);
            set.map_err(|overlap| overlap_error(state, overlap))
        });
        set.transpose().map(|_| ())
    }

    /// Changes the preshared key in place: sessions stay, the next handshake uses the new key.
    /// `epoch` is shown for every session made with it.
    pub fn set_preshared_key(&self, preshared_key: PresharedKey, epoch: u32) {
        self.node.with_peer(&self.node_id, |state, _, key| {
            state.engine.set_preshared_key(key, preshared_key, epoch)
        });
    }

    /// Sets or ends the persistent keepalive.
    pub fn set_persistent_keepalive(&self, every: Option<Duration>) {
        self.node.with_peer(&self.node_id, |state, now, key| {
            state.engine.set_persistent_keepalive(now, key, every);
        });
    }

    /// Starts a handshake even though a session is live.
    pub fn rekey(&self) {
        self.node.with_peer(&self.node_id, |state, now, key| {
            state.engine.rekey(now, key)
        });
    }
}
