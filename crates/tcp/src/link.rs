//! The network card of the TCP: what smoltcp receives from and sends to.
//!
//! Owns the packets on their way out, one behind the other. It moves bytes and knows no TCP.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::ops::Range;

/// From this many packets on nothing more is asked of the connections.
const PACKETS_MAX: usize = 256;

/// Packets on their way out, in order.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Outgoing {
    pub(crate) fn is_full(&self) -> bool {
        self.ends.len() >= PACKETS_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The packets after the first `skip`.
    pub(crate) fn iter_from(&self, skip: usize) -> impl Iterator<Item = &[u8]> {
        (skip..self.ends.len()).map(|n| &self.bytes[self.place(n)])
    }

    pub(crate) fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len());
    }

    /// One packet, counted from 0.
    pub(crate) fn packet_mut(&mut self, n: usize) -> &mut [u8] {
        let place = self.place(n);
        &mut self.bytes[place]
    }

    fn place(&self, n: usize) -> Range<usize> {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[n]
    }
}

/// What smoltcp sees during one call: at most one packet that came in, and the way out.
pub(crate) struct Link<'a> {
    pub(crate) incoming: Option<&'a [u8]>,
    pub(crate) outgoing: &'a mut Outgoing,
    pub(crate) mtu_bytes: usize,
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Room<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Room(self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        let room = !self.outgoing.is_full();
        room.then_some(Room(self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu_bytes;
        capabilities
    }
}

/// A packet that came in.
pub(crate) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a packet that goes out.
pub(crate) struct Room<'a>(&'a mut Outgoing);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Outgoing { bytes, ends } = self.0;
        let start = bytes.len();
        bytes.resize(start + len, 0);
        let result = f(&mut bytes[start..]);
        ends.push(bytes.len());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_in_order_and_whole() {
        let mut outgoing = Outgoing::default();
        for packet in [&b"abc"[..], b"", b"de"] {
            Room(&mut outgoing).consume(packet.len(), |room| room.copy_from_slice(packet));
        }
        let from = |skip| outgoing.iter_from(skip).collect::<Vec<_>>();
        assert_eq!(from(0), [&b"abc"[..], b"", b"de"]);
        assert_eq!(from(2), [b"de"]);
        assert!(from(3).is_empty());
    }

    #[test]
    fn a_full_way_out_takes_no_more_from_connections() {
        let mut outgoing = Outgoing::default();
        for _ in 0..PACKETS_MAX {
            Room(&mut outgoing).consume(1, |_| ());
        }
        let mut link = Link {
            incoming: None,
            outgoing: &mut outgoing,
            mtu_bytes: 1_420,
        };
        assert!(link.transmit(Instant::ZERO).is_none());
        outgoing.clear();
        assert!(!outgoing.is_full() && outgoing.len() == 0);
    }
}
