//! A peer of a WireGuard interface: what is to be changed of it, and its figures.

use super::fields::{Hex, Maybe, key, list, maybe, parse};
use super::interface::in_overlay;
use super::{Prefix, Reason, Refusal};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

/// Peers of one interface, at most.
pub const PEERS_MAX: usize = 4096;
/// Allowed IPs of one peer, at most.
pub const ALLOWED_IPS_MAX: usize = 256;
/// Allowed IPs of all peers of one interface, at most: the kernel keeps memory for each.
pub const PREFIXES_MAX: usize = 4 * PEERS_MAX;
/// Peers in one reply with figures, at most.
pub const FIGURES_MAX: usize = 128;

/// A key, public or not.
pub type Key = [u8; 32];

/// What is to be changed of a peer, which is made if it is not there; `None` stays.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// Whose.
    pub public_key: Key,
    /// Remove it before, in the same step: its sessions go, and nothing that was set stays.
    pub replace: bool,
    /// Takes the place of the present one; sessions stay. All zeros is none.
    pub preshared_key: Option<Zeroizing<Key>>,
    /// Where to; not an address of the overlay.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is off.
    pub keepalive_seconds: Option<u16>,
    /// Private networks that take the place of all that it has, at most [`ALLOWED_IPS_MAX`]. One
    /// that another peer has moves.
    pub allowed_ips: Option<Vec<Prefix>>,
}

/// Without its secret.
impl fmt::Debug for PeerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerChange({}, ..)", Hex(&self.public_key))
    }
}

impl PeerChange {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let allowed_ips = self.allowed_ips.as_deref().unwrap_or(&[]);
        if allowed_ips.len() > ALLOWED_IPS_MAX {
            return Err(Reason::Malformed.into());
        }
        // The guard sees users, and the kernel sends as none.
        if let Some(endpoint) = self.endpoint.filter(|to| in_overlay(to.ip())) {
            return Err(Refusal::with(Reason::Endpoint, endpoint));
        }
        allowed_ips.iter().try_for_each(Prefix::check_network)
    }

    pub(super) fn read(fields: &[&str]) -> Result<Self, Refusal> {
        let &[peer, how, psk, endpoint, keepalive, nets] = fields else {
            return Err(Reason::Malformed.into());
        };
        let preshared_key = maybe(psk, |text| key(text).map(Zeroizing::new))?;
        let change = Self {
            public_key: key(peer)?,
            replace: match how {
                "replace" => true,
                "change" => false,
                _ => return Err(Reason::Malformed.into()),
            },
            preshared_key,
            endpoint: maybe(endpoint, parse)?,
            keepalive_seconds: maybe(keepalive, parse)?,
            allowed_ips: maybe(nets, list)?,
        };
        change.check().map(|()| change)
    }
}

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its UDP port.
    pub listen_port: u16,
    /// Its peers.
    pub peers: Vec<PeerFigures>,
}

/// What the kernel says of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFigures {
    /// Who.
    pub public_key: Key,
    /// Where its last authenticated packet came from, or what was set.
    pub endpoint: Option<SocketAddr>,
    /// Time of the last handshake since 1970; none yet is zero.
    pub last_handshake: Duration,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl fmt::Display for PeerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.last_handshake.as_nanos();
        write!(f, "{} {} ", Hex(&self.public_key), Maybe(self.endpoint))?;
        write!(f, "{nanoseconds} {} {}", self.rx_bytes, self.tx_bytes)
    }
}
