//! A node whose data the kernel's WireGuard carries, as a state machine.
//!
//! Owns the peers of one interface: which it has, what is agreed with each, and what the kernel is
//! to be told of them. It sees neither packets nor sessions, only the figures that the kernel
//! shows. Never does: I/O, clocks, randomness of its own. docs/spec.md section 7.3, "safe with the
//! kernel".
//!
//! # How to drive a [`KernelNode`]
//!
//! 1. Feed it: [`KernelNode::handle_control`], [`KernelNode::handle_figures`],
//!    [`KernelNode::handle_timeout`] and the commands.
//! 2. Drain it, in this order: [`KernelNode::poll_event`] until `None` (a pin must be on disk before
//!    what follows from it is done), then [`KernelNode::poll_task`] until `None`, each task carried
//!    out before the next one ([`KernelNode::handle_failure`] if it cannot be), then ask [`KernelNode::poll_timeout`] when to come back.

mod agreement;
mod figures;
mod peer;
mod report;
mod shared;
mod watch;

use crate::config::{AddPeerError, Admission, NewNodeError, NodeConfig, PeerConfig};
use crate::counters::Counters;
use crate::event::Event;
use crate::peer::PeerKey;
use crate::{Overlap, drbg::Drbg};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use peer::Peer;
use shared::Shared;
use wiremesh_noise::LocalIdentity;
use wiremesh_wire::{Instant, IpNet, NodeId, Now, PresharedKey, SecretKey, UnixTime};

/// Most peers of a node in kernel mode, whatever [`crate::Limits::peers_max`] says: the figures of
/// all of them are read every second.
pub const KERNEL_PEERS_MAX: usize = 4_096;

/// What is to be done at the kernel's interface, or on the control protocol's socket.
#[derive(Debug)]
pub enum KernelTask {
    /// Add a peer or change it.
    SetPeer(KernelPeerChange),
    /// Remove a peer.
    RemovePeer(NodeId),
    /// Send this from our control address to that one, port 2707 both. What cannot be sent is lost.
    Send {
        /// The control address of a peer.
        to: Ipv6Addr,
        /// The UDP payload.
        payload: Vec<u8>,
    },
    /// Read the figures of all peers, and give them to [`KernelNode::handle_figures`].
    ReadFigures,
}

/// A change of one peer of the interface. `None` leaves a value as it is.
#[derive(Clone, Debug)]
pub struct KernelPeerChange {
    /// Which peer.
    pub node_id: NodeId,
    /// Remove the peer and add it anew in one message, so that none of its sessions is left.
    pub replace: bool,
    /// The key that handshakes use from now on.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Zero ends it.
    pub persistent_keepalive: Option<Duration>,
    /// All that it has from now on.
    pub allowed_ips: Option<Vec<IpNet>>,
}

/// What the kernel shows of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFigures {
    /// Which peer.
    pub node_id: NodeId,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Wall time of the last handshake; whole seconds are enough.
    pub last_handshake: Option<UnixTime>,
    /// Bytes received, authenticated.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One node in kernel mode, without I/O. The module says how to drive it.
pub struct KernelNode {
    node_id: NodeId,
    peers: BTreeMap<PeerKey, Peer>,
    by_id: BTreeMap<NodeId, PeerKey>,
    /// Handles given so far.
    handles: u64,
    shared: Shared,
}

impl KernelNode {
    /// Makes a node; its interface has no peers yet. `seed` is 32 bytes of the operating system's
    /// randomness; it is used once and never stored.
    ///
    /// # Errors
    ///
    /// [`NewNodeError`]: strangers were to be admitted, or the policy contradicts itself.
    pub fn new(config: NodeConfig, seed: [u8; 32], now: Now) -> Result<Self, NewNodeError> {
        if config.admission != Admission::AllowList {
            return Err(NewNodeError::Admission);
        }
        let secret: SecretKey = config.secret_key.clone();
        let identity = LocalIdentity::new(secret).map_err(NewNodeError::Key)?;
        let shared = Shared::new(config, &identity, Drbg::new(seed), now)?;
        Ok(Self {
            node_id: identity.node_id(),
            peers: BTreeMap::new(),
            by_id: BTreeMap::new(),
            handles: 0,
            shared,
        })
    }

    /// Our own node id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Mixes fresh randomness of the host into the node's.
    pub fn reseed(&mut self, now: Now, entropy: &[u8; 32]) {
        self.shared.drbg.reseed(now, entropy);
    }

