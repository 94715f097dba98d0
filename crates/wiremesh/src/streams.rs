//! quinn's socket inside the tunnel.
//!
//! Owns the translation between quinn's transmits and the tunnel's ports, which [`crate::UdpSocket`]
//! uses too, and the choice between the two forms of a stream packet: bare (docs/spec.md section
//! 4.1) or behind IPv6 and UDP headers. Back-pressure of the UDP socket reaches quinn, so that its priorities decide
//! what is sent next rather than a long queue below it.

use crate::egress::{FlowTransmit, Sender, asking_flow};
use crate::port::PortQueue;
use crate::tunnel::{SendFailure, State, Tunnel, UDP6_HEADER_BYTES};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use wiremesh_core::{NotReady, PeerKey, sealed_stream_len};
use wiremesh_wire::Now;
use wiremesh_wire::address::STREAM_PORT;

/// Datagrams that quinn takes out of one buffer.
const RECEIVE_SEGMENTS: usize = 16;
/// The largest `max_udp_payload_size` (RFC 9000, section 18.2).
const QUIC_PACKET_MAX: u16 = 65_527;

/// One UDP port inside the tunnel, as quinn wants it.
pub(crate) struct TunnelSocket {
    pub(crate) tunnel: Arc<Tunnel>,
    pub(crate) queue: Arc<PortQueue>,
    pub(crate) port: u16,
}

impl fmt::Debug for TunnelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelSocket")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl TunnelSocket {
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.tunnel.addresses.overlay.into(), self.port)
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let flow = self.tunnel.new_flow();
        Box::pin(Writable {
            tunnel: Arc::clone(&self.tunnel),
            flow,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        let segments = transmit.contents.chunks(size);
        let sender = Sender::Connection(FlowTransmit {
            flow: asking_flow(),
            contents: transmit.contents,
            size,
        });
        let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let sent =
            self.tunnel
                .send_segments(self.port, transmit.destination, ecn, segments, sender);
        match sent {
            Err(SendFailure::WouldBlock | SendFailure::NotYet) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            // The peer is gone, the datagram too long, or the node closed: lost, as on any network.
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let filled = std::task::ready!(self.queue.poll_read(cx, |front| {
            let mut count = 0;
            for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
                let Some((item, len)) = front.take_run(buffer) else {
                    break;
                };
                *meta = RecvMeta {
                    addr: item.source,
                    len,
                    stride: item.len.max(1),
                    ecn: EcnCodepoint::from_bits(item.ecn),
                    dst_ip: Some(item.destination),
                };
                count += 1;
            }
            count
        }));
        // A closed node is silent for ever: quinn's connections end by their own close.
        Poll::Ready(filled.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local())
    }

    fn max_transmit_segments(&self) -> usize {
        self.tunnel.transmit_segments.load(Ordering::Relaxed)
    }

    fn max_receive_segments(&self) -> usize {
        RECEIVE_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        self.tunnel.plane.sockets.may_fragment()
    }
}

/// The poller of one connection.
struct Writable {
    tunnel: Arc<Tunnel>,
    flow: u64,
}

impl Drop for Writable {
    fn drop(&mut self) {
        self.tunnel.end_flow(self.flow);
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.tunnel.poll_flow(self.flow, cx.waker()) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

impl Tunnel {
    /// The socket of the node's own streams.
    pub(crate) fn stream_socket(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        if let Some(plane) = &self.plane.kernel {
            return TokioRuntime.wrap_udp_socket(plane.streams(self.addresses.overlay)?);
        }
        let tunnel = self.me.upgrade().expect("whoever calls holds it");
        Ok(Arc::new(TunnelSocket {
            queue: Arc::clone(&self.streams),
            tunnel,
            port: STREAM_PORT,
        }))
    }
}

impl Tunnel {
    /// Seals a stream packet without IP and UDP headers, if the peer takes it so; `false` if it
    /// has to go with them, or wait for a session.
    pub(crate) fn send_bare(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        ecn: u8,
        packet: &[u8],
    ) -> bool {
        let State { engine, outbox, .. } = state;
        let fits = packet.len() <= self.mtu_bytes;
        let Some(engine) = engine.own().filter(|e| fits && e.takes_bare_streams(peer)) else {
            return false;
        };
        let Some(path) = engine.path_of(peer) else {
            return false;
        };
        let len = sealed_stream_len(packet.len());
        // What a router notes on the outer header is all that the peer hears of congestion.
        let batch = outbox.batch_for(path, ecn, len, self.plane.sockets.max_segments());
        match engine.seal_stream_packet(now, peer, packet, &mut batch.contents) {
            Ok(_) => {
                outbox.appended(len);
                true
            }
            Err(error) => {
                outbox.drop_if_empty();
                // Lost, and counted: no node takes such a packet in the other form either.
                error == NotReady::NoFixedBit
            }
        }
    }

    /// The largest QUIC packet that this node may ever send or take.
    pub(crate) fn stream_packet_max(&self) -> u16 {
        stream_packet_max(self.mtu_bytes, self.bare_streams)
    }
}

/// The largest UDP payload that fits a tunnel of this MTU.
pub(crate) fn payload_max(mtu_bytes: usize) -> usize {
    mtu_bytes.saturating_sub(UDP6_HEADER_BYTES)
}

/// The largest QUIC packet that fits a tunnel of this MTU, in the shorter form that is possible.
pub(crate) fn stream_packet_max(mtu_bytes: usize, bare: bool) -> u16 {
    let fits = match bare {
        true => mtu_bytes,
        false => payload_max(mtu_bytes),
    };
    u16::try_from(fits).unwrap_or(u16::MAX).min(QUIC_PACKET_MAX)
}
