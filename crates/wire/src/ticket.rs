//! Tickets: all that a person must hand over so that another node can connect.
//!
//! Owns the layout of a ticket and its text. It never resolves, connects or stores anything.
//! Parsing allocates at most what the limits below allow. docs/spec.md, tickets.
//!
//! The text is `wm` and the base32 (RFC 4648 alphabet, lower case, no padding) of:
//!
//! ```text
//! bytes  content
//! 1      version, 1
//! 1      flags: bit 0 a network id follows; bit 1 a secret follows; the others are zero
//! 32     node id
//! 32     network id; absent for the network with the empty name
//! 1      number of endpoints, at most 16, then the endpoints
//! 1      number of relays, at most 8, then the relays, which are endpoints too
//! 16     secret, if flagged
//! 4      checksum: the first 4 bytes of BLAKE2s-256 of all bytes before it
//! ```
//!
//! An endpoint is a kind byte, an address and a port of 2 bytes, big-endian and not zero. The
//! address is 4 bytes for kind 4 (IPv4), 16 bytes for kind 6 (IPv6), and for kind 1 (host name)
//! a length byte and that many bytes of lower-case ASCII.
//!
//! A reader takes upper case and white space anywhere. There is one text for each ticket:
//! readers refuse what a writer does not write. Later versions keep `wm`, the version byte and
//! the checksum at the end, so that an old program can tell a newer ticket from a damaged one.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, SocketAddr};
use core::str::{self, FromStr};

use blake2::{Blake2s256, Digest};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::address::NetworkId;
use crate::base32::{self, Base32Error};
use crate::endpoint::{Endpoint, HOST_NAME_LEN_MAX, HostName};
use crate::node_id::{InvalidNodeId, NodeId};

/// The most endpoints in a ticket.
pub const ENDPOINTS_MAX: usize = 16;

/// The most relays in a ticket.
pub const RELAYS_MAX: usize = 8;

const PREFIX: [char; 2] = ['w', 'm'];
const VERSION: u8 = 1;
const FLAG_NETWORK: u8 = 1;
const FLAG_SECRET: u8 = 2;
const KIND_HOST: u8 = 1;
const KIND_IPV4: u8 = 4;
const KIND_IPV6: u8 = 6;
const CHECKSUM_LEN: usize = 4;
const SECRET_LEN: usize = 16;

/// The longest ticket in bytes: every list full of the longest host names.
const LEN_MAX: usize = 2
    + NodeId::LEN
    + NetworkId::LEN
    + 2
    + (ENDPOINTS_MAX + RELAYS_MAX) * (2 + HOST_NAME_LEN_MAX + 2)
    + SECRET_LEN
    + CHECKSUM_LEN;

/// How to reach one node.
///
/// Its text, from `Display`, contains the secret, because a person hands it over; `Debug` hides
/// the secret. `Display` writes the first 16 endpoints and 8 relays that have a port; scope
/// and flow label of an IPv6 address mean nothing to others and are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whom to connect to.
    pub node_id: NodeId,
    /// The network that the node is in.
    pub network: NetworkId,
    /// Where it may be reached, best first.
    pub endpoints: Vec<Endpoint>,
    /// Who forwards to it, best first.
    pub relays: Vec<Endpoint>,
    /// What to show inside the tunnel to be let in.
    pub secret: Option<TicketSecret>,
}

/// The secret in a ticket: 16 bytes, wiped on drop, printed by no `Debug`, compared in constant
/// time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TicketSecret([u8; SECRET_LEN]);

/// Why a text is not a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin with `wm`.
    NotATicket,
    /// The character at this index of the text cannot be in a ticket.
    Character(usize),
    /// It is longer than any ticket.
    TooLong,
    /// The end is missing.
    Truncated,
    /// The checksum does not fit: some characters are wrong.
    Damaged,
    /// It is undamaged, but of this version, which this program does not know.
    UnknownVersion(u8),
    /// It is undamaged, but its public key is not valid.
    NodeId(InvalidNodeId),
    /// It is undamaged, but no writer of this version makes it.
    Layout(LayoutError),
}

/// What breaks the layout of an undamaged ticket; the program that made it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A flag has no meaning in this version.
    UnknownFlag,
    /// The default network is written out.
    DefaultNetwork,
    /// There are more than 16 endpoints.
    TooManyEndpoints,
    /// There are more than 8 relays.
    TooManyRelays,
    /// An endpoint has this unknown kind.
    EndpointKind(u8),
    /// A host name is not valid, or not in lower case.
    HostName,
    /// A port is zero.
    PortZero,
    /// There are bytes between the last field and the checksum.
    ExtraBytes,
}