    /// Adds a peer. One that is not stock gets a keepalive, its own or one of 25 s, so that the
    /// kernel handshakes at once and the agreement does not wait for traffic.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`]; nothing has changed then.
    pub fn add_peer(&mut self, now: Now, config: PeerConfig) -> Result<PeerKey, AddPeerError> {
        if config.node_id == self.node_id {
            return Err(AddPeerError::OwnKey);
        }
        if self.by_id.contains_key(&config.node_id) {
            return Err(AddPeerError::Exists);
        }
        if self.by_id.len() >= self.shared.peers_max() {
            return Err(AddPeerError::TooManyPeers);
        }
        let key = PeerKey::new(self.handles as u32, (self.handles >> 32) as u32);
        let id = config.node_id;
        let peer = Peer::add(&mut self.shared, now, key, config).map_err(AddPeerError::Overlap)?;
        self.handles += 1;
        self.by_id.insert(id, key);
        self.peers.insert(key, peer);
        Ok(key)
    }

    /// Removes a peer with its sessions and allowed IPs.
    pub fn remove_peer(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.remove(&key) else {
            return false;
        };
        self.by_id.remove(&peer.node_id);
        peer.remove(&mut self.shared);
        true
    }

    /// The peer with this key, if there is one.
    pub fn peer_by_id(&self, id: &NodeId) -> Option<PeerKey> {
        self.by_id.get(id).copied()
    }

    /// The peer whose allowed IPs hold this address, whether its gate is open or not.
    pub fn peer_by_address(&self, address: IpAddr) -> Option<PeerKey> {
        self.shared.prefixes.lookup(address)
    }

    /// The key of a peer.
    pub fn node_id_of(&self, key: PeerKey) -> Option<NodeId> {
        self.peers.get(&key).map(|peer| peer.node_id)
    }

    /// All peers, ordered by key.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.by_id.values().copied()
    }

    /// Sets where a peer is reached. A live session goes on there.
    pub fn set_endpoint(&mut self, key: PeerKey, endpoint: SocketAddr) -> bool {
        self.change(key, |peer, shared| peer.set_endpoint(shared, endpoint))
    }

    /// Sets several places where a peer may be, at most 24. While there is no session, or none that
    /// is answered, the kernel is told the next one every 6 s.
    pub fn set_candidates(&mut self, key: PeerKey, candidates: &[SocketAddr]) -> bool {
        self.change(key, |peer, shared| peer.set_candidates(shared, candidates))
    }

    /// The overlay address of a peer.
    pub fn overlay_address_of(&self, key: PeerKey) -> Option<Ipv6Addr> {
        Some(self.peers.get(&key)?.overlay)
    }

    /// Sets or ends the persistent keepalive of a peer. One that is not stock keeps one of 25 s.
    pub fn set_persistent_keepalive(&mut self, _: Now, key: PeerKey, every: Option<Duration>) {
        self.change(key, |peer, shared| peer.set_keepalive(shared, every));
    }

    /// Replaces the prefixes that a peer has beside its overlay addresses; sessions go on, and a
    /// gate that is closed stays so. `false` if there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Overlap`] with another peer; nothing has changed then.
    pub fn set_allowed_ips(&mut self, key: PeerKey, nets: &[IpNet]) -> Result<bool, Overlap> {
        match self.peers.get_mut(&key) {
            Some(peer) => peer.set_allowed_ips(&mut self.shared, nets).map(|()| true),
            None => Ok(false),
        }
    }

    /// Changes the boot key in place, the one that is used unless another was agreed on: live
    /// sessions stay, the next handshake uses the new one. Its epoch is always shown as 0.
    pub fn set_preshared_key(&mut self, key: PeerKey, psk: PresharedKey, _: u32) -> bool {
        self.change(key, |peer, shared| peer.set_preshared_key(shared, psk))
    }

    /// Has the kernel start a handshake unless a session is live. `false` without such a peer.
    pub fn connect(&mut self, now: Now, key: PeerKey) -> bool {
        self.change(key, |peer, shared| peer.connect(shared, now))
    }

    /// Always `false`: when a session is replaced is the kernel's to decide.
    pub fn rekey(&mut self, _: Now, _: PeerKey) -> bool {
        false
    }

    /// What was dropped and counted so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// What is to be done next, once all events are dealt with.
    pub fn poll_task(&mut self) -> Option<KernelTask> {
        self.shared.tasks.pop_front()
    }

    /// When [`KernelNode::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.is_busy()
            .then(|| self.shared.next_deadline())
            .flatten()
    }

    /// Whether the kernel has to be asked for figures.
    fn is_busy(&self) -> bool {
        !self.peers.is_empty() || !self.shared.left.is_empty()
    }

    fn change(&mut self, key: PeerKey, change: impl FnOnce(&mut Peer, &mut Shared)) -> bool {
        match self.peers.get_mut(&key) {
            Some(peer) => {
                change(peer, &mut self.shared);
                true
            }
            None => false,
        }
    }
}
