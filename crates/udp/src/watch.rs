//! Notices that the local address toward a destination changed, without sending anything.
//!
//! Connecting a UDP socket only asks the routing table, so a throw-away socket tells which source
//! address would be used now. Portable, a few microseconds, no privilege. Owns no long-lived
//! socket and never decides what to do about a change.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Gives the local address that the operating system would use towards `destination` now.
///
/// Sends nothing. The port does not matter.
///
/// # Errors
///
/// The error of the routing table, such as "network unreachable", when there is no way there.
pub fn local_address_towards(destination: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut destination = destination;
    if destination.port() == 0 {
        // Some systems refuse to connect to port 0; the route does not depend on the port.
        destination.set_port(9);
    }
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(destination)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// A change of the local address, as seen by [`AddressWatch::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressChange {
    /// The address used before; `None` when the destination was unreachable.
    pub before: Option<IpAddr>,
    /// The address used now; `None` when the destination is unreachable.
    pub after: Option<IpAddr>,
}

/// Compares the local address toward one destination with the one at the last look.
///
/// The caller decides when to look; a look costs four system calls and no traffic.
#[derive(Debug, Clone)]
pub struct AddressWatch {
    destination: SocketAddr,
    last: Option<IpAddr>,
}

impl AddressWatch {
    /// Starts a watch and takes the first look.
    pub fn new(destination: SocketAddr) -> Self {
        AddressWatch {
            destination,
            last: local_address_towards(destination).ok(),
        }
    }

    /// Gives the local address of the last look; `None` when the destination was unreachable.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.last
    }

    /// Looks again; gives the change, if there is one.
    pub fn check(&mut self) -> Option<AddressChange> {
        self.compare(local_address_towards(self.destination).ok())
    }

    fn compare(&mut self, after: Option<IpAddr>) -> Option<AddressChange> {
        let before = std::mem::replace(&mut self.last, after);
        (before != after).then_some(AddressChange { before, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn loopback_is_reached_from_loopback() {
        let local = local_address_towards(LOOPBACK).expect("loopback is always routed");
        assert_eq!(local, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn unchanged_address_gives_no_change() {
        let mut watch = AddressWatch::new(LOOPBACK);
        assert_eq!(watch.local_address(), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(watch.check(), None);
        assert_eq!(watch.check(), None);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut watch = AddressWatch::new(LOOPBACK);
        let before = watch.local_address();
        let after = Some(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(watch.compare(after), Some(AddressChange { before, after }));
        assert_eq!(watch.compare(after), None);
        let change = AddressChange {
            before: after,
            after: None,
        };
        assert_eq!(watch.compare(None), Some(change));
        assert_eq!(watch.compare(None), None);
    }
}
