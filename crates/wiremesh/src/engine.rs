//! The engine of a node: our own WireGuard, or the kernel's.
//!
//! Owns the choice between the two, which take the same commands. Packets, strangers and paths are
//! our own engine's alone ([`Engine::own`]): in kernel mode they never come to this process.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use wiremesh_control::{Level, PeerSettings, Pin, Policy, PolicyError, Suites};
use wiremesh_core::{
    AddPeerError, Counters, Event, KernelNode, KernelTask, Node, Overlap, Path, PeerConfig,
    PeerKey, PeerSecurity, PeerStatus,
};
use wiremesh_wire::{Instant, IpNet, NodeId, Now, PresharedKey};

/// See the module.
pub(crate) enum Engine {
    /// WireGuard in this process.
    Own(Box<Node>),
    /// The kernel's WireGuard, told what to do.
    Kernel(Box<KernelNode>),
}

/// The same call for either.
macro_rules! either {
    ($engine:expr, $node:ident => $call:expr) => {
        match $engine {
            Engine::Own($node) => $call,
            Engine::Kernel($node) => $call,
        }
    };
}

impl Engine {
    /// Our own WireGuard, where that is what runs.
    pub(crate) fn own(&mut self) -> Option<&mut Node> {
        match self {
            Self::Own(node) => Some(node),
            Self::Kernel(_) => None,
        }
    }

    /// The kernel's, where that is what runs.
    pub(crate) fn kernel(&mut self) -> Option<&mut KernelNode> {
        match self {
            Self::Own(_) => None,
            Self::Kernel(node) => Some(node),
        }
    }

    /// What is to be done at the kernel's interface next.
    pub(crate) fn poll_task(&mut self) -> Option<KernelTask> {
        self.kernel()?.poll_task()
    }

    pub(crate) fn node_id(&self) -> NodeId {
        either!(self, node => node.node_id())
    }

    pub(crate) fn reseed(&mut self, now: Now, entropy: &[u8; 32]) {
        either!(self, node => node.reseed(now, entropy))
    }

    pub(crate) fn add_peer(
        &mut self,
        now: Now,
        config: PeerConfig,
    ) -> Result<PeerKey, AddPeerError> {
        either!(self, node => node.add_peer(now, config))
    }

    pub(crate) fn remove_peer(&mut self, key: PeerKey) -> bool {
        either!(self, node => node.remove_peer(key))
    }

    /// Makes a stranger one of ours; `false` if it is none, as in kernel mode nobody is.
    pub(crate) fn keep_peer(&mut self, key: PeerKey) -> bool {
        self.own().is_some_and(|node| node.keep_peer(key))
    }

    pub(crate) fn peer_by_id(&self, id: &NodeId) -> Option<PeerKey> {
        either!(self, node => node.peer_by_id(id))
    }

    pub(crate) fn peer_by_address(&self, address: IpAddr) -> Option<PeerKey> {
        either!(self, node => node.peer_by_address(address))
    }

    pub(crate) fn node_id_of(&self, key: PeerKey) -> Option<NodeId> {
        either!(self, node => node.node_id_of(key))
    }

    pub(crate) fn overlay_address_of(&self, key: PeerKey) -> Option<Ipv6Addr> {
        either!(self, node => node.overlay_address_of(key))
    }

    pub(crate) fn peers(&self) -> Vec<PeerKey> {
        either!(self, node => node.peers().collect())
    }

    /// Where a peer is reached through our own sockets.
    pub(crate) fn path_of(&self, key: PeerKey) -> Option<Path> {
        match self {
            Self::Own(node) => node.path_of(key),
            Self::Kernel(_) => None,
        }
    }

    pub(crate) fn set_endpoint(&mut self, key: PeerKey, endpoint: SocketAddr) -> bool {
        either!(self, node => node.set_endpoint(key, endpoint))
    }

    pub(crate) fn set_candidates(&mut self, key: PeerKey, candidates: &[SocketAddr]) -> bool {
        either!(self, node => node.set_candidates(key, candidates))
    }

    pub(crate) fn set_persistent_keepalive(
        &mut self,
        now: Now,
        key: PeerKey,
        every: Option<Duration>,
    ) {
        either!(self, node => node.set_persistent_keepalive(now, key, every))
    }

    pub(crate) fn set_allowed_ips(
        &mut self,
        key: PeerKey,
        nets: &[IpNet],
    ) -> Result<bool, Overlap> {
        either!(self, node => node.set_allowed_ips(key, nets))
    }

    pub(crate) fn set_preshared_key(
        &mut self,
        key: PeerKey,
        preshared_key: PresharedKey,
        epoch: u32,
    ) -> bool {
        either!(self, node => node.set_preshared_key(key, preshared_key, epoch))
    }

    pub(crate) fn connect(&mut self, now: Now, key: PeerKey) -> bool {
        either!(self, node => node.connect(now, key))
    }

    /// Starts a handshake; `false` without such a peer, and in kernel mode, where the kernel decides.
    pub(crate) fn rekey(&mut self, now: Now, key: PeerKey) -> bool {
        either!(self, node => node.rekey(now, key))
    }

    pub(crate) fn on_local_address_changed(&mut self, now: Now) {
        if let Some(node) = self.own() {
            node.on_local_address_changed(now);
        }
    }

    pub(crate) fn policy(&self) -> Option<Policy> {
        either!(self, node => node.policy())
    }

    pub(crate) fn set_policy(&mut self, now: Now, policy: Policy) -> Result<(), PolicyError> {
        either!(self, node => node.set_policy(now, policy))
    }

    pub(crate) fn set_peer_settings(
        &mut self,
        now: Now,
        key: PeerKey,
        settings: PeerSettings,
    ) -> bool {
        either!(self, node => node.set_peer_settings(now, key, settings))
    }

    pub(crate) fn peer_settings(&self, key: PeerKey) -> Option<PeerSettings> {
        either!(self, node => node.peer_settings(key))
    }

    pub(crate) fn pin(&self, id: &NodeId) -> Option<Pin> {
        either!(self, node => node.pin(id))
    }

    pub(crate) fn pins(&self) -> Vec<(NodeId, Pin)> {
        either!(self, node => node.pins().collect())
    }

    pub(crate) fn lower_pin(&mut self, now: Now, id: &NodeId, level: Level) -> bool {
        either!(self, node => node.lower_pin(now, id, level))
    }

    pub(crate) fn security(&self, now: Now, key: PeerKey) -> Option<PeerSecurity> {
        either!(self, node => node.security(now, key))
    }

    pub(crate) fn known_suites(&self) -> Vec<(NodeId, Suites)> {
        either!(self, node => node.known_suites().collect())
    }

    pub(crate) fn status(&self, now: Now, key: PeerKey) -> Option<PeerStatus> {
        either!(self, node => node.status(now, key))
    }

    pub(crate) fn counters(&self) -> &Counters {
        either!(self, node => node.counters())
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        either!(self, node => node.poll_event())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        either!(self, node => node.poll_timeout())
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        either!(self, node => node.handle_timeout(now))
    }
}
