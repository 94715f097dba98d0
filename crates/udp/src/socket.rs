//! One operating system socket with its offload state.
//!
//! Owns the tokio socket and quinn-udp's state for it, or the port of a simulated host in their
//! place. Never decides about retries; `send` does.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};
use std::task::{Context, Poll};

use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::UdpConfig;
use crate::batch::RecvBatch;
use crate::errors::blames_offload;
use crate::send::{Chunk, Offload};

/// Smallest kernel buffer worth asking for.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// Kernel buffers of one socket as the operating system reports them (Linux reports twice the
/// usable size, since it counts its own bookkeeping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferSizes {
    /// The socket's local address.
    pub local: SocketAddr,
    /// Granted send buffer in bytes.
    pub send_bytes: usize,
    /// Granted receive buffer in bytes.
    pub receive_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) offload: Offload,
    pub(crate) sizes: BufferSizes,
    /// A send found the buffer full and nobody has seen it writable since.
    pub(crate) is_blocked: AtomicBool,
    pub(crate) may_fragment: bool,
    io: Io,
}

#[derive(Debug)]
enum Io {
    System(SystemSocket),
    #[cfg(feature = "virtual")]
    Memory(crate::memory::Port),
}

#[derive(Debug)]
struct SystemSocket {
    io: UdpSocket,
    /// Replaced when quinn-udp drew a conclusion from an error that had another cause.
    state: RwLock<UdpSocketState>,
    /// tokio has reported the socket writable at least once.
    was_writable: AtomicBool,
}

impl Socket {
    pub(crate) fn open(address: SocketAddr, config: &UdpConfig) -> io::Result<Self> {
        #[cfg(feature = "virtual")]
        if let Some(host) = &config.host {
            let port = host.bind(address, config.receive_buffer_bytes)?;
            return Ok(Self::of_memory(port, config));
        }
        let raw = RawSocket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            // Each family has its own socket, so that IPv4-mapped addresses never appear and a
            // port can be shared with an IPv4 socket.
            raw.set_only_v6(true)?;
        }
        request_buffer(config.send_buffer_bytes, |bytes| {
            raw.set_send_buffer_size(bytes)
        });
        request_buffer(config.receive_buffer_bytes, |bytes| {
            raw.set_recv_buffer_size(bytes)
        });
        raw.set_nonblocking(true)?;
        if config.mark != 0 {
            set_mark(SockRef::from(&raw), config.mark)?;
        }
        raw.bind(&address.into())?;
        let send_bytes = raw.send_buffer_size()?;
        let receive_bytes = raw.recv_buffer_size()?;
        let io = UdpSocket::from_std(raw.into())?;
        let local = io.local_addr()?;
        let state = UdpSocketState::new((&io).into())?;
        let segments = if config.segmentation_offload {
            state.max_gso_segments()
        } else {
            1
        };
        Ok(Socket {
            local,
            offload: Offload::new(segments),
            sizes: BufferSizes {
                local,
                send_bytes,
                receive_bytes,
            },
            is_blocked: AtomicBool::new(false),
            may_fragment: state.may_fragment(),
            io: Io::System(SystemSocket {
                state: RwLock::new(state),
                was_writable: AtomicBool::new(false),
                io,
            }),
        })
    }

    #[cfg(feature = "virtual")]
    fn of_memory(port: crate::memory::Port, config: &UdpConfig) -> Self {
        let local = port.local();
        Socket {
            local,
            offload: Offload::new(match config.segmentation_offload {
                true => crate::memory::SEGMENTS_MAX,
                false => 1,
            }),
            sizes: BufferSizes {
                local,
                send_bytes: config.send_buffer_bytes,
                receive_bytes: config.receive_buffer_bytes,
            },
            is_blocked: AtomicBool::new(false),
            may_fragment: false,
            io: Io::Memory(port),
        }
    }

    /// Changes the mark of what is sent.
    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        match &self.io {
            Io::System(system) => set_mark(SockRef::from(&system.io), mark),
            #[cfg(feature = "virtual")]
            Io::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.io {
            Io::System(system) => system.io.poll_recv_ready(cx),
            #[cfg(feature = "virtual")]
            Io::Memory(port) => port.poll_recv_ready(cx),
        }
    }

    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.io {
            Io::System(system) => system.io.poll_send_ready(cx),
            // It takes everything: what is too much is dropped at the link, as beyond a modem.
            #[cfg(feature = "virtual")]
            Io::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends one chunk with one system call.
    pub(crate) fn send(
        &self,
        destination: SocketAddr,
        ecn: u8,
        chunk: Chunk<'_>,
    ) -> io::Result<()> {
        match &self.io {
            Io::System(system) => system.send(destination, ecn, chunk),
            #[cfg(feature = "virtual")]
            Io::Memory(port) => port.send(destination, ecn, chunk),
        }
    }

    /// Receives with one system call; gives datagrams and bytes.
    pub(crate) fn receive(&self, batch: &mut RecvBatch) -> io::Result<(usize, usize)> {
        let bound: IpAddr = self.local.ip();
        match &self.io {
            Io::System(system) => batch.fill(bound, |slices, metas| system.receive(slices, metas)),
            #[cfg(feature = "virtual")]
            Io::Memory(port) => batch.fill(bound, |slices, metas| port.receive(slices, metas)),
        }
    }
}

impl SystemSocket {
    fn send(&self, destination: SocketAddr, ecn: u8, chunk: Chunk<'_>) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination,
            ecn: EcnCodepoint::from_bits(ecn),
            contents: chunk.contents,
            segment_size: chunk.segment_size,
            src_ip: chunk.source,
        };
        let attempt = || {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.try_send((&self.io).into(), &transmit)
        };
        let mut attempted = false;
        let mut result = self.io.try_io(Interest::WRITABLE, || {
            attempted = true;
            attempt()
        });
        if attempted {
            self.was_writable.store(true, Relaxed);
        } else if !self.was_writable.load(Relaxed) {
            // tokio calls a new socket writable only after its driver ran once; asking the
            // socket itself spares every first send a round through the scheduler.
            result = attempt();
        }
        if let Err(error) = &result
            && blames_offload(error)
        {
            self.reset_state();
        }
        result
    }

    fn receive(&self, slices: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.io.try_io(Interest::READABLE, || {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.recv((&self.io).into(), slices, metas)
        })
    }

    /// Forgets what quinn-udp concluded from EINVAL or EIO.
    ///
    /// It then stops segmentation and IPv4 ECN for good, although a stale source address gives
    /// the same error. Which of the two it was is found out by `send_all`, and kept in `offload`.
    fn reset_state(&self) {
        if let Ok(fresh) = UdpSocketState::new((&self.io).into()) {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

/// Asks for a buffer, and for half of it where the system refuses instead of granting less.
fn request_buffer(bytes: usize, set: impl Fn(usize) -> io::Result<()>) {
    let mut bytes = bytes;
    while bytes >= BUFFER_BYTES_MIN && set(bytes).is_err() {
        bytes /= 2;
    }
    if bytes > 0 && bytes < BUFFER_BYTES_MIN {
        // A size this small was asked for on purpose (tests); the default stays if refused.
        let _ = set(bytes);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_mark(socket: SockRef<'_>, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_mark(_: SockRef<'_>, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
