//! A UDP socket inside the tunnel.
//!
//! Owns one port; gives it back on drop. Any UDP protocol runs on it unchanged: a second QUIC
//! stack (through [`UdpSocket::into_quinn`]), SCTP over UDP, DNS.

use crate::error::UdpSendError;
use crate::port::PortQueue;
use crate::streams::{TunnelSocket, payload_max};
use crate::tunnel::{SendFailure, Tunnel};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A UDP-like socket whose network is the tunnel. Cheap to share by reference; every datagram
/// comes from an address that the sender's key owns.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Arc<TunnelSocket>,
    _release: Release,
}

/// Gives the port back.
#[derive(Debug)]
struct Release(Arc<TunnelSocket>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.tunnel.ports.release(self.0.port);
    }
}

impl UdpSocket {
    pub(crate) fn new(tunnel: Arc<Tunnel>, port: u16, queue: Arc<PortQueue>) -> Self {
        let socket = Arc::new(TunnelSocket {
            tunnel,
            queue,
            port,
        });
        Self {
            _release: Release(Arc::clone(&socket)),
            socket,
        }
    }

    /// Our overlay address and the port.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local()
    }

    /// The longest payload that can be sent, in bytes (1,372 with the default MTU).
    pub fn payload_max(&self) -> usize {
        payload_max(self.socket.tunnel.mtu_bytes)
    }

    /// Sends one datagram to an address of a peer. Like UDP it may be lost; without a session
    /// it waits, bounded, for the handshake that it starts.
    ///
    /// # Errors
    ///
    /// [`UdpSendError`]: nothing was sent.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> Result<(), UdpSendError> {
        poll_fn(|cx| self.poll_send_to(cx, payload, to)).await
    }

    /// The polling form of [`UdpSocket::send_to`].
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), UdpSendError>> {
        let TunnelSocket { tunnel, port, .. } = &*self.socket;
        loop {
            let failure = match tunnel.send_segments(*port, to, 0, std::iter::once(payload), false)
            {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(failure) => failure,
            };
            let error = match failure {
                SendFailure::WouldBlock if tunnel.poll_writable(cx.waker()) => continue,
                SendFailure::WouldBlock => return Poll::Pending,
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
        let item = std::task::ready!(self.socket.queue.poll_read(cx, |f| f.take_one(buffer)));
        Poll::Ready(match item.flatten() {
            Some(item) => Ok((item.len, item.source)),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// How many datagrams were dropped because nobody read them in time.
    pub fn dropped(&self) -> u64 {
        self.socket.queue.dropped()
    }

    /// Makes it the socket of a quinn endpoint (`quinn::Endpoint::new_with_abstract_socket`).
    /// The port is given back when the endpoint is gone.
    pub fn into_quinn(self) -> Arc<dyn quinn::AsyncUdpSocket> {
        Arc::new(self)
    }
}

impl quinn::AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn quinn::UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.local())
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
