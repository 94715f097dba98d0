//! The verbs of the helper and its replies, byte by byte.
//!
//! Owns what a client may ask for: names, sizes, address ranges. A request that parses is within
//! these bounds, and has exactly one form. It never does I/O and keeps no state.
//!
//! One message is one packet of a Unix `SOCK_SEQPACKET` socket; numbers are little-endian:
//!
//! ```text
//! request  version = 1 | verb u8 | length u16 | name 16 | mtu u16 | addresses u8 | routes u8 | prefix 18 ...
//! prefix   family u8 (4 or 6) | bits u8 | address 16 (IPv4: 4 and zeros)
//! made     version = 1 | 0 | length u16 | index u32
//! refused  version = 1 | reason u8 | length u16 | text
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The version of this format.
pub const VERSION: u8 = 1;
/// Addresses of one interface, at most.
pub const ADDRESSES_MAX: usize = 8;
/// Routes of one interface, at most.
pub const ROUTES_MAX: usize = 64;
/// Bytes of the longest request.
pub const REQUEST_BYTES_MAX: usize = HEADER_BYTES + (ADDRESSES_MAX + ROUTES_MAX) * PREFIX_BYTES;
/// Bytes of the longest reply.
pub const REPLY_BYTES_MAX: usize = 4 + DETAIL_BYTES_MAX;
/// Bytes of the text in a refusal, at most.
pub const DETAIL_BYTES_MAX: usize = 200;
/// The smallest MTU: that of IPv6.
pub const MTU_BYTES_MIN: u16 = 1280;
/// The start of every name.
pub const NAME_PREFIX: &str = "wm";

const HEADER_BYTES: usize = 24;
const PREFIX_BYTES: usize = 18;
const NAME_BYTES_MAX: usize = 15;
const MAKE_TUN: u8 = 1;

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

/// What a client may use: the private ranges, so that no client takes over a route to the internet.
const PRIVATE: [Prefix; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    Prefix {
        address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)),
        bits: 7,
    },
];

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Prefix {
    Prefix {
        address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        bits,
    }
}

impl Prefix {
    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let bits = u32::from(self.bits.min(other.bits));
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b))
                    .checked_shr(32 - bits.min(32))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b))
                    .checked_shr(128 - bits.min(128))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }

    fn is_private(&self) -> bool {
        let holds = |range: &Self| self.bits >= range.bits && range.overlaps(self);
        PRIVATE.iter().any(holds)
    }

    /// Whether no bit behind the network's is set.
    fn is_network(&self) -> bool {
        let bits = u32::from(self.bits);
        match self.address {
            IpAddr::V4(a) => u32::from(a).checked_shl(bits).unwrap_or(0) == 0,
            IpAddr::V6(a) => u128::from(a).checked_shl(bits).unwrap_or(0) == 0,
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let (family, octets) = match self.address {
            IpAddr::V4(a) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&a.octets());
                (4, octets)
            }
            IpAddr::V6(a) => (6, a.octets()),
        };
        out.extend([family, self.bits]);
        out.extend(octets);
    }

    fn parse(bytes: &[u8; PREFIX_BYTES]) -> Option<Self> {
        let octets: [u8; 16] = *bytes.last_chunk()?;
        let address = match bytes[0] {
            4 => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(octets)),
            _ => return None,
        };
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        (bytes[1] <= bits_max).then_some(Self {
            address,
            bits: bytes[1],
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
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

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a TUN device, with the filter table, and pass its descriptor. It goes with the
    /// connection.
    MakeTun(Interface),
}

impl Request {
    /// The bytes of the request.
    ///
    /// # Errors
    ///
    /// What the helper would refuse it for without looking at the host.
    pub fn emit(&self) -> Result<Vec<u8>, Refusal> {
        let Self::MakeTun(interface) = self;
        interface.check()?;
        let prefixes = interface.addresses.iter().chain(&interface.routes);
        let length = HEADER_BYTES + prefixes.clone().count() * PREFIX_BYTES;
        let mut out = vec![VERSION, MAKE_TUN];
        out.extend((length as u16).to_le_bytes());
        out.extend(interface.name.as_str().bytes());
        out.resize(20, 0);
        out.extend(interface.mtu_bytes.to_le_bytes());
        out.extend([
            interface.addresses.len() as u8,
            interface.routes.len() as u8,
        ]);
        prefixes.for_each(|prefix| prefix.emit(&mut out));
        Ok(out)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`Reason::Version`], [`Reason::Malformed`], or what is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.first().is_some_and(|&version| version != VERSION) {
            return Err(Reason::Version.into());
        }
        let interface = Self::read(bytes).ok_or(Reason::Malformed)??;
        let request = Self::MakeTun(interface);
        // One request has one form: whatever else is in the bytes does not come back.
        match request.emit()? == bytes {
            true => Ok(request),
            false => Err(Reason::Malformed.into()),
        }
    }

    /// Without the bounds and the form; `None` is too short, or no text.
    fn read(bytes: &[u8]) -> Option<Result<Interface, Refusal>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (prefixes, _) = rest.as_chunks::<PREFIX_BYTES>();
        let name = std::str::from_utf8(&header[4..20]).ok()?;
        let name = match Name::parse(name.trim_end_matches('\0')) {
            Ok(name) => name,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (addresses, routes) = (usize::from(header[22]), usize::from(header[23]));
        if prefixes.len() != addresses + routes {
            return None;
        }
        let mut prefixes = prefixes.iter().map(Prefix::parse);
        Some(Ok(Interface {
            name,
            mtu_bytes: u16::from_le_bytes([header[20], header[21]]),
            addresses: prefixes.by_ref().take(addresses).collect::<Option<_>>()?,
            routes: prefixes.collect::<Option<_>>()?,
        }))
    }
}

