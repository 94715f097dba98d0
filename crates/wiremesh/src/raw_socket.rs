//! IP packets of one protocol, for a transport protocol that the application brings along.
//!
//! Owns the table of protocols that are claimed. Never gives out what belongs to the node itself:
//! UDP (ports are claimed one by one) and ICMP, so the control and stream ports stay closed.

use crate::egress::class_of_packet;
use crate::plane::Mode;
use crate::port::{Addressing, PortQueue, lock};
use crate::tunnel::{State, Tunnel};
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use wiremesh_core::PeerKey;
use wiremesh_wire::ip::{self, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP};
use wiremesh_wire::{Now, Priority};

/// Bytes that wait for one protocol.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// What is no protocol of its own but comes before one (IANA's list of IPv6 extension headers).
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// Why a protocol cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawBindError {
    /// UDP, ICMP and extension headers belong to the node.
    Reserved(u8),
    /// Somebody has it.
    InUse(u8),
    /// The node has an interface: these packets are for the host's own programs.
    Host(u8),
}

impl fmt::Display for RawBindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(protocol) => {
                write!(f, "IP protocol {protocol} belongs to the node itself")
            }
            Self::InUse(protocol) => {
                write!(
                    f,
                    "IP protocol {protocol} is in use by another raw socket of the node"
                )
            }
            Self::Host(protocol) => write!(
                f,
                "IP protocol {protocol} goes to the host, since the node has an interface; use \
                 the host's sockets"
            ),
        }
    }
}

impl std::error::Error for RawBindError {}

/// Why a packet was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawSendError {
    /// The bytes are not exactly one IP packet of the socket's protocol.
    NotAPacket,
    /// The source is none of the node's addresses, or the node has none for the destination.
    NoSource(IpAddr),
    /// No peer owns the destination.
    NoRoute(IpAddr),
    /// The packet is longer than the tunnel's MTU.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// The node was closed.
    Closed,
}

impl fmt::Display for RawSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPacket => write!(f, "not exactly one IP packet of the socket's protocol"),
            Self::NoSource(ip) => write!(
                f,
                "no address of ours goes with {ip}: give the node one in the configuration"
            ),
            Self::NoRoute(ip) => write!(f, "{ip} is in no peer's allowed IPs"),
            Self::TooLong { len, max } => write!(f, "{len} bytes, at most {max} fit a packet"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for RawSendError {}

/// The protocols that are claimed.
#[derive(Default)]
pub(crate) struct RawQueues(Mutex<HashMap<u8, Arc<PortQueue>>>);

impl RawQueues {
    /// Takes a packet if somebody wants its protocol.
    pub(crate) fn push(&self, header: &IpHeader, packet: &[u8]) -> bool {
        let Some(queue) = lock(&self.0).get(&header.protocol).cloned() else {
            return false;
        };
        let from = Addressing {
            source: SocketAddr::new(header.source, 0),
            destination: header.destination,
            ecn: header.ecn,
        };
        if let Some(waker) = queue.push(from, &packet[..header.total_len]) {
            waker.wake();
        }
        true
    }

    /// Packets that found the queue of their protocol full.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.0).values().map(|queue| queue.dropped()).sum()
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        lock(&self.0).values().for_each(|queue| queue.close());
    }
}

/// All IP packets of one protocol that come for the node, and a way to send such packets. Every
/// packet comes from an address that the sender's key owns. The protocol is free again on drop.
pub struct RawSocket {
    tunnel: Arc<Tunnel>,
    queue: Arc<PortQueue>,
    protocol: u8,
    /// Where the latest packet found no room, with a pace.
    held_back: Mutex<Option<(PeerKey, Priority)>>,
}

impl fmt::Debug for RawSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawSocket({})", self.protocol)
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.queue.close();
        lock(&self.tunnel.ports.raw.0).remove(&self.protocol);
        self.tunnel.ports.retire(&self.queue);
    }
}

impl RawSocket {
    pub(crate) fn claim(tunnel: &Arc<Tunnel>, protocol: u8) -> Result<Self, RawBindError> {
        let owned = [PROTOCOL_UDP, PROTOCOL_ICMP, PROTOCOL_ICMPV6].contains(&protocol);
        if owned || EXTENSION_HEADERS.contains(&protocol) {
            return Err(RawBindError::Reserved(protocol));
        }
        if tunnel.plane.mode() != Mode::Rootless {
            return Err(RawBindError::Host(protocol));
        }
        let queue = Arc::new(PortQueue::new(QUEUE_BYTES_MAX));
        let mut claimed = lock(&tunnel.ports.raw.0);
        if claimed.contains_key(&protocol) {
            return Err(RawBindError::InUse(protocol));
        }
        claimed.insert(protocol, Arc::clone(&queue));
        drop(claimed);
        if tunnel.peek(|state, _| state.closed) {
            queue.close();
        }
        Ok(Self {
            tunnel: Arc::clone(tunnel),
            queue,
            protocol,
            held_back: Mutex::default(),
        })
    }

