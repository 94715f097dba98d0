//! A running node.
//!
//! Owns the driver task, the acceptor task and quinn's endpoint; the node ends when its last
//! handle (a [`Node`], [`Peer`] or [`Connection`]) is dropped, or by [`Node::close`].

use crate::accept::{Accepted, Permit, accept_all};
use crate::budget::Budget;
use crate::builder::NodeBuilder;
use crate::connection::Connection;
use crate::connection::Linked;
use crate::device::HostDevice;
use crate::driver;
use crate::error::{BindError, SetPolicyError, UdpBindError};
use crate::inbound::PortTaken;
use crate::kernel;
use crate::peer::{AddPeerError, Peer, PeerConfig, in_use, overlap_error};
use crate::port::lock;
use crate::raw_socket::{RawBindError, RawSocket};
use crate::status::{NodeStatus, PeerNote, PeerStatus, peer_status};
use crate::target::reachable;
use crate::topic::{Service, ServiceParts};
use crate::tunnel::{State, Tunnel};
use crate::udp_socket::UdpSocket;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use wiremesh_control::message::PROOF_MAX;
use wiremesh_control::{Level, PeerSettings, Pin, Policy, Suites};
use wiremesh_core::{DropReason, PeerKey};
use wiremesh_quic::{Provider, ResetKey};
use wiremesh_udp::DropReason as UdpDrop;
use wiremesh_wire::address::network_id;
use wiremesh_wire::ticket::ENDPOINTS_MAX;
use wiremesh_wire::{Endpoint, NetworkId, NodeId, Now, Ticket};

/// Accepted connections that wait for [`Node::accept`]; further ones are closed as busy.
const ACCEPT_BACKLOG: usize = 256;
/// From this many peers with handles on, those without a use are swept at each doubling.
const PEERS_SWEPT_FROM: usize = 64;
/// How long [`Node::close`] waits for connections to say goodbye.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// A WireGuard node with streams inside. Cheap to clone; see the crate documentation.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    tunnel: Arc<Tunnel>,
    endpoint: quinn::Endpoint,
    provider: Provider,
    budget: Arc<Budget>,
    topics: Arc<Service>,
    accepted: AsyncMutex<mpsc::Receiver<Accepted>>,
    network: String,
    network_id: NetworkId,
    connect_timeout: Duration,
    ping_sequence: AtomicU32,
    peers: Mutex<HashMap<NodeId, crate::peer::Kept>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.id())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.topics.close();
        self.endpoint.close(0u32.into(), b"");
        if self.endpoint.open_connections() == 0 {
            return stop(&self.tunnel);
        }
        let (endpoint, tunnel) = (self.endpoint.clone(), Arc::clone(&self.tunnel));
        self.tunnel.runtime.spawn(async move {
            say_goodbye(&endpoint).await;
            stop(&tunnel);
        });
    }
}

async fn say_goodbye(endpoint: &quinn::Endpoint) {
    // A peer that is gone does not keep us.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, endpoint.wait_idle()).await;
}

fn stop(tunnel: &Tunnel) {
    tunnel.with(|state, _| {
        state.closed = true;
        state.pacer.close();
    });
    tunnel.ports.close();
    tunnel.wake.notify_one();
    tunnel.security_changed.notify_waiters();
    // No address, no socket: the ports are free now, whoever still holds a handle of ours.
    let _ = tunnel.plane.sockets.rebind_to(&[]);
    if let Some(lease) = tunnel.plane.lease() {
        lease.release();
    }
    // Nothing leaves any more: the state directory is free too.
    tunnel.with(|state, _| state.disk = None);
}

/// What the streams of a node are made from.
pub(crate) struct StreamSettings {
    pub(crate) provider: Provider,
    pub(crate) budget: Arc<Budget>,
    pub(crate) reset_key: ResetKey,
    pub(crate) protocols: Vec<String>,
    pub(crate) connect_timeout: Duration,
    /// Peers that topics may learn from other nodes.
    pub(crate) learned_max: u32,
    pub(crate) topic: wiremesh_gossip::Config,
}

