//! How a node is configured and started.
//!
//! Owns the defaults; every one is written at its setter.

use crate::admission::{Admission, AskFn, Decide};
use crate::device::{Device, Plane};
use crate::error::BindError;
use crate::host;
use crate::node::{Node, StreamSettings};
use crate::pins::{Journal, Kept};
use crate::state_dir::{Disk, KemSeed, StateDir};
use crate::streams::payload_max;
use crate::tunnel::{Addresses, Tunnel, TunnelParts};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wiremesh_control::Policy;
use wiremesh_core::{ControlConfig, Limits, NewNodeError, NodeConfig, Routing};
use wiremesh_noise::crypto::hmac;
use wiremesh_quic::{Provider, ResetKey, at_least_assumed, default_transport};
use wiremesh_udp::{UdpConfig, UdpSockets};
use wiremesh_wire::address::network_id;
use wiremesh_wire::{IpNet, SecretKey, Tai64n, address};

/// Questions to the application that are open at a time.
const ASK_PENDING_MAX: u32 = 256;

/// How long a preshared key that two nodes agreed on is used.
const ROTATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// The tunnel's MTU for which the default transport is made.
const MTU_DEFAULT: u16 = 1_420;

/// Settings of a [`Node`]. Made by [`Node::builder`].
#[derive(Debug)]
pub struct NodeBuilder {
    secret_key: Option<SecretKey>,
    network: String,
    listen: Vec<SocketAddr>,
    port: u16,
    protocols: Vec<String>,
    admission: Admission,
    state_dir: Option<PathBuf>,
    addresses: Vec<(IpAddr, IpNet)>,
    mtu_bytes: u16,
    transport: Option<quinn::TransportConfig>,
    limits: Limits,
    connect_timeout: Duration,
    security: Policy,
    rotate_after: Duration,
    udp: UdpConfig,
    device: Option<Device>,
    plain: bool,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            secret_key: None,
            network: String::new(),
            listen: Vec::new(),
            port: 0,
            protocols: Vec::new(),
            admission: Admission::default(),
            state_dir: None,
            addresses: Vec::new(),
            mtu_bytes: MTU_DEFAULT,
            transport: None,
            limits: Limits::default(),
            connect_timeout: Duration::from_secs(15),
            security: Policy::default(),
            rotate_after: ROTATE_AFTER,
            udp: UdpConfig::default(),
            device: None,
            plain: false,
        }
    }
}

impl NodeBuilder {
    /// The node's key. Default: a fresh one, forgotten when the node ends.
    pub fn secret_key(mut self, secret_key: SecretKey) -> Self {
        self.secret_key = Some(secret_key);
        self
    }

