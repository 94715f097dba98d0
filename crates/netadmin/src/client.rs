//! Asks the helper for an interface, keeps it, and drives its peers.
//!
//! Owns the connection: the interface lives as long as it. Calls block for a moment (the helper
//! answers one client at a time); it never needs a privilege.

mod messages;

use crate::verbs::{
    FIGURES_MAX, Figures, Interface, Key, PEERS_MAX, PeerChange, REPLY_BYTES_MAX, Refusal, Reply,
    Request, WireguardSettings,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
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

/// An interface of the kernel's WireGuard that the helper made. Any thread may drive it; calls take
/// turns.
#[derive(Debug)]
pub struct Wireguard {
    lease: Lease,
    turn: Mutex<()>,
}

impl Wireguard {
    /// What keeps the interface.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Changes a peer, or makes it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. When the helper refused, nothing was changed and the interface stays.
    pub fn set_peer(&self, change: &PeerChange) -> Result<(), Error> {
        self.change(&Request::SetPeer(change.clone()))
    }

    /// Removes a peer. One that is not there is none.
    ///
    /// # Errors
    ///
    /// As with [`Wireguard::set_peer`].
    pub fn remove_peer(&self, public_key: &Key) -> Result<(), Error> {
        self.change(&Request::RemovePeer(*public_key))
    }

    /// Reads the figures of all peers, of one moment.
    ///
    /// # Errors
    ///
    /// As with [`Wireguard::set_peer`].
    pub fn figures(&self) -> Result<Figures, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Figures::default();
        // As many as all peers need, and one for a helper that goes on and on.
        for _ in 0..=PEERS_MAX.div_ceil(FIGURES_MAX) {
            let from = all.peers.len() as u16;
            match self.ask(&Request::ReadFigures(from))? {
                Reply::Figures(figures, left) => {
                    all.listen_port = figures.listen_port;
                    all.peers.extend(figures.peers);
                    if left == 0 {
                        return Ok(all);
                    }
                }
                _ => break,
            }
        }
        Err(self.end())
    }

    fn change(&self, request: &Request) -> Result<(), Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask(request)? {
            Reply::Done(_) => Ok(()),
            _ => Err(self.end()),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, Error> {
        match ask(&self.lease.socket, request) {
            Ok((reply, _)) => Ok(reply),
            Err(refused @ Error::Refused(_)) => Err(refused),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// A late answer would be taken for that of the next question.
    fn end(&self) -> Error {
        // It fails when the helper has ended.
        let _ = net::shutdown(&self.lease.socket, Shutdown::Both);
        Error::NoReply
    }
}

/// Asks for a TUN device.
///
/// # Errors
///
/// See [`Error`]; then nothing was changed.
pub fn make_tun(socket: &Path, interface: &Interface) -> Result<Tun, Error> {
    match make(socket, &Request::Make(interface.clone(), None))? {
        (lease, Some(device)) => Ok(Tun { device, lease }),
        (_, None) => Err(Error::NoReply),
    }
}

/// Asks for an interface of the kernel's WireGuard, without peers.
///
/// # Errors
///
/// See [`Error`]; then nothing was changed.
pub fn make_wireguard(
    socket: &Path,
    interface: &Interface,
    settings: WireguardSettings,
) -> Result<Wireguard, Error> {
    let request = Request::Make(interface.clone(), Some(settings));
    let (lease, _) = make(socket, &request)?;
    let turn = Mutex::new(());
    Ok(Wireguard { lease, turn })
}

/// Whether a helper listens there and answers, even if it would refuse this user.
pub fn is_there(socket: &Path) -> bool {
    // A question that it never answers otherwise to a connection without an interface.
    let question = Request::ReadFigures(0);
    let answer = connect(socket)
        .map_err(Error::from)
        .and_then(|socket| ask(&socket, &question));
    matches!(answer, Err(Error::Refused(_)))
}

fn make(path: &Path, request: &Request) -> Result<(Lease, Option<OwnedFd>), Error> {
    let socket = connect(path)?;
    match ask(&socket, request)? {
        (Reply::Done(index), device) => Ok((Lease { socket, index }, device)),
        _ => Err(Error::NoReply),
    }
}

/// One question, one answer, and the descriptor beside it.
fn ask(socket: &OwnedFd, request: &Request) -> Result<(Reply, Option<OwnedFd>), Error> {
    let request = request.emit().map_err(Error::Refused)?;
    // A helper that refuses this user may have closed already. Its reply is there all the same,
    // behind the errors that say that it did not read the request.
    let sent = net::send(socket, &request, SendFlags::NOSIGNAL);
    let received = match receive(socket) {
        Err(Errno::CONNRESET) => receive(socket),
        received => received,
    };
    let (reply, device) = received.or_else(|error| sent.and(Err(error)))?;
    match Reply::parse(&reply) {
        Some(Reply::Refused(refusal)) => Err(Error::Refused(refusal)),
        Some(reply) => Ok((reply, device)),
        None => Err(Error::NoReply),
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
