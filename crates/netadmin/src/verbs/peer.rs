//! A peer of a WireGuard interface: what is to be changed of it, and its figures.

use super::interface::{Prefix, emit_address, in_overlay, read_address};
use super::{Reader, Reason, Refusal};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use zeroize::Zeroizing;

/// Peers of one interface, at most.
pub const PEERS_MAX: usize = 4096;
/// Allowed IPs of one peer, at most.
pub const ALLOWED_IPS_MAX: usize = 256;
/// Peers in one reply with figures, at most.
pub const FIGURES_MAX: usize = 256;
/// Bytes of a change without allowed IPs.
pub const PEER_BYTES: usize = 32 + 1 + 32 + 23 + 2;
/// Bytes of a peer's figures.
pub const FIGURES_BYTES: usize = 32 + 23 + 12 + 8 + 8;

const REPLACE: u8 = 1;
const PRESHARED_KEY: u8 = 2;
const KEEPALIVE: u8 = 4;
const ALLOWED_IPS: u8 = 8;

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
        f.debug_struct("PeerChange")
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

impl PeerChange {
    pub(super) fn emit(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let allowed_ips = self.allowed_ips.as_deref().unwrap_or(&[]);
        if allowed_ips.len() > ALLOWED_IPS_MAX {
            return Err(Reason::Malformed.into());
        }
        allowed_ips.iter().try_for_each(Prefix::check_network)?;
        // The guard sees users, and the kernel sends as none.
        if let Some(endpoint) = self.endpoint.filter(|to| in_overlay(to.ip())) {
            return Err(Refusal::with(Reason::Endpoint, endpoint));
        }
        let flags = [
            (self.replace, REPLACE),
            (self.preshared_key.is_some(), PRESHARED_KEY),
            (self.keepalive_seconds.is_some(), KEEPALIVE),
            (self.allowed_ips.is_some(), ALLOWED_IPS),
        ];
        out.extend(self.public_key);
        out.push(flags.iter().map(|(set, flag)| u8::from(*set) * flag).sum());
        match &self.preshared_key {
            Some(key) => out.extend(key.iter()),
            None => out.extend([0; 32]),
        }
        emit_endpoint(self.endpoint, out);
        out.extend(self.keepalive_seconds.unwrap_or(0).to_le_bytes());
        allowed_ips.iter().for_each(|prefix| prefix.emit(out));
        Ok(())
    }

    /// Without the bounds.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let public_key = reader.take()?;
        let [flags] = reader.take()?;
        let preshared_key = Zeroizing::new(reader.take()?);
        let endpoint = read_endpoint(reader)?;
        let keepalive = u16::from_le_bytes(reader.take()?);
        let allowed_ips = reader.all(ALLOWED_IPS_MAX, Prefix::read)?;
        Ok(Self {
            public_key,
            replace: flags & REPLACE != 0,
            preshared_key: (flags & PRESHARED_KEY != 0).then_some(preshared_key),
            endpoint,
            keepalive_seconds: (flags & KEEPALIVE != 0).then_some(keepalive),
            allowed_ips: (flags & ALLOWED_IPS != 0).then_some(allowed_ips),
        })
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

impl PeerFigures {
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.public_key);
        emit_endpoint(self.endpoint, out);
        out.extend(self.last_handshake.as_secs().to_le_bytes());
        out.extend(self.last_handshake.subsec_nanos().to_le_bytes());
        out.extend(self.rx_bytes.to_le_bytes());
        out.extend(self.tx_bytes.to_le_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let public_key = reader.take()?;
        let endpoint = read_endpoint(reader)?;
        let seconds = u64::from_le_bytes(reader.take()?);
        let nanoseconds = u32::from_le_bytes(reader.take()?);
        // More would be another form of one second more.
        if nanoseconds >= 1_000_000_000 {
            return Err(Reason::Malformed.into());
        }
        Ok(Self {
            public_key,
            endpoint,
            last_handshake: Duration::new(seconds, nanoseconds),
            rx_bytes: u64::from_le_bytes(reader.take()?),
            tx_bytes: u64::from_le_bytes(reader.take()?),
        })
    }
}

/// All but the flow label, which nobody sets.
fn emit_endpoint(endpoint: Option<SocketAddr>, out: &mut Vec<u8>) {
    emit_address(endpoint.map(|endpoint| endpoint.ip()), out);
    out.extend(endpoint.map_or(0, |endpoint| endpoint.port()).to_le_bytes());
    let scope = match endpoint {
        Some(SocketAddr::V6(endpoint)) => endpoint.scope_id(),
        _ => 0,
    };
    out.extend(scope.to_le_bytes());
}

fn read_endpoint(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, Refusal> {
    let address = read_address(reader)?;
    let port = u16::from_le_bytes(reader.take()?);
    let scope = u32::from_le_bytes(reader.take()?);
    Ok(address.map(|address| match address {
        IpAddr::V4(address) => (address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
    }))
}
