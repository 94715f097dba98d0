//! Which socket error means what, on every platform, in one place.
//!
//! Owns [`DropReason`] and the classification of `io::Error`. Never performs I/O.

use std::io::{self, ErrorKind};

#[cfg(unix)]
mod number {
    pub(super) const EIO: Option<i32> = Some(libc::EIO);
    pub(super) const EMSGSIZE: i32 = libc::EMSGSIZE;
    pub(super) const ENOBUFS: i32 = libc::ENOBUFS;
    pub(super) const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;
}

#[cfg(not(unix))]
mod number {
    //! Winsock numbers; segmentation offload never fails with an I/O error there.
    pub(super) const EIO: Option<i32> = None;
    pub(super) const EMSGSIZE: i32 = 10_040;
    pub(super) const ENOBUFS: i32 = 10_055;
    pub(super) const EAFNOSUPPORT: i32 = 10_047;
}

/// Says why datagrams to one destination were not sent; the socket itself is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// No socket of the destination's address family is open.
    NoSocket,
    /// The destination can never work: port 0, an unspecified address, a link-local IPv6 address
    /// without scope, or one that the operating system calls invalid.
    InvalidDestination,
    /// There is no route, the host or network is unreachable, or the interface is down.
    Unreachable,
    /// An earlier datagram was answered with "port unreachable".
    Refused,
    /// A local rule (firewall, missing broadcast permission) forbids it.
    NotPermitted,
    /// The datagram exceeds what the interface or the known path takes without fragmentation.
    TooLarge,
    /// The operating system has no buffers left.
    NoBuffers,
}

impl DropReason {
    /// All reasons, in the order in which [`crate::UdpCounters`] lists them.
    pub const ALL: [DropReason; 7] = [
        DropReason::NoSocket,
        DropReason::InvalidDestination,
        DropReason::Unreachable,
        DropReason::Refused,
        DropReason::NotPermitted,
        DropReason::TooLarge,
        DropReason::NoBuffers,
    ];

    /// A name for status and logs: lower case, words joined by `-`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::NoSocket => "udp-no-socket",
            DropReason::InvalidDestination => "udp-invalid-destination",
            DropReason::Unreachable => "udp-unreachable",
            DropReason::Refused => "udp-port-unreachable",
            DropReason::NotPermitted => "udp-not-permitted",
            DropReason::TooLarge => "udp-too-large",
            DropReason::NoBuffers => "udp-no-buffers",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DropReason::NoSocket => "no socket of this address family",
            DropReason::InvalidDestination => "invalid destination",
            DropReason::Unreachable => "unreachable",
            DropReason::Refused => "port unreachable",
            DropReason::NotPermitted => "not permitted",
            DropReason::TooLarge => "too large",
            DropReason::NoBuffers => "no buffers",
        })
    }
}

/// Gives the drop reason of a send error, or `None` when the socket itself failed.
pub(crate) fn drop_reason(error: &io::Error) -> Option<DropReason> {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Some(DropReason::Refused),
        ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => Some(DropReason::Unreachable),
        ErrorKind::PermissionDenied => Some(DropReason::NotPermitted),
        ErrorKind::InvalidInput => Some(DropReason::InvalidDestination),
        ErrorKind::OutOfMemory => Some(DropReason::NoBuffers),
        _ => match error.raw_os_error()? {
            number::EMSGSIZE => Some(DropReason::TooLarge),
            number::ENOBUFS => Some(DropReason::NoBuffers),
            number::EAFNOSUPPORT => Some(DropReason::NoSocket),
            _ => None,
        },
    }
}

/// The error of a datagram that is longer than the way out allows.
#[cfg(feature = "virtual")]
pub(crate) fn too_large() -> io::Error {
    io::Error::from_raw_os_error(number::EMSGSIZE)
}

/// Whether a pinned source address may be what the operating system objects to.
///
/// Linux reports a source that is no longer local as EINVAL or, in later versions, as ENETUNREACH;
/// others as EADDRNOTAVAIL.
pub(crate) fn blames_source(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AddrNotAvailable | ErrorKind::InvalidInput | ErrorKind::NetworkUnreachable
    )
}

/// Whether segmentation offload may be what the operating system or a driver objects to.
pub(crate) fn blames_offload(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidInput
        || (number::EIO.is_some() && error.raw_os_error() == number::EIO)
}

/// Whether a receive error reports the fate of an earlier send and not of the socket.
pub(crate) fn is_transient_on_receive(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied
            | ErrorKind::Interrupted
            | ErrorKind::OutOfMemory
    ) || matches!(
        error.raw_os_error(),
        Some(number::EMSGSIZE | number::ENOBUFS)
    )
}

/// Whether a bind error says that the host lacks this address family altogether.
pub(crate) fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AddrNotAvailable | ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(number::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_follows_the_order_of_all() {
        for (position, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
    }

    #[cfg(unix)]
    #[test]
    fn unix_errors_have_the_intended_reason() {
        let cases = [
            (libc::ECONNREFUSED, Some(DropReason::Refused)),
            (libc::ENETUNREACH, Some(DropReason::Unreachable)),
            (libc::EHOSTUNREACH, Some(DropReason::Unreachable)),
            (libc::ENETDOWN, Some(DropReason::Unreachable)),
            (libc::EADDRNOTAVAIL, Some(DropReason::Unreachable)),
            (libc::EPERM, Some(DropReason::NotPermitted)),
            (libc::EACCES, Some(DropReason::NotPermitted)),
            (libc::EMSGSIZE, Some(DropReason::TooLarge)),
            (libc::ENOBUFS, Some(DropReason::NoBuffers)),
            (libc::ENOMEM, Some(DropReason::NoBuffers)),
            (libc::EINVAL, Some(DropReason::InvalidDestination)),
            (libc::EAFNOSUPPORT, Some(DropReason::NoSocket)),
            (libc::EBADF, None),
            (libc::ENOTSOCK, None),
            (libc::EPIPE, None),
            (libc::EIO, None),
        ];
        for (number, reason) in cases {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(drop_reason(&error), reason, "{error}");
        }
        assert!(blames_offload(&io::Error::from_raw_os_error(libc::EIO)));
        assert!(blames_offload(&io::Error::from_raw_os_error(libc::EINVAL)));
        assert!(!blames_offload(&io::Error::from_raw_os_error(
            libc::EMSGSIZE
        )));
        assert!(blames_source(&io::Error::from_raw_os_error(
            libc::EADDRNOTAVAIL
        )));
        assert!(blames_source(&io::Error::from_raw_os_error(
            libc::ENETUNREACH
        )));
        assert!(!blames_source(&io::Error::from_raw_os_error(
            libc::EMSGSIZE
        )));
        assert!(is_transient_on_receive(&io::Error::from_raw_os_error(
            libc::ECONNREFUSED
        )));
        assert!(!is_transient_on_receive(&io::Error::from_raw_os_error(
            libc::EBADF
        )));
        assert!(is_family_missing(&io::Error::from_raw_os_error(
            libc::EAFNOSUPPORT
        )));
        assert!(!is_family_missing(&io::Error::from_raw_os_error(
            libc::EADDRINUSE
        )));
    }
}
