//! What all parts of a running node share: the engine, its sockets, and the ports inside.
//!
//! Owns the lock around the engine. Everyone who feeds the engine drains it under the same lock
//! ([`Tunnel::with`]), so that events, datagrams and deadlines leave in order.

use crate::admission::{AdmissionRequest, Decide};
use crate::egress::{Pacer, Sender, segments_at};
use crate::engine::Engine;
use crate::host::Host;
use crate::inbound::Ports;
use crate::last_words::LastWords;
use crate::outbox::Outbox;
use crate::pins::Kept;
use crate::plane::Plane;
use crate::port::{PortQueue, lock};
use crate::security::Reached;
use crate::state_dir::Disk;
use crate::status::{PeerNames, Refusals};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Waker;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wiremesh_core::{EgressConfig, KernelTask, PeerKey};
use wiremesh_quic::long_enough_for_a_reset;
use wiremesh_wire::address::STREAM_PORT;
use wiremesh_wire::{Instant, IpNet, NodeId, Now, Priority, ip};

/// Bytes of headers in front of a UDP payload inside the tunnel, IPv6.
pub(crate) const UDP6_HEADER_BYTES: usize = ip::IPV6_UDP_HEADER_LEN;

/// The addresses of ours inside the tunnel.
pub(crate) struct Addresses {
    pub(crate) overlay: Ipv6Addr,
    /// Further ones that the operator gave, with their prefix.
    pub(crate) extra: Vec<(IpAddr, IpNet)>,
}

impl Addresses {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address == self.overlay || self.extra.iter().any(|(extra, _)| *extra == address)
    }

    /// The address of ours to send from: one in the same prefix, else one of the same family.
    pub(crate) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let near = self.extra.iter().find(|(_, net)| net.contains(destination));
        let family = || match destination {
            IpAddr::V6(_) => Some(IpAddr::V6(self.overlay)),
            IpAddr::V4(_) => self.extra.iter().map(|(a, _)| *a).find(IpAddr::is_ipv4),
        };
        near.map(|(address, _)| *address).or_else(family)
    }
}

/// Everything behind the lock.
pub(crate) struct State {
    pub(crate) engine: Engine,
    /// What is to be done at the kernel's interface, in this order.
    pub(crate) tasks: Vec<KernelTask>,
    pub(crate) outbox: Outbox,
    /// Who may send when a pace is known.
    pub(crate) pacer: Pacer,
    /// Tasks that wait until the outbox takes more.
    pub(crate) writers: Vec<Waker>,
    /// Strangers about whom the application is to be asked once the lock is free.
    pub(crate) asked: Vec<AdmissionRequest>,
    pub(crate) last_words: LastWords,
    pub(crate) refusals: Refusals,
    pub(crate) names: PeerNames,
    /// Where the latest session of each address family went: IPv4, then IPv6.
    pub(crate) recent_remotes: [Option<SocketAddr>; 2],
    /// Since when each peer reaches its level.
    pub(crate) reached: Reached,
    /// The state directory, until the node is closed.
    pub(crate) disk: Option<Disk>,
    /// What is to be on the disk before the next datagram leaves.
    pub(crate) unsaved: Kept,
    pub(crate) save_failed_at: Option<std::time::Instant>,
    pub(crate) rebind_wanted: bool,
    pub(crate) closed: bool,
}

