//! Opens and configures the operating system's sockets.
//!
//! Owns the configuration, the choice of a common port for both address families, and the errors
//! of binding. Never sends or receives.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errors::is_family_missing;
use crate::socket::Socket;

/// Most sockets that one [`crate::UdpSockets`] holds.
pub const SOCKETS_MAX: usize = 8;

/// Attempts to find a port that is free for both address families.
const PORT_ATTEMPTS: usize = 16;

/// How sockets are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Kernel send buffer to ask for per socket; default 4 MiB. The system may grant less.
    pub send_buffer_bytes: usize,
    /// Kernel receive buffer to ask for per socket; default 4 MiB. The system may grant less.
    pub receive_buffer_bytes: usize,
    /// Whether a batch may be segmented by the kernel or the network card; default true. Without
    /// it each datagram is its own system call: for measurements, tests and broken drivers.
    pub segmentation_offload: bool,
    /// Mark of every datagram, for the host's routing rules; default 0, none. Linux only, and only
    /// with `CAP_NET_ADMIN`; binding fails without.
    pub mark: u32,
    /// The simulated host that takes the place of this one; default none.
    #[cfg(feature = "virtual")]
    #[doc(hidden)]
    pub host: Option<crate::memory::Host>,
}

impl Default for UdpConfig {
    fn default() -> Self {
        UdpConfig {
            send_buffer_bytes: 4 << 20,
            receive_buffer_bytes: 4 << 20,
            segmentation_offload: true,
            mark: 0,
            #[cfg(feature = "virtual")]
            host: None,
        }
    }
}

/// Why sockets could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The list of addresses is empty.
    NoAddresses,
    /// The list has more than [`SOCKETS_MAX`] addresses.
    TooManyAddresses,
    /// There is no tokio runtime with I/O around the caller.
    NoRuntime,
    /// The operating system refused this address.
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BindError::NoAddresses => f.write_str("no address to bind to"),
            BindError::TooManyAddresses => {
                write!(f, "more than {SOCKETS_MAX} addresses to bind to")
            }
            BindError::NoRuntime => f.write_str("UDP sockets need a running tokio runtime"),
            BindError::Address { address, error } => {
                write!(f, "cannot bind UDP address {address}: {error}")
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BindError::Address { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What was asked for, kept so that a rebind can ask for it again.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// Exactly these addresses.
    Addresses(Vec<SocketAddr>),
    /// Both families on one port, as far as the host has them.
    Any(u16),
}

impl Wanted {
    /// Opens what is wanted, all of it.
    pub(crate) fn open(&self, config: &UdpConfig) -> Result<Vec<Socket>, BindError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        match self {
            Wanted::Addresses(list) if list.is_empty() => Err(BindError::NoAddresses),
            Wanted::Addresses(list) if list.len() > SOCKETS_MAX => Err(BindError::TooManyAddresses),
            Wanted::Addresses(list) => list.iter().map(|&address| open(address, config)).collect(),
            Wanted::Any(port) => open_any(*port, config),
        }
    }

    /// Gives the same wish with these ports, one per socket of the last bind.
    pub(crate) fn with_ports(&self, ports: &[u16]) -> Wanted {
        match self {
            Wanted::Any(port) => Wanted::Any(ports.first().copied().unwrap_or(*port)),
            Wanted::Addresses(list) => Wanted::Addresses(
                list.iter()
                    .zip(ports.iter().map(Some).chain(std::iter::repeat(None)))
                    .map(|(address, port)| with_port(*address, port.copied()))
                    .collect(),
            ),
        }
    }

    /// Gives the same wish with the choice of the port left to the system.
    pub(crate) fn with_any_port(&self) -> Wanted {
        match self {
            Wanted::Any(_) => Wanted::Any(0),
            Wanted::Addresses(list) => Wanted::Addresses(
                list.iter()
                    .map(|address| SocketAddr::new(address.ip(), 0))
                    .collect(),
            ),
        }
    }
}

/// Changes the port only: an IPv6 scope stays.
fn with_port(mut address: SocketAddr, port: Option<u16>) -> SocketAddr {
    if let Some(port) = port {
        address.set_port(port);
    }
    address
}

fn open(address: SocketAddr, config: &UdpConfig) -> Result<Socket, BindError> {
    Socket::open(address, config).map_err(|error| BindError::Address { address, error })
}

fn open_any(port: u16, config: &UdpConfig) -> Result<Vec<Socket>, BindError> {
    let attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
    let mut last = BindError::NoAddresses;
    for _ in 0..attempts {
        match open_pair(port, config) {
            Ok(sockets) => return Ok(sockets),
            Err(BindError::Address { address, error })
                if error.kind() == io::ErrorKind::AddrInUse =>
            {
                last = BindError::Address { address, error };
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Opens both families on one port; a family that the host lacks is left out.
fn open_pair(port: u16, config: &UdpConfig) -> Result<Vec<Socket>, BindError> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut sockets: Vec<Socket> = Vec::with_capacity(any.len());
    let mut missing = BindError::NoAddresses;
    for ip in any {
        let port = sockets.first().map_or(port, |socket| socket.local.port());
        match open(SocketAddr::new(ip, port), config) {
            Ok(socket) => sockets.push(socket),
            Err(BindError::Address { address, error }) if is_family_missing(&error) => {
                missing = BindError::Address { address, error };
            }
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        Err(missing)
    } else {
        Ok(sockets)
    }
}
