//! An interface of the host for a node, asked of the helper `wiremesh-netadmin`.
//!
//! Owns which addresses a node needs on it, and what each refusal means to a person. This process
//! has no privilege and asks for none: the interface lives as long as the node, whatever ends it.

use crate::device::Device;
use rustix::net::{Shutdown, shutdown};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use wiremesh_netadmin::client::{self, Error};
use wiremesh_netadmin::verbs::{Interface, Name, Prefix, Reason};
use wiremesh_wire::IpNet;

/// Where the helper listens unless told otherwise.
pub const HELPER_SOCKET: &str = "/run/wiremesh/netadmin.sock";

/// How often a helper is looked for that has ended.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(500);

/// An interface to be made; [`crate::NodeBuilder::tun`] and [`crate::NodeBuilder::kernel`] take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    pub(crate) name: String,
    pub(crate) helper: PathBuf,
    pub(crate) routes: Vec<IpNet>,
}

impl HostInterface {
    /// With this name: `wm`, then 1 to 13 of `a-z`, `0-9`, `-`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            helper: HELPER_SOCKET.into(),
            routes: Vec::new(),
        }
    }

    /// The helper's socket. Default: [`HELPER_SOCKET`].
    pub fn helper(mut self, socket: impl Into<PathBuf>) -> Self {
        self.helper = socket.into();
        self
    }

    /// A network, beside all overlay addresses, that the host reaches through the interface: the
    /// further prefixes of stock peers. Call it again for another.
    pub fn route(mut self, net: IpNet) -> Self {
        self.routes.push(net);
        self
    }
}

/// Why there is no interface. Nothing on the host has changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InterfaceError {
    /// No helper listens there, it may not be reached, or it does not answer.
    NoHelper {
        /// Its socket.
        socket: PathBuf,
        /// What was seen.
        error: String,
    },
    /// The helper refused.
    Refused {
        /// Why.
        error: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// What the helper gave cannot be used.
    Unusable(String),
    /// The name cannot be one of an interface of ours.
    Name(String),
    /// With the kernel's WireGuard, only peers that are known before can come in.
    Admission,
    /// The kernel's WireGuard listens on all addresses of one port.
    Listen,
    /// The kernel's WireGuard keeps its port while the node runs.
    Port,
}

impl InterfaceError {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NoHelper { .. } => {
                "start the helper (`wiremesh install --systemd` sets it up), or run without an \
                 interface: the rootless mode"
            }
            Self::Refused { fix, .. } => fix,
            Self::Unusable(_) => "install helper and program of one version",
            Self::Name(_) => "name it wm0, for example",
            Self::Admission => {
                "admit by allow list, with the peers in the configuration; or use the tun mode"
            }
            Self::Port => "start the node anew with the other port",
            Self::Listen => "give one port without an address; or use the tun mode",
        }
    }
}

impl fmt::Display for InterfaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHelper { socket, error } => {
                write!(f, "the helper at {}: {error}", socket.display())
            }
            Self::Refused { error, .. } => write!(f, "the helper refused: {error}"),
            Self::Unusable(error) => write!(f, "the interface cannot be used: {error}"),
            Self::Name(error) => write!(f, "{error}"),
            Self::Admission => f.write_str(
                "the kernel's WireGuard sees no unknown keys, so nobody could come in as the \
                 admission policy says",
            ),
            Self::Listen => {
                f.write_str("the kernel's WireGuard listens on all addresses of one UDP port")
            }
            Self::Port => f.write_str("the interface keeps its UDP port while the node runs"),
        }
    }
}

impl std::error::Error for InterfaceError {}

/// What a node needs of its interface.
pub(crate) struct Needs {
    /// Each alone, without a network.
    pub(crate) addresses: Vec<IpAddr>,
    /// Beside those of the operator.
    pub(crate) routes: Vec<IpNet>,
    pub(crate) mtu_bytes: u16,
}

/// Keeps an interface: a copy of the connection to the helper.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: AsyncFd<OwnedFd>,
    helper: PathBuf,
}

