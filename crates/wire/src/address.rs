//! Overlay addresses, network ids, and the ports that both ends know.
//!
//! Owns how an address follows from a node id: nothing is configured or handed out. It never
//! stores a mapping. docs/spec.md, addresses.
//!
//! An address is 128 bits, most significant first:
//!
//! ```text
//! bits 0..25    the prefix: fd77:6d00::/25 (overlay) or fd77:6d80::/25 (control)
//! bits 25..128  the first 103 bits of BLAKE2s-256(context || node id), that is, bit 7 of byte 0
//!               of the digest down to bit 1 of byte 12
//! ```
//!
//! The contexts are the ASCII bytes `wiremesh address v1` and `wiremesh control v1`, the node id
//! its 32 bytes.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use blake2::{Blake2s256, Digest};

use crate::net::IpNet;
use crate::node_id::NodeId;

/// Where all overlay addresses are: fd77:6d00::/25.
pub const OVERLAY_NET: IpNet = overlay_net(0xfd77, 0x6d00, 25);

/// Where all control addresses are: fd77:6d80::/25.
pub const CONTROL_NET: IpNet = overlay_net(0xfd77, 0x6d80, 25);

/// The overlay and the control network together: fd77:6d00::/24, one route and one filter rule.
pub const ALL_NET: IpNet = overlay_net(0xfd77, 0x6d00, 24);

/// The UDP port of the control protocol, on the control address, at both ends.
pub const CONTROL_PORT: u16 = 2707;

/// The UDP port of streams, on the overlay address, at both ends.
pub const STREAM_PORT: u16 = 2708;

/// How many bits of a digest go into an address.
const DIGEST_BITS: u32 = 103;

/// Which network a node is in: BLAKE2s-256 of `wiremesh network v1` and the network's name.
///
/// The default is the network with the empty name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId([u8; 32]);

impl NetworkId {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// Takes the 32 bytes; all values are valid.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Lends the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Default for NetworkId {
    fn default() -> Self {
        network_id("")
    }
}

impl fmt::Display for NetworkId {
    /// Writes 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the id of the network called `name`; the bytes of the name count as they are.
#[must_use]
pub fn network_id(name: &str) -> NetworkId {
    NetworkId(hash(b"wiremesh network v1", name.as_bytes()))
}

/// Returns the address of a node for streams, datagrams and the host's programs.
#[must_use]
pub fn overlay_address(node_id: &NodeId) -> Ipv6Addr {
    address_in(
        OVERLAY_NET,
        &hash(b"wiremesh address v1", node_id.as_bytes()),
    )
}

/// Returns the address of a node for the control protocol.
#[must_use]
pub fn control_address(node_id: &NodeId) -> Ipv6Addr {
    address_in(
        CONTROL_NET,
        &hash(b"wiremesh control v1", node_id.as_bytes()),
    )
}

fn hash(context: &[u8], input: &[u8]) -> [u8; 32] {
    Blake2s256::new()
        .chain_update(context)
        .chain_update(input)
        .finalize()
        .into()
}

fn address_in(net: IpNet, digest: &[u8; 32]) -> Ipv6Addr {
    let IpAddr::V6(prefix) = net.addr() else {
        unreachable!("the overlay's networks are IPv6")
    };
    let front: &[u8; 16] = digest.first_chunk().expect("a digest has 32 bytes");
    let host = u128::from_be_bytes(*front) >> (u128::BITS - DIGEST_BITS);
    Ipv6Addr::from_bits(prefix.to_bits() | host)
}

const fn overlay_net(first: u16, second: u16, prefix: u8) -> IpNet {
    match IpNet::new(
        IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)),
        prefix,
    ) {
        Ok(net) => net,
        Err(_) => panic!("a prefix of at most 128 bits"),
    }
}
