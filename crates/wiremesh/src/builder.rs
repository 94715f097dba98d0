//! How a node is configured and started.
//!
//! Owns the defaults; every one is written at its setter.

use crate::admission::{Admission, AskFn};
use crate::error::BindError;
use crate::host;
use crate::node::{Node, StreamSettings};
use crate::state_dir::StateDir;
use crate::streams::payload_max;
use crate::tunnel::{Addresses, Tunnel, TunnelParts};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wiremesh_core::{Limits, NodeConfig};
use wiremesh_noise::crypto::hmac;
use wiremesh_quic::{Provider, ResetKey, at_least_assumed, default_transport};
use wiremesh_udp::{UdpConfig, UdpSockets};
use wiremesh_wire::{IpNet, SecretKey, Tai64n, address};

/// Questions to the application that are open at a time.
const ASK_PENDING_MAX: u32 = 256;

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
    udp: UdpConfig,
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
            udp: UdpConfig::default(),
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

    /// Where the node keeps the greatest timestamp it used, so that peers accept it after a
    /// restart with the clock set back. Default: nowhere, which is right for a fresh key.
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
        let (admission, decide) = match self.admission {
            Admission::AllowList => (wiremesh_core::Admission::AllowList, None),
            Admission::AllowAll { provisional_max } => {
                (wiremesh_core::Admission::AllowAll { provisional_max }, None)
            }
            Admission::Ask(AskFn(decide)) => (
                wiremesh_core::Admission::Ask {
                    pending_max: ASK_PENDING_MAX,
                },
                Some(decide),
            ),
        };
        let (state_dir, timestamp_floor) = open_state(self.state_dir)?;
        let mut config = NodeConfig::new(secret_key);
        config.admission = admission;
        config.limits = self.limits;
        config.mtu_bytes = self.mtu_bytes;
        config.timestamp_floor = timestamp_floor;
        let engine =
            wiremesh_core::Node::new(config, entropy()?, host::now()).map_err(BindError::Key)?;
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
            state_dir,
            decide,
            mtu_bytes: usize::from(self.mtu_bytes),
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

/// The state directory, and the timestamp floor that it holds.
fn open_state(path: Option<PathBuf>) -> Result<(Option<StateDir>, Option<Tai64n>), BindError> {
    let Some(path) = path else {
        return Ok((None, None));
    };
    let opened = StateDir::open(&path).and_then(|dir| {
        let floor = dir.load_timestamp()?;
        Ok((Some(dir), floor))
    });
    opened.map_err(BindError::State)
}

/// Lets path MTU discovery go as far as the tunnel's MTU.
fn discover_up_to(transport: &mut quinn::TransportConfig, payload_bytes: usize) {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(u16::try_from(payload_bytes).unwrap_or(u16::MAX));
    transport.mtu_discovery_config(Some(discovery));
}
