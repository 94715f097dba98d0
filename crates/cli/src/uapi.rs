//! The configuration protocol of user-space WireGuard, which `wg` speaks over a Unix socket
//! (<https://www.wireguard.com/xplatform/>).
//!
//! Owns the text form ([`parse`], [`emit`]: bytes in, values out, no I/O), the socket ([`server`]),
//! and what the operations mean for a running node ([`running`]) and for `wiremesh wg`
//! ([`interface`], with its peers in [`table`]).

pub mod emit;
pub mod interface;
pub mod parse;
pub mod running;
pub mod server;
pub mod table;

use std::fmt;

/// Why an operation was refused; what `wg` then shows is the text of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// The caller's privileges do not suffice.
    NotPermitted = 1,
    /// Something in it has no meaning.
    Invalid = 22,
    /// There is no room for another peer.
    NoSpace = 28,
    /// It is not in the form of the protocol.
    Protocol = 71,
    /// A node cannot do this.
    NotSupported = 95,
    /// The port, or an address of a peer, is taken.
    InUse = 98,
}

/// A refused operation. The reason is for the log: the protocol carries only the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The number.
    pub errno: Errno,
    /// The reason; holds no secret.
    pub why: String,
}

impl Refused {
    /// Makes one.
    pub fn new(errno: Errno, why: impl fmt::Display) -> Self {
        Self {
            errno,
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

/// A public key as `wg` gives it: any 32 bytes, also such that no node can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<wiremesh::NodeId> for PublicKey {
    fn from(id: wiremesh::NodeId) -> Self {
        Self(*id.as_bytes())
    }
}

/// What takes the operations.
pub trait Configure: Send + 'static {
    /// Carries out a `set=1`.
    ///
    /// # Errors
    ///
    /// What was refused. What came before it in the operation is done.
    fn set(&mut self, change: parse::Change) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Answers a `get=1`.
    fn show(&self) -> emit::Shown;
}
