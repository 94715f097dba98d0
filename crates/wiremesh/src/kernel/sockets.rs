//! Sockets of the host that reach the interface and nothing else.
//!
//! Owns `SO_BINDTODEVICE`: what comes in on such a socket came in through the interface, where the
//! kernel's allowed IPs have tied the source to a peer's key.

use crate::error::UdpSendError;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// Kernel buffers, in bytes, for sending and for receiving.
const BUFFER_BYTES: usize = 4 << 20;

/// A UDP socket of the interface; the unspecified address stands for all, IPv4 too.
pub(super) fn bind(interface: &str, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_only_v6(!address.ip().is_unspecified())?;
    // Before it has a port, so that nothing from elsewhere is ever in its queue.
    socket.bind_device(Some(interface.as_bytes()))?;
    // The kernel gives at most what the host allows.
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// One UDP port of the application.
#[derive(Debug)]
pub(crate) struct KernelSocket {
    socket: UdpSocket,
    overlay: Ipv6Addr,
}

impl KernelSocket {
    pub(crate) fn new(socket: std::net::UdpSocket, overlay: Ipv6Addr) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            overlay,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        let port = self.socket.local_addr().map_or(0, |local| local.port());
        SocketAddr::new(self.overlay.into(), port)
    }

    /// For quinn, which has its own way to use it.
    pub(crate) fn into_std(self) -> io::Result<std::net::UdpSocket> {
        self.socket.into_std()
    }

    pub(crate) fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        to: SocketAddr,
        payload_max: usize,
    ) -> Poll<Result<(), UdpSendError>> {
        let sent = std::task::ready!(self.socket.poll_send_to(cx, payload, mapped(to)));
        Poll::Ready(match sent.map_err(|error| error.kind()) {
            Err(ErrorKind::AddrNotAvailable) => Err(UdpSendError::NoSource(to.ip())),
            Err(_) if payload.len() > payload_max => Err(UdpSendError::TooLong {
                len: payload.len(),
                max: payload_max,
            }),
            // The peer is not at its level, or has no endpoint: lost, as on any network.
            _ => Ok(()),
        })
    }

    pub(crate) fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            let mut filled = ReadBuf::new(buffer);
            match std::task::ready!(self.socket.poll_recv_from(cx, &mut filled)) {
                Ok(from) => return Poll::Ready(Ok((filled.filled().len(), unmapped(from)))),
                // The fate of a datagram that was sent before.
                Err(error) if is_report(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn is_report(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

/// As a socket for both families takes an IPv4 address.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
