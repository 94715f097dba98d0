//! The device: made or taken over, read and written without waiting.
//!
//! Owns its descriptor and what the kernel and we leave to each other. It never looks into a
//! packet. Linux: `Documentation/networking/tuntap.rst`.

use crate::arrival::Arrival;
use crate::error::TunError;
use crate::kernel::{self, Name};
use crate::vnet;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::ffi::{c_int, c_uint};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const DRIVER: &str = "/dev/net/tun";

/// Checksums left to us, TCP super-packets of both versions, also those with ECN.
const TCP_OFFLOADS: c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// UDP super-packets: Linux 6.2.
const UDP_OFFLOADS: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Packets that wait in the device for us, as with the kernel's WireGuard. At the driver's own 500,
/// 100,000 small packets a second are lost whenever we do not run for 5 ms.
const QUEUE_PACKETS: c_int = 1000;

/// Of which protocols super-packets are exchanged with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP.
    pub tcp: bool,
    /// UDP; since Linux 6.2.
    pub udp: bool,
}

/// What became of a packet for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// The device is down, or there is no memory.
    No,
    /// The kernel finds its headers wrong.
    Refused,
}

/// A TUN device.
///
/// One that was made here goes when this is dropped.
#[derive(Debug)]
pub struct Tun {
    fd: AsyncFd<OwnedFd>,
    kernel_name: Name,
    name: String,
    has_header: bool,
    offloads: Offloads,
}

impl Tun {
    /// Makes a device, or joins a persistent one that nobody uses. Without a name the kernel
    /// chooses one. Needs `CAP_NET_ADMIN` (or a persistent device of this user), and a tokio
    /// runtime around the caller.
    ///
    /// # Errors
    ///
    /// [`TunError`].
    pub fn create(name: Option<&str>) -> Result<Self, TunError> {
        let kernel_name = name.map_or(Ok(Name::default()), kernel_name)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(DRIVER, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => TunError::NoDriver,
            Errno::ACCESS | Errno::PERM => TunError::DriverClosed,
            other => TunError::Os(other.into()),
        })?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let made = kernel::set_interface(&fd, kernel_name, flags).map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => TunError::NotPermitted,
            Errno::BUSY | Errno::INVAL | Errno::EXIST => TunError::NameTaken,
            other => TunError::Os(other.into()),
        })?;
        // The owner of a persistent device may not; its queue is as long as it was made.
        let _ = kernel::set_queue_len(any_socket().map_err(os)?, made, QUEUE_PACKETS);
        Self::from_fd(fd)
    }

    /// Takes the descriptor of a device that somebody else has made, and makes it non-blocking.
    /// Without `IFF_VNET_HDR` it works too, one packet per call. Needs a tokio runtime around the
    /// caller, and no privilege.
    ///
    /// # Errors
    ///
    /// [`TunError::NotTun`], [`TunError::NoRuntime`], [`TunError::Os`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self, TunError> {
        let (kernel_name, flags) = kernel::interface(&fd).map_err(|_| TunError::NotTun)?;
        if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
            return Err(TunError::NotTun);
        }
        rustix::io::ioctl_fionbio(&fd, true).map_err(os)?;
        let has_header = flags & libc::IFF_VNET_HDR != 0;
        let mut offloads = Offloads::default();
        if has_header {
            // Whoever made it may have chosen a longer one.
            kernel::set_header_len(&fd, vnet::LEN as c_int).map_err(os)?;
            offloads.udp = kernel::set_offload(&fd, TCP_OFFLOADS | UDP_OFFLOADS).is_ok();
            offloads.tcp = offloads.udp || kernel::set_offload(&fd, TCP_OFFLOADS).is_ok();
        } else {
            // Without the header we could not know what is left to us.
            kernel::set_offload(&fd, 0).map_err(os)?;
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(TunError::NoRuntime);
        }
        let name = kernel_name.split(|byte| *byte == 0).next();
        Ok(Self {
            name: String::from_utf8_lossy(name.unwrap_or_default()).into_owned(),
            fd: kernel::watch(fd).map_err(TunError::Os)?,
            kernel_name,
            has_header,
            offloads,
        })
    }

    /// Whether the device is there still, in whichever network namespace.
    #[must_use]
    pub fn is_there(&self) -> bool {
        kernel::interface(self.fd.get_ref()).is_ok()
    }

    /// Another handle of the same device: each packet of the host goes to one of them. The device
    /// goes with the last one.
    ///
    /// # Errors
    ///
    /// [`TunError::Os`], [`TunError::NoRuntime`].
    pub fn try_clone(&self) -> Result<Self, TunError> {
        Self::from_fd(self.fd.get_ref().try_clone().map_err(TunError::Os)?)
    }

    /// The interface's name, when it was made or taken over.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of which protocols super-packets are exchanged with the host.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Sets the largest packet that the host sends, in bytes; needs `CAP_NET_ADMIN`. As
    /// [`Self::mtu`] and [`Self::up`], it finds the interface by its name and so must be called in
    /// the interface's network namespace.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn set_mtu(&self, mtu_bytes: u16) -> io::Result<()> {
        Ok(kernel::set_mtu(
            any_socket()?,
            self.kernel_name,
            mtu_bytes.into(),
        )?)
    }

    /// The largest packet that the host sends, in bytes.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn mtu(&self) -> io::Result<u16> {
        let mtu = kernel::mtu(any_socket()?, self.kernel_name)?;
        // The driver allows 65,535.
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Brings the interface up; needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn up(&self) -> io::Result<()> {
        let socket = any_socket()?;
        let flags = kernel::flags(&socket, self.kernel_name)?;
        Ok(kernel::set_flags(
            socket,
            self.kernel_name,
            flags | libc::IFF_UP,
        )?)
    }

    /// Ready when [`Self::try_recv`] is worth a call.
    ///
    /// # Errors
    ///
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    /// Ready when the device takes packets, which is nearly always.
    ///
    /// # Errors
    ///
    /// When the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.fd.writable().await.map(drop)
    }

    /// Takes one packet or super-packet of the host, with one system call. What was in `arrival`
    /// is gone, also after an error.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn try_recv(&self, arrival: &mut Arrival) -> io::Result<()> {
        self.fd.try_io(Interest::READABLE, |fd| {
            arrival.fill(self.has_header, |buffer| {
                Ok(rustix::io::retry_on_intr(|| {
                    rustix::io::read(fd, &mut *buffer)
                })?)
            })
        })
    }

    /// Whether packets have a header in front.
    pub(crate) fn has_header(&self) -> bool {
        self.has_header
    }

    /// Gives the host one packet or super-packet.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> Taken {
        match rustix::io::retry_on_intr(|| rustix::io::writev(self.fd.get_ref(), parts)) {
            Ok(_) => Taken::Yes,
            Err(Errno::INVAL) => Taken::Refused,
            Err(_) => Taken::No,
        }
    }
}