/// A running node.
pub(crate) struct Tunnel {
    pub(crate) me: Weak<Tunnel>,
    pub(crate) node_id: NodeId,
    state: Mutex<State>,
    /// What it has of the host.
    pub(crate) plane: Plane,
    pub(crate) addresses: Addresses,
    pub(crate) ports: Ports,
    pub(crate) streams: Arc<PortQueue>,
    pub(crate) decide: Option<Decide>,
    pub(crate) mtu_bytes: usize,
    /// Whether stream packets may travel without IP and UDP headers here.
    pub(crate) bare_streams: bool,
    /// WireGuard and an interface, nothing else: no port belongs to the node.
    pub(crate) plain: bool,
    /// Where time and randomness come from.
    pub(crate) host: Host,
    /// Where tasks are started, whichever thread asks for one.
    pub(crate) runtime: Handle,
    /// Wakes the driver: the outbox is to be flushed, or a deadline came nearer.
    pub(crate) wake: Notify,
    /// Wakes all who wait for a peer's level.
    pub(crate) security_changed: Notify,
    /// Segments that quinn may put in one transmit.
    pub(crate) transmit_segments: AtomicUsize,
    /// The deadline for which the driver sleeps, nanoseconds of the engine's clock.
    pub(crate) armed: AtomicU64,
}

/// Why a payload did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The outbox is full: wait for [`Tunnel::poll_writable`].
    WouldBlock,
    /// The peer has a pace, and it is not the sender's turn: it is woken when it is.
    NotYet,
    /// No peer owns the destination.
    NoRoute,
    /// No address of ours in that family.
    NoSource,
    /// Longer than the tunnel's MTU allows.
    TooLong,
    /// The node was closed.
    Closed,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({})", self.node_id)
    }
}

impl Tunnel {
    pub(crate) fn new(me: Weak<Tunnel>, parts: TunnelParts) -> Self {
        Self {
            me,
            node_id: parts.engine.node_id(),
            state: Mutex::new(State {
                engine: parts.engine,
                tasks: Vec::new(),
                outbox: Outbox::default(),
                pacer: Pacer::new(&parts.egress),
                writers: Vec::new(),
                asked: Vec::new(),
                last_words: LastWords::default(),
                refusals: Refusals::default(),
                names: PeerNames::default(),
                recent_remotes: [None; 2],
                reached: Reached::default(),
                disk: parts.disk,
                unsaved: Kept::default(),
                save_failed_at: None,
                rebind_wanted: false,
                closed: false,
            }),
            plane: parts.plane,
            addresses: parts.addresses,
            ports: Ports::default(),
            streams: Arc::new(PortQueue::new(4 << 20)),
            decide: parts.decide,
            mtu_bytes: parts.mtu_bytes,
            bare_streams: parts.bare_streams,
            plain: parts.plain,
            host: parts.host,
            runtime: parts.runtime,
            wake: Notify::new(),
            security_changed: Notify::new(),
            transmit_segments: AtomicUsize::new(segments_at(parts.egress.rate_bits)),
            armed: AtomicU64::new(0),
        }
    }

