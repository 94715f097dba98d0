//! An interface as a client may ask for it: its name, addresses and routes.
//!
//! Owns the private ranges, so that no client takes over a route to the internet.

use super::fields::{key, list, parse};
use super::{Key, Reason, Refusal};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Addresses of one interface, at most.
pub const ADDRESSES_MAX: usize = 8;
/// Routes of one interface, at most.
pub const ROUTES_MAX: usize = 64;
/// How much an interface may be limited to: 8 kbit/s to 1 Tbit/s.
pub const RATE_BITS: std::ops::RangeInclusive<u64> = 8_000..=1_000_000_000_000;
/// The smallest MTU: that of IPv6.
pub const MTU_BYTES_MIN: u16 = 1280;
/// The start of every name.
pub const NAME_PREFIX: &str = "wm";

const NAME_BYTES_MAX: usize = 15;

/// The name of an interface: `wm`, then 1 to 13 of `a-z0-9-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`Reason::Name`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let rest = text.strip_prefix(NAME_PREFIX).unwrap_or("");
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if rest.is_empty() || text.len() > NAME_BYTES_MAX || !rest.bytes().all(plain) {
            return Err(Reason::Name.into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address with the length of its network, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Leading bits that are the network's.
    pub bits: u8,
}

const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];
/// Addresses of nodes and of their control protocol.
const OVERLAY: &str = "fd77:6d00::/24";

impl Prefix {
    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let bits = self.bits.min(other.bits);
        self.address.is_ipv4() == other.address.is_ipv4()
            && (self.left_aligned() ^ other.left_aligned()).leading_zeros() >= bits.into()
    }

    /// Its address as a number whose first bit is the address's.
    fn left_aligned(&self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => address.into(),
        }
    }

    /// Within a range that is not the internet's.
    fn check_private(&self) -> Result<(), Refusal> {
        let bits_max = if self.address.is_ipv4() { 32 } else { 128 };
        for range in PRIVATE {
            let range: Self = range.parse().expect("a constant");
            if (range.bits..=bits_max).contains(&self.bits) && range.overlaps(self) {
                return Ok(());
            }
        }
        Err(Refusal::with(Reason::NotPrivate, self))
    }

    /// That, and no bit is behind the network.
    pub(super) fn check_network(&self) -> Result<(), Refusal> {
        self.check_private()?;
        match self.left_aligned().checked_shl(self.bits.into()) {
            None | Some(0) => Ok(()),
            Some(_) => Err(Refusal::with(Reason::NoNetwork, self)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Prefix {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (address, bits) = text.split_once('/').ok_or(Reason::Malformed)?;
        let (address, bits) = (parse(address)?, parse(bits)?);
        Ok(Self { address, bits })
    }
}

/// Whether an address is one of nodes.
pub fn in_overlay(address: IpAddr) -> bool {
    let overlay: Prefix = OVERLAY.parse().expect("a constant");
    overlay.overlaps(&Prefix { address, bits: 128 })
}

/// An interface to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: Name,
    /// Largest packet, from [`MTU_BYTES_MIN`].
    pub mtu_bytes: u16,
    /// Our addresses, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Prefix>,
    /// Networks that are reached through it, at most [`ROUTES_MAX`].
    pub routes: Vec<Prefix>,
}

impl Interface {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.addresses.len() > ADDRESSES_MAX || self.routes.len() > ROUTES_MAX {
            return Err(Reason::Malformed.into());
        }
        if self.mtu_bytes < MTU_BYTES_MIN {
            return Err(Reason::Mtu.into());
        }
        self.addresses.iter().try_for_each(Prefix::check_private)?;
        self.routes.iter().try_for_each(Prefix::check_network)
    }

    pub(super) fn read([name, mtu, addresses, routes]: [&str; 4]) -> Result<Self, Refusal> {
        let interface = Self {
            name: Name::parse(name)?,
            mtu_bytes: parse(mtu)?,
            addresses: list(addresses)?,
            routes: list(routes)?,
        };
        interface.check().map(|()| interface)
    }
}

/// What an interface of the kernel's WireGuard has besides.
#[derive(Clone, PartialEq, Eq)]
pub struct WireguardSettings {
    /// Its secret key.
    pub private_key: Zeroizing<Key>,
    /// Its UDP port; 0 is any free one. Those below 1024 are the system's.
    pub listen_port: u16,
    /// Bits per second that it may send, by class; within [`RATE_BITS`]. None is no limit.
    pub rate_bits: Option<u64>,
}

impl WireguardSettings {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        match (self.listen_port, self.rate_bits) {
            (1..1024, _) => Err(Refusal::with(Reason::Port, self.listen_port)),
            (_, Some(rate)) if !RATE_BITS.contains(&rate) => Err(Refusal::with(Reason::Rate, rate)),
            _ => Ok(()),
        }
    }

    pub(super) fn read(fields: &[&str]) -> Result<Option<Self>, Refusal> {
        let (secret, port, rate_bits) = match fields {
            [] => return Ok(None),
            [secret, port] => (secret, port, None),
            [secret, port, rate] => (secret, port, Some(parse(rate)?)),
            _ => return Err(Reason::Malformed.into()),
        };
        let settings = Self {
            private_key: Zeroizing::new(key(secret)?),
            listen_port: parse(port)?,
            rate_bits,
        };
        settings.check().map(|()| Some(settings))
    }
}