/// To pass the device to another process.
impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

fn os(error: Errno) -> TunError {
    TunError::Os(error.into())
}

/// The ioctls of interfaces go to any socket of the network namespace.
fn any_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
}

/// A name that the kernel takes as it is: it would replace a `%d` by a number.
fn kernel_name(name: &str) -> Result<Name, TunError> {
    let good = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    if name.is_empty() || name == "." || name == ".." || !name.bytes().all(good) {
        return Err(TunError::BadName);
    }
    let mut kernel_name = Name::default();
    // One byte stays zero.
    let place = kernel_name[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    place
        .ok_or(TunError::BadName)?
        .copy_from_slice(name.as_bytes());
    Ok(kernel_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_change_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "wm%d",
            "a:1",
            "ä",
            "sixteen-letters-",
        ] {
            assert!(matches!(kernel_name(bad), Err(TunError::BadName)), "{bad}");
        }
        assert_eq!(
            &kernel_name("wm0").expect("good"),
            b"wm0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert!(kernel_name("fifteen-letters").is_ok());
    }

    #[tokio::test]
    async fn other_descriptors_are_refused() {
        for path in ["/dev/null", DRIVER] {
            let Ok(file) = std::fs::File::open(path) else {
                eprintln!("skipped: {path} cannot be opened here");
                continue;
            };
            assert!(
                matches!(Tun::from_fd(file.into()), Err(TunError::NotTun)),
                "{path}"
            );
        }
    }
}
