//! How a node is configured; `bind.rs` starts it.
//!
//! Owns the defaults; every one is written at its setter.

use crate::admission::Admission;
use crate::device::Device;
use crate::host::Host;
use crate::host_interface::HostInterface;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use wiremesh_control::Policy;
use wiremesh_core::{EgressConfig, Limits};
use wiremesh_udp::UdpConfig;
use wiremesh_wire::{IpNet, SecretKey};

/// How long a preshared key that two nodes agreed on is used.
const ROTATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Bytes of all connections that wait to be read.
const UNREAD_MAX: u64 = 512 << 20;

/// The tunnel's MTU for which the default transport is made.
pub(crate) const MTU_DEFAULT: u16 = 1_420;

/// Settings of a [`crate::Node`]. Made by [`crate::Node::builder`].
#[derive(Debug)]
pub struct NodeBuilder {
    pub(crate) secret_key: Option<SecretKey>,
    pub(crate) network: String,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) port: u16,
    pub(crate) protocols: Vec<String>,
    pub(crate) admission: Admission,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) addresses: Vec<(IpAddr, IpNet)>,
    pub(crate) mtu_bytes: u16,
    pub(crate) bare_streams: bool,
    pub(crate) transport: Option<quinn::TransportConfig>,
    pub(crate) limits: Limits,
    pub(crate) unread_max: u64,
    pub(crate) connect_timeout: Duration,
    pub(crate) security: Policy,
    pub(crate) rotate_after: Duration,
    pub(crate) udp: UdpConfig,
    pub(crate) egress: EgressConfig,
    pub(crate) plane: Wanted,
    pub(crate) plain: bool,
    pub(crate) host: Host,
    pub(crate) topic: wiremesh_gossip::Config,
}

/// Who is to run WireGuard, and with which interface of the host.
#[derive(Debug)]
pub(crate) enum Wanted {
    Rootless,
    Device(Device),
    Tun(HostInterface),
    Kernel(HostInterface),
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
            bare_streams: true,
            transport: None,
            limits: Limits::default(),
            unread_max: UNREAD_MAX,
            connect_timeout: Duration::from_secs(15),
            security: Policy::default(),
            rotate_after: ROTATE_AFTER,
            udp: UdpConfig::default(),
            egress: EgressConfig::default(),
            plane: Wanted::Rootless,
            plain: false,
            host: Host::default(),
            topic: wiremesh_gossip::Config::default(),
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

    /// A protocol that [`crate::Node::accept`] accepts, 1 to 255 bytes; call it again for another, in
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
    /// changed while the node runs: [`crate::Node::set_policy`].
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

    /// Whether stream packets to nodes that can take them travel without IPv6 and UDP headers
    /// inside the tunnel, which leaves 48 bytes more of each datagram to the streams. Never to
    /// stock WireGuard peers, and never in kernel mode. Default: yes.
    pub fn bare_streams(mut self, allowed: bool) -> Self {
        self.bare_streams = allowed;
        self
    }

    /// Settings of the streams. Default: [`crate::default_transport`]. Start from it; binding
    /// fails if less is granted than every node must. Their `receive_window` is the most that a
    /// connection gets out of [`NodeBuilder::unread_max`], and their `send_window` stays as it is.
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

    /// Bytes of all connections together that the application has not read; and as many that it
    /// has written and no peer has acknowledged. Default: 512 MiB.
    ///
    /// Half of it is for the 128 KiB that each connection has, so it also says how many there can be:
    /// 2,048 by default, a further one is refused. Of the other half a connection gets a 32nd of
    /// what is left, when the application takes it, and keeps that until it ends: 8 MiB for the
    /// first ones, 1.7 MiB for the 50th, and less the more there are.
    pub fn unread_max(mut self, bytes: u64) -> Self {
        self.unread_max = bytes;
        self
    }

    /// Bytes of packets of ours that wait for a session with their peer, of all peers together.
    /// Default: 64 MiB; of one peer at most 128 packets. A further one is dropped and counted.
    pub fn staged_max(mut self, bytes: usize) -> Self {
        self.limits.staged_bytes_max = bytes;
        self
    }

    /// Bytes of objects that each topic keeps: for neighbours that miss them, while large ones are
    /// fetched, and while the application judges them. Default: 160 MiB, which the largest object of
    /// 64 MiB needs. An object that does not fit is not fetched, and counted. docs/topics.md says what
    /// a topic takes besides.
    pub fn topic_store_max(mut self, bytes: usize) -> Self {
        self.topic.store_bytes_max = bytes;
        self
    }

    /// How long [`crate::Node::connect`] tries. Default: 15 s.
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

    /// The pace of what leaves, and what each class gets of it. Default: no pace.
    pub fn egress(mut self, config: EgressConfig) -> Self {
        self.egress = config;
        self
    }

    /// An interface of the host: packets of peers that are not for the node's own ports go there,
    /// and what the host sends there goes to the peers. Default: none, only this program reaches
    /// the peers.
    pub fn device(mut self, device: Device) -> Self {
        self.plane = Wanted::Device(device);
        self
    }

    /// As [`NodeBuilder::device`], with an interface that the helper makes. It goes when the node
    /// ends.
    pub fn tun(mut self, interface: HostInterface) -> Self {
        self.plane = Wanted::Tun(interface);
        self
    }

    /// The kernel's WireGuard on an interface that the helper makes: every program of the host
    /// reaches the peers, and their packets never come to this process. The streams and UDP
    /// sockets of the node are sockets of the host, bound to that interface.
    ///
    /// The kernel sees no unknown keys, so nobody is admitted who is not a peer before; it listens on
    /// all addresses of one port; and peers are asked for an agreement at once, not at the first packet.
    pub fn kernel(mut self, interface: HostInterface) -> Self {
        self.plane = Wanted::Kernel(interface);
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
}
