//! What the kernel is asked for: the ioctls of the TUN driver and of interfaces, each as a
//! function, and to say when a device can be read.
//!
//! Owns all `unsafe` of the crate. `tun_chr_ioctl` of the kernel, netdevice(7).
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use std::ffi::{c_int, c_short, c_uint};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;

const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<c_uint>(b'T', 208);
const TUNGETIFF: Opcode = opcode::read::<c_uint>(b'T', 210);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);
const SIOCGIFFLAGS: Opcode = libc::SIOCGIFFLAGS as Opcode;
const SIOCSIFFLAGS: Opcode = libc::SIOCSIFFLAGS as Opcode;
const SIOCGIFMTU: Opcode = libc::SIOCGIFMTU as Opcode;
const SIOCSIFMTU: Opcode = libc::SIOCSIFMTU as Opcode;
const SIOCSIFTXQLEN: Opcode = libc::SIOCSIFTXQLEN as Opcode;

/// A name as the kernel has it, zeros behind it.
pub(crate) type Name = [u8; libc::IFNAMSIZ];

/// `struct ifreq`: a name and a union, which is at most 24 bytes.
#[repr(C, align(8))]
struct Request {
    name: Name,
    value: [u8; 24],
}

impl Request {
    fn new(name: Name, value: &[u8]) -> Self {
        let mut request = Self {
            name,
            value: [0; 24],
        };
        request.value[..value.len()].copy_from_slice(value);
        request
    }

    fn flags(&self) -> c_int {
        c_int::from(c_short::from_ne_bytes([self.value[0], self.value[1]]))
    }
}

/// Puts a descriptor under the watch of the runtime, which there must be: tokio's own way to say that
/// it is open for as long is `unsafe`.
///
/// # Errors
///
/// The runtime's, for example when it can watch no more.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it is open, and it is moved in: nobody else closes or
    // replaces it for as long as it is watched.
    Ok(unsafe { AsyncFd::register(fd)? })
}

/// `TUNSETIFF`: makes the device, or joins one that is there; the name that it has.
pub(crate) fn set_interface(fd: impl AsFd, name: Name, flags: c_int) -> Result<Name, Errno> {
    let mut request = Request::new(name, &(flags as c_short).to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, at most 40 bytes, which `Request` is.
    unsafe { ioctl(fd, Updater::<TUNSETIFF, Request>::new(&mut request))? };
    Ok(request.name)
}

/// `TUNGETIFF`: name and flags of the device.
pub(crate) fn interface(fd: impl AsFd) -> Result<(Name, c_int), Errno> {
    let mut request = Request::new([0; libc::IFNAMSIZ], &[]);
    // SAFETY: TUNGETIFF writes one `struct ifreq`, at most 40 bytes, which `Request` is.
    unsafe { ioctl(fd, Updater::<TUNGETIFF, Request>::new(&mut request))? };
    Ok((request.name, request.flags()))
}

/// `TUNSETOFFLOAD`: what the host may leave to us.
pub(crate) fn set_offload(fd: impl AsFd, offloads: c_uint) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes the bits themselves as its argument; there is no pointer.
    unsafe {
        ioctl(
            fd,
            IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads as usize),
        )
    }
}

/// `TUNSETVNETHDRSZ`: the length of the header in front of each packet.
pub(crate) fn set_header_len(fd: impl AsFd, bytes: c_int) -> Result<(), Errno> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(fd, Setter::<TUNSETVNETHDRSZ, c_int>::new(bytes)) }
}

/// `SIOCGIFMTU`, by a socket of any kind.
pub(crate) fn mtu(socket: impl AsFd, name: Name) -> Result<c_int, Errno> {
    let mut request = Request::new(name, &[]);
    // SAFETY: SIOCGIFMTU reads and writes one `struct ifreq`, at most 40 bytes.
    unsafe { ioctl(socket, Updater::<SIOCGIFMTU, Request>::new(&mut request))? };
    let [a, b, c, d, ..] = request.value;
    Ok(c_int::from_ne_bytes([a, b, c, d]))
}

/// `SIOCSIFMTU`.
pub(crate) fn set_mtu(socket: impl AsFd, name: Name, bytes: c_int) -> Result<(), Errno> {
    let mut request = Request::new(name, &bytes.to_ne_bytes());
    // SAFETY: SIOCSIFMTU reads one `struct ifreq`, at most 40 bytes.
    unsafe { ioctl(socket, Updater::<SIOCSIFMTU, Request>::new(&mut request)) }
}

/// `SIOCSIFTXQLEN`.
pub(crate) fn set_queue_len(socket: impl AsFd, name: Name, packets: c_int) -> Result<(), Errno> {
    let mut request = Request::new(name, &packets.to_ne_bytes());
    // SAFETY: SIOCSIFTXQLEN reads one `struct ifreq`, at most 40 bytes.
    unsafe { ioctl(socket, Updater::<SIOCSIFTXQLEN, Request>::new(&mut request)) }
}

/// `SIOCGIFFLAGS`.
pub(crate) fn flags(socket: impl AsFd, name: Name) -> Result<c_int, Errno> {
    let mut request = Request::new(name, &[]);
    // SAFETY: SIOCGIFFLAGS reads and writes one `struct ifreq`, at most 40 bytes.
    unsafe { ioctl(socket, Updater::<SIOCGIFFLAGS, Request>::new(&mut request))? };
    Ok(request.flags())
}

/// `SIOCSIFFLAGS`.
pub(crate) fn set_flags(socket: impl AsFd, name: Name, flags: c_int) -> Result<(), Errno> {
    let mut request = Request::new(name, &(flags as c_short).to_ne_bytes());
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`, at most 40 bytes.
    unsafe { ioctl(socket, Updater::<SIOCSIFFLAGS, Request>::new(&mut request)) }
}
