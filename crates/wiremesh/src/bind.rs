//! Starting a node.
//!
//! Owns the order: what can be refused without touching anything, then the state directory, then
//! the host's sockets and interface, then the tasks.

use crate::admission::{Admission, AskFn, Decide};
use crate::budget::Budget;
use crate::builder::{MTU_DEFAULT, NodeBuilder, Wanted};
use crate::device::HostDevice;
use crate::engine::Engine;
use crate::error::BindError;
use crate::host::Host;
use crate::host_interface::{self, InterfaceError, Needs};
use crate::kernel::{KernelPlane, Own};
use crate::node::{Node, StreamSettings};
use crate::pins::{Journal, Kept};
use crate::plane::Plane;
use crate::state_dir::{Disk, KemSeed, StateDir};
use crate::streams::stream_packet_max;
use crate::topic;
use crate::tunnel::{Addresses, Tunnel, TunnelParts};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use wiremesh_core::{
    ControlConfig, KernelNode, NewNodeError, Node as CoreNode, NodeConfig, Routing,
};
use wiremesh_netadmin::verbs::WireguardSettings;
use wiremesh_noise::crypto::hmac;
use wiremesh_quic::{Provider, ResetKey, at_least_assumed, default_transport};
use wiremesh_udp::{UdpConfig, UdpSockets};
use wiremesh_wire::address::{CONTROL_NET, OVERLAY_NET, network_id};
use wiremesh_wire::{SecretKey, Tai64n, address};
use zeroize::Zeroizing;

/// Questions to the application that are open at a time.
const ASK_PENDING_MAX: u32 = 256;

impl NodeBuilder {
    /// Opens the sockets and starts the node. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub async fn bind(self) -> Result<Node, BindError> {
        if self.mtu_bytes < 1_280 {
            return Err(BindError::Mtu(self.mtu_bytes));
        }
        self.egress.check().map_err(BindError::Egress)?;
        if self.protocols.iter().any(|name| name == topic::PROTOCOL) {
            return Err(BindError::ReservedProtocol(topic::PROTOCOL));
        }
        let host = self.host;
        let entropy = || host.entropy().map_err(BindError::System);
        let secret_key = match self.secret_key {
            Some(key) => key,
            None => SecretKey::from_bytes(entropy()?),
        };
        // From the key, so that it survives a restart: a peer's next packet on a connection of
        // before is answered by a stateless reset, and the peer need not wait for its timeout.
        let reset = hmac(secret_key.as_bytes(), &[b"wiremesh stateless reset v1"]);
        let reset_key = ResetKey::new(*reset);
        let learned_max = match &self.admission {
            Admission::AllowAll { provisional_max } => *provisional_max,
            _ => 0,
        };
        let (admission, decide) = split_admission(self.admission);
        self.security.suites().map_err(BindError::Policy)?;
        let Opened {
            mut disk,
            timestamp_floor,
            kept,
            kem_seed,
        } = open_state(self.state_dir, &host)?;
        if let Some(disk) = disk.as_mut().filter(|_| self.security.static_kem) {
            disk.use_kem_seed().map_err(BindError::State)?;
        }
        // The kernel's WireGuard gives this process no such packet.
        let bare_streams = self.bare_streams && !matches!(self.plane, Wanted::Kernel(_));
        let mut config = NodeConfig::new(secret_key.clone());
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
            bare_streams,
            rotate_after: self.rotate_after,
            pins: kept.pins.into_iter().collect(),
            trace: false,
        });
        let (seed, stream_seed) = (entropy()?, entropy()?);
        let engine = match &self.plane {
            Wanted::Kernel(_) => {
                let node = KernelNode::new(config, seed, host.now()).map_err(new_node_error)?;
                Engine::Kernel(Box::new(node))
            }
            _ => {
                let node = CoreNode::new(config, seed, host.now()).map_err(new_node_error)?;
                Engine::Own(Box::new(node))
            }
        };
        let node_id = engine.node_id();
        let own = Own {
            overlay: address::overlay_address(&node_id),
            control: address::control_address(&node_id),
        };
        let needs = Needs {
            addresses: self.addresses.iter().map(|(address, _)| *address).collect(),
            routes: vec![OVERLAY_NET],
            mtu_bytes: self.mtu_bytes,
        };
        let listen = Listen {
            addresses: self.listen,
            port: self.port,
            udp: self.udp,
        };
        let plane = open_plane(
            self.plane,
            listen,
            needs,
            own,
            secret_key,
            self.egress.rate_bits,
        )
        .await?;
        let parts = TunnelParts {
            addresses: Addresses {
                overlay: address::overlay_address(&node_id),
                extra: self.addresses,
            },
            engine,
            plane,
            disk,
            decide,
            mtu_bytes: usize::from(self.mtu_bytes),
            bare_streams,
            plain: self.plain,
            egress: self.egress,
            host,
            runtime: tokio::runtime::Handle::current(),
        };
        let by_default = self.transport.is_none();
        let mut transport = self.transport.unwrap_or_else(default_transport);
        if by_default || self.mtu_bytes != MTU_DEFAULT {
            let largest = stream_packet_max(usize::from(self.mtu_bytes), bare_streams);
            discover_up_to(&mut transport, largest);
        }
        let mut transport = at_least_assumed(transport).map_err(BindError::Transport)?;
        let window_max = transport.hold_back_receive_window();
        let budget = Arc::new(Budget::new(self.unread_max, window_max, by_default));
        let provider = Provider::new(stream_seed, transport);
        let tunnel = Arc::new_cyclic(|me| Tunnel::new(me.clone(), parts));
        let streams = StreamSettings {
            provider,
            budget,
            reset_key,
            protocols: self.protocols,
            connect_timeout: self.connect_timeout,
            learned_max,
            topic: self.topic,
        };
        Node::start(tunnel, streams, self.network)
    }
}

