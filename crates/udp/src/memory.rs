//! A network in memory, in virtual time, from a seed: hosts, the links between them, their ports.
//!
//! Owns the simulated hosts, the datagrams that are under way, and the one task that carries them.
//! Time is tokio's paused clock, so a runtime needs `start_paused`, and nothing here waits for real.
//! Never looks into a datagram, and never opens a socket.
//!
//! Tokio's timers have a resolution of one millisecond, here as on a real clock; the links are
//! exact to the nanosecond. The carrier therefore moves the clock itself inside a millisecond, once
//! everybody has done what there was to do, and leaves the step to the next one to the runtime.

mod link;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn_udp::{EcnCodepoint, RecvMeta};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::errors::too_large;
use crate::send::Chunk;
use link::{Link, Passage, Random};

pub use link::{LinkConfig, LinkCounters};

/// Datagrams that a port takes in one call, as many as Linux does.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// The first port that is given to somebody who asks for any.
const EPHEMERAL_PORT: u16 = 49_152;

/// Turns that all other tasks get before the clock moves on inside a millisecond: what one of them
/// wakes runs in the same turn, so only one that yields several times could come too late.
const SETTLE_TURNS: usize = 8;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A network. Clones are handles of the same one; it ends with the runtime that it was made in.
#[derive(Clone, Debug)]
pub struct Network(Arc<Shared>);

/// One link of a [`Network`]: what several hosts send through it shares its rate and its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(usize);

/// One host of a [`Network`].
#[derive(Clone, Debug)]
pub struct Host {
    network: Network,
    index: usize,
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.network.0, &other.network.0) && self.index == other.index
    }
}

impl Eq for Host {}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    state: Mutex<State>,
    /// Something is to be carried earlier than the carrier knows.
    earlier: Notify,
}

#[derive(Debug)]
struct State {
    random: Random,
    links: Vec<Link>,
    hosts: Vec<HostState>,
    addresses: BTreeMap<IpAddr, usize>,
    /// The link behind the uplink, from one host to another.
    routes: BTreeMap<(usize, usize), LinkId>,
    /// What comes to the end of a link at a time; the number keeps what is simultaneous in order.
    under_way: BTreeMap<(Duration, u64), UnderWay>,
    sequence: u64,
    trace: u64,
    undelivered: u64,
}

#[derive(Debug)]
struct HostState {
    addresses: Vec<IpAddr>,
    uplink: LinkId,
    next_port: u16,
    ports: BTreeMap<SocketAddr, Inbox>,
}

#[derive(Debug)]
enum UnderWay {
    Datagram(Datagram, Option<LinkId>),
    Alarm(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    ecn: u8,
    contents: Vec<u8>,
}

#[derive(Debug)]
struct Inbox {
    waiting: VecDeque<Datagram>,
    bytes: usize,
    bytes_max: usize,
    reader: Option<Waker>,
}

impl Network {
    /// Makes a network in a runtime whose clock is paused; it starts to carry at once.
    ///
    /// The same seed gives the same losses. Call it before the clock has moved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            state: Mutex::new(State {
                random: Random::new(seed),
                links: Vec::new(),
                hosts: Vec::new(),
                addresses: BTreeMap::new(),
                routes: BTreeMap::new(),
                under_way: BTreeMap::new(),
                sequence: 0,
                trace: seed,
                undelivered: 0,
            }),
            earlier: Notify::new(),
        });
        tokio::spawn(carry(Arc::clone(&shared)));
        Self(shared)
    }

    /// The virtual time since the network was made.
    pub fn elapsed(&self) -> Duration {
        self.0.epoch.elapsed()
    }

    /// Adds a link.
    pub fn link(&self, config: LinkConfig) -> LinkId {
        let mut state = self.0.state();
        state.links.push(Link::new(config));
        LinkId(state.links.len() - 1)
    }

    /// Replaces the settings of a link; what it has taken is not affected.
    pub fn change(&self, link: LinkId, config: LinkConfig) {
        self.0.state().links[link.0].config = config;
    }

    /// What a link has done so far.
    pub fn counters(&self, link: LinkId) -> LinkCounters {
        self.0.state().links[link.0].counters
    }

    /// Adds a host that sends everything through `uplink`, which it may share with others.
    ///
    /// # Panics
    ///
    /// An address belongs to a host already.
    pub fn host(&self, addresses: &[IpAddr], uplink: LinkId) -> Host {
        let mut state = self.0.state();
        let index = state.hosts.len();
        for address in addresses {
            let before = state.addresses.insert(*address, index);
            assert!(before.is_none(), "{address} belongs to a host already");
        }
        state.hosts.push(HostState {
            addresses: addresses.to_vec(),
            uplink,
            next_port: EPHEMERAL_PORT,
            ports: BTreeMap::new(),
        });
        Host {
            network: self.clone(),
            index,
        }
    }

    /// What `from` sends to `to` goes through this link after the uplink. Default: none.
    pub fn route(&self, from: &Host, to: &Host, link: LinkId) {
        let mut state = self.0.state();
        state.routes.insert((from.index, to.index), link);
    }

    /// Waits for so long, to the nanosecond: tokio's own timers wait for whole milliseconds.
    pub async fn sleep(&self, time: Duration) {
        let (alarm, sleeper) = oneshot::channel();
        let at = self.elapsed() + time;
        self.0.state().put(at, UnderWay::Alarm(alarm));
        self.0.earlier.notify_one();
        // The carrier keeps the other end until then.
        let _ = sleeper.await;
    }

    /// A hash over every datagram that was ever sent, with the time and the addresses: equal runs
    /// have equal ones.
    pub fn trace(&self) -> u64 {
        self.0.state().trace
    }

    /// Datagrams that came to nobody: no such host, nobody at the port, or its buffer was full.
    pub fn undelivered(&self) -> u64 {
        self.0.state().undelivered
    }
}