    /// Runs `f` on the engine and drains it.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let now = self.host.now();
        let mut state = lock(&self.state);
        let result = f(&mut state, now);
        self.release(&mut state, now);
        // What the outbox had no room for follows when the socket has taken the rest.
        while self.drain(&mut state, now) && self.flush(&mut state) {}
        self.flush(&mut state);
        self.notice_deadline(&state);
        let asked = std::mem::take(&mut state.asked);
        drop(state);
        if let Some(decide) = &self.decide {
            for request in asked {
                let decide = Arc::clone(decide);
                // In a task of its own: neither the callback's time nor its panic is the node's.
                self.runtime.spawn(async move { decide(request) });
            }
        }
        result
    }

    /// Wakes the driver if it sleeps for longer than the engine allows. Must be called under the
    /// lock, as the driver reads the deadline under it.
    fn notice_deadline(&self, state: &State) {
        let deadline = next_deadline(state);
        if deadline.as_nanos() < self.armed.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// The engine's next deadline, for which the driver is going to sleep.
    pub(crate) fn arm(&self) -> Instant {
        self.peek(|state, _| {
            let at = next_deadline(state);
            self.armed.store(at.as_nanos(), Ordering::Relaxed);
            at
        })
    }

    /// Looks at the engine without changing it.
    pub(crate) fn peek<T>(&self, f: impl FnOnce(&State, Now) -> T) -> T {
        let now = self.host.now();
        f(&lock(&self.state), now)
    }

    /// What is behind the lock, for changes after which the engine has nothing to say.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// As [`Tunnel::state`], with the time.
    pub(crate) fn touch<T>(&self, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let now = self.host.now();
        f(&mut lock(&self.state), now)
    }

    /// Events first (timestamps and pins must be on disk before they are used), then datagrams;
    /// `true` if the outbox had no room for all.
    fn drain(&self, state: &mut State, now: Now) -> bool {
        while let Some(event) = state.engine.poll_event() {
            self.on_event(state, now, event);
        }
        self.save(state);
        let Some(engine) = state.engine.own() else {
            self.hand_over_tasks(state);
            return false;
        };
        let segments_max = self.plane.sockets.max_segments();
        while !state.outbox.is_full() {
            let Some(transmit) = engine.poll_transmit() else {
                return false;
            };
            state.pacer.charge(now, transmit.datagram.len());
            state.outbox.push(&transmit, segments_max);
        }
        true
    }

    /// Tells the driver what the engine wants done at the kernel's interface.
    fn hand_over_tasks(&self, state: &mut State) {
        let before = state.tasks.len();
        while let Some(task) = state.engine.poll_task() {
            state.tasks.push(task);
        }
        if state.tasks.len() > before {
            self.wake.notify_one();
        }
    }

    /// Gives the socket what is waiting, and wakes the writers if it took it (`true`).
    pub(crate) fn flush(&self, state: &mut State) -> bool {
        let was_blocked = state.outbox.is_blocked();
        let flushed = state.outbox.flush(&self.plane.sockets);
        if let (Some(path), Some(engine)) = (flushed.source_rejected, state.engine.own()) {
            engine.forget_local_address(path);
        }
        if flushed.fatal {
            state.rebind_wanted = true;
            self.wake.notify_one();
        }
        let blocked = state.outbox.is_blocked();
        if !blocked {
            state.writers.drain(..).for_each(Waker::wake);
        } else if !was_blocked {
            // Once: the driver itself flushes while it waits, and must not wake itself for ever.
            self.wake.notify_one();
        }
        !blocked
    }

    /// Sends the segments of a transmit from `source_port` to `destination` inside the tunnel.
    ///
    /// Where more follows the last batch may wait for the driver, to be joined by the next.
    pub(crate) fn send_segments(
        &self,
        source_port: u16,
        destination: SocketAddr,
        ecn: u8,
        segments: impl Iterator<Item = impl AsRef<[u8]>>,
        sender: Sender<'_>,
    ) -> Result<(), SendFailure> {
        let source = self
            .addresses
            .source_for(destination.ip())
            .ok_or(SendFailure::NoSource)?;
        let flow = Flow {
            source: SocketAddr::new(source, source_port),
            destination,
            ecn,
        };
        let now = self.host.now();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendFailure::Closed);
        }
        if state.outbox.is_blocked() || state.outbox.is_full() {
            return Err(SendFailure::WouldBlock);
        }
        let route = state.engine.peer_by_address(destination.ip());
        let peer = route.ok_or(SendFailure::NoRoute)?;
        // Streams go to the peer that the address follows from, whoever else may route it.
        let overlay = state.engine.overlay_address_of(peer).map(IpAddr::V6);
        if source_port == STREAM_PORT && overlay != Some(destination.ip()) {
            return Err(SendFailure::NoRoute);
        }
        if state.pacer.is_paced(peer) {
            match sender {
                Sender::Connection(transmit) => {
                    if !self.has_turn(&mut state, now, peer, transmit) {
                        self.notice_deadline(&state);
                        return Err(SendFailure::NotYet);
                    }
                }
                Sender::Socket(class, waker) => {
                    let sent = self.offer_all(&mut state, now, peer, flow, segments, class, waker);
                    self.notice_deadline(&state);
                    self.flush(&mut state);
                    return sent;
                }
            }
        }
        let mut staged = false;
        let mut last = None;
        let mut result = Ok(());
        for segment in segments {
            match self.send_payload(&mut state, now, peer, flow, segment.as_ref()) {
                Ok(waits) => staged |= waits,
                Err(failure) => {
                    result = Err(failure);
                    break;
                }
            }
            last = Some(segment);
        }
        if let Some(last) = last.filter(|_| source_port == STREAM_PORT && !staged) {
            self.keep_last_words(&mut state, now, peer, flow, last.as_ref());
        }
        // Sealing may have called for a rekey, and set timers.
        let left = self.drain(&mut state, now);
        if staged || left {
            self.wake.notify_one();
        }
        self.notice_deadline(&state);
        if sender.has_more() && !staged && !state.outbox.has_full_batch() {
            drop(state);
            self.wake.notify_one();
        } else {
            self.flush(&mut state);
        }
        result
    }

    /// As [`Tunnel::send_segments`], for a peer with a pace and a sender that is no connection.
    #[allow(clippy::too_many_arguments)]
    fn offer_all(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        flow: Flow,
        segments: impl Iterator<Item = impl AsRef<[u8]>>,
        class: Priority,
        waker: Option<&Waker>,
    ) -> Result<(), SendFailure> {
        if !self.has_room(state, peer, class, waker) {
            return Err(SendFailure::NotYet);
        }
        for segment in segments {
            let payload = segment.as_ref();
            let mut packet = vec![0; flow.header_bytes() + payload.len()];
            if packet.len() > self.mtu_bytes {
                return Err(SendFailure::TooLong);
            }
            flow.write(&mut packet, payload);
            // What finds no room is counted there, and lost as on any network.
            let _ = self.offer_packet(state, now, peer, class, packet);
        }
        Ok(())
    }

    /// Keeps what a peer that does not answer may have to be told again.
    fn keep_last_words(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        flow: Flow,
        payload: &[u8],
    ) {
        let unanswered_for = state
            .engine
            .own()
            .and_then(|engine| engine.unanswered_for(now, peer));
        if state.last_words.wants(peer, unanswered_for) {
            let payload = long_enough_for_a_reset(payload);
            let mut packet = vec![0; flow.header_bytes() + payload.len()];
            flow.write(&mut packet, &payload);
            state.last_words.keep(peer, packet);
        }
    }

    /// Tells a peer again what it was told last, for something about its sessions has changed. The
    /// one in use may still be that of before; so the packet is kept until the streams hear something.
    pub(crate) fn repeat_last_words(&self, state: &mut State, now: Now, peer: PeerKey) {
        let Some(packet) = state.last_words.take(peer) else {
            return;
        };
        let ecn = ip::ecn(&packet);
        let payload = &packet[UDP6_HEADER_BYTES..];
        let bare = self.send_bare(state, now, peer, ecn, payload);
        if !bare && packet.len() <= self.mtu_bytes {
            let fill = |out: &mut [u8]| out.copy_from_slice(&packet);
            self.seal(state, now, peer, packet.len(), ecn, fill);
        }
        state.last_words.keep(peer, packet);
    }

    /// Seals one payload into the outbox, or stages it in the engine (`true`) for want of a
    /// session.
    fn send_payload(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        flow: Flow,
        payload: &[u8],
    ) -> Result<bool, SendFailure> {
        if flow.is_of_streams() && self.send_bare(state, now, peer, flow.ecn, payload) {
            return Ok(false);
        }
        let packet_len = flow.header_bytes() + payload.len();
        if packet_len > self.mtu_bytes {
            return Err(SendFailure::TooLong);
        }
        let fill = |packet: &mut [u8]| flow.write(packet, payload);
        if !self.seal(state, now, peer, packet_len, flow.ecn, fill) {
            let mut packet = vec![0; packet_len];
            flow.write(&mut packet, payload);
            // A full queue drops: a handshake is running and the streams repeat what is lost.
            state.stage(now, packet);
            return Ok(true);
        }
        Ok(false)
    }

    /// Seals a packet straight into the outbox; `false` when there is no session for it.
    pub(crate) fn seal(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        packet_len: usize,
        ecn: u8,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(engine) = state.engine.own() else {
            return false;
        };
        let Some(path) = engine.path_of(peer) else {
            return false;
        };
        let len = engine.sealed_len(packet_len);
        let batch = state
            .outbox
            .batch_for(path, ecn, len, self.plane.sockets.max_segments());
        let sealed = engine
            .seal_packet(now, peer, packet_len, &mut batch.contents, fill)
            .is_ok();
        match sealed {
            true => state.outbox.appended(len),
            false => state.outbox.drop_if_empty(),
        }
        sealed
    }

    /// Registers `waker` unless the outbox takes more now.
    pub(crate) fn poll_writable(&self, waker: &Waker) -> bool {
        self.state().poll_writable(waker)
    }
}

