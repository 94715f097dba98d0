//! The verbs of the helper and its replies, as text.
//!
//! Owns what a client may ask for: names, sizes, address ranges. A request that parses is within
//! these bounds, and has exactly one form. It never does I/O and keeps no state; no reply has a
//! place for a secret.
//!
//! One message is one packet of a Unix `SOCK_SEQPACKET` socket: fields with one space between.
//!
//! ```text
//! 1 make NAME MTU ADDRESSES ROUTES              make a TUN device
//! 1 make NAME MTU ADDRESSES ROUTES SECRET PORT  make an interface of the kernel's WireGuard
//! 1 make NAME MTU ADDRESSES ROUTES SECRET PORT RATE    the same, which sends RATE bits in a second
//! 1 peer KEY change|replace [PRESHARED-KEY] [ENDPOINT] [KEEPALIVE] [ALLOWED-IPS]
//! 1 remove KEY
//! 1 figures FROM
//!
//! 1 done INDEX                                  with a TUN device, its descriptor is beside this
//! 1 figures PORT LEFT KEY [ENDPOINT] NANOSECONDS RECEIVED SENT KEY ...
//! 1 refused REASON TEXT
//! ```
//!
//! Keys are in hexadecimal, lists have commas between, and may be empty; `-` is nothing where a
//! field is in brackets.

pub(crate) mod fields;
mod interface;
mod peer;
mod refusal;

pub use interface::{
    ADDRESSES_MAX, Interface, MTU_BYTES_MIN, NAME_PREFIX, Name, Prefix, RATE_BITS, ROUTES_MAX,
    WireguardSettings,
};
pub use peer::{
    ALLOWED_IPS_MAX, FIGURES_MAX, Figures, Key, PEERS_MAX, PREFIXES_MAX, PeerChange, PeerFigures,
};
pub use refusal::{DETAIL_BYTES_MAX, Reason, Refusal};

use fields::{key, parse};
use std::fmt;

/// The version of this format.
pub const VERSION: &str = "1";
/// Bytes of a request, at most.
pub const REQUEST_BYTES_MAX: usize = 12 * 1024;
/// Bytes of a reply, at most.
pub const REPLY_BYTES_MAX: usize = 24 * 1024;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Make an interface, with the filter table: of the kernel's WireGuard, or a TUN device, whose
    /// descriptor is passed. It goes with the connection.
    Make(Interface, Option<WireguardSettings>),
    /// Change a peer of the connection's interface, or make it.
    SetPeer(PeerChange),
    /// Remove a peer of the connection's interface; none is none.
    RemovePeer(Key),
    /// Tell the figures of the peers but so many, as they were when the first were told.
    ReadFigures(u16),
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`Reason::Version`], [`Reason::Malformed`], or what is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|_| Reason::Malformed)?;
        let fields: Vec<&str> = text.split(' ').collect();
        Ok(match fields[..] {
            [version, ..] if version != VERSION => return Err(Reason::Version.into()),
            [_, "make", name, mtu, addresses, routes, ref settings @ ..] => {
                let wanted = Interface::read([name, mtu, addresses, routes])?;
                Self::Make(wanted, WireguardSettings::read(settings)?)
            }
            [_, "peer", ref fields @ ..] => Self::SetPeer(PeerChange::read(fields)?),
            [_, "remove", public_key] => Self::RemovePeer(key(public_key)?),
            [_, "figures", from] => Self::ReadFigures(parse(from)?),
            _ => return Err(Reason::Malformed.into()),
        })
    }
}

/// The helper's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done, with the interface of this index. A new TUN device is beside it.
    Done(u32),
    /// Figures of at most [`FIGURES_MAX`] peers, and how many peers come after them.
    Figures(Figures, u16),
    /// Nothing was done.
    Refused(Refusal),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(index) => write!(f, "{VERSION} done {index}"),
            Self::Figures(Figures { listen_port, peers }, left) => {
                write!(f, "{VERSION} figures {listen_port} {left}")?;
                peers.iter().try_for_each(|peer| write!(f, " {peer}"))
            }
            Self::Refused(Refusal { reason, detail }) => {
                write!(f, "{VERSION} refused {} {detail}", *reason as u8)
            }
        }
    }
}
