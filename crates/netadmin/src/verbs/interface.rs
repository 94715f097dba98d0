//! An interface as a client may ask for it: its name, addresses and routes.
//!
//! Owns the private ranges, so that no client takes over a route to the internet.

use super::{Reader, Reason, Refusal};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of one interface, at most.
pub const ADDRESSES_MAX: usize = 8;
/// Routes of one interface, at most.
pub const ROUTES_MAX: usize = 64;
/// The smallest MTU: that of IPv6.
pub const MTU_BYTES_MIN: u16 = 1280;
/// The start of every name.
pub const NAME_PREFIX: &str = "wm";
/// Bytes of a prefix.
pub const PREFIX_BYTES: usize = 18;

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

const PRIVATE: [Prefix; 5] = [
    v4(10, 0, 8),
    v4(100, 64, 10),
    v4(172, 16, 12),
    v4(192, 168, 16),
    v6(0xfc00, 0, 7),
];
/// Addresses of nodes and of their control protocol.
const OVERLAY: Prefix = v6(0xfd77, 0x6d00, 24);

const fn v4(a: u8, b: u8, bits: u8) -> Prefix {
    let address = IpAddr::V4(Ipv4Addr::new(a, b, 0, 0));
    Prefix { address, bits }
}

const fn v6(a: u16, b: u16, bits: u8) -> Prefix {
    let address = IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0));
    Prefix { address, bits }
}

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

    fn check_private(&self) -> Result<(), Refusal> {
        let holds = |range: &Self| self.bits >= range.bits && range.overlaps(self);
        match PRIVATE.iter().any(holds) {
            true => Ok(()),
            false => Err(Refusal::with(Reason::NotPrivate, self)),
        }
    }

    /// A private network, and no bit behind it.
    pub(super) fn check_network(&self) -> Result<(), Refusal> {
        self.check_private()?;
        match self.left_aligned().checked_shl(self.bits.into()) {
            None | Some(0) => Ok(()),
            Some(_) => Err(Refusal::with(Reason::NoNetwork, self)),
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        emit_address(Some(self.address), out);
        out.push(self.bits);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let address = read_address(reader)?.ok_or(Reason::Malformed)?;
        let [bits] = reader.take()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        match bits <= bits_max {
            true => Ok(Self { address, bits }),
            false => Err(Reason::Malformed.into()),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Whether an address is one of nodes.
pub fn in_overlay(address: IpAddr) -> bool {
    OVERLAY.overlaps(&Prefix { address, bits: 128 })
}

pub fn emit_address(address: Option<IpAddr>, out: &mut Vec<u8>) {
    let (family, octets) = match address {
        None => (0, [0; 16]),
        Some(IpAddr::V4(address)) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (4, octets)
        }
        Some(IpAddr::V6(address)) => (6, address.octets()),
    };
    out.push(family);
    out.extend(octets);
}

pub fn read_address(reader: &mut Reader<'_>) -> Result<Option<IpAddr>, Refusal> {
    let [family] = reader.take()?;
    let octets: [u8; 16] = reader.take()?;
    let [a, b, c, d, ..] = octets;
    match family {
        0 => Ok(None),
        4 => Ok(Some([a, b, c, d].into())),
        6 => Ok(Some(octets.into())),
        _ => Err(Reason::Malformed.into()),
    }
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
    fn check(&self) -> Result<(), Refusal> {
        if self.addresses.len() > ADDRESSES_MAX || self.routes.len() > ROUTES_MAX {
            return Err(Reason::Malformed.into());
        }
        if self.mtu_bytes < MTU_BYTES_MIN {
            return Err(Reason::Mtu.into());
        }
        self.addresses.iter().try_for_each(Prefix::check_private)?;
        self.routes.iter().try_for_each(Prefix::check_network)
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.check()?;
        let mut name = self.name.0.clone().into_bytes();
        name.resize(16, 0);
        out.extend(name);
        out.extend(self.mtu_bytes.to_le_bytes());
        out.extend([self.addresses.len() as u8, self.routes.len() as u8]);
        let prefixes = self.addresses.iter().chain(&self.routes);
        prefixes.for_each(|prefix| prefix.emit(out));
        Ok(())
    }

    /// Without the bounds.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let name: [u8; 16] = reader.take()?;
        let name = std::str::from_utf8(&name).map_err(|_| Reason::Malformed)?;
        let name = Name::parse(name.trim_end_matches('\0'))?;
        let mtu_bytes = u16::from_le_bytes(reader.take()?);
        let [addresses, routes] = reader.take()?;
        Ok(Self {
            name,
            mtu_bytes,
            addresses: reader.all(addresses.into(), Prefix::read)?,
            routes: reader.all(routes.into(), Prefix::read)?,
        })
    }
}