impl State {
    /// See [`Tunnel::poll_writable`].
    pub(crate) fn poll_writable(&mut self, waker: &Waker) -> bool {
        let ready = self.closed || (!self.outbox.is_blocked() && !self.outbox.is_full());
        if !ready && !self.writers.iter().any(|known| known.will_wake(waker)) {
            self.writers.push(waker.clone());
        }
        ready
    }

    /// Queues a packet in the engine until there is a session for it; a full queue drops.
    pub(crate) fn stage(&mut self, now: Now, packet: Vec<u8>) {
        if let Some(engine) = self.engine.own() {
            let _ = engine.handle_packet(now, packet);
        }
    }
}

/// When the driver has something to do.
fn next_deadline(state: &State) -> Instant {
    let engine = state.engine.poll_timeout().unwrap_or(Instant::MAX);
    // A socket that takes nothing wakes the driver itself.
    let egress = state
        .pacer
        .poll_timeout()
        .filter(|_| !state.outbox.is_blocked());
    engine.min(egress.unwrap_or(Instant::MAX))
}

/// What a [`Tunnel`] is made from.
pub(crate) struct TunnelParts {
    pub(crate) egress: EgressConfig,
    pub(crate) engine: Engine,
    pub(crate) plane: Plane,
    pub(crate) addresses: Addresses,
    pub(crate) disk: Option<Disk>,
    pub(crate) decide: Option<Decide>,
    pub(crate) mtu_bytes: usize,
    pub(crate) bare_streams: bool,
    pub(crate) plain: bool,
    pub(crate) host: Host,
    pub(crate) runtime: Handle,
}

/// The addressing of one UDP datagram inside the tunnel.
#[derive(Clone, Copy)]
struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
    ecn: u8,
}

impl Flow {
    fn is_of_streams(&self) -> bool {
        self.source.port() == STREAM_PORT && self.destination.port() == STREAM_PORT
    }

    fn header_bytes(&self) -> usize {
        match self.destination {
            SocketAddr::V4(_) => ip::IPV4_UDP_HEADER_LEN,
            SocketAddr::V6(_) => UDP6_HEADER_BYTES,
        }
    }

    /// Writes headers and payload; `packet` has exactly their length.
    fn write(&self, packet: &mut [u8], payload: &[u8]) {
        packet[self.header_bytes()..].copy_from_slice(payload);
        let (from, to) = (self.source.port(), self.destination.port());
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip::emit_ipv6_udp(
                    packet,
                    (source, from),
                    (destination, to),
                    payload.len(),
                    self.ecn,
                );
            }
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip::emit_ipv4_udp(
                    packet,
                    (source, from),
                    (destination, to),
                    payload.len(),
                    self.ecn,
                );
            }
            _ => unreachable!("the source is chosen in the destination's family"),
        }
    }
}
