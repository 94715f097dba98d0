//! Asks the helper for an interface, and keeps it.
//!
//! Owns the connection: the interface lives as long as it. Calls block for a moment (the helper
//! answers one client at a time); it never needs a privilege.

use crate::verbs::{Interface, REPLY_BYTES_MAX, Refusal, Reply, Request};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long the helper may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A TUN device that the helper made.
#[derive(Debug)]
pub struct Tun {
    /// The device: `IFF_TUN`, `IFF_NO_PI`, `IFF_VNET_HDR`, configured and up.
    pub device: OwnedFd,
    /// Keeps it.
    pub lease: Lease,
}

/// Keeps an interface: the helper removes it, with its addresses, routes and filter table, when
/// this is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct Lease {
    socket: OwnedFd,
    index: u32,
}

impl Lease {
    /// The index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// Becomes readable when the helper ends. The interface stays until the helper is started again.
impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why there is no interface.
#[derive(Debug)]
pub enum Error {
    /// No helper listens there, or it may not be reached.
    Unreachable(io::Error),
    /// The helper refused.
    Refused(Refusal),
    /// What came back is no reply: not our helper, or it ended.
    NoReply,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot reach wiremesh-netadmin: {error}"),
            Self::Refused(refusal) => write!(f, "wiremesh-netadmin refused: {refusal}"),
            Self::NoReply => f.write_str("wiremesh-netadmin gave no answer"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::NoReply => None,
        }
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::Unreachable(error.into())
    }
}

/// Asks for a TUN device.
///
/// # Errors
///
/// See [`Error`]; then nothing was changed.
pub fn make_tun(socket: &Path, interface: &Interface) -> Result<Tun, Error> {
    let request = Request::MakeTun(interface.clone())
        .emit()
        .map_err(Error::Refused)?;
    let socket = connect(socket)?;
    // A helper that refuses this user may have closed already. Its reply is there all the same,
    // behind the errors that say that it did not read the request.
    let sent = net::send(&socket, &request, SendFlags::NOSIGNAL);
    let received = match receive(&socket) {
        Err(Errno::CONNRESET) => receive(&socket),
        received => received,
    };
    let (reply, device) = received.or_else(|error| sent.and(Err(error)))?;
    match (Reply::parse(&reply), device) {
        (Some(Reply(Ok(index))), Some(device)) => Ok(Tun {
            device,
            lease: Lease { socket, index },
        }),
        (Some(Reply(Err(refusal))), None) => Err(Error::Refused(refusal)),
        _ => Err(Error::NoReply),
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ANSWER_TIMEOUT))?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// One packet, and the first descriptor in it.
fn receive(socket: &OwnedFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = vec![0; REPLY_BYTES_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = retry_on_intr(|| net::recvmsg(socket, &mut parts, &mut control, flags))?;
    let device = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    bytes.truncate(message.bytes);
    Ok((bytes, device))
}