impl Ticket {
    /// Makes a ticket for a node in the default network, without endpoints, relays and secret.
    #[must_use]
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            network: NetworkId::default(),
            endpoints: Vec::new(),
            relays: Vec::new(),
            secret: None,
        }
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // The full length at once: growing would leave a copy of the secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(LEN_MAX));
        let network = (self.network != NetworkId::default()).then_some(&self.network);
        let flags = if network.is_some() { FLAG_NETWORK } else { 0 }
            | if self.secret.is_some() {
                FLAG_SECRET
            } else {
                0
            };
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(self.node_id.as_bytes());
        if let Some(network) = network {
            out.extend_from_slice(network.as_bytes());
        }
        emit_endpoints(&mut out, &self.endpoints, ENDPOINTS_MAX);
        emit_endpoints(&mut out, &self.relays, RELAYS_MAX);
        if let Some(secret) = &self.secret {
            out.extend_from_slice(secret.as_bytes());
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Reads the fields at the front of `bytes`; returns the number of bytes behind them too.
    fn parse_fields(bytes: &[u8]) -> Result<(Self, usize), TicketError> {
        let mut reader = Reader(bytes);
        let [version, flags] = *reader.array()?;
        if version != VERSION {
            return Err(TicketError::UnknownVersion(version));
        }
        if flags & !(FLAG_NETWORK | FLAG_SECRET) != 0 {
            return Err(TicketError::Layout(LayoutError::UnknownFlag));
        }
        let node_id = NodeId::from_bytes(reader.array()?).map_err(TicketError::NodeId)?;
        let mut network = NetworkId::default();
        if flags & FLAG_NETWORK != 0 {
            let written = NetworkId::from_bytes(*reader.array()?);
            if written == network {
                return Err(TicketError::Layout(LayoutError::DefaultNetwork));
            }
            network = written;
        }
        let endpoints = reader.endpoints(ENDPOINTS_MAX, LayoutError::TooManyEndpoints)?;
        let relays = reader.endpoints(RELAYS_MAX, LayoutError::TooManyRelays)?;
        let secret = match flags & FLAG_SECRET {
            0 => None,
            _ => Some(TicketSecret(*reader.array()?)),
        };
        Ok((
            Self {
                node_id,
                network,
                endpoints,
                relays,
                secret,
            },
            reader.0.len(),
        ))
    }
}

impl TicketSecret {
    /// Takes the 16 bytes; the caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Lends the 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

impl PartialEq for TicketSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TicketSecret {}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PREFIX
            .iter()
            .try_for_each(|character| f.write_char(*character))?;
        let mut result = Ok(());
        base32::encode(&self.to_bytes(), |character| {
            result = result.and_then(|()| f.write_char(character));
        });
        result
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let visible = || text.chars().filter(|character| !character.is_whitespace());
        let prefix = visible()
            .take(PREFIX.len())
            .map(|character| character.to_ascii_lowercase());
        if !prefix.eq(PREFIX) {
            return Err(TicketError::NotATicket);
        }
        let mut buffer = Zeroizing::new(vec![0; (text.len() * 5 / 8 + 1).min(LEN_MAX)]);
        let decoded = base32::decode(visible().skip(PREFIX.len()), &mut buffer);
        let (len, whole) = match decoded {
            Ok(len) => (len, true),
            Err(Base32Error::Tail(len)) => (len, false),
            Err(Base32Error::TooLong) => return Err(TicketError::TooLong),
            Err(Base32Error::Character(index)) => {
                return Err(TicketError::Character(index_in(text, index + PREFIX.len())));
            }
        };
        parse_bytes(&buffer[..len], whole)
    }
}

/// Reads a ticket; `whole` is false if characters were left over, so that it cannot be sound.
fn parse_bytes(bytes: &[u8], whole: bool) -> Result<Ticket, TicketError> {
    let (body, sum) = bytes.split_last_chunk().ok_or(TicketError::Truncated)?;
    if !whole || checksum(body) != *sum {
        // The fields say how long the ticket was meant to be.
        return Err(match Ticket::parse_fields(bytes) {
            Err(TicketError::Truncated) => TicketError::Truncated,
            Ok((_, left)) if left < CHECKSUM_LEN => TicketError::Truncated,
            _ => TicketError::Damaged,
        });
    }
    match Ticket::parse_fields(body) {
        Ok((ticket, 0)) => Ok(ticket),
        Ok(_) => Err(TicketError::Layout(LayoutError::ExtraBytes)),
        Err(error) => Err(error),
    }
}

/// Returns the index in `text` of the visible character number `visible`.
fn index_in(text: &str, visible: usize) -> usize {
    let mut characters = text
        .chars()
        .enumerate()
        .filter(|(_, character)| !character.is_whitespace());
    characters.nth(visible).map_or(0, |(index, _)| index)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest: [u8; 32] = Blake2s256::digest(bytes).into();
    *digest.first_chunk().expect("a digest has 32 bytes")
}