impl Host {
    /// The network that the host is in.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its first address.
    pub fn address(&self) -> Option<IpAddr> {
        let state = self.network.0.state();
        state.hosts[self.index].addresses.first().copied()
    }

    pub(crate) fn local_address_towards(&self, destination: SocketAddr) -> io::Result<IpAddr> {
        let state = self.network.0.state();
        let address = state.hosts[self.index].address_towards(destination);
        address.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    pub(crate) fn bind(&self, wanted: SocketAddr, buffer_bytes: usize) -> io::Result<Port> {
        let mut state = self.network.0.state();
        let host = &mut state.hosts[self.index];
        let is_ours = match wanted.ip().is_unspecified() {
            true => host.address_towards(wanted).is_some(),
            false => host.addresses.contains(&wanted.ip()),
        };
        if !is_ours {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let local = match wanted.port() {
            0 => host.any_port(wanted),
            _ => Some(wanted).filter(|local| !host.is_taken(*local)),
        };
        let local = local.ok_or(io::ErrorKind::AddrInUse)?;
        let inbox = Inbox {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: buffer_bytes,
            reader: None,
        };
        host.ports.insert(local, inbox);
        drop(state);
        Ok(Port {
            host: self.clone(),
            local,
        })
    }
}

impl HostState {
    /// Our address in the destination's family.
    fn address_towards(&self, destination: SocketAddr) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter();
        addresses
            .find(|address| address.is_ipv4() == destination.is_ipv4())
            .copied()
    }

    fn is_taken(&self, local: SocketAddr) -> bool {
        let clashes = |other: &SocketAddr| {
            let either = other.ip().is_unspecified() || local.ip().is_unspecified();
            other.port() == local.port()
                && other.is_ipv4() == local.is_ipv4()
                && (either || other.ip() == local.ip())
        };
        self.ports.keys().any(clashes)
    }

    fn any_port(&mut self, wanted: SocketAddr) -> Option<SocketAddr> {
        let mut local = wanted;
        for _ in EPHEMERAL_PORT..=u16::MAX {
            local.set_port(self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(EPHEMERAL_PORT);
            if !self.is_taken(local) {
                return Some(local);
            }
        }
        None
    }

    fn inbox(&mut self, destination: SocketAddr) -> Option<&mut Inbox> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let at = match self.ports.contains_key(&destination) {
            true => destination,
            false => SocketAddr::new(any, destination.port()),
        };
        self.ports.get_mut(&at)
    }
}

/// One bound UDP port of a host; it is free again when dropped.
#[derive(Debug)]
pub(crate) struct Port {
    host: Host,
    local: SocketAddr,
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut state = self.host.network.0.state();
        state.hosts[self.host.index].ports.remove(&self.local);
    }
}

impl Port {
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Gives the uplink all datagrams of a chunk; it never says that it would block.
    pub(crate) fn send(
        &self,
        destination: SocketAddr,
        ecn: u8,
        chunk: Chunk<'_>,
    ) -> io::Result<()> {
        let shared = &self.host.network.0;
        let now = shared.epoch.elapsed();
        let mut state = shared.state();
        let host = &state.hosts[self.host.index];
        let bound = Some(self.local.ip()).filter(|ip| !ip.is_unspecified());
        let source = match chunk.source.or(bound) {
            Some(source) if host.addresses.contains(&source) => source,
            Some(_) => return Err(io::ErrorKind::AddrNotAvailable.into()),
            None => host
                .address_towards(destination)
                .ok_or(io::ErrorKind::NetworkUnreachable)?,
        };
        let source = SocketAddr::new(source, self.local.port());
        let uplink = host.uplink;
        let segment = chunk.segment_size.unwrap_or(chunk.contents.len()).max(1);
        if !state.links[uplink.0].fits(destination, segment) {
            return Err(too_large());
        }
        let then = state
            .addresses
            .get(&destination.ip())
            .and_then(|to| state.routes.get(&(self.host.index, *to)).copied());
        for contents in chunk.contents.chunks(segment) {
            let datagram = Datagram {
                source,
                destination,
                ecn,
                contents: contents.to_vec(),
            };
            state.note(now, &datagram);
            state.enter(now, uplink, datagram, then);
        }
        drop(state);
        shared.earlier.notify_one();
        Ok(())
    }

