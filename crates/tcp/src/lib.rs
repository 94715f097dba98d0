//! TCP inside the tunnel without root and without an interface: a TCP in user space.
//!
//! [`Tcp`] claims TCP of a [`Node`] and gives [`TcpStream`] and [`TcpListener`] on
//! the node's addresses. The other end may be any TCP: this one, or the kernel of a stock WireGuard
//! peer. Between two of our own nodes `Node::connect` is the better choice: many streams, no
//! head-of-line blocking, faster recovery.
//!
//! The state machine of RFC 9293 is smoltcp's, with window scaling, CUBIC, fast retransmit and at
//! most 32 gaps in what is received. It has no SACK (RFC 2018) worth the name: one gap at a time is
//! reported to the peer, and reports of the peer are not read. What they say about losses is told to
//! it here, so that one gap is repaired per round trip instead of one per timeout of at least a
//! second; a kernel repairs all of them at once. There are no timestamps and no ECN. On a path that
//! loses much, streams are faster.
//!
//! Limits: [`TcpConfig`]. Layer 4; it owns connections, and knows nothing of keys and sessions.
#![forbid(unsafe_code)]

mod connection;
mod driver;
mod link;
mod listener;
mod numbers;
mod probe;
mod recovery;
mod segment;
mod stack;
mod stream;

pub use listener::TcpListener;
pub use stream::TcpStream;

use driver::{Handle, Shared};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use wiremesh::{Node, RawBindError, RawSendError};

/// Limits and times of a [`Tcp`].
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Connections in any state, 512 by default. Beyond it connecting fails, and who connects to us
    /// gets no answer; connections that only wait for stray packets make room first.
    pub connections_max: usize,
    /// Bytes received and not yet read, per connection: the window. 512 KiB by default, 1 KiB to
    /// 16 MiB; with a round trip of 50 ms that is 80 Mbit/s.
    pub receive_bytes: usize,
    /// Bytes written and not yet acknowledged, per connection. 512 KiB by default, 1 KiB to 16 MiB.
    pub send_bytes: usize,
    /// How long connecting may take, 15 s by default.
    pub connect_timeout: Duration,
    /// How long a peer may be silent, though it is asked whether it is there, before the connection
    /// counts as lost: 5 minutes by default.
    pub silence_max: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            connections_max: 512,
            receive_bytes: 512 << 10,
            send_bytes: 512 << 10,
            connect_timeout: Duration::from_secs(15),
            silence_max: Duration::from_secs(300),
        }
    }
}

/// The smallest and the largest buffer of a connection.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=16 << 20;

impl TcpConfig {
    fn within_limits(mut self) -> Self {
        for bytes in [&mut self.receive_bytes, &mut self.send_bytes] {
            *bytes = (*bytes).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        }
        self.silence_max = self.silence_max.max(Duration::from_secs(1));
        self
    }
}

/// Why a connection cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// No peer owns the address.
    NoRoute(IpAddr),
    /// The node has no address of that family.
    NoSource(IpAddr),
    /// Port 0, or an address that no host has.
    BadAddress(SocketAddr),
    /// As many connections as [`TcpConfig::connections_max`] allows are there.
    TooMany(usize),
    /// All local ports are used for connections to this address and port.
    NoPort,
    /// The peer's host is there, and nobody listens on the port.
    Refused(SocketAddr),
    /// No answer.
    TimedOut {
        /// Where it was sent.
        to: SocketAddr,
        /// For how long.
        waited: Duration,
    },
    /// The node was closed.
    Closed,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute(ip) => write!(f, "{ip} is in no peer's allowed IPs"),
            Self::NoSource(ip) => write!(
                f,
                "no address of ours can talk to {ip}: give the node one in the configuration"
            ),
            Self::BadAddress(to) => write!(f, "{to} is no address to connect to"),
            Self::TooMany(max) => write!(f, "there are {max} connections already"),
            Self::NoPort => write!(f, "all local ports are in use"),
            Self::Refused(to) => write!(f, "{to} refuses: nobody listens there"),
            Self::TimedOut { to, waited } => {
                write!(f, "no answer from {to} for {} s", waited.as_secs())
            }
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a port cannot be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody listens there; for port 0, on all.
    InUse(u16),
    /// The node was closed.
    Closed,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(port) => write!(f, "port {port} is in use; take another one, or 0"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for ListenError {}

/// The TCP of a node. Cheap to clone. It ends with the node, or when all handles, streams and
/// listeners are gone and what they wrote has arrived.
#[derive(Clone)]
pub struct Tcp(Arc<Handle>);

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tcp({} connections)", self.connections())
    }
}

/// Why there is no TCP for a node.
#[derive(Debug)]
#[non_exhaustive]
pub enum TcpError {
    /// TCP of this node cannot be claimed.
    Claim(RawBindError),
    /// The operating system gives no randomness.
    Random(io::Error),
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(error) => write!(f, "{error}"),
            Self::Random(error) => write!(f, "no randomness: {error}"),
        }
    }
}

impl std::error::Error for TcpError {}

impl Tcp {
    /// Claims TCP of a node, with the default limits. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`TcpError`].
    pub fn new(node: &Node) -> Result<Self, TcpError> {
        Self::with_config(node, TcpConfig::default())
    }

    /// The same with other limits; what is out of range is brought into it.
    ///
    /// # Errors
    ///
    /// [`TcpError`].
    pub fn with_config(node: &Node, config: TcpConfig) -> Result<Self, TcpError> {
        let seed = getrandom::u64().map_err(|error| TcpError::Random(io::Error::other(error)))?;
        let raw = node
            .raw_socket(segment::PROTOCOL_TCP)
            .map_err(TcpError::Claim)?;
        let stack = stack::Stack::new(config.within_limits(), raw.mtu_bytes(), seed);
        let shared = Arc::new(Shared::new(stack, raw));
        tokio::spawn(driver::drive(Arc::clone(&shared)));
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Opens a connection to an address of a peer.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, ConnectError> {
        let shared = &self.0.0;
        let from = self.source_for(to.ip())?;
        let (id, waited) = {
            let mut stack = shared.stack();
            (stack.connect(from, to)?, stack.config.connect_timeout)
        };
        let stream = TcpStream::new(Arc::clone(&self.0), id);
        shared.wake.notify_one();
        let connected = poll_fn(|cx| stream.poll_connected(cx));
        match tokio::time::timeout(waited, connected).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(ErrorKind::ConnectionRefused)) => Err(ConnectError::Refused(to)),
            Ok(Err(ErrorKind::NotConnected)) => Err(ConnectError::Closed),
            _ => Err(ConnectError::TimedOut { to, waited }),
        }
    }

    /// Whether an address belongs to a peer and the node has one to talk to it.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoRoute`] or [`ConnectError::NoSource`].
    pub fn can_reach(&self, ip: IpAddr) -> Result<(), ConnectError> {
        self.source_for(ip).map(drop)
    }

    fn source_for(&self, ip: IpAddr) -> Result<IpAddr, ConnectError> {
        self.0.0.raw.source_for(ip).map_err(|error| match error {
            RawSendError::NoSource(ip) => ConnectError::NoSource(ip),
            _ => ConnectError::NoRoute(ip),
        })
    }

    /// Listens on a port of all the node's addresses; 0 takes one that is free.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn listen(&self, port: u16) -> Result<TcpListener, ListenError> {
        let port = self.0.0.stack().listen(port)?;
        Ok(TcpListener::new(Arc::clone(&self.0), port))
    }

    /// How many connections there are, in any state.
    pub fn connections(&self) -> usize {
        self.0.0.stack().len()
    }
}
