//! What a node has of the host: sockets for WireGuard, and an interface.
//!
//! Owns the three modes. What is there is opened once, in `bind.rs`, and closed with the node.

use crate::device::HostDevice;
use crate::host_interface::Lease;
use crate::kernel::KernelPlane;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use wiremesh_udp::UdpSockets;

/// Who runs WireGuard, and who can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// This process, and only its program reaches the peers.
    Rootless,
    /// This process, with an interface: every program of the host reaches the peers.
    Tun,
    /// The kernel, with an interface: every program of the host reaches the peers.
    Kernel,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rootless => "rootless",
            Self::Tun => "tun",
            Self::Kernel => "kernel",
        })
    }
}

/// See the module.
pub(crate) struct Plane {
    /// For our own engine; none are open in kernel mode.
    pub(crate) sockets: UdpSockets,
    /// The interface in `tun` mode.
    pub(crate) device: Option<HostDevice>,
    /// Keeps that interface, where the helper made it.
    pub(crate) lease: Option<Lease>,
    /// The interface in `kernel` mode.
    pub(crate) kernel: Option<Arc<KernelPlane>>,
}

impl Plane {
    /// Our own engine, without an interface.
    pub(crate) fn rootless(sockets: UdpSockets) -> Self {
        Self {
            sockets,
            device: None,
            lease: None,
            kernel: None,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        match (&self.kernel, &self.device) {
            (Some(_), _) => Mode::Kernel,
            (None, Some(_)) => Mode::Tun,
            (None, None) => Mode::Rootless,
        }
    }

    /// The name of the interface.
    pub(crate) fn interface(&self) -> Option<&str> {
        let kernel = self.kernel.as_ref().map(|kernel| kernel.name());
        kernel.or_else(|| self.device.as_ref().map(HostDevice::name))
    }

    /// Keeps the interface, where the helper made it.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        let kernel = self.kernel.as_ref().map(|kernel| kernel.lease());
        kernel.or(self.lease.as_ref())
    }

    /// Where WireGuard listens.
    pub(crate) fn listen_addresses(&self) -> Vec<SocketAddr> {
        match &self.kernel {
            Some(kernel) => kernel.listen_addresses(),
            None => self.sockets.local_addresses(),
        }
    }
}
