//! The `tun` plane: an interface of the host whose packets go through the tunnel.
//!
//! Owns what may pass between the interface and the peers: all packets but those of the node's own
//! ports. Whose packet goes to which peer is the engine's.

use crate::egress::class_of_packet;
use crate::port::lock;
use crate::tunnel::{State, Tunnel};
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use wiremesh_device::{Arrival, Departures, Tun};
use wiremesh_wire::Now;
use wiremesh_wire::address::{OVERLAY_NET, STREAM_PORT};
use wiremesh_wire::ip::{self, PROTOCOL_UDP};

/// Packets or super-packets taken from the interface before the socket has its turn: as many small
/// ones as leave in one system call.
const READS_PER_TURN: usize = 64;
/// System calls of the largest size that they may come to.
const BATCHES_PER_TURN: usize = 4;

// Extension headers of IPv6 (IANA's list).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Why an interface cannot be had.
pub use wiremesh_device::TunError as DeviceError;

/// A TUN interface of the host; [`crate::NodeBuilder::device`] gives it to a node.
///
/// Addresses and routes are the host's matter: the node's overlay address belongs to the interface
/// and the routes to its peers lead there.
#[derive(Debug)]
pub struct Device(Tun);

impl Device {
    /// Makes an interface, which needs `CAP_NET_ADMIN`; it goes when the node ends. Without a name
    /// the kernel chooses one. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub fn create(name: Option<&str>) -> Result<Self, DeviceError> {
        Tun::create(name).map(Self)
    }

    /// Takes the descriptor of an interface that somebody else has made. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if it is no TUN interface.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, DeviceError> {
        Tun::from_fd(fd).map(Self)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Whether the interface is there still, in whichever network namespace.
    pub fn is_there(&self) -> bool {
        self.0.is_there()
    }

    /// Another handle of the same interface, for a node that takes the place of another. The
    /// interface goes with the last one. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] when the operating system has no descriptor to give.
    pub fn try_clone(&self) -> Result<Self, DeviceError> {
        self.0.try_clone().map(Self)
    }

    /// The largest packet that the host sends, in bytes.
    ///
    /// # Errors
    ///
    /// The interface is gone, or in another network namespace.
    pub fn mtu(&self) -> io::Result<u16> {
        self.0.mtu()
    }
}

/// The interface of a running node.
pub(crate) struct HostDevice {
    tun: Tun,
    departures: Mutex<Departures>,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// Why a packet from or to the interface is dropped.
#[derive(Clone, Copy)]
enum Dropped {
    NoRoute,
    Reserved,
    NotTaken,
}

impl Dropped {
    const ALL: [Self; 3] = [Self::NoRoute, Self::Reserved, Self::NotTaken];

    fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "interface: no peer has the address",
            Self::Reserved => "interface: a port of the node",
            Self::NotTaken => "interface: the host takes no more",
        }
    }
}

impl fmt::Debug for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostDevice({})", self.tun.name())
    }
}

impl HostDevice {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            departures: Mutex::new(Departures::new(device.0.offloads())),
            tun: device.0,
            dropped: Default::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.tun.name()
    }

    /// Ready when the host has sent something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tun.readable().await
    }

    /// Takes a packet of a peer on its way to the host.
    pub(crate) fn deliver(&self, packet: &[u8]) {
        lock(&self.departures).push(packet);
    }

    /// Gives the host what was delivered.
    pub(crate) fn flush(&self) {
        let flushed = lock(&self.departures).flush(&self.tun);
        self.count(Dropped::NotTaken, flushed.dropped as u64);
    }

    /// Packets dropped, by reason.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Dropped::ALL
            .into_iter()
            .zip(&self.dropped)
            .map(|(reason, count)| (reason.name(), count.load(Ordering::Relaxed)))
    }

    fn count(&self, reason: Dropped, packets: u64) {
        if packets != 0 {
            self.dropped[reason as usize].fetch_add(packets, Ordering::Relaxed);
        }
    }
}