    /// The network's name. Default: the empty name. Tickets of another network are refused.
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.network = name.into();
        self
    }

    /// A UDP address to listen on; call it again for another. Default: all addresses, IPv4 and
    /// IPv6, on [`NodeBuilder::port`].
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// The UDP port, for when no address is given. Default: one that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A protocol that [`Node::accept`] accepts, 1 to 255 bytes; call it again for another, in
    /// order of preference. Default: none, every incoming connection is refused.
    pub fn protocol(mut self, name: impl Into<String>) -> Self {
        self.protocols.push(name.into());
        self
    }

    /// Who may come in without having been added. Default: [`Admission::AllowList`].
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// The security policy: what the node lists, promises and demands, see [`Policy`]. Default: no
    /// application data below L2 with any peer that is not named as stock WireGuard. It can be
    /// changed while the node runs: [`Node::set_policy`].
    pub fn security(mut self, policy: Policy) -> Self {
        self.security = policy;
        self
    }

    /// How long a preshared key that two nodes agreed on is used before they agree on a new one.
    /// Default: 15 minutes, at least 1 s. Sooner costs an exchange of 4 KB each time.
    pub fn rotate_after(mut self, time: Duration) -> Self {
        self.rotate_after = time.max(Duration::from_secs(1));
        self
    }

    /// Where the node keeps what it must not forget: the greatest timestamp it used, so that peers
    /// accept it after a restart with the clock set back; what peers have promised, so that nobody
    /// talks them down; the seed of its static ML-KEM key. One node at a time can use a directory.
    /// Default: nowhere, which is right for a fresh key.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// A further address of ours inside the tunnel, with the prefix it talks to; call it again
    /// for another. For stock WireGuard peers; the overlay address is always there.
    pub fn address(mut self, address: IpAddr, net: IpNet) -> Self {
        self.addresses.push((address, net));
        self
    }

    /// Largest IP packet inside the tunnel, 1,280 to 65,535 bytes. Default: 1,420, which fits
    /// a path of 1,500 with IPv4 and IPv6 outside.
    pub fn mtu(mut self, mtu_bytes: u16) -> Self {
        self.mtu_bytes = mtu_bytes;
        self
    }

    /// Settings of the streams. Default: [`crate::default_transport`]. Start from it; binding
    /// fails if less is granted than every node must.
    pub fn transport(mut self, transport: quinn::TransportConfig) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Handshake messages per second above which senders must prove their address by a cookie.
    /// Default: 1,000. With 0 they always must.
    pub fn handshakes_per_second_max(mut self, count: u32) -> Self {
        self.limits.handshakes_per_second_max = count;
        self
    }

    /// Peers that the node keeps. Default: 131,072.
    pub fn peers_max(mut self, count: u32) -> Self {
        self.limits.peers_max = count;
        self
    }

    /// How long [`Node::connect`] tries. Default: 15 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Kernel buffers to ask for, in bytes, for sending and for receiving. Default: 4 MiB.
    pub fn socket_buffers(mut self, bytes: usize) -> Self {
        self.udp.send_buffer_bytes = bytes;
        self.udp.receive_buffer_bytes = bytes;
        self
    }

    /// An interface of the host: packets of peers that are not for the node's own ports go there,
    /// and what the host sends there goes to the peers. Default: none, only this program reaches
    /// the peers.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// WireGuard between the peers and the interface of [`NodeBuilder::device`], nothing else: no
    /// negotiated suites and no ports of the node, so no streams and no sockets either. Peers are
    /// what [`crate::PeerConfig::stock`] says, with exactly the allowed IPs that they are given: the
    /// longest prefix decides, and one that is given to a second peer moves. Default: off.
    pub fn plain_wireguard(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Opens the sockets and starts the node. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub async fn bind(self) -> Result<Node, BindError> {
        if self.mtu_bytes < 1_280 {
            return Err(BindError::Mtu(self.mtu_bytes));
        }
        let entropy = || host::entropy().map_err(BindError::System);
        let secret_key = match self.secret_key {
            Some(key) => key,
            None => SecretKey::from_bytes(entropy()?),
        };
        // From the key, so that it survives a restart: a peer's next packet on a connection of
        // before is answered by a stateless reset, and the peer need not wait for its timeout.
        let reset = hmac(secret_key.as_bytes(), &[b"wiremesh stateless reset v1"]);
        let reset_key = ResetKey::new(*reset);
        let (admission, decide) = split_admission(self.admission);
        self.security.suites().map_err(BindError::Policy)?;
        let Opened {
            mut disk,
            timestamp_floor,
            kept,
            kem_seed,
        } = open_state(self.state_dir)?;
        if let Some(disk) = disk.as_mut().filter(|_| self.security.static_kem) {
            disk.use_kem_seed().map_err(BindError::State)?;
        }
        let mut config = NodeConfig::new(secret_key);
        config.admission = admission;
        config.limits = self.limits;
        config.mtu_bytes = self.mtu_bytes;
        config.timestamp_floor = timestamp_floor;
        if self.plain {
            config.routing = Routing::AsGiven;
        }
        config.control = (!self.plain).then(|| ControlConfig {
            network: network_id(&self.network),
            policy: self.security,
            kem_seed: Some(*kem_seed),
            record_seq_floor: kept.record_seq,
            rotate_after: self.rotate_after,
            pins: kept.pins.into_iter().collect(),
            trace: false,
        });
        let engine = wiremesh_core::Node::new(config, entropy()?, host::now());
        let engine = engine.map_err(new_node_error)?;
        let sockets = match self.listen.as_slice() {
            [] => UdpSockets::bind_any_with(self.port, self.udp),
            listen => UdpSockets::bind_with(listen, self.udp),
        };
        let parts = TunnelParts {
            addresses: Addresses {
                overlay: address::overlay_address(&engine.node_id()),
                extra: self.addresses,
            },
            engine,
            sockets: sockets.map_err(BindError::Sockets)?,
            disk,
            decide,
            mtu_bytes: usize::from(self.mtu_bytes),
            device: self.device.map(Plane::new),
            plain: self.plain,
            runtime: tokio::runtime::Handle::current(),
        };
        let mut transport = self.transport.unwrap_or_else(default_transport);
        if self.mtu_bytes != MTU_DEFAULT {
            discover_up_to(&mut transport, payload_max(usize::from(self.mtu_bytes)));
        }
        let transport = at_least_assumed(transport).map_err(BindError::Transport)?;
        let provider = Provider::new(entropy()?, transport);
        let tunnel = Arc::new_cyclic(|me| Tunnel::new(me.clone(), parts));
        let streams = StreamSettings {
            provider,
            reset_key,
            protocols: self.protocols,
            connect_timeout: self.connect_timeout,
        };
        Node::start(tunnel, streams, self.network)
    }
}