/// Where WireGuard is to listen.
struct Listen {
    addresses: Vec<SocketAddr>,
    port: u16,
    udp: UdpConfig,
}

impl Listen {
    fn open(&self) -> Result<UdpSockets, BindError> {
        let sockets = match self.addresses.as_slice() {
            [] => UdpSockets::bind_any_with(self.port, self.udp.clone()),
            addresses => UdpSockets::bind_with(addresses, self.udp.clone()),
        };
        sockets.map_err(BindError::Sockets)
    }

    /// The one port of the kernel's WireGuard, which takes all addresses.
    fn port_of_all(&self) -> Result<u16, InterfaceError> {
        let port = self.addresses.first().map_or(self.port, SocketAddr::port);
        let all = |address: &SocketAddr| address.ip().is_unspecified() && address.port() == port;
        match self.addresses.iter().all(all) {
            true => Ok(port),
            false => Err(InterfaceError::Listen),
        }
    }
}

/// Opens what WireGuard needs of the host. The helper is waited for in a thread of its own.
async fn open_plane(
    wanted: Wanted,
    listen: Listen,
    mut needs: Needs,
    own: Own,
    secret_key: SecretKey,
    rate_bits: Option<u64>,
) -> Result<Plane, BindError> {
    needs.addresses.insert(0, own.overlay.into());
    match wanted {
        Wanted::Rootless => Ok(Plane::rootless(listen.open()?)),
        Wanted::Device(device) => Ok(Plane {
            device: Some(HostDevice::new(device)),
            ..Plane::rootless(listen.open()?)
        }),
        Wanted::Tun(interface) => {
            let sockets = listen.open()?;
            let made = in_thread(move || host_interface::make_tun(&interface, &needs)).await?;
            let (device, lease) = made.map_err(BindError::Interface)?;
            Ok(Plane {
                device: Some(HostDevice::new(device)),
                lease: Some(lease),
                ..Plane::rootless(sockets)
            })
        }
        Wanted::Kernel(interface) => {
            let port = listen.port_of_all().map_err(BindError::Interface)?;
            needs.addresses.push(own.control.into());
            needs.routes.push(CONTROL_NET);
            let settings = WireguardSettings {
                private_key: Zeroizing::new(*secret_key.as_bytes()),
                listen_port: port,
                rate_bits,
            };
            let open = move || KernelPlane::open(&interface, &needs, &own, settings);
            let plane = in_thread(open).await?.map_err(BindError::Interface)?;
            Ok(Plane {
                kernel: Some(Arc::new(plane)),
                ..Plane::rootless(UdpSockets::none())
            })
        }
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BindError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| BindError::System(io::Error::other(error)))
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
        NewNodeError::Admission => BindError::Interface(InterfaceError::Admission),
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

fn open_state(path: Option<PathBuf>, host: &Host) -> Result<Opened, BindError> {
    let fresh_seed = draw_seed(host).map_err(BindError::System)?;
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

fn draw_seed(host: &Host) -> io::Result<KemSeed> {
    let mut seed = KemSeed::new([0; 64]);
    let (first, second) = seed.split_at_mut(32);
    first.copy_from_slice(&host.entropy()?);
    second.copy_from_slice(&host.entropy()?);
    Ok(seed)
}

/// Lets path MTU discovery go as far as the tunnel's MTU.
fn discover_up_to(transport: &mut quinn::TransportConfig, payload_bytes: u16) {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(payload_bytes);
    transport.mtu_discovery_config(Some(discovery));
}
