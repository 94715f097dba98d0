//! Interfaces with their addresses and routes: route netlink, as far as Wiremesh needs it.
//!
//! Owns the bytes of these requests. It keeps no state; an interface is its index.

use crate::message::{self, Attributes, Message, Socket, attribute, join, split, text};
use std::io;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, which no other one gets.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What `ip link` shows as alias.
    pub alias: String,
}

/// The interfaces of this network namespace.
///
/// # Errors
///
/// The kernel's.
pub fn links() -> io::Result<Vec<Link>> {
    let answers = ask(GETLINK, message::DUMP, vec![0; IFINFO_BYTES])?;
    let links = answers.iter().filter_map(|answer| {
        let (head, attributes) = answer.split_first_chunk::<IFINFO_BYTES>()?;
        let value = |wanted| {
            let found = Attributes(attributes).find(|(kind, _)| *kind == wanted);
            let bytes = found.map_or(&[][..], |(_, bytes)| bytes);
            String::from_utf8_lossy(bytes)
                .trim_end_matches('\0')
                .to_owned()
        };
        Some(Link {
            index: u32::from_ne_bytes(*head[4..].first_chunk()?),
            name: value(IFLA_IFNAME),
            alias: value(IFLA_IFALIAS),
        })
    });
    Ok(links.collect())
}

/// The index of the interface with this name.
///
/// # Errors
///
/// The kernel's, or `NotFound`.
pub fn index_of(name: &str) -> io::Result<u32> {
    let found = links()?.into_iter().find(|link| link.name == name);
    found
        .map(|link| link.index)
        .ok_or(io::ErrorKind::NotFound.into())
}

/// The networks of the host: of its addresses, and its routes but those to everywhere.
///
/// # Errors
///
/// The kernel's.
pub fn networks() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut networks = Vec::new();
    for answer in ask(GETADDR, message::DUMP, vec![0; IFADDR_BYTES])? {
        networks.extend(network(&answer, IFADDR_BYTES, &[IFA_LOCAL, IFA_ADDRESS]));
    }
    for answer in ask(GETROUTE, message::DUMP, vec![0; RTMSG_BYTES])? {
        // RTN_UNICAST: not our own addresses, and not what leads nowhere on purpose.
        let leads_on = answer.get(7) == Some(&1);
        networks.extend(network(&answer, RTMSG_BYTES, &[RTA_DST]).filter(|_| leads_on));
    }
    networks.retain(|(_, bits)| *bits > 0);
    Ok(networks)
}

/// Family and bits are where `ifaddrmsg` and `rtmsg` both have them.
fn network(answer: &[u8], head: usize, kinds: &[u16]) -> Option<(IpAddr, u8)> {
    let bits = *answer.get(1)?;
    let attributes = answer.get(head..)?;
    let address = kinds
        .iter()
        .find_map(|wanted| Attributes(attributes).find(|(kind, _)| kind == wanted));
    Some((join(address?.1)?, bits))
}

/// Sets the alias, which marks an interface as somebody's.
///
/// # Errors
///
/// The kernel's.
pub fn set_alias(index: u32, alias: &str) -> io::Result<()> {
    change(SETLINK, 0, &[ifinfo(index, 0), text(IFLA_IFALIAS, alias)])
}

/// Sets the MTU, and how many packets the queue of an interface may hold.
///
/// # Errors
///
/// The kernel's.
pub fn set_limits(index: u32, mtu_bytes: u32, queue_packets: u32) -> io::Result<()> {
    let mtu = attribute(IFLA_MTU, &mtu_bytes.to_ne_bytes());
    let queue = attribute(IFLA_TXQLEN, &queue_packets.to_ne_bytes());
    change(SETLINK, 0, &[ifinfo(index, 0), mtu, queue])
}

/// Sets the interface up.
///
/// # Errors
///
/// The kernel's.
pub fn set_up(index: u32) -> io::Result<()> {
    // IFF_UP
    change(SETLINK, 0, &[ifinfo(index, 1)])
}

/// Deletes the interface.
///
/// # Errors
///
/// The kernel's; it may be gone.
pub fn delete(index: u32) -> io::Result<()> {
    change(DELLINK, 0, &[ifinfo(index, 0)])
}

/// Adds an address of a network of so many bits.
///
/// # Errors
///
/// The kernel's.
pub fn add_address(index: u32, address: IpAddr, bits: u8) -> io::Result<()> {
    let (family, octets) = split(address);
    // IFA_F_NODAD: nobody else is on the link to ask.
    let head = vec![family, bits, 2, 0];
    let index = index.to_ne_bytes().to_vec();
    let attributes = [
        attribute(IFA_LOCAL, &octets),
        attribute(IFA_ADDRESS, &octets),
    ]
    .concat();
    change(
        NEWADDR,
        message::CREATE | message::EXCL,
        &[head, index, attributes],
    )
}

/// Routes a network through the interface.
///
/// # Errors
///
/// The kernel's.
pub fn add_route(index: u32, network: IpAddr, bits: u8) -> io::Result<()> {
    let (family, octets) = split(network);
    // RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK or _UNIVERSE, RTN_UNICAST
    let kind = [254, 4, if network.is_ipv4() { 253 } else { 0 }, 1];
    let head = [[family, bits, 0, 0], kind, [0; 4]].concat();
    let device = attribute(RTA_OIF, &index.to_ne_bytes());
    change(
        NEWROUTE,
        message::CREATE | message::EXCL,
        &[head, attribute(RTA_DST, &octets), device],
    )
}

fn change(kind: u16, flags: u16, parts: &[Vec<u8>]) -> io::Result<()> {
    ask(kind, flags, parts.concat()).map(drop)
}

fn ask(kind: u16, flags: u16, body: Vec<u8>) -> io::Result<Vec<Zeroizing<Vec<u8>>>> {
    let body = body.into();
    Socket::open(Socket::ROUTE)?.ask(&Message { kind, flags, body })
}

/// `struct ifinfomsg`, with flags to set.
fn ifinfo(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

// linux/rtnetlink.h, if_link.h, if_addr.h
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const IFINFO_BYTES: usize = 16;
const IFADDR_BYTES: usize = 8;
const RTMSG_BYTES: usize = 12;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_IFALIAS: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