impl Tunnel {
    /// Sends what the host has for the peers, as far as the socket takes it.
    pub(crate) fn pump(&self, device: &HostDevice, arrival: &mut Arrival) -> io::Result<()> {
        self.with(|state, now| {
            let mut batches = 0;
            for _ in 0..READS_PER_TURN {
                if state.outbox.is_blocked() || state.outbox.is_full() {
                    break;
                }
                match device.tun.try_recv(arrival) {
                    Ok(()) => self.handle_arrival(state, now, device, arrival),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                if state.outbox.has_full_batch() {
                    self.flush(state);
                    batches += 1;
                    if batches == BATCHES_PER_TURN {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn handle_arrival(&self, state: &mut State, now: Now, device: &HostDevice, arrival: &Arrival) {
        let Some(first) = arrival.segments().next() else {
            return;
        };
        let header = first.header();
        if !self.plain && is_reserved(header) {
            return device.count(Dropped::Reserved, arrival.segments().count() as u64);
        }
        let destination = ip::destination(header);
        let Some(peer) = destination.and_then(|to| state.engine.peer_by_address(to)) else {
            return device.count(Dropped::NoRoute, arrival.segments().count() as u64);
        };
        if state.pacer.is_paced(peer) {
            let class = class_of_packet(header);
            for segment in arrival.segments() {
                let mut packet = vec![0; segment.len()];
                segment.write(&mut packet);
                // A full queue drops and counts: the host's programs are held back by nothing else.
                self.offer_packet(state, now, peer, class, packet);
            }
            return;
        }
        let ecn = ip::ecn(header);
        for segment in arrival.segments() {
            let len = segment.len();
            if !self.seal(state, now, peer, len, ecn, |packet| segment.write(packet)) {
                let mut packet = vec![0; len];
                segment.write(&mut packet);
                // A full queue drops, as that of an interface does: a handshake is running.
                state.stage(now, packet);
            }
        }
    }
}

/// Whether a packet of the host pretends to be of the node's streams, or is for a peer's: also in a
/// first fragment and behind extension headers, which our own streams never read but the kernel of
/// a peer in `kernel` mode does.
fn is_reserved(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<{ ip::IPV6_HEADER_LEN }>() else {
        return false;
    };
    if header[0] >> 4 != 6 || !ip::destination(header).is_some_and(|to| OVERLAY_NET.contains(to)) {
        return false;
    }
    let (mut protocol, mut at) = (header[6], ip::IPV6_HEADER_LEN);
    let mut is_fragment = false;
    loop {
        let next = packet.get(at..).and_then(<[u8]>::first_chunk::<8>);
        let Some(next @ [kind, len, ..]) = next else {
            // A first fragment has all headers (RFC 7112); without ports it is nothing whole.
            return is_fragment;
        };
        let word = |at: usize| u16::from_be_bytes([next[at], next[at + 1]]);
        at += match protocol {
            PROTOCOL_UDP => return word(0) == STREAM_PORT || word(2) == STREAM_PORT,
            // What follows is put together with the first, or dropped.
            FRAGMENT if word(2) & 0xfff8 != 0 => return false,
            FRAGMENT => {
                is_fragment = true;
                8
            }
            AUTHENTICATION => (usize::from(*len) + 2) * 4,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                (usize::from(*len) + 1) * 8
            }
            _ => return false,
        };
        protocol = *kind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn packet(from: u16, to: u16, destination: Ipv6Addr) -> Vec<u8> {
        let mut packet = vec![0; ip::IPV6_UDP_HEADER_LEN + 3];
        let source = (Ipv6Addr::LOCALHOST, from);
        ip::emit_ipv6_udp(&mut packet, source, (destination, to), 3, 0);
        packet
    }

    #[test]
    fn the_host_has_no_part_in_the_nodes_streams() {
        let peer: Ipv6Addr = "fd77:6d00::1".parse().expect("an address");
        let elsewhere: Ipv6Addr = "fd00::1".parse().expect("an address");
        assert!(is_reserved(&packet(9, STREAM_PORT, peer)));
        assert!(is_reserved(&packet(STREAM_PORT, 9, peer)));
        assert!(!is_reserved(&packet(9, 9, peer)));
        assert!(!is_reserved(&packet(9, STREAM_PORT, elsewhere)));
        let mut tcp = packet(9, STREAM_PORT, peer);
        tcp[6] = 6;
        assert!(!is_reserved(&tcp));
        assert!(!is_reserved(&packet(9, STREAM_PORT, peer)[..43]));
    }

    /// `inner` behind a header of eight bytes, whose type is `kind`.
    fn behind(kind: u8, rest: [u8; 7], inner: &[u8]) -> Vec<u8> {
        let mut packet = inner[..ip::IPV6_HEADER_LEN].to_vec();
        packet.push(inner[6]);
        packet[6] = kind;
        packet.extend(rest);
        packet.extend(&inner[ip::IPV6_HEADER_LEN..]);
        packet
    }

    #[test]
    fn the_nodes_ports_are_found_behind_what_the_host_puts_in_front() {
        let peer: Ipv6Addr = "fd77:6d00::1".parse().expect("an address");
        let (dials, other) = (packet(9, STREAM_PORT, peer), packet(9, 9, peer));
        let first = [0, 0, 1, 0, 0, 0, 7];
        for kind in [0, 43, 44, 60, 135] {
            assert!(is_reserved(&behind(kind, first, &dials)), "{kind}");
            assert!(!is_reserved(&behind(kind, first, &other)), "{kind}");
        }
        let authenticated = [0, 0, 0, 0, 0, 0, 0];
        assert!(is_reserved(&behind(51, authenticated, &dials)));
        let twice = behind(60, [0; 7], &behind(44, first, &dials));
        assert!(is_reserved(&twice));
        // What follows goes with the first one, which the peer does not get.
        let second = [0, 0, 9, 0, 0, 0, 7];
        assert!(!is_reserved(&behind(44, second, &dials)));
        // Ports that come with the second fragment are no ports (RFC 7112).
        let hidden = behind(44, first, &behind(60, [0; 7], &dials));
        assert!(is_reserved(&hidden[..56]));
        for cut in 0..twice.len() {
            let _ = is_reserved(&twice[..cut]);
        }
    }
}
