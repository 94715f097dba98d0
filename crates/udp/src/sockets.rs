//! The set of sockets that a node sends and receives with.
//!
//! Owns the open sockets, who waits for them, and the counters. Choosing a socket, waiting for one,
//! and replacing all of them live here; receiving is in `receive`, sending rules are in `send`.
//! Never looks into a datagram.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

use crate::bind::Wanted;
use crate::counters::Counters;
use crate::send::{checked_destination, send_all};
use crate::socket::Socket;
use crate::wakers::WakerList;
use crate::{
    BindError, BufferSizes, DropReason, SendError, Sent, Transmit, UdpConfig, UdpCounters,
    local_address_towards,
};

/// What a successful [`UdpSockets::rebind`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebound {
    /// The sockets have the same ports as before. Otherwise peers see us at another port.
    pub same_port: bool,
}

/// UDP sockets used as one: usually one IPv4 and one IPv6-only socket on the same port.
///
/// Share it by reference or in an `Arc`; all methods take `&self`, and any number of tasks may send,
/// wait and receive.
#[derive(Debug)]
pub struct UdpSockets {
    // Held across system calls, for reading only and only non-blocking ones: what waits for it is
    // a rebind, which must not free a port while a send still uses the socket.
    pub(crate) open: RwLock<Open>,
    pub(crate) readers: Arc<WakerList>,
    pub(crate) read_waker: Waker,
    writers: Arc<WakerList>,
    write_waker: Waker,
    pub(crate) next_to_receive: AtomicUsize,
    pub(crate) counters: Counters,
}

#[derive(Debug)]
pub(crate) struct Open {
    config: UdpConfig,
    wanted: Wanted,
    /// The ports of the last successful bind, in order.
    ports: Vec<u16>,
    pub(crate) sockets: Vec<Socket>,
}