    /// The protocol number.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The longest packet that can be sent, in bytes (1,420 by default).
    pub fn mtu_bytes(&self) -> usize {
        self.tunnel.mtu_bytes
    }

    /// The node's address from which to send to `destination`.
    ///
    /// # Errors
    ///
    /// [`RawSendError::NoRoute`] or [`RawSendError::NoSource`]: a packet there would not be sent.
    pub fn source_for(&self, destination: IpAddr) -> Result<IpAddr, RawSendError> {
        let route = |state: &State| state.engine.peer_by_address(destination).is_some();
        if !self.tunnel.peek(|state, _| route(state)) {
            return Err(RawSendError::NoRoute(destination));
        }
        let source = self.tunnel.addresses.source_for(destination);
        source.ok_or(RawSendError::NoSource(destination))
    }

    /// Sends one whole packet, from an address of the node to an address of a peer; waits until
    /// the node's UDP socket takes more. Like IP it may be lost; without a session it waits,
    /// bounded, for the handshake that it starts.
    ///
    /// # Errors
    ///
    /// [`RawSendError`]: nothing was sent.
    pub async fn send(&self, packet: &[u8]) -> Result<(), RawSendError> {
        loop {
            let sent = self.tunnel.with(|state, now| match takes_more(state) {
                true => self.send_one(state, now, packet).transpose(),
                false => None,
            });
            match sent {
                Some(result) => return result,
                None => self.writable().await,
            }
        }
    }

    /// Sends packets in order, as many as the node's UDP socket takes now, and gives their number;
    /// [`RawSocket::writable`] waits for the rest. A packet that cannot be sent at all counts as
    /// sent: it is lost, as on any network.
    pub fn try_send_all<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        self.tunnel.with(|state, now| {
            let mut taken = 0;
            for packet in packets {
                if !takes_more(state) {
                    break;
                }
                // An error is a loss, as the documentation says.
                if let Ok(None) = self.send_one(state, now, packet) {
                    break;
                }
                taken += 1;
                if state.outbox.has_full_batch() {
                    self.tunnel.flush(state);
                }
            }
            taken
        })
    }

    /// Waits until the node's UDP socket takes more; with a pace, until there is room for what had
    /// none.
    pub async fn writable(&self) {
        poll_fn(|cx| self.poll_writable(cx)).await;
    }

    /// The polling form of [`RawSocket::writable`].
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.tunnel.state();
        let waker = Some(cx.waker());
        let room = lock(&self.held_back)
            .is_none_or(|(peer, class)| self.tunnel.has_room(&mut state, peer, class, waker));
        match room && state.poll_writable(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// `None`: the peer has a pace, and the packet's class (its DSCP) no room.
    fn send_one(
        &self,
        state: &mut State,
        now: Now,
        packet: &[u8],
    ) -> Result<Option<()>, RawSendError> {
        let tunnel = &self.tunnel;
        let header = ip::parse(packet).map_err(|_| RawSendError::NotAPacket)?;
        if header.protocol != self.protocol || header.total_len != packet.len() {
            return Err(RawSendError::NotAPacket);
        }
        if !tunnel.addresses.contains(header.source) {
            return Err(RawSendError::NoSource(header.source));
        }
        if packet.len() > tunnel.mtu_bytes {
            return Err(RawSendError::TooLong {
                len: packet.len(),
                max: tunnel.mtu_bytes,
            });
        }
        if state.closed {
            return Err(RawSendError::Closed);
        }
        let route = state.engine.peer_by_address(header.destination);
        let peer = route.ok_or(RawSendError::NoRoute(header.destination))?;
        if state.pacer.is_paced(peer) {
            let class = class_of_packet(packet);
            let room = tunnel.has_room(state, peer, class, None);
            *lock(&self.held_back) = (!room).then_some((peer, class));
            if room {
                tunnel.offer_packet(state, now, peer, class, packet.to_vec());
            }
            return Ok(room.then_some(()));
        }
        *lock(&self.held_back) = None;
        let fill = |out: &mut [u8]| out.copy_from_slice(packet);
        if !tunnel.seal(state, now, peer, packet.len(), header.ecn, fill) {
            // A full queue drops, as a network does: a handshake is running.
            state.stage(now, packet.to_vec());
        }
        Ok(Some(()))
    }

    /// Receives one whole packet and gives its length; a buffer of 65,535 bytes holds any. What
    /// does not fit is cut off.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the node is closed.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_recv(cx, buffer)).await
    }

    /// The polling form of [`RawSocket::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let item = std::task::ready!(self.queue.poll_read(cx, |front| front.take_one(buffer)));
        Poll::Ready(match item.flatten() {
            Some(item) => Ok(item.len),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// How many packets were dropped because nobody read them in time.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// Whether a packet may be sealed now. Of a closed node nothing leaves, so nobody waits for it.
fn takes_more(state: &State) -> bool {
    state.closed || (!state.outbox.is_blocked() && !state.outbox.is_full())
}
