#![allow(missing_docs, unused_variables)]
use crate::*;
use alloc::vec::Vec;
use core::net::*;
use core::time::Duration;
use wiremesh_control::*;
use wiremesh_wire::*;
pub struct KernelNode;
pub enum KernelTask { SetPeer(KernelPeerChange), RemovePeer(NodeId), Send { to: Ipv6Addr, payload: Vec<u8> }, ReadFigures }
pub struct KernelPeerChange { pub node_id: NodeId, pub replace: bool, pub preshared_key: Option<PresharedKey>, pub endpoint: Option<SocketAddr>, pub persistent_keepalive: Option<Duration>, pub allowed_ips: Option<Vec<IpNet>> }
pub struct KernelFigures { pub node_id: NodeId, pub endpoint: Option<SocketAddr>, pub last_handshake: Option<UnixTime>, pub rx_bytes: u64, pub tx_bytes: u64 }
impl KernelNode {
    pub fn new(config: NodeConfig, seed: [u8; 32], now: Now) -> Result<Self, NewNodeError> { todo!() }
    pub fn node_id(&self) -> NodeId { todo!() }
    pub fn reseed(&mut self, now: Now, entropy: &[u8; 32]) { todo!() }
    pub fn add_peer(&mut self, now: Now, config: PeerConfig) -> Result<PeerKey, AddPeerError> { todo!() }
    pub fn remove_peer(&mut self, key: PeerKey) -> bool { todo!() }
    pub fn peer_by_id(&self, id: &NodeId) -> Option<PeerKey> { todo!() }
    pub fn peer_by_address(&self, address: IpAddr) -> Option<PeerKey> { todo!() }
    pub fn node_id_of(&self, key: PeerKey) -> Option<NodeId> { todo!() }
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ { core::iter::empty() }
    pub fn set_endpoint(&mut self, key: PeerKey, endpoint: SocketAddr) -> bool { todo!() }
    pub fn set_candidates(&mut self, key: PeerKey, candidates: &[SocketAddr]) -> bool { todo!() }
    pub fn overlay_address_of(&self, key: PeerKey) -> Option<Ipv6Addr> { todo!() }
    pub fn set_persistent_keepalive(&mut self, now: Now, key: PeerKey, every: Option<Duration>) { todo!() }
    pub fn set_allowed_ips(&mut self, key: PeerKey, nets: &[IpNet]) -> Result<bool, Overlap> { todo!() }
    pub fn set_preshared_key(&mut self, key: PeerKey, psk: PresharedKey, epoch: u32) -> bool { todo!() }
    pub fn connect(&mut self, now: Now, key: PeerKey) -> bool { todo!() }
    pub fn rekey(&mut self, now: Now, key: PeerKey) -> bool { todo!() }
    pub fn policy(&self) -> Option<Policy> { todo!() }
    pub fn set_policy(&mut self, now: Now, policy: Policy) -> Result<(), PolicyError> { todo!() }
    pub fn set_peer_settings(&mut self, now: Now, key: PeerKey, settings: PeerSettings) -> bool { todo!() }
    pub fn peer_settings(&self, key: PeerKey) -> Option<PeerSettings> { todo!() }
    pub fn pin(&self, id: &NodeId) -> Option<Pin> { todo!() }
    pub fn pins(&self) -> impl Iterator<Item = (NodeId, Pin)> + '_ { core::iter::empty() }
    pub fn lower_pin(&mut self, now: Now, id: &NodeId, level: Level) -> bool { todo!() }
    pub fn security(&self, now: Now, key: PeerKey) -> Option<PeerSecurity> { todo!() }
    pub fn known_suites(&self) -> impl Iterator<Item = (NodeId, Suites)> + '_ { core::iter::empty() }
    pub fn status(&self, now: Now, key: PeerKey) -> Option<PeerStatus> { todo!() }
    pub fn counters(&self) -> &Counters { todo!() }
    pub fn poll_event(&mut self) -> Option<Event> { todo!() }
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    pub fn handle_timeout(&mut self, now: Now) { todo!() }
    pub fn handle_control(&mut self, now: Now, source: Ipv6Addr, payload: &[u8]) { todo!() }
    pub fn handle_figures(&mut self, now: Now, figures: &[KernelFigures]) { todo!() }
    pub fn poll_task(&mut self) -> Option<KernelTask> { todo!() }
}