/// What the engine needs of the admission, and what is left to us.
fn split_admission(admission: Admission) -> (wiremesh_core::Admission, Option<Decide>) {
    use wiremesh_core::Admission as Core;
    let pending_max = ASK_PENDING_MAX;
    match admission {
        Admission::AllowList => (Core::AllowList, None),
        Admission::AllowAll { provisional_max } => (Core::AllowAll { provisional_max }, None),
        Admission::Ask(AskFn(decide)) => (Core::Ask { pending_max }, Some(decide)),
        Admission::Proof(AskFn(decide)) => (Core::Proof { pending_max }, Some(decide)),
    }
}

fn new_node_error(error: NewNodeError) -> BindError {
    match error {
        NewNodeError::Key(error) => BindError::Key(error),
        NewNodeError::Policy(error) => BindError::Policy(error),
    }
}

/// What a state directory holds.
struct Opened {
    disk: Option<Disk>,
    timestamp_floor: Option<Tai64n>,
    kept: Kept,
    kem_seed: KemSeed,
}

fn open_state(path: Option<PathBuf>) -> Result<Opened, BindError> {
    let fresh_seed = draw_seed().map_err(BindError::System)?;
    let Some(path) = path else {
        return Ok(Opened {
            disk: None,
            timestamp_floor: None,
            kept: Kept::default(),
            kem_seed: fresh_seed,
        });
    };
    let open = || {
        let dir = StateDir::open(&path)?;
        let timestamp_floor = dir.load_timestamp()?;
        let (journal, kept) = Journal::open(dir.path())?;
        let saved_seed = dir.load_kem_seed()?;
        let unsaved_seed = saved_seed.is_none().then(|| fresh_seed.clone());
        let disk = Disk {
            dir,
            journal,
            unsaved_seed,
        };
        Ok(Opened {
            disk: Some(disk),
            timestamp_floor,
            kept,
            kem_seed: saved_seed.unwrap_or(fresh_seed),
        })
    };
    open().map_err(BindError::State)
}

fn draw_seed() -> io::Result<KemSeed> {
    let mut seed = KemSeed::new([0; 64]);
    let (first, second) = seed.split_at_mut(32);
    first.copy_from_slice(&host::entropy()?);
    second.copy_from_slice(&host::entropy()?);
    Ok(seed)
}

/// Lets path MTU discovery go as far as the tunnel's MTU.
fn discover_up_to(transport: &mut quinn::TransportConfig, payload_bytes: usize) {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(u16::try_from(payload_bytes).unwrap_or(u16::MAX));
    transport.mtu_discovery_config(Some(discovery));
}
