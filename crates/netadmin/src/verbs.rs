//! The verbs of the helper and its replies, byte by byte.
//!
//! Owns what a client may ask for: names, sizes, address ranges. A request that parses is within
//! these bounds, and has exactly one form. It never does I/O and keeps no state.
//!
//! One message is one packet of a Unix `SOCK_SEQPACKET` socket; numbers are little-endian:
//!
//! ```text
//! request  version = 1 | verb u8 | length u16 | name 16 | mtu u16 | addresses u8 | routes u8 | prefix 18 ...
//! reply    version = 1 | status u8 | length u16 | number i32 | step u8 | prefix 18 | 0 5
//! prefix   family u8 (4, 6; 0: none) | bits u8 | address 16 (IPv4: 4 and zeros)
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The version of this format.
pub const VERSION: u8 = 1;
/// Addresses of one interface, at most.
pub const ADDRESSES_MAX: usize = 8;
/// Routes of one interface, at most.
pub const ROUTES_MAX: usize = 64;
/// Bytes of the longest request.
pub const REQUEST_BYTES_MAX: usize = HEADER_BYTES + (ADDRESSES_MAX + ROUTES_MAX) * PREFIX_BYTES;
/// Bytes of every reply.
pub const REPLY_BYTES: usize = 32;
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
    /// [`Refusal::Name`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let rest = text.strip_prefix(NAME_PREFIX).unwrap_or("");
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if rest.is_empty() || text.len() > NAME_BYTES_MAX || !rest.bytes().all(plain) {
            return Err(Refusal::Name);
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
    /// [`Refusal::Version`], [`Refusal::Malformed`], or what is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.first().is_some_and(|&version| version != VERSION) {
            return Err(Refusal::Version);
        }
        let interface = Self::read(bytes).ok_or(Refusal::Malformed)??;
        let request = Self::MakeTun(interface);
        // One request has one form: whatever else is in the bytes does not come back.
        match request.emit()? == bytes {
            true => Ok(request),
            false => Err(Refusal::Malformed),
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
            return Err(Refusal::Malformed);
        }
        if self.mtu_bytes < MTU_BYTES_MIN {
            return Err(Refusal::Mtu);
        }
        for prefix in self.addresses.iter().chain(&self.routes) {
            if !prefix.is_private() {
                return Err(Refusal::NotPrivate(*prefix));
            }
        }
        match self.routes.iter().find(|route| !route.is_network()) {
            Some(route) => Err(Refusal::NoNetwork(*route)),
            None => Ok(()),
        }
    }
}

/// What the helper was doing when the system refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the interfaces, addresses and routes that are there.
    Look = 1,
    /// Making the device.
    Device = 2,
    /// Marking it as the helper's.
    Mark = 3,
    /// Loading the filter table.
    Filter = 4,
    /// Setting the MTU.
    Mtu = 5,
    /// Adding an address.
    Address = 6,
    /// Setting it up.
    Up = 7,
    /// Adding a route.
    Route = 8,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Look,
        Self::Device,
        Self::Mark,
        Self::Filter,
        Self::Mtu,
        Self::Address,
        Self::Up,
        Self::Route,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Look => "read the interfaces, addresses and routes of the host",
            Self::Device => "make the device (/dev/net/tun)",
            Self::Mark => "mark the interface",
            Self::Filter => "load the filter table (nftables)",
            Self::Mtu => "set the MTU",
            Self::Address => "add an address",
            Self::Up => "set the interface up",
            Self::Route => "add a route",
        }
    }
}

/// Why the helper did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is of no known form.
    Malformed,
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
    /// This is not within a private range.
    NotPrivate(Prefix),
    /// This route has bits behind its network.
    NoNetwork(Prefix),
    /// The host has this address or route already, and the wanted ones overlap it.
    Overlap(Prefix),
    /// The system refused, with this error number.
    System(Step, i32),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Malformed => 1,
            Self::Version => 2,
            Self::Foreign => 3,
            Self::Full => 4,
            Self::Second => 5,
            Self::Name => 6,
            Self::NameInUse => 7,
            Self::Mtu => 8,
            Self::NotPrivate(_) => 9,
            Self::NoNetwork(_) => 10,
            Self::Overlap(_) => 11,
            Self::System(..) => 12,
        }
    }

    fn of(code: u8, prefix: Option<Prefix>, step: u8, number: i32) -> Option<Self> {
        Some(match code {
            1 => Self::Malformed,
            2 => Self::Version,
            3 => Self::Foreign,
            4 => Self::Full,
            5 => Self::Second,
            6 => Self::Name,
            7 => Self::NameInUse,
            8 => Self::Mtu,
            9 => Self::NotPrivate(prefix?),
            10 => Self::NoNetwork(prefix?),
            11 => Self::Overlap(prefix?),
            12 => {
                let step = Step::ALL.into_iter().find(|&known| known as u8 == step);
                Self::System(step?, number)
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the request is malformed"),
            Self::Version => f.write_str("the helper is of another version than this program"),
            Self::Foreign => f.write_str("this user is not in the helper's group"),
            Self::Full => f.write_str("the helper has as many clients as it takes"),
            Self::Second => f.write_str("this connection has its interface already"),
            Self::Name => f.write_str("an interface is named wm and 1 to 13 of a-z, 0-9, -"),
            Self::NameInUse => f.write_str("the interface name is in use"),
            Self::Mtu => write!(f, "the MTU is below {MTU_BYTES_MIN}"),
            Self::NotPrivate(prefix) => write!(f, "{prefix} is in no private range"),
            Self::NoNetwork(prefix) => write!(f, "{prefix} has bits behind its network"),
            Self::Overlap(prefix) => write!(f, "it overlaps {prefix}, which this host has already"),
            Self::System(step, number) => {
                let error = io::Error::from_raw_os_error(*number);
                write!(f, "cannot {}: {error}", step.words())
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// The helper's answer: the index of the interface, with the descriptor beside it, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply(pub Result<u32, Refusal>);

impl Reply {
    /// The bytes of the reply.
    pub fn emit(&self) -> [u8; REPLY_BYTES] {
        let (code, number, step, prefix) = match self.0 {
            Ok(index) => (0, index.cast_signed(), 0, None),
            Err(Refusal::System(step, number)) => (12, number, step as u8, None),
            Err(
                refusal @ (Refusal::NotPrivate(prefix)
                | Refusal::NoNetwork(prefix)
                | Refusal::Overlap(prefix)),
            ) => (refusal.code(), 0, 0, Some(prefix)),
            Err(refusal) => (refusal.code(), 0, 0, None),
        };
        let mut out = vec![VERSION, code, REPLY_BYTES as u8, 0];
        out.extend(number.to_le_bytes());
        out.push(step);
        if let Some(prefix) = prefix {
            prefix.emit(&mut out);
        }
        let mut bytes = [0; REPLY_BYTES];
        bytes[..out.len()].copy_from_slice(&out);
        bytes
    }

    /// Reads a reply; `None` is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; REPLY_BYTES] = bytes.try_into().ok()?;
        let number = i32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let prefix = Prefix::parse(fixed[9..].first_chunk()?);
        let reply = Self(match fixed[1] {
            0 => Ok(number.cast_unsigned()),
            code => Err(Refusal::of(code, prefix, fixed[8], number)?),
        });
        (reply.emit() == *fixed).then_some(reply)
    }
}