impl UdpSockets {
    /// Opens one socket per address, all of them or none; port 0 lets the system choose.
    ///
    /// IPv6 sockets never carry IPv4. At most [`crate::SOCKETS_MAX`] addresses.
    ///
    /// # Errors
    ///
    /// See [`BindError`]; also when called outside a tokio runtime.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        Self::bind_with(addresses, UdpConfig::default())
    }

    /// Opens one socket per address, configured.
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::bind`].
    pub fn bind_with(addresses: &[SocketAddr], config: UdpConfig) -> Result<Self, BindError> {
        Self::open(Wanted::Addresses(addresses.to_vec()), config)
    }

    /// Opens `0.0.0.0` and `[::]` on the same port; port 0 finds one that is free for both.
    ///
    /// A host without IPv4 or without IPv6 gets one socket.
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::bind`].
    pub fn bind_any(port: u16) -> Result<Self, BindError> {
        Self::bind_any_with(port, UdpConfig::default())
    }

    /// Opens `0.0.0.0` and `[::]` on the same port, configured.
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::bind`].
    pub fn bind_any_with(port: u16, config: UdpConfig) -> Result<Self, BindError> {
        Self::open(Wanted::Any(port), config)
    }

    /// No socket at all: receiving waits, sending drops.
    pub fn none() -> Self {
        Self::of(
            Wanted::Addresses(Vec::new()),
            UdpConfig::default(),
            Vec::new(),
        )
    }

    fn open(wanted: Wanted, config: UdpConfig) -> Result<Self, BindError> {
        let sockets = wanted.open(&config)?;
        Ok(Self::of(wanted, config, sockets))
    }

    fn of(wanted: Wanted, config: UdpConfig, sockets: Vec<Socket>) -> Self {
        let readers = Arc::new(WakerList::default());
        let writers = Arc::new(WakerList::default());
        UdpSockets {
            open: RwLock::new(Open {
                config,
                wanted,
                ports: ports_of(&sockets),
                sockets,
            }),
            read_waker: Waker::from(readers.clone()),
            readers,
            write_waker: Waker::from(writers.clone()),
            writers,
            next_to_receive: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    pub(crate) fn opened(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the local addresses, one per socket; empty after a failed rebind.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.opened()
            .sockets
            .iter()
            .map(|socket| socket.local)
            .collect()
    }

    /// Gives the kernel buffers that were granted, one entry per socket.
    pub fn buffer_sizes(&self) -> Vec<BufferSizes> {
        self.opened()
            .sockets
            .iter()
            .map(|socket| socket.sizes)
            .collect()
    }

    /// Gives the most datagrams that go out in one system call now; 1 without segmentation offload.
    ///
    /// Larger transmits are split. Falls to 1 when the offload proves broken.
    pub fn max_segments(&self) -> usize {
        let sockets = &self.opened().sockets;
        sockets
            .iter()
            .map(|socket| socket.offload.segments_max())
            .min()
            .unwrap_or(1)
    }

    /// Whether the platform may fragment datagrams on the way out, which makes path MTU discovery
    /// meaningless.
    pub fn may_fragment(&self) -> bool {
        self.opened()
            .sockets
            .iter()
            .any(|socket| socket.may_fragment)
    }

    /// Gives the local address that would be used towards `destination` now; sends nothing.
    ///
    /// # Errors
    ///
    /// As [`local_address_towards`].
    pub fn local_address_towards(&self, destination: SocketAddr) -> io::Result<IpAddr> {
        #[cfg(feature = "virtual")]
        if let Some(host) = &self.opened().config.host {
            return host.local_address_towards(destination);
        }
        local_address_towards(destination)
    }

    /// Gives a snapshot of the counters; they go on across rebinds.
    pub fn counters(&self) -> UdpCounters {
        self.counters.snapshot()
    }

    /// Sends datagrams to one destination now or says why not; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError::WouldBlock`]: wait with [`UdpSockets::poll_writable`] and send the rest.
    /// [`SendError::Dropped`]: counted, concerns this destination only.
    /// [`SendError::Fatal`]: the socket failed, [`UdpSockets::rebind`].
    pub fn try_send(&self, transmit: &Transmit<'_>) -> Result<Sent, SendError> {
        let open = self.opened();
        let mut sent_bytes = 0;
        let result = match checked_destination(transmit.destination) {
            Err(reason) => Err(SendError::Dropped(reason)),
            Ok(destination) => {
                let source = transmit.usable_source(destination);
                match open.socket_for(destination, source) {
                    None => Err(SendError::Dropped(DropReason::NoSocket)),
                    Some(socket) => {
                        self.send_on(socket, destination, source, transmit, &mut sent_bytes)
                    }
                }
            }
        };
        if let Err(SendError::Dropped(reason)) = result {
            self.counters
                .on_dropped(reason, transmit.datagram_count_from(sent_bytes));
        }
        result
    }

    fn send_on(
        &self,
        socket: &Socket,
        destination: SocketAddr,
        source: Option<IpAddr>,
        transmit: &Transmit<'_>,
        sent_bytes: &mut usize,
    ) -> Result<Sent, SendError> {
        let counters = &self.counters;
        let result = send_all(transmit, source, &socket.offload, |chunk| {
            Counters::add(&counters.send_syscalls, 1);
            socket.send(destination, transmit.ecn, chunk)?;
            let datagrams = chunk
                .segment_size
                .map_or(1, |size| chunk.contents.len().div_ceil(size));
            *sent_bytes += chunk.contents.len();
            Counters::add(&counters.sent_batches, 1);
            Counters::add(&counters.sent_datagrams, datagrams);
            Counters::add(&counters.sent_bytes, chunk.contents.len());
            Ok(())
        });
        match &result {
            Ok(sent) if sent.source_rejected => Counters::add(&counters.sources_rejected, 1),
            Err(SendError::WouldBlock { .. }) => {
                socket.is_blocked.store(true, Relaxed);
                Counters::add(&counters.send_would_block, 1);
            }
            _ => {}
        }
        result
    }

    /// Sends datagrams to one destination, waiting for room in the socket's buffer.
    ///
    /// Cancelling it may leave the first segments sent.
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::try_send`], but never [`SendError::WouldBlock`].
    pub async fn send(&self, transmit: &Transmit<'_>) -> Result<Sent, SendError> {
        let datagrams = transmit.datagram_count_from(0);
        let mut rest = *transmit;
        loop {
            match self.try_send(&rest) {
                Err(SendError::WouldBlock { sent_bytes }) => {
                    rest.contents = &rest.contents[sent_bytes..];
                    self.writable().await.map_err(SendError::Fatal)?;
                }
                result => return result.map(|sent| Sent { datagrams, ..sent }),
            }
        }
    }

    /// Waits until every socket that reported [`SendError::WouldBlock`] has room again; ready at
    /// once when none did.
    ///
    /// # Errors
    ///
    /// The runtime's I/O driver is gone.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let open = self.opened();
        if let Poll::Ready(result) = self.poll_blocked(&open.sockets) {
            return Poll::Ready(result);
        }
        // Registered before the second look, so that no wake-up falls between the two.
        self.writers.register(cx.waker());
        self.poll_blocked(&open.sockets)
    }

    /// Waits as [`UdpSockets::poll_writable`].
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::poll_writable`].
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writable(cx)).await
    }

    fn poll_blocked(&self, sockets: &[Socket]) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.write_waker);
        let mut all_ready = true;
        for socket in sockets
            .iter()
            .filter(|socket| socket.is_blocked.load(Relaxed))
        {
            match socket.poll_send_ready(&mut cx) {
                Poll::Ready(Ok(())) => socket.is_blocked.store(false, Relaxed),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => all_ready = false,
            }
        }
        if all_ready {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Replaces all sockets by new ones with the same addresses and, if possible, the same ports.
    ///
    /// For when the local address changed or a socket failed. Tasks that wait are woken and go on
    /// with the new sockets; datagrams not yet received on the old ones are lost.
    ///
    /// # Errors
    ///
    /// See [`BindError`]. No socket is open then: receiving waits, sending drops with
    /// [`DropReason::NoSocket`], and the next successful rebind revives both.
    pub fn rebind(&self) -> Result<Rebound, BindError> {
        let wanted = self.opened().wanted.clone();
        self.replace(wanted, true)
    }

    /// Replaces all sockets by new ones with other addresses; otherwise as [`UdpSockets::rebind`].
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::rebind`]; a later `rebind` then returns to the earlier addresses.
    pub fn rebind_to(&self, addresses: &[SocketAddr]) -> Result<Rebound, BindError> {
        self.replace(Wanted::Addresses(addresses.to_vec()), false)
    }

    /// Replaces all sockets by a pair as of [`UdpSockets::bind_any`]; otherwise as
    /// [`UdpSockets::rebind_to`].
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::rebind_to`].
    pub fn rebind_any(&self, port: u16) -> Result<Rebound, BindError> {
        self.replace(Wanted::Any(port), false)
    }

    /// Marks what is sent from now on, see [`UdpConfig::mark`]; kept across rebinds.
    ///
    /// # Errors
    ///
    /// The caller may not, or the platform has no marks; what was set before stays.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.sockets
            .iter()
            .try_for_each(|socket| socket.set_mark(mark))?;
        open.config.mark = mark;
        Ok(())
    }

    fn replace(&self, wanted: Wanted, keep_ports: bool) -> Result<Rebound, BindError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let first = if keep_ports {
            wanted.with_ports(&open.ports)
        } else {
            wanted.clone()
        };
        // Closed first: the ports are free only then.
        open.sockets.clear();
        let result = match first.open(&open.config) {
            Err(BindError::Address { error, .. })
                if keep_ports && error.kind() == io::ErrorKind::AddrInUse =>
            {
                wanted.with_any_port().open(&open.config)
            }
            result => result,
        };
        let outcome = result.map(|sockets| {
            open.wanted = wanted;
            let before = std::mem::replace(&mut open.ports, ports_of(&sockets));
            open.sockets = sockets;
            Rebound {
                same_port: before == open.ports,
            }
        });
        drop(open);
        self.readers.wake_all();
        self.writers.wake_all();
        outcome
    }
}

fn ports_of(sockets: &[Socket]) -> Vec<u16> {
    sockets.iter().map(|socket| socket.local.port()).collect()
}

impl Open {
    /// Chooses the socket bound to the source, or one bound to any address, or one of the family.
    fn socket_for(&self, destination: SocketAddr, source: Option<IpAddr>) -> Option<&Socket> {
        let family = || {
            self.sockets
                .iter()
                .filter(|s| s.local.is_ipv4() == destination.is_ipv4())
        };
        family()
            .find(|socket| source == Some(socket.local.ip()))
            .or_else(|| family().find(|socket| socket.local.ip().is_unspecified()))
            .or_else(|| family().next())
    }
}
