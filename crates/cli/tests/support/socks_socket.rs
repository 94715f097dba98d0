//! A UDP socket behind SOCKS 5, as quinn wants it: what a QUIC client with proxy support has.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use wiremesh::quinn::udp::{RecvMeta, Transmit};
use wiremesh::quinn::{AsyncUdpSocket, UdpPoller};
use wiremesh_cli::socks5::{Host, emit_datagram_header, parse_datagram};

/// Sends to the relay, with the header of RFC 1928 before each datagram.
#[derive(Debug)]
pub struct SocksSocket(Arc<UdpSocket>);

impl SocksSocket {
    pub async fn new(relay: SocketAddr) -> Arc<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        socket.connect(relay).await.expect("an address");
        Arc::new(Self(Arc::new(socket)))
    }
}

struct Writable(Arc<UdpSocket>);

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send_ready(cx)
    }
}

impl AsyncUdpSocket for SocksSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(Arc::clone(&self.0)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let header = emit_datagram_header(transmit.destination);
        let datagram = [&header, transmit.contents].concat();
        self.0.try_send(&datagram).map(drop)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = [0; 2_000];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(self.0.poll_recv(cx, &mut buffer))?;
            let Some((Host::Ip(ip), port, payload)) = parse_datagram(buffer.filled()) else {
                continue;
            };
            buffers[0][..payload.len()].copy_from_slice(payload);
            meta[0] = RecvMeta {
                addr: SocketAddr::new(ip, port),
                len: payload.len(),
                stride: payload.len(),
                ecn: None,
                dst_ip: None,
            };
            return Poll::Ready(Ok(1));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // quinn speaks IPv6 with a socket that has an IPv6 address.
        let port = self.0.local_addr()?.port();
        Ok(SocketAddr::from(([0u16; 8], port)))
    }
}
