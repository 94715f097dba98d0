//! A UDP socket inside the tunnel.
//!
//! Owns one port; gives it back on drop. Any UDP protocol runs on it unchanged: a second QUIC
//! stack (through [`UdpSocket::into_quinn`]), SCTP over UDP, DNS.

use crate::egress::Sender;
use crate::error::{UdpBindError, UdpSendError};
use crate::kernel::{KernelPlane, KernelSocket};
use crate::port::PortQueue;
use crate::streams::{TunnelSocket, payload_max};
use crate::tunnel::{SendFailure, Tunnel};
use quinn::Runtime as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use wiremesh_wire::Priority;
use wiremesh_wire::address::{CONTROL_PORT, STREAM_PORT};

/// A UDP-like socket whose network is the tunnel. Cheap to share by reference; every datagram
/// comes from an address that the sender's key owns.
#[derive(Debug)]
pub struct UdpSocket(Port);

#[derive(Debug)]
enum Port {
    Tunnel(Bound),
    /// In kernel mode: a socket of the host, bound to the interface.
    Host(HostPort),
}

#[derive(Debug)]
struct HostPort {
    socket: KernelSocket,
    tunnel: Arc<Tunnel>,
}

/// A port of the node itself, given back on drop.
#[derive(Debug)]
struct Bound(Arc<TunnelSocket>);

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.tunnel.ports.release(self.0.port);
    }
}

impl UdpSocket {
    pub(crate) fn new(tunnel: Arc<Tunnel>, port: u16, queue: Arc<PortQueue>) -> Self {
        Self(Port::Tunnel(Bound(Arc::new(TunnelSocket {
            tunnel,
            queue,
            port,
        }))))
    }

    /// In kernel mode.
    pub(crate) fn of_host(
        tunnel: &Arc<Tunnel>,
        plane: &KernelPlane,
        port: u16,
    ) -> Result<Self, UdpBindError> {
        if port == CONTROL_PORT || port == STREAM_PORT {
            return Err(UdpBindError::Reserved(port));
        }
        let socket = plane
            .bind_port(port)
            .and_then(|socket| KernelSocket::new(socket, tunnel.addresses.overlay))
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => UdpBindError::InUse(port),
                kind => UdpBindError::Host(kind),
            })?;
        let tunnel = Arc::clone(tunnel);
        Ok(Self(Port::Host(HostPort { socket, tunnel })))
    }

    fn tunnel(&self) -> &Arc<Tunnel> {
        match &self.0 {
            Port::Tunnel(bound) => &bound.0.tunnel,
            Port::Host(host) => &host.tunnel,
        }
    }

    /// Our overlay address and the port.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            Port::Tunnel(bound) => bound.0.local(),
            Port::Host(host) => host.socket.local_addr(),
        }
    }

    /// The longest payload that can be sent, in bytes (1,372 with the default MTU).
    pub fn payload_max(&self) -> usize {
        payload_max(self.tunnel().mtu_bytes)
    }

    /// Sends one datagram to an address of a peer. Like UDP it may be lost; without a session
    /// it waits, bounded, for the handshake that it starts.
    ///
    /// # Errors
    ///
    /// [`UdpSendError`]: nothing was sent.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> Result<(), UdpSendError> {
        self.send_to_with(Priority::Normal, payload, to).await
    }

    /// As [`UdpSocket::send_to`], in a class: with a pace ([`crate::EgressConfig`]) the better one
    /// goes first.
    ///
    /// # Errors
    ///
    /// [`UdpSendError`]: nothing was sent.
    pub async fn send_to_with(
        &self,
        class: Priority,
        payload: &[u8],
        to: SocketAddr,
    ) -> Result<(), UdpSendError> {
        poll_fn(|cx| self.poll_send_to_with(cx, class, payload, to)).await
    }

    /// The polling form of [`UdpSocket::send_to`].
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), UdpSendError>> {
        self.poll_send_to_with(cx, Priority::Normal, payload, to)
    }

    /// The polling form of [`UdpSocket::send_to_with`].
    pub fn poll_send_to_with(
        &self,
        cx: &mut Context<'_>,
        class: Priority,
        payload: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), UdpSendError>> {
        let bound = match &self.0 {
            Port::Tunnel(bound) => bound,
            Port::Host(HostPort { socket, tunnel }) => {
                let route = tunnel.peek(|state, _| state.engine.peer_by_address(to.ip()));
                return match route {
                    Some(_) => socket.poll_send_to(cx, payload, to, self.payload_max()),
                    None => Poll::Ready(Err(UdpSendError::NoRoute(to.ip()))),
                };
            }
        };
        let TunnelSocket { tunnel, port, .. } = &*bound.0;
        loop {
            let sender = Sender::Socket(class, Some(cx.waker()));
            let payloads = std::iter::once(payload);
            let failure = match tunnel.send_segments(*port, to, 0, payloads, sender) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(failure) => failure,
            };
            let error = match failure {
                SendFailure::WouldBlock if tunnel.poll_writable(cx.waker()) => continue,
                SendFailure::WouldBlock | SendFailure::NotYet => return Poll::Pending,
                SendFailure::Closed => UdpSendError::Closed,
                SendFailure::NoRoute => UdpSendError::NoRoute(to.ip()),
                SendFailure::NoSource => UdpSendError::NoSource(to.ip()),
                SendFailure::TooLong => UdpSendError::TooLong {
                    len: payload.len(),
                    max: self.payload_max(),
                },
            };
            return Poll::Ready(Err(error));
        }
    }

    /// Receives one datagram: its length and where it came from. What does not fit the buffer is
    /// cut off.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the node is closed.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv_from(cx, buffer)).await
    }

    /// The polling form of [`UdpSocket::recv_from`].
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let bound = match &self.0 {
            Port::Tunnel(bound) => bound,
            Port::Host(host) => return host.socket.poll_recv_from(cx, buffer),
        };
        let item = std::task::ready!(bound.0.queue.poll_read(cx, |f| f.take_one(buffer)));
        Poll::Ready(match item.flatten() {
            Some(item) => Ok((item.len, item.source)),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// How many datagrams were dropped because nobody read them in time; in kernel mode the host
    /// counts them.
    pub fn dropped(&self) -> u64 {
        match &self.0 {
            Port::Tunnel(bound) => bound.0.queue.dropped(),
            Port::Host(_) => 0,
        }
    }

    /// Makes it the socket of a quinn endpoint (`quinn::Endpoint::new_with_abstract_socket`).
    /// The port is given back when the endpoint is gone.
    ///
    /// # Errors
    ///
    /// In kernel mode: the host's socket cannot be used.
    pub fn into_quinn(self) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        match self.0 {
            Port::Tunnel(bound) => Ok(Arc::new(bound)),
            Port::Host(host) => quinn::TokioRuntime.wrap_udp_socket(host.socket.into_std()?),
        }
    }
}

impl quinn::AsyncUdpSocket for Bound {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local())
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