fn emit_endpoints(out: &mut Vec<u8>, endpoints: &[Endpoint], max: usize) {
    let written = || {
        endpoints
            .iter()
            .filter(|endpoint| endpoint.port() != 0)
            .take(max)
    };
    out.push(u8::try_from(written().count()).expect("the limits fit a byte"));
    for endpoint in written() {
        match endpoint {
            Endpoint::Address(address) => match address.ip() {
                IpAddr::V4(v4) => {
                    out.push(KIND_IPV4);
                    out.extend_from_slice(&v4.octets());
                }
                IpAddr::V6(v6) => {
                    out.push(KIND_IPV6);
                    out.extend_from_slice(&v6.octets());
                }
            },
            Endpoint::Host(name, _) => {
                let name = name.as_str().as_bytes();
                let len = u8::try_from(name.len()).expect("a host name has at most 253 bytes");
                out.extend_from_slice(&[KIND_HOST, len]);
                out.extend_from_slice(name);
            }
        }
        out.extend_from_slice(&endpoint.port().to_be_bytes());
    }
}

/// Takes fields off the front of a ticket.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const LEN: usize>(&mut self) -> Result<&'a [u8; LEN], TicketError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(TicketError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }

    fn byte(&mut self) -> Result<u8, TicketError> {
        self.array().map(|[byte]| *byte)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], TicketError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(TicketError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }

    fn endpoints(
        &mut self,
        max: usize,
        too_many: LayoutError,
    ) -> Result<Vec<Endpoint>, TicketError> {
        let count = usize::from(self.byte()?);
        if count > max {
            return Err(TicketError::Layout(too_many));
        }
        (0..count).map(|_| self.endpoint()).collect()
    }

    fn endpoint(&mut self) -> Result<Endpoint, TicketError> {
        let endpoint = match self.byte()? {
            KIND_IPV4 => {
                let octets = *self.array::<4>()?;
                Endpoint::Address(SocketAddr::new(octets.into(), self.port()?))
            }
            KIND_IPV6 => {
                let octets = *self.array::<16>()?;
                Endpoint::Address(SocketAddr::new(octets.into(), self.port()?))
            }
            KIND_HOST => {
                let len = usize::from(self.byte()?);
                let bytes = self.slice(len)?;
                let name = host_name(bytes).ok_or(TicketError::Layout(LayoutError::HostName))?;
                Endpoint::Host(name, self.port()?)
            }
            kind => return Err(TicketError::Layout(LayoutError::EndpointKind(kind))),
        };
        Ok(endpoint)
    }

    fn port(&mut self) -> Result<u16, TicketError> {
        match u16::from_be_bytes(*self.array()?) {
            0 => Err(TicketError::Layout(LayoutError::PortZero)),
            port => Ok(port),
        }
    }
}

/// Reads a host name that is already in its one written form.
fn host_name(bytes: &[u8]) -> Option<HostName> {
    let text = str::from_utf8(bytes).ok()?;
    text.parse()
        .ok()
        .filter(|name: &HostName| name.as_str() == text)
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATicket => f.write_str("not a ticket: a ticket begins with \"wm\""),
            Self::Character(index) => {
                write!(f, "character {} cannot be part of a ticket", index + 1)
            }
            Self::TooLong => f.write_str("longer than any ticket"),
            Self::Truncated => f.write_str("the end of the ticket is missing"),
            Self::Damaged => {
                f.write_str("the ticket is damaged: its checksum does not fit; copy it again")
            }
            Self::UnknownVersion(version) => {
                write!(
                    f,
                    "the ticket has version {version}, this program knows only {VERSION}"
                )
            }
            Self::NodeId(error) => write!(f, "the node id in the ticket is not valid: {error}"),
            Self::Layout(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TicketError {}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFlag => f.write_str("the ticket has an unknown flag"),
            Self::DefaultNetwork => f.write_str("the ticket writes out the default network"),
            Self::TooManyEndpoints => {
                write!(f, "the ticket has more than {ENDPOINTS_MAX} endpoints")
            }
            Self::TooManyRelays => write!(f, "the ticket has more than {RELAYS_MAX} relays"),
            Self::EndpointKind(kind) => {
                write!(f, "the ticket has an endpoint of the unknown kind {kind}")
            }
            Self::HostName => f.write_str("a host name in the ticket is not valid"),
            Self::PortZero => f.write_str("an endpoint in the ticket has port 0"),
            Self::ExtraBytes => f.write_str("the ticket has bytes that belong to no field"),
        }
    }
}

impl core::error::Error for LayoutError {}