impl Interface {
    fn check(&self) -> Result<(), Refusal> {
        if self.addresses.len() > ADDRESSES_MAX || self.routes.len() > ROUTES_MAX {
            return Err(Reason::Malformed.into());
        }
        if self.mtu_bytes < MTU_BYTES_MIN {
            return Err(Reason::Mtu.into());
        }
        for prefix in self.addresses.iter().chain(&self.routes) {
            if !prefix.is_private() {
                return Err(Refusal::with(Reason::NotPrivate, prefix));
            }
        }
        match self.routes.iter().find(|route| !route.is_network()) {
            Some(route) => Err(Refusal::with(Reason::NoNetwork, route)),
            None => Ok(()),
        }
    }
}

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request is of no known form.
    Malformed = 1,
    /// The request is of another version of the helper.
    Version,
    /// The client is neither root nor in the helper's group.
    Foreign,
    /// The helper has as many clients as it takes.
    Full,
    /// The connection has its interface; another one needs another connection.
    Second,
    /// The name of the interface is not allowed.
    Name,
    /// The name is in use.
    NameInUse,
    /// The MTU is below that of IPv6.
    Mtu,
    /// An address or route is within no private range.
    NotPrivate,
    /// A route has bits behind its network.
    NoNetwork,
    /// The host has an address or route already that the wanted ones overlap.
    Overlap,
    /// The system refused.
    System,
}

const REASONS: [(Reason, &str); 12] = [
    (Reason::Malformed, "the request is malformed"),
    (
        Reason::Version,
        "helper and program are of different versions",
    ),
    (Reason::Foreign, "this user is not in the helper's group"),
    (Reason::Full, "the helper has as many clients as it takes"),
    (Reason::Second, "this connection has its interface already"),
    (
        Reason::Name,
        "an interface is named wm and 1 to 13 of a-z, 0-9, -",
    ),
    (Reason::NameInUse, "the interface name is in use"),
    (Reason::Mtu, "the MTU is below 1280"),
    (Reason::NotPrivate, "outside the private ranges"),
    (Reason::NoNetwork, "a route with bits behind its network"),
    (
        Reason::Overlap,
        "the host has this already, and the wanted overlaps it",
    ),
    (Reason::System, "the system refused"),
];

/// Why the helper did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What a program may act on.
    pub reason: Reason,
    /// What a person needs besides; may be empty, at most [`DETAIL_BYTES_MAX`].
    pub detail: String,
}

impl Refusal {
    /// With a detail.
    pub fn with(reason: Reason, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { reason, detail }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::with(reason, "")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REASONS[self.reason as usize - 1].1)?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The helper's answer: the index of the interface, with the descriptor beside it, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub Result<u32, Refusal>);

impl Reply {
    /// The bytes of the reply.
    pub fn emit(&self) -> Vec<u8> {
        let (status, body) = match &self.0 {
            Ok(index) => (0, index.to_le_bytes().to_vec()),
            Err(refusal) => (refusal.reason as u8, refusal.detail.clone().into_bytes()),
        };
        let length = ((4 + body.len()) as u16).to_le_bytes();
        [vec![VERSION, status, length[0], length[1]], body].concat()
    }

    /// Reads a reply; `None` is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<4>()?;
        let reply = Self(match head[1] {
            0 => Ok(u32::from_le_bytes(body.try_into().ok()?)),
            status => {
                let (reason, _) = *REASONS.get(usize::from(status) - 1)?;
                Err(Refusal::with(reason, std::str::from_utf8(body).ok()?))
            }
        });
        (reply.emit() == bytes).then_some(reply)
    }
}
