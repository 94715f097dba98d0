//! A UDP port, inside the tunnel or beside it, with the same calls for both.
//!
//! Owns the socket and its buffers; it knows no layout.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use wiremesh::quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use wiremesh::quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// What the kernel is asked to keep for a plain socket: as much as for those of a node.
const BUFFER_BYTES: usize = 4 << 20;

/// Buffers that are filled at once, each with a run of datagrams.
const BATCH: usize = 8;

/// A UDP socket.
#[derive(Clone, Debug)]
pub struct Port(Arc<dyn AsyncUdpSocket>);

/// Where a datagram came from, and which of our addresses it went to.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// Whence.
    pub source: SocketAddr,
    /// Whither.
    pub own: Option<IpAddr>,
}

impl Port {
    /// A socket of the host, whose datagrams are never cut into fragments if the host can do that.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    pub fn plain(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        // The system may grant less, or nothing more: then what it has is measured.
        let _ = state.set_recv_buffer_size((&socket).into(), BUFFER_BYTES);
        let _ = state.set_send_buffer_size((&socket).into(), BUFFER_BYTES);
        Ok(Self(TokioRuntime.wrap_udp_socket(socket)?))
    }

    /// A socket inside the tunnel.
    ///
    /// # Errors
    ///
    /// It cannot be used.
    pub fn tunnel(socket: wiremesh::UdpSocket) -> io::Result<Self> {
        Ok(Self(socket.into_quinn()?))
    }

    /// Its number.
    ///
    /// # Errors
    ///
    /// The system does not know.
    pub fn number(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// Whether the host may cut its datagrams into fragments on the way.
    pub fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }

    /// Sends a datagram; one that is too long for the next hop is lost.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn send(&self, bytes: &[u8], to: SocketAddr, own: Option<IpAddr>) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: own,
        };
        let mut poller = None;
        loop {
            match self.0.try_send(&transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let poller = poller.get_or_insert_with(|| Arc::clone(&self.0).create_io_poller());
            poll_fn(|cx| poller.as_mut().poll_writable(cx)).await?;
        }
    }

    /// Fills the inbox. Only one task may wait for the datagrams of a port.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.filled = 0;
        let Inbox { buffers, metas, .. } = inbox;
        let filled = poll_fn(|cx| {
            let mut slices: [IoSliceMut<'_>; BATCH] =
                buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            self.0.poll_recv(cx, &mut slices, metas)
        });
        inbox.filled = filled.await?;
        Ok(())
    }
}

/// What a port has received last.
pub struct Inbox {
    buffers: [Vec<u8>; BATCH],
    metas: [RecvMeta; BATCH],
    filled: usize,
}

impl Inbox {
    /// An empty one, 512 KiB.
    pub fn new() -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; 65_535]),
            metas: [RecvMeta::default(); BATCH],
            filled: 0,
        }
    }

    /// The datagrams in it.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (&mut [u8], From)> {
        let filled = self.buffers.iter_mut().zip(&self.metas).take(self.filled);
        filled.flat_map(|(buffer, meta)| {
            let from = From {
                source: meta.addr,
                own: meta.dst_ip,
            };
            let length = meta.len.min(buffer.len());
            let datagrams = buffer[..length].chunks_mut(meta.stride.max(1));
            datagrams.map(move |datagram| (datagram, from))
        })
    }
}
