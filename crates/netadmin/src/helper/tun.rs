//! A TUN device: one open, one ioctl.
//!
//! Owns the `unsafe` of that ioctl. It never takes over a device that is there.

#![allow(unsafe_code)]

use rustix::fs::{CWD, Mode, OFlags};
use rustix::ioctl::{Opcode, Updater};
use std::io;
use std::os::fd::OwnedFd;

/// `_IOW('T', 202, int)`.
pub const TUNSETIFF: Opcode = 0x4004_54ca;

/// `struct ifreq` as far as this ioctl reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Makes the device; it is gone when the last copy of the descriptor is closed.
pub fn make(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::openat(CWD, "/dev/net/tun", flags, Mode::empty())?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: flags as libc::c_short,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` (40 bytes), which `Request` is.
    unsafe { rustix::ioctl::ioctl(&device, Updater::<TUNSETIFF, Request>::new(&mut request))? };
    Ok(device)
}