impl Node {
    /// Settings for a new node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn start(
        tunnel: Arc<Tunnel>,
        streams: StreamSettings,
        network: String,
    ) -> Result<Self, BindError> {
        let StreamSettings {
            provider,
            budget,
            reset_key,
            protocols,
            connect_timeout,
            learned_max,
            topic,
        } = streams;
        let server = provider
            .server_config(&protocols)
            .map_err(BindError::Protocols)?;
        let socket = tunnel.stream_socket().map_err(BindError::System)?;
        let mut endpoint_config = provider.endpoint_config();
        endpoint_config.reset_key(Arc::new(reset_key));
        let payload = tunnel.stream_packet_max();
        let invalid = |_| BindError::Mtu(payload);
        endpoint_config
            .max_udp_payload_size(payload)
            .map_err(invalid)?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config,
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(BindError::System)?;
        let chance = tunnel.host.entropy().map_err(BindError::System)?;
        let [a, b, c, d, e, f, g, h, ..] = chance;
        let topics = Arc::new(Service::new(ServiceParts {
            tunnel: Arc::clone(&tunnel),
            endpoint: endpoint.clone(),
            budget: Arc::clone(&budget),
            protocols,
            learned_max,
            config: topic,
            instance: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }));
        let (sender, receiver) = mpsc::channel(ACCEPT_BACKLOG);
        match &tunnel.plane.kernel {
            Some(plane) => tokio::spawn(kernel::run(Arc::clone(&tunnel), Arc::clone(plane))),
            None => tokio::spawn(driver::run(Arc::clone(&tunnel))),
        };
        tokio::spawn(accept_all(
            endpoint.clone(),
            Arc::downgrade(&tunnel),
            Arc::clone(&topics),
            Arc::clone(&budget),
            sender,
        ));
        Ok(Self(Arc::new(Inner {
            network_id: network_id(&network),
            tunnel,
            endpoint,
            provider,
            budget,
            topics,
            accepted: AsyncMutex::new(receiver),
            network,
            connect_timeout,
            ping_sequence: AtomicU32::new(0),
            peers: Mutex::default(),
        })))
    }

    /// The node's public key.
    pub fn id(&self) -> NodeId {
        self.0.tunnel.node_id
    }

    /// The node's address inside the tunnel; it follows from its key.
    pub fn address(&self) -> IpAddr {
        self.0.tunnel.addresses.overlay.into()
    }

    /// Where the UDP sockets listen.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.0.tunnel.plane.listen_addresses()
    }

    /// What another node needs to connect to this one: the key and the addresses of this host.
    pub fn ticket(&self) -> Ticket {
        let mut ticket = Ticket::new(self.id());
        ticket.network = self.0.network_id;
        ticket.endpoints = reachable(&self.listen_addresses())
            .into_iter()
            .map(Endpoint::Address)
            .collect();
        ticket.endpoints.truncate(ENDPOINTS_MAX);
        ticket
    }

    /// Adds a peer. Nothing is sent until there is a reason to.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`]; nothing has changed then. Host names are resolved when connecting.
    pub fn add_peer(&self, config: PeerConfig) -> Result<Peer, AddPeerError> {
        self.0.topics.keep(&config.node_id);
        let mut known: Vec<SocketAddr> = Vec::new();
        let mut hosts = Vec::new();
        for endpoint in config.endpoints {
            match endpoint {
                Endpoint::Address(address) => known.push(address),
                host @ Endpoint::Host(..) => hosts.push(host),
            }
        }
        if let Some(proof) = config.proof.as_ref().filter(|p| p.len() > PROOF_MAX) {
            return Err(AddPeerError::ProofTooLong(proof.len()));
        }
        let core = wiremesh_core::PeerConfig {
            node_id: config.node_id,
            endpoint: known.first().copied(),
            preshared_key: config.preshared_key,
            allowed_ips: config.allowed_ips,
            persistent_keepalive: config.persistent_keepalive,
            stock: config.stock,
            security: PeerSettings {
                minimum: config.minimum,
                proof: config.proof,
                ..PeerSettings::default()
            },
        };
        let note = PeerNote {
            name: config.name,
            stock: config.stock,
            streams: config.streams,
            hosts,
        };
        self.0.tunnel.with(|state, now| {
            let key = state
                .engine
                .add_peer(now, core)
                .map_err(|e| add_error(state, e))?;
            state.engine.set_candidates(key, &known);
            state.names.set(config.node_id, note);
            Ok(())
        })?;
        Ok(self.handle(config.node_id))
    }

    /// The peer with this key.
    pub fn peer(&self, id: NodeId) -> Option<Peer> {
        let known = self
            .0
            .tunnel
            .peek(|state, _| state.engine.peer_by_id(&id).is_some());
        known.then(|| self.handle(id))
    }

    fn handle(&self, id: NodeId) -> Peer {
        let mut peers = lock(&self.0.peers);
        let grows = !peers.contains_key(&id) && peers.len() >= PEERS_SWEPT_FROM;
        if grows && peers.len().is_power_of_two() {
            peers.retain(|_, kept| Arc::strong_count(kept) > 1 || in_use(kept));
        }
        let kept = peers.entry(id).or_default().clone();
        drop(peers);
        Peer::new(self.clone(), id, kept)
    }

    /// Removes a peer with everything it has. In kernel mode the kernel is told at once, but what
    /// is under way may still pass for a moment after this returns.
    pub fn remove_peer(&self, id: NodeId) -> bool {
        lock(&self.0.peers).remove(&id);
        self.0.tunnel.with(|state, _| {
            state.names.remove(&id);
            state.reached.forget(&id);
            state.engine.peer_by_id(&id).is_some_and(|key| {
                state.last_words.forget(key);
                state.pacer.remove_peer(key);
                state.engine.remove_peer(key)
            })
        })
    }

    pub(crate) fn with_peer<T>(
        &self,
        id: &NodeId,
        f: impl FnOnce(&mut State, Now, PeerKey) -> T,
    ) -> Option<T> {
        self.0.tunnel.with(|state, now| {
            let key = state.engine.peer_by_id(id)?;
            Some(f(state, now, key))
        })
    }

    /// Waits for a connection in one of the protocols of [`NodeBuilder::protocol`]; `None` once
    /// the node is closed.
    pub async fn accept(&self) -> Option<Connection> {
        let accepted = self.0.accepted.lock().await.recv().await?;
        let Accepted {
            linked,
            peer,
            protocol,
            permit,
        } = accepted;
        Some(self.connection(linked, peer, protocol, Some(permit)))
    }

    pub(crate) fn connection(
        &self,
        linked: Linked,
        peer: NodeId,
        protocol: String,
        permit: Option<Arc<Permit>>,
    ) -> Connection {
        self.0.budget.grant(&linked.quinn);
        Connection::new(linked, peer, protocol, self.clone(), permit)
    }

    pub(crate) fn tunnel(&self) -> &Arc<Tunnel> {
        &self.0.tunnel
    }

    pub(crate) fn endpoint(&self) -> &quinn::Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn topics(&self) -> &Arc<Service> {
        &self.0.topics
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    pub(crate) fn provider(&self) -> &Provider {
        &self.0.provider
    }

    pub(crate) fn network_id(&self) -> NetworkId {
        self.0.network_id
    }

    /// A number for each ping.
    pub(crate) fn next_ping(&self) -> u32 {
        self.0.ping_sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    /// Binds a UDP port inside the tunnel; 0 takes one that is free.
    ///
    /// # Errors
    ///
    /// [`UdpBindError`].
    pub fn udp_socket(&self, port: u16) -> Result<UdpSocket, UdpBindError> {
        let tunnel = &self.0.tunnel;
        if let Some(plane) = &tunnel.plane.kernel {
            return UdpSocket::of_host(tunnel, plane, port);
        }
        let (port, queue) = tunnel.ports.bind(port).map_err(|taken| match taken {
            PortTaken::Reserved => UdpBindError::Reserved(port),
            PortTaken::InUse => UdpBindError::InUse(port),
        })?;
        if tunnel.peek(|state, _| state.closed) {
            queue.close();
        }
        Ok(UdpSocket::new(Arc::clone(tunnel), port, queue))
    }

    /// Claims an IP protocol inside the tunnel, such as 6 for TCP. Not UDP and not ICMP: they belong
    /// to the node, whose control and stream ports stay closed.
    ///
    /// # Errors
    ///
    /// [`RawBindError`].
    pub fn raw_socket(&self, protocol: u8) -> Result<RawSocket, RawBindError> {
        RawSocket::claim(&self.0.tunnel, protocol)
    }

    /// A snapshot of the node and all its peers.
    pub fn status(&self) -> NodeStatus {
        let Inner {
            tunnel, network, ..
        } = &*self.0;
        let topics = self.0.topics.topics();
        let topics = topics.iter().map(|topic| topic.status()).collect();
        let extra = tunnel.addresses.extra.iter().map(|(address, _)| *address);
        tunnel.peek(|state, now| NodeStatus {
            node_id: self.id(),
            network: network.clone(),
            policy: state.engine.policy().unwrap_or_default(),
            addresses: std::iter::once(self.address()).chain(extra).collect(),
            listen: tunnel.plane.listen_addresses(),
            mode: tunnel.plane.mode(),
            device: tunnel.plane.interface().map(str::to_owned),
            peers: state
                .engine
                .peers()
                .into_iter()
                .filter_map(|key| snapshot(state, now, key))
                .collect(),
            dropped: dropped(&self.0, state.engine.counters()),
            topics,
            refusals: state.refusals.list(),
            handshakes: state.engine.counters().handshakes,
            bare_sent: state.engine.counters().bare_sent,
            bare_received: state.engine.counters().bare_received,
            egress: state.pacer.status(),
        })
    }

    pub(crate) fn peer_status(&self, id: &NodeId) -> Option<PeerStatus> {
        self.0.tunnel.peek(|state, now| {
            let key = state.engine.peer_by_id(id)?;
            snapshot(state, now, key)
        })
    }

    /// What the node lists, promises and demands.
    pub fn policy(&self) -> Policy {
        let policy = self.0.tunnel.peek(|state, _| state.engine.policy());
        policy.unwrap_or_default()
    }

    /// Changes what the node lists, promises and demands, for all peers at once. Streams go on
    /// with every peer that reaches the new minimum; with the others traffic waits.
    ///
    /// # Errors
    ///
    /// [`SetPolicyError`]; nothing has changed then.
    pub fn set_policy(&self, policy: Policy) -> Result<(), SetPolicyError> {
        policy.suites().map_err(SetPolicyError::Policy)?;
        self.0.tunnel.with(|state, now| {
            if let Some(disk) = state.disk.as_mut().filter(|_| policy.static_kem) {
                disk.use_kem_seed().map_err(SetPolicyError::State)?;
            }
            let changed = state.engine.set_policy(now, policy);
            changed.map_err(SetPolicyError::Policy)
        })
    }

    /// The newest list of suites of each peer that has told one: what the known network speaks.
    pub fn known_suites(&self) -> Vec<(NodeId, Suites)> {
        self.0.tunnel.peek(|state, _| state.engine.known_suites())
    }

    /// What is remembered of other nodes for good, ordered by key.
    pub fn pins(&self) -> Vec<(NodeId, Pin)> {
        self.0.tunnel.peek(|state, _| state.engine.pins())
    }

    /// Lowers what a node is held to have promised; `false` if it has promised nothing above
    /// `level`. For the operator only, who has asked the other one's operator: whoever can have
    /// this done has the downgrade that pins prevent.
    pub fn lower_pin(&self, id: NodeId, level: Level) -> bool {
        self.0
            .tunnel
            .with(|state, now| state.engine.lower_pin(now, &id, level))
    }

    /// Binds the UDP sockets anew, on the same port if possible, and tells every peer. Happens
    /// by itself when a socket fails.
    pub fn rebind(&self) {
        self.0.tunnel.with(|state, _| state.rebind_wanted = true);
        self.0.tunnel.wake.notify_one();
    }

    /// Ready when the interface was taken away: the helper that made it has ended, and another one
    /// is there. The node has to be closed and started anew. Never ready without an interface of
    /// the helper.
    pub async fn interface_lost(&self) {
        let tunnel = &self.0.tunnel;
        match tunnel.plane.lease() {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Closes all connections, waits at most 3 s until the peers know, and stops the node: its UDP
    /// ports are free then. Without it the last handle does the same when it is dropped, as far as
    /// the runtime still runs.
    pub async fn close(&self) {
        self.0.topics.close();
        self.0.endpoint.close(0u32.into(), b"closed");
        say_goodbye(&self.0.endpoint).await;
        stop(&self.0.tunnel);
    }
}

fn snapshot(state: &State, now: Now, key: PeerKey) -> Option<PeerStatus> {
    let core = state.engine.status(now, key)?;
    let security = state.engine.security(now, key)?;
    let note = state.names.of(&core.node_id);
    let since = state.reached.since(&core.node_id);
    Some(peer_status(core, &security, since, note))
}

fn dropped(node: &Inner, counters: &wiremesh_core::Counters) -> Vec<(&'static str, u64)> {
    let Inner {
        tunnel,
        budget,
        topics,
        ..
    } = node;
    let device = tunnel.plane.device.iter().flat_map(HostDevice::dropped);
    let udp = tunnel.plane.sockets.counters();
    let spoofed = tunnel.ports.spoofed.load(Ordering::Relaxed);
    DropReason::ALL
        .into_iter()
        .map(|reason| (reason.name(), counters.dropped(reason)))
        .chain(device)
        .chain([
            ("a peer sent from our own address", spoofed),
            ("echo-outbox-full", tunnel.ports.unanswered()),
            ("port-full", tunnel.ports.overflowed()),
            ("stream-queue-full", tunnel.streams.dropped()),
        ])
        .chain(budget.refused.counts())
        .chain(topics.counters.counts())
        .chain(UdpDrop::ALL.map(|reason| (reason.name(), udp.dropped(reason))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn add_error(state: &State, error: wiremesh_core::AddPeerError) -> AddPeerError {
    use wiremesh_core::AddPeerError as Core;
    match error {
        Core::OwnKey => AddPeerError::OwnKey,
        Core::Exists => AddPeerError::Exists,
        Core::TooManyPeers => AddPeerError::TooManyPeers,
        Core::Overlap(overlap) => overlap_error(state, overlap),
    }
}
