//! The `kernel` plane: the kernel's WireGuard carries the packets, and this process the control
//! protocol, the streams and the UDP sockets, over sockets of the host that are bound to the
//! interface.
//!
//! Owns the interface (made by the helper), the socket of the control protocol, and the order in
//! which the engine's tasks are carried out. What passes is decided by the kernel's allowed IPs and
//! by the filter table of the interface; the engine says which allowed IPs there are.

mod driver;
mod ping;
mod sockets;

use crate::host_interface::{self, HostInterface, InterfaceError, Lease, Needs};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::UdpSocket;
use wiremesh_core::{KernelFigures, KernelPeerChange, KernelTask};
use wiremesh_netadmin::client::{self, Wireguard};
use wiremesh_netadmin::verbs::{PeerChange, PeerFigures, WireguardSettings};
use wiremesh_wire::address::{CONTROL_PORT, STREAM_PORT};
use wiremesh_wire::{NodeId, UnixTime};
use zeroize::Zeroizing;

pub(crate) use driver::run;
pub(crate) use ping::ping;
pub(crate) use sockets::KernelSocket;

/// The interface of a running node.
#[derive(Debug)]
pub(crate) struct KernelPlane {
    name: String,
    wireguard: Arc<Wireguard>,
    lease: Lease,
    control: UdpSocket,
    /// Where WireGuard listens, as the kernel said last.
    listen_port: AtomicU16,
}

/// Our addresses inside the tunnel.
pub(crate) struct Own {
    pub(crate) overlay: Ipv6Addr,
    pub(crate) control: Ipv6Addr,
}

impl KernelPlane {
    /// Asks for the interface, and opens the socket of the control protocol on it. Blocks for a
    /// moment. Must be called within a tokio runtime.
    pub(crate) fn open(
        wanted: &HostInterface,
        needs: &Needs,
        own: &Own,
        settings: WireguardSettings,
    ) -> Result<Self, InterfaceError> {
        let interface = host_interface::interface(wanted, needs)?;
        let refused = |error| host_interface::refused(wanted, &error);
        let wireguard =
            client::make_wireguard(&wanted.helper, &interface, settings).map_err(refused)?;
        let figures = wireguard.figures().map_err(refused)?;
        let unusable = |error: io::Error| InterfaceError::Unusable(error.to_string());
        let control = SocketAddr::new(own.control.into(), CONTROL_PORT);
        let control = sockets::bind(&wanted.name, control).map_err(unusable)?;
        Ok(Self {
            name: wanted.name.clone(),
            lease: Lease::new(wireguard.lease().as_fd(), wanted.helper.clone())?,
            wireguard: Arc::new(wireguard),
            control: UdpSocket::from_std(control).map_err(unusable)?,
            listen_port: AtomicU16::new(figures.listen_port),
        })
    }

    /// The interface's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Keeps the interface.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Where WireGuard listens: the kernel takes all addresses of the host.
    pub(crate) fn listen_addresses(&self) -> Vec<SocketAddr> {
        let port = self.listen_port.load(Ordering::Relaxed);
        let any = [IpAddr::from([0; 4]), Ipv6Addr::UNSPECIFIED.into()];
        any.map(|address| SocketAddr::new(address, port)).to_vec()
    }

    /// quinn's socket for the streams.
    pub(crate) fn streams(&self, overlay: Ipv6Addr) -> io::Result<std::net::UdpSocket> {
        sockets::bind(&self.name, SocketAddr::new(overlay.into(), STREAM_PORT))
    }

    /// A UDP port for the application, on all our addresses inside the tunnel; 0 takes one that is free.
    pub(crate) fn bind_port(&self, port: u16) -> io::Result<std::net::UdpSocket> {
        sockets::bind(
            &self.name,
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        )
    }

    /// Carries out one task; blocks while the helper works. Figures are what was asked for.
    fn carry_out(&self, task: KernelTask) -> Result<Option<Vec<KernelFigures>>, client::Error> {
        match task {
            KernelTask::SetPeer(change) => self.wireguard.set_peer(&change_of(change))?,
            KernelTask::RemovePeer(id) => self.wireguard.remove_peer(id.as_bytes())?,
            KernelTask::Send { to, payload } => {
                let to = SocketAddr::new(to.into(), CONTROL_PORT);
                // Without a session or an endpoint it is lost, and repeated.
                let _ = self.control.try_send_to(&payload, to);
            }
            KernelTask::ReadFigures => {
                let figures = self.wireguard.figures()?;
                self.listen_port
                    .store(figures.listen_port, Ordering::Relaxed);
                return Ok(Some(figures.peers.iter().filter_map(figures_of).collect()));
            }
        }
        Ok(None)
    }
}

fn change_of(change: KernelPeerChange) -> PeerChange {
    let seconds = |time: std::time::Duration| u16::try_from(time.as_secs()).unwrap_or(u16::MAX);
    let allowed_ips = change.allowed_ips;
    PeerChange {
        public_key: *change.node_id.as_bytes(),
        replace: change.replace,
        preshared_key: change
            .preshared_key
            .map(|key| Zeroizing::new(*key.as_bytes())),
        endpoint: change.endpoint,
        keepalive_seconds: change.persistent_keepalive.map(seconds),
        allowed_ips: allowed_ips.map(|nets| nets.iter().map(host_interface::prefix).collect()),
    }
}

/// `None` for a key that is none of a node; the engine put no such there.
fn figures_of(peer: &PeerFigures) -> Option<KernelFigures> {
    let since = peer.last_handshake;
    Some(KernelFigures {
        node_id: NodeId::from_bytes(&peer.public_key).ok()?,
        endpoint: peer.endpoint,
        last_handshake: (!since.is_zero()).then(|| UnixTime::from_duration(since)),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
    })
}
