//! The task that carries packets between the node and the associations.
//!
//! Owns the clock, the two sockets and the waiting. It decides nothing of SCTP.

use crate::packet;
use crate::stack::{Outgoing, Remote, Stack};
use std::future::{pending, poll_fn};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use wiremesh::{RawSocket, UdpSocket};

/// The IP protocol (RFC 9260, section 1).
pub(crate) const PROTOCOL_SCTP: u8 = 132;
const IPV6_HEADER_LEN: usize = 40;
const HOP_LIMIT: u8 = 64;
/// DSCP by class: EF (RFC 3246), the default, CS1 (RFC 3662).
const DSCP: [u8; 3] = [46, 0, 8];
/// Packets taken in before the associations may answer.
const INGEST_MAX: usize = 128;
const PACKET_BYTES_MAX: usize = 65_535;

/// What the driver and all handles share.
pub(crate) struct Shared {
    stack: Mutex<Stack>,
    /// Nothing where the host has IP protocols of its own.
    pub(crate) raw: Option<RawSocket>,
    pub(crate) udp: Option<UdpSocket>,
    pub(crate) wake: Notify,
    source: Ipv6Addr,
    begun: Instant,
}

/// Keeps the stack alive; when the last one is dropped, it ends with its last association.
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stack().released = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    pub(crate) fn new(
        stack: Stack,
        raw: Option<RawSocket>,
        udp: Option<UdpSocket>,
        source: Ipv6Addr,
    ) -> Self {
        Self {
            stack: Mutex::new(stack),
            raw,
            udp,
            wake: Notify::new(),
            source,
            begun: Instant::now(),
        }
    }

    /// Locks the stack. A panic under the lock is a fault of ours, not of what the lock protects.
    pub(crate) fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the stack's clock.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Takes in what has come: `Ready(false)` once the node is closed.
    fn poll_ingest(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<bool> {
        let mut open = Poll::Pending;
        for _ in 0..INGEST_MAX {
            let (from, range) = match self.poll_packet(cx, buffer) {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Ready(Some(packet)) => packet,
            };
            open = Poll::Ready(true);
            if let Some(from) = from {
                let now = self.now();
                self.stack().handle_packet(now, from, &mut buffer[range]);
            }
        }
        open
    }

    /// One packet, from either socket, and where it came from, if that makes sense.
    #[allow(clippy::type_complexity)]
    fn poll_packet(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Option<(Option<Remote>, std::ops::Range<usize>)>> {
        if let Some(raw) = &self.raw {
            match raw.poll_recv(cx, buffer) {
                Poll::Ready(Ok(len)) => return Poll::Ready(Some(inner(&buffer[..len]))),
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        let Some(udp) = &self.udp else {
            return Poll::Pending;
        };
        let Ok((len, from)) = ready!(udp.poll_recv_from(cx, buffer)) else {
            return Poll::Ready(None);
        };
        let from = match from.ip() {
            IpAddr::V6(address) => Some(Remote {
                address,
                udp_port: Some(from.port()),
            }),
            IpAddr::V4(_) => None,
        };
        Poll::Ready(Some((from, 0..len)))
    }

    /// Gives the sockets what they take; ready when nothing is left.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut packet = Vec::new();
        loop {
            let mut raw_full = false;
            let mut stack = self.stack();
            let all = stack.send_all(|outgoing| match outgoing.to.udp_port {
                Some(port) => self.poll_udp(cx, &outgoing, port).is_ready(),
                None => {
                    let taken = self.send_raw(&mut packet, &outgoing);
                    raw_full |= !taken;
                    taken
                }
            });
            drop(stack);
            if all {
                return Poll::Ready(());
            }
            let Some(raw) = self.raw.as_ref().filter(|_| raw_full) else {
                return Poll::Pending;
            };
            ready!(raw.poll_writable(cx));
        }
    }

    fn poll_udp(&self, cx: &mut Context<'_>, outgoing: &Outgoing<'_>, port: u16) -> Poll<()> {
        let Some(udp) = &self.udp else {
            return Poll::Ready(());
        };
        let to = SocketAddr::new(outgoing.to.address.into(), port);
        // An error is a loss, as on any network.
        udp.poll_send_to_with(cx, outgoing.class, outgoing.packet, to)
            .map(drop)
    }

    fn send_raw(&self, packet: &mut Vec<u8>, outgoing: &Outgoing<'_>) -> bool {
        let Some(raw) = &self.raw else {
            return true;
        };
        emit_ipv6(packet, self.source, outgoing);
        raw.try_send_all(std::iter::once(packet.as_slice())) == 1
    }
}

/// Where the SCTP packet is in an IPv6 packet, and where it came from; nothing in an IPv4 packet.
fn inner(packet: &[u8]) -> (Option<Remote>, std::ops::Range<usize>) {
    let nothing = (None, 0..0);
    let Some(header) = packet.first_chunk::<IPV6_HEADER_LEN>() else {
        return nothing;
    };
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_SCTP {
        return nothing;
    }
    let Some(address) = header[8..24].first_chunk::<16>() else {
        return nothing;
    };
    let from = Remote {
        address: Ipv6Addr::from(*address),
        udp_port: None,
    };
    (Some(from), IPV6_HEADER_LEN..packet.len())
}

/// Puts an IPv6 header (RFC 8200, section 3) in front, whose DSCP tells the class.
fn emit_ipv6(packet: &mut Vec<u8>, source: Ipv6Addr, outgoing: &Outgoing<'_>) {
    let dscp = DSCP[outgoing.class.index()];
    let len = u16::try_from(outgoing.packet.len()).unwrap_or(u16::MAX);
    packet.clear();
    packet.extend([0x60 | dscp >> 2, dscp << 6, 0, 0]);
    packet.extend(len.to_be_bytes());
    packet.extend([PROTOCOL_SCTP, HOP_LIMIT]);
    packet.extend(source.octets());
    packet.extend(outgoing.to.address.octets());
    packet.extend_from_slice(outgoing.packet);
    debug_assert!(packet::ports(outgoing.packet).is_some());
}

/// Runs until the node is closed, or all handles and associations are gone.
pub(crate) async fn drive(shared: Arc<Shared>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let (deadline, sends) = {
            let mut stack = shared.stack();
            stack.handle_timeout(shared.now());
            if stack.is_done() && !stack.has_packets() {
                return;
            }
            (stack.poll_timeout(), stack.has_packets())
        };
        let open = tokio::select! {
            biased;
            () = poll_fn(|cx| shared.poll_flush(cx)), if sends => true,
            open = poll_fn(|cx| shared.poll_ingest(cx, &mut buffer)) => open,
            () = shared.wake.notified() => true,
            () = sleep_until(&shared, deadline) => true,
        };
        if !open {
            shared.stack().close();
            return;
        }
    }
}

async fn sleep_until(shared: &Shared, deadline: Option<Duration>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(shared.begun + at).await,
        None => pending().await,
    }
}
