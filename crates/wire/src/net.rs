//! IP networks in CIDR notation: allowed IPs, and the overlay's own prefixes.
//!
//! Owns the rule that host bits are zero. It holds single networks, never a table of them.
//! RFC 4632, section 3.1; RFC 4291, section 2.3.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// An IP network: an address whose host bits are zero, and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNet {
    addr: IpAddr,
    prefix: u8,
}

/// Why something is not an IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpNetError {
    /// The part before the slash is neither an IPv4 nor an IPv6 address.
    Address,
    /// The part behind the slash is not a decimal number.
    Prefix,
    /// The prefix is longer than an address of this family, which has this many bits.
    PrefixTooLong(u8),
}

impl IpNet {
    /// Makes the network of `prefix` bits that contains `addr`; host bits become zero.
    ///
    /// # Errors
    ///
    /// [`IpNetError::PrefixTooLong`] above 32 bits in IPv4 and 128 in IPv6.
    pub const fn new(addr: IpAddr, prefix: u8) -> Result<Self, IpNetError> {
        let bits = address_bits(addr);
        if prefix > bits {
            return Err(IpNetError::PrefixTooLong(bits));
        }
        Ok(Self {
            addr: mask(addr, prefix),
            prefix,
        })
    }

    /// Makes the network of this one address.
    #[must_use]
    pub const fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            prefix: address_bits(addr),
        }
    }

    /// Returns the lowest address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Returns the length of the prefix in bits.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns whether it holds `addr`; an address of the other family is never in it.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        // The mask keeps the family, and the prefix is within that of `self`.
        self.addr.is_ipv4() == addr.is_ipv4() && mask(addr, self.prefix) == self.addr
    }

    /// Returns whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix {
            self.contains(other.addr)
        } else {
            other.contains(self.addr)
        }
    }
}

const fn address_bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Clears the bits behind the first `prefix`, which is at most the length of the address.
const fn mask(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = match u32::MAX.checked_shl(32 - prefix as u32) {
                Some(mask) => mask,
                None => 0,
            };
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = match u128::MAX.checked_shl(128 - prefix as u32) {
                Some(mask) => mask,
                None => 0,
            };
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl From<IpAddr> for IpNet {
    fn from(addr: IpAddr) -> Self {
        Self::host(addr)
    }
}

impl From<Ipv4Addr> for IpNet {
    fn from(addr: Ipv4Addr) -> Self {
        Self::host(IpAddr::V4(addr))
    }
}

impl From<Ipv6Addr> for IpNet {
    fn from(addr: Ipv6Addr) -> Self {
        Self::host(IpAddr::V6(addr))
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for IpNet {
    type Err = IpNetError;

    /// Reads `address/prefix`, or an address alone, which stands for itself. Host bits become
    /// zero, as in `wg`.
    fn from_str(text: &str) -> Result<Self, IpNetError> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| IpNetError::Address)?;
        let Some(prefix) = prefix else {
            return Ok(Self::host(addr));
        };
        // `parse` alone would take a sign.
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IpNetError::Prefix);
        }
        let prefix = prefix
            .parse()
            .map_err(|_| IpNetError::PrefixTooLong(address_bits(addr)))?;
        Self::new(addr, prefix)
    }
}

impl fmt::Display for IpNetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the network does not begin with an IP address"),
            Self::Prefix => f.write_str("the prefix length is not a decimal number"),
            Self::PrefixTooLong(bits) => write!(f, "the prefix is longer than {bits} bits"),
        }
    }
}

impl core::error::Error for IpNetError {}