impl Lease {
    pub(crate) fn new(connection: BorrowedFd<'_>, helper: PathBuf) -> Result<Self, InterfaceError> {
        let unusable = |error: std::io::Error| InterfaceError::Unusable(error.to_string());
        let copy = connection.try_clone_to_owned().map_err(unusable)?;
        Ok(Self {
            connection: wiremesh_device::watch(copy).map_err(unusable)?,
            helper,
        })
    }

    /// Gives the interface back now, whoever holds a handle of the node still.
    pub(crate) fn release(&self) {
        // A connection that is closed already needs no goodbye.
        let _ = shutdown(self.connection.get_ref(), Shutdown::Both);
    }

    /// Ready when the helper has ended and another one is there, which has removed the interface.
    pub(crate) async fn lost(&self) {
        loop {
            // An error is one of the runtime that ends: then nobody waits for this any more.
            let Ok(mut ready) = self.connection.readable().await else {
                return std::future::pending().await;
            };
            if ready.ready().is_read_closed() {
                break;
            }
            // A reply, which is somebody else's.
            ready.clear_ready();
        }
        tracing::warn!("the helper has ended; what it made stays until it is started again");
        while !client::is_there(&self.helper) {
            tokio::time::sleep(LOOKED_FOR_EVERY).await;
        }
    }
}

/// Asks for a TUN interface.
pub(crate) fn make_tun(
    wanted: &HostInterface,
    needs: &Needs,
) -> Result<(Device, Lease), InterfaceError> {
    let interface = interface(wanted, needs)?;
    let made = client::make_tun(&wanted.helper, &interface);
    let made = made.map_err(|error| refused(wanted, &error))?;
    let device = Device::from_fd(made.device);
    let device = device.map_err(|error| InterfaceError::Unusable(error.to_string()))?;
    let lease = Lease::new(made.lease.as_fd(), wanted.helper.clone())?;
    Ok((device, lease))
}

pub(crate) fn interface(
    wanted: &HostInterface,
    needs: &Needs,
) -> Result<Interface, InterfaceError> {
    let name = Name::parse(&wanted.name);
    let name = name.map_err(|error| InterfaceError::Name(format!("{}: {error}", wanted.name)))?;
    let mut routes: Vec<Prefix> = Vec::new();
    for route in needs.routes.iter().chain(&wanted.routes).map(prefix) {
        // What lies in a route already needs none of its own.
        let covered = |known: &Prefix| known.bits <= route.bits && known.overlaps(&route);
        if !routes.iter().any(covered) {
            routes.push(route);
        }
    }
    Ok(Interface {
        name,
        mtu_bytes: needs.mtu_bytes,
        addresses: needs
            .addresses
            .iter()
            .map(|a| prefix(&(*a).into()))
            .collect(),
        routes,
    })
}

pub(crate) fn prefix(net: &IpNet) -> Prefix {
    Prefix {
        address: net.addr(),
        bits: net.prefix(),
    }
}

pub(crate) fn refused(wanted: &HostInterface, error: &Error) -> InterfaceError {
    let Error::Refused(refusal) = error else {
        return InterfaceError::NoHelper {
            socket: wanted.helper.clone(),
            error: error.to_string(),
        };
    };
    let fix = match refusal.reason {
        Reason::Foreign => "add this user to the helper's group, and log in again",
        Reason::NameInUse => "choose another name for the interface",
        Reason::Overlap => {
            "another interface has this network: take that one away, or the address or \
             allowed-ips out of the configuration"
        }
        Reason::Version => "install helper and program of one version",
        Reason::NotPrivate | Reason::NoNetwork | Reason::Malformed => {
            "correct address and allowed-ips in the configuration"
        }
        Reason::NoWireguard => "`modprobe wireguard`, or use the tun mode",
        Reason::NoShaper => "`modprobe sch_cake`, take the rate away, or use the tun mode",
        Reason::Rate => "give a rate between 8 kbit/s and 1 Tbit/s",
        Reason::PortInUse => "another program has the port: name another one, or stop that program",
        Reason::Port => "name a port from 1024 on",
        Reason::Full => "end a program that holds one of its interfaces",
        _ => "look at what the helper says in its log",
    };
    InterfaceError::Refused {
        error: refusal.to_string(),
        fix,
    }
}
