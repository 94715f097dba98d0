//! Why there is no device.

use std::fmt;
use std::io;

/// Why a TUN device cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum TunError {
    /// An interface's name has 1 to 15 characters of ASCII, without spaces, `/`, `:` and `%`.
    BadName,
    /// There is no `/dev/net/tun`.
    NoDriver,
    /// This user may not open `/dev/net/tun`.
    DriverClosed,
    /// Making a device needs `CAP_NET_ADMIN`.
    NotPermitted,
    /// An interface of that name is there and is in use, or is no TUN device.
    NameTaken,
    /// The descriptor is not that of a TUN device without packet information.
    NotTun,
    /// There is no tokio runtime with I/O around the caller.
    NoRuntime,
    /// The operating system refused something else.
    Os(io::Error),
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName => {
                "not the name of an interface: 1 to 15 letters, digits, '-', '_' or '.'"
            }
            Self::NoDriver => "there is no /dev/net/tun; load the kernel's module `tun`",
            Self::DriverClosed => {
                "/dev/net/tun may not be opened by this user; it has mode 0666 on ordinary systems"
            }
            Self::NotPermitted => "making a TUN device needs CAP_NET_ADMIN",
            Self::NameTaken => {
                "an interface of that name is in use already, or is not a TUN device"
            }
            Self::NotTun => {
                "the descriptor is not that of a TUN device (IFF_TUN and IFF_NO_PI, attached)"
            }
            Self::NoRuntime => "a TUN device needs a running tokio runtime",
            Self::Os(error) => return write!(f, "the TUN device cannot be set up: {error}"),
        })
    }
}

impl std::error::Error for TunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Os(error) => Some(error),
            _ => None,
        }
    }
}
