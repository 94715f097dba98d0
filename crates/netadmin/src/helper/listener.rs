//! The socket of the helper, and who is at the other end of a connection.
//!
//! Owns the rule who may connect: root, the helper's own user, and the helper's group. The file
//! permissions say the same; this holds even where they were changed.

#![allow(unsafe_code)]

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{self, Pid};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Listens, for user and group only. A socket file that nobody listens at is replaced.
pub fn listen(path: &Path) -> Result<OwnedFd, String> {
    let open = || -> Result<Option<OwnedFd>, Errno> {
        let address = SocketAddrUnix::new(path)?;
        match net::connect(&socket()?, &address) {
            Ok(()) => return Ok(None),
            Err(Errno::CONNREFUSED) if is_socket(path) => rustix::fs::unlink(path)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let listener = socket()?;
        process::umask(Mode::from_raw_mode(0o117));
        net::bind(&listener, &address)?;
        // Connections that the kernel keeps until they are accepted.
        net::listen(&listener, 16)?;
        Ok(Some(listener))
    };
    match open() {
        Ok(Some(listener)) => Ok(listener),
        Ok(None) => Err(format!("another helper listens at {}", path.display())),
        Err(error) => Err(format!("cannot listen at {}: {error}", path.display())),
    }
}

/// Whatever else is there refuses connections too, and is somebody's file.
fn is_socket(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|there| FileType::from_raw_mode(there.st_mode).is_socket())
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Who connected, as the kernel saw them at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Process.
    pub pid: Pid,
    /// Whether they may ask for anything.
    pub allowed: bool,
}

/// Asks the kernel.
pub fn peer(socket: &OwnedFd) -> Result<Peer, Errno> {
    let credentials = sockopt::socket_peercred(socket)?;
    let ours = process::getegid();
    let allowed = credentials.uid.is_root()
        || credentials.uid == process::geteuid()
        || credentials.gid == ours
        || further_groups(socket)?.contains(&ours.as_raw());
    Ok(Peer {
        uid: credentials.uid.as_raw(),
        pid: credentials.pid,
        allowed,
    })
}

/// The supplementary groups of the peer: SO_PEERGROUPS.
fn further_groups(socket: &OwnedFd) -> Result<Vec<u32>, Errno> {
    // NGROUPS_MAX of Linux.
    let mut groups = vec![0u32; 65_536];
    let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes, the size of `groups`, and corrects `bytes`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}