    pub(crate) fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.host.network.0.state();
        let inbox = state.hosts[self.host.index].ports.get_mut(&self.local);
        let inbox = inbox.expect("it is bound as long as the port lives");
        if inbox.waiting.is_empty() {
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn receive(
        &self,
        slices: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let mut state = self.host.network.0.state();
        let inbox = state.hosts[self.host.index].ports.get_mut(&self.local);
        let inbox = inbox.expect("it is bound as long as the port lives");
        let mut count = 0;
        for (slice, meta) in slices.iter_mut().zip(metas) {
            let Some(datagram) = inbox.waiting.pop_front() else {
                break;
            };
            inbox.bytes -= datagram.contents.len();
            let len = datagram.contents.len().min(slice.len());
            slice[..len].copy_from_slice(&datagram.contents[..len]);
            *meta = RecvMeta::default();
            meta.addr = datagram.source;
            meta.len = len;
            meta.stride = len;
            meta.ecn = EcnCodepoint::from_bits(datagram.ecn);
            meta.dst_ip = Some(datagram.destination.ip());
            count += 1;
        }
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, now: Duration, datagram: &Datagram) {
        // Its keys are fixed, as they must be here.
        let mut hasher = DefaultHasher::new();
        let Datagram {
            source,
            destination,
            ecn,
            contents,
        } = datagram;
        (self.trace, now, source, destination, ecn, contents).hash(&mut hasher);
        self.trace = hasher.finish();
    }

    /// Gives a datagram to a link, which loses it or says when it comes out.
    fn enter(&mut self, now: Duration, link: LinkId, datagram: Datagram, then: Option<LinkId>) {
        let len = datagram.contents.len();
        let passage = self.links[link.0].enter(now, datagram.destination, len, &mut self.random);
        if let Passage::Arrives(at) = passage {
            self.put(at, UnderWay::Datagram(datagram, then));
        }
    }

    fn put(&mut self, at: Duration, under_way: UnderWay) {
        self.sequence += 1;
        self.under_way.insert((at, self.sequence), under_way);
    }

    /// Carries on what is due.
    fn arrive(&mut self, now: Duration) {
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                UnderWay::Datagram(datagram, Some(link)) => self.enter(now, link, datagram, None),
                UnderWay::Datagram(datagram, None) => self.deliver(datagram),
                // Who waited for it may have gone.
                UnderWay::Alarm(sleeper) => drop(sleeper.send(())),
            }
        }
    }

    fn deliver(&mut self, datagram: Datagram) {
        let index = self.addresses.get(&datagram.destination.ip());
        let inbox = index.and_then(|index| self.hosts[*index].inbox(datagram.destination));
        let len = datagram.contents.len();
        match inbox.filter(|inbox| inbox.bytes + len <= inbox.bytes_max) {
            Some(inbox) => {
                inbox.bytes += len;
                inbox.waiting.push_back(datagram);
                // Woken under the lock: a waker of tokio's only notes that the task is to run.
                inbox.reader.take().into_iter().for_each(Waker::wake);
            }
            None => self.undelivered += 1,
        }
    }

    fn next(&self) -> Option<Duration> {
        let ((at, _), _) = self.under_way.first_key_value()?;
        Some(*at)
    }
}

/// Carries datagrams as long as the runtime runs.
async fn carry(shared: Arc<Shared>) {
    loop {
        let now = shared.epoch.elapsed();
        shared.state().arrive(now);
        settle().await;
        let next = shared.state().next();
        // The runtime moves the clock by whole milliseconds, so it is left only on their marks.
        let mark = floor(now) + MILLISECOND;
        let is_off_mark = floor(now) != now;
        match next {
            Some(at) if at < mark => tokio::time::advance(at.saturating_sub(now)).await,
            _ if is_off_mark => tokio::time::advance(mark - now).await,
            Some(at) => {
                let sleep = tokio::time::sleep_until(shared.epoch + floor(at));
                tokio::select! {
                    biased;
                    () = shared.earlier.notified() => {}
                    () = sleep => {}
                }
            }
            None => shared.earlier.notified().await,
        }
        settle().await;
    }
}

/// Lets everybody else do what there is to do now.
async fn settle() {
    for _ in 0..SETTLE_TURNS {
        tokio::task::yield_now().await;
    }
}

fn floor(time: Duration) -> Duration {
    time - Duration::from_nanos(u64::from(time.subsec_nanos()) % 1_000_000)
}
