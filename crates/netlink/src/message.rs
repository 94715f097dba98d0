//! Netlink messages: emitted, sent, and their answers taken apart.
//!
//! Owns lengths, alignment and sequence numbers. It knows no family's attributes. Calls do not
//! wait: the kernel has answered when `sendmsg` returns.

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
/// The kernel's packets of a dump are at most this long.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// NLM_F_DUMP.
pub const DUMP: u16 = 0x300;
/// NLM_F_EXCL.
pub const EXCL: u16 = 0x200;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND.
pub const APPEND: u16 = 0x800;

/// A request: its type, flags, and body.
pub struct Message {
    /// Message type.
    pub kind: u16,
    /// Beside NLM_F_REQUEST and NLM_F_ACK.
    pub flags: u16,
    /// The family's header and attributes. There may be keys in it, so it is wiped.
    pub body: Zeroizing<Vec<u8>>,
}

impl Message {
    /// The whole message.
    pub fn emit(&self, sequence: u32, flags: u16) -> Zeroizing<Vec<u8>> {
        let length = HEADER_BYTES + self.body.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((self.flags | flags | REQUEST).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.body.iter());
        bytes
    }
}

/// An attribute.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds attributes. They are copied once, with what secrets are in them.
pub fn nest(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let length = 4 + attributes.iter().map(Vec::len).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend((kind | NESTED).to_ne_bytes());
    attributes
        .iter()
        .for_each(|attribute| bytes.extend(attribute));
    bytes
}

/// An attribute that holds text with its final zero.
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// An attribute that holds a number in network order.
pub fn be32(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// AF_INET or AF_INET6, and the bytes.
pub fn split(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (10, address.octets().to_vec()),
    }
}

/// The address of 4 or 16 bytes.
pub fn join(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Goes through the attributes in a body, behind its family's header; stops at the first that does not fit.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head: &[u8; 4] = self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = self.0.get(4..length)?;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// A socket to one family.
pub struct Socket(OwnedFd);

impl Socket {
    /// Interfaces, addresses, routes.
    pub const ROUTE: Option<Protocol> = None;
    /// WireGuard.
    pub const GENERIC: Option<Protocol> = Some(netlink::GENERIC);
    /// nftables.
    pub const NETFILTER: Option<Protocol> = Some(netlink::NETFILTER);

    /// Opens it.
    ///
    /// # Errors
    ///
    /// The kernel has no such family.
    pub fn open(family: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, family)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends one request; the bodies that answer it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn ask(&self, request: &Message) -> io::Result<Vec<Zeroizing<Vec<u8>>>> {
        // A dump ends by itself.
        let flags = if request.flags & DUMP == DUMP { 0 } else { ACK };
        self.send(&request.emit(0, flags))?;
        self.answers(0)
    }

    /// Sends a transaction with its begin and end: all of it happens or nothing.
    ///
    /// # Errors
    ///
    /// The first of the kernel's.
    pub fn transact(&self, all: &[Message]) -> io::Result<()> {
        // The last change is acknowledged; every one that fails says so before.
        let last = all.len().saturating_sub(2) as u32;
        let flags = |number| if number == last { ACK } else { 0 };
        let numbered = (0u32..).zip(all);
        let emit =
            |(number, message): (u32, &Message)| message.emit(number, flags(number)).to_vec();
        self.send(&numbered.flat_map(emit).collect::<Vec<_>>())?;
        self.answers(last).map(drop)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        net::sendto(&self.0, bytes, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Until the end of the dump or the acknowledgement with this number, or an error.
    fn answers(&self, awaited: u32) -> io::Result<Vec<Zeroizing<Vec<u8>>>> {
        let mut answers = Vec::new();
        let mut buffer = Zeroizing::new(vec![0; ANSWER_BYTES_MAX]);
        loop {
            let (length, _) = net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)?;
            let mut rest = &buffer[..length];
            while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
                let word =
                    |at| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let length = word(0) as usize;
                let body = rest.get(HEADER_BYTES..length).ok_or(Errno::BADMSG)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
                match word(4) as u16 {
                    ERROR | DONE => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        if code != 0 {
                            return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                        }
                        if word(8) == awaited {
                            return Ok(answers);
                        }
                    }
                    _ => answers.push(body.to_vec().into()),
                }
            }
        }
    }
}
