//! All connections and listeners of a node.
//!
//! Owns the way from a packet to its connection, the limit on connections, and the deadlines. Each
//! connection is alone in a socket set of smoltcp's, so that finding it costs the same with any
//! number of them. It reads no clock and sends nothing itself.

use crate::connection::{Cause, Connection, Owner};
use crate::link::{Link, Outgoing};
use crate::recovery::DUPLICATE_ACKS;
use crate::segment::{Flow, Segment};
use crate::{ConnectError, ListenError, TcpConfig};
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::HardwareAddress;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

/// Packets of one connection before the next has its turn.
const BURST: usize = 64;
/// Connections of one listener that are not accepted yet, handshakes included.
const BACKLOG_MAX: usize = 128;
/// Segments that are acknowledged together at most (RFC 9293, 3.8.6.3): who sends grows its window
/// with each ACK.
const ACK_EVERY: usize = 2;
/// IPv6 and TCP headers of a full segment.
const HEADERS_BYTES: usize = 60;
/// Ports for connections that we open.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// What smoltcp wants at once is done now; when it wants it again, not in a circle without end.
const PAUSE: Duration = Duration::from_millis(1);

/// The name of a connection; never used again.
pub(crate) type Id = u64;

#[derive(Default)]
struct Backlog {
    /// Handshakes under way and connections that wait.
    members: usize,
    waiting: VecDeque<Id>,
    wakers: Vec<Waker>,
}

/// See the module.
pub(crate) struct Stack {
    interface: Interface,
    pub(crate) outgoing: Outgoing,
    pub(crate) config: TcpConfig,
    mtu_bytes: usize,
    /// Connections that are not closed yet.
    flows: HashMap<Flow, Id>,
    connections: HashMap<Id, Connection>,
    listeners: HashMap<u16, Backlog>,
    deadlines: BTreeSet<(Instant, Id)>,
    queue: VecDeque<Id>,
    last_id: Id,
    next_port: u16,
    /// The node is closed.
    pub(crate) closed: bool,
    /// Nobody has a handle any more.
    pub(crate) released: bool,
}

impl Stack {
    pub(crate) fn new(config: TcpConfig, mtu_bytes: usize, seed: u64) -> Self {
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = seed;
        let mut outgoing = Outgoing::default();
        let mut link = Link {
            incoming: None,
            outgoing: &mut outgoing,
            mtu_bytes,
        };
        let mut interface = Interface::new(settings, &mut link, Instant::ZERO);
        // What comes is for an address of ours already, and what goes is from one.
        interface.set_any_ip(true);
        Self {
            interface,
            outgoing,
            config,
            mtu_bytes,
            flows: HashMap::new(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
            deadlines: BTreeSet::new(),
            queue: VecDeque::new(),
            last_id: 0,
            next_port: EPHEMERAL.start() + (seed % EPHEMERAL.len() as u64) as u16,
            closed: false,
            released: false,
        }
    }

    /// A connection that somebody holds.
    pub(crate) fn held(&mut self, id: Id) -> &mut Connection {
        let connection = self.connections.get_mut(&id);
        connection.expect("a connection stays while a stream has it")
    }

    /// Has a connection looked at in the next turn.
    pub(crate) fn enqueue(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.queue.push_back(id);
        }
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self, from: IpAddr, to: SocketAddr) -> Result<Id, ConnectError> {
        if self.closed {
            return Err(ConnectError::Closed);
        }
        let remote = SocketAddr::new(to.ip(), to.port());
        self.make_room().map_err(ConnectError::TooMany)?;
        let port = self.free_port(from, remote).ok_or(ConnectError::NoPort)?;
        let local = SocketAddr::new(from, port);
        let flow = Flow { local, remote };
        let mut connection = Connection::new(flow, Owner::Stream, &self.config);
        let context = self.interface.context();
        let begun = connection.socket().connect(context, remote, local);
        begun.map_err(|_| ConnectError::BadAddress(to))?;
        Ok(self.insert(connection))
    }

    fn free_port(&mut self, from: IpAddr, remote: SocketAddr) -> Option<u16> {
        for _ in 0..EPHEMERAL.len() {
            let port = self.next_port;
            self.next_port = match port {
                u16::MAX => *EPHEMERAL.start(),
                _ => port + 1,
            };
            let local = SocketAddr::new(from, port);
            let taken = self.flows.contains_key(&Flow { local, remote });
            if !taken && !self.listeners.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    /// Whether the handshake is done, and how it ended.
    pub(crate) fn poll_connected(
        &mut self,
        id: Id,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ErrorKind>> {
        let connection = self.held(id);
        match connection.state() {
            State::SynSent | State::SynReceived => {
                connection.socket().register_send_waker(cx.waker());
                Poll::Pending
            }
            State::Closed => {
                let why = connection.failure.unwrap_or(ErrorKind::ConnectionAborted);
                Poll::Ready(Err(why))
            }
            _ => {
                let config = self.config.clone();
                self.held(id).on_established(&config);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Begins to listen; port 0 takes one that is free.
    pub(crate) fn listen(&mut self, port: u16) -> Result<u16, ListenError> {
        if self.closed {
            return Err(ListenError::Closed);
        }
        let port = match port {
            0 => EPHEMERAL
                .clone()
                .find(|port| !self.listeners.contains_key(port))
                .ok_or(ListenError::InUse(0))?,
            port => port,
        };
        if self.listeners.contains_key(&port) {
            return Err(ListenError::InUse(port));
        }
        self.listeners.insert(port, Backlog::default());
        Ok(port)
    }

    /// Stops listening; what was not accepted is reset.
    pub(crate) fn unlisten(&mut self, port: u16) {
        self.listeners.remove(&port);
        let belongs =
            |owner: Owner| matches!(owner, Owner::Listener { port: of, .. } if of == port);
        let left = self.connections.iter_mut();
        let left = left.filter(|(_, connection)| belongs(connection.owner));
        let ids: Vec<Id> = left
            .map(|(id, connection)| {
                connection.abort(ErrorKind::ConnectionAborted);
                connection.owner = Owner::Nobody;
                *id
            })
            .collect();
        ids.into_iter().for_each(|id| self.enqueue(id));
    }

    /// The next connection of a listener; `None` once the node is closed.
    pub(crate) fn poll_accept(&mut self, port: u16, cx: &mut Context<'_>) -> Poll<Option<Id>> {
        let closed = self.closed;
        let Some(backlog) = self.listeners.get_mut(&port).filter(|_| !closed) else {
            return Poll::Ready(None);
        };
        if let Some(id) = backlog.waiting.pop_front() {
            backlog.members -= 1;
            self.held(id).owner = Owner::Stream;
            return Poll::Ready(Some(id));
        }
        if !backlog
            .wakers
            .iter()
            .any(|known| known.will_wake(cx.waker()))
        {
            backlog.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A stream is dropped: what it has written is still sent, what it has not read is refused.
    pub(crate) fn release(&mut self, id: Id) {
        let connection = self.held(id);
        connection.owner = Owner::Nobody;
        match connection.socket().can_recv() {
            true => connection.abort(ErrorKind::ConnectionAborted),
            false => connection.socket().close(),
        }
        self.enqueue(id);
    }

    /// Takes a packet that came out of the tunnel.
    pub(crate) fn ingest(&mut self, packet: &mut [u8], now: Instant) {
        let Some(segment) = Segment::parse(packet) else {
            return;
        };
        let mut id = self.flows.get(&segment.flow).copied();
        if segment.opens {
            // The peer uses its port again (RFC 9293, 3.6.1).
            if let Some(old) = id.filter(|id| self.held(*id).state() == State::TimeWait) {
                self.leave_flow(old);
                id = None;
            }
            if id.is_none() && self.listeners.contains_key(&segment.flow.local.port()) {
                id = self.open_for(segment.flow);
                if id.is_none() {
                    // A full backlog is silent: the peer asks again.
                    return;
                }
            }
        }
        self.feed(id, &segment, packet, now);
        let Some(id) = id else {
            return;
        };
        let connection = self.connections.get(&id);
        match connection.is_some_and(|connection| connection.unanswered >= ACK_EVERY) {
            true => self.serve(id, now),
            false => self.enqueue(id),
        }
    }

    /// Gives a packet to its connection; nobody's is answered with a reset.
    fn feed(&mut self, id: Option<Id>, segment: &Segment, packet: &mut [u8], now: Instant) {
        let Self {
            interface,
            outgoing,
            mtu_bytes,
            connections,
            ..
        } = self;
        let mut connection = id.and_then(|id| connections.get_mut(&id));
        if let Some(connection) = &mut connection {
            let queued = connection.socket().send_queue();
            let header = &segment.header;
            if !connection.numbers.on_received(header, packet, queued, now) {
                return;
            }
        }
        let sent_before = outgoing.len();
        let mut feed = |sockets: &mut SocketSet<'_>| {
            let mut link = Link {
                incoming: Some(packet),
                outgoing,
                mtu_bytes: *mtu_bytes,
            };
            interface.poll_ingress_single(now, &mut link, sockets)
        };
        let Some(connection) = connection else {
            feed(&mut SocketSet::new(Vec::new()));
            return;
        };
        connection.unanswered += 1;
        connection.run(Cause::Segment, &mut feed);
        let mss = *mtu_bytes - HEADERS_BYTES;
        if connection.recovery.is_news_of_loss(segment, mss) {
            for _ in 0..DUPLICATE_ACKS {
                if connection.bare_fin().is_none() {
                    connection.run(Cause::Segment, &mut feed);
                }
            }
        }
        connection.on_sent(outgoing, sent_before, now);
    }

    /// A connection that listens for the packet at hand only.
    fn open_for(&mut self, flow: Flow) -> Option<Id> {
        let port = flow.local.port();
        let backlog = self.listeners.get(&port)?;
        if backlog.members >= BACKLOG_MAX || self.make_room().is_err() {
            return None;
        }
        let owner = Owner::Listener { port, ready: false };
        let mut connection = Connection::new(flow, owner, &self.config);
        connection.socket().listen(flow.local).ok()?;
        self.listeners.get_mut(&port)?.members += 1;
        Some(self.insert(connection))
    }

    fn insert(&mut self, connection: Connection) -> Id {
        self.last_id += 1;
        self.flows.insert(connection.flow, self.last_id);
        self.connections.insert(self.last_id, connection);
        self.enqueue(self.last_id);
        self.last_id
    }

    /// Room for one more; the oldest connection that only waits for stray packets makes it. With
    /// none of that kind: the limit.
    fn make_room(&mut self) -> Result<(), usize> {
        let max = self.config.connections_max;
        if self.connections.len() < max {
            return Ok(());
        }
        let waits = |connection: &Connection| {
            connection.owner == Owner::Nobody && connection.state() == State::TimeWait
        };
        let waiting = self.connections.iter().filter(|(_, c)| waits(c));
        let oldest = waiting.map(|(id, _)| *id).min().ok_or(max)?;
        self.forget(oldest);
        Ok(())
    }

    fn leave_flow(&mut self, id: Id) {
        if let Some(connection) = self.connections.get(&id)
            && self.flows.get(&connection.flow) == Some(&id)
        {
            self.flows.remove(&connection.flow);
        }
    }

    fn forget(&mut self, id: Id) {
        self.leave_flow(id);
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some(at) = connection.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Owner::Listener { port, .. } = connection.owner
            && let Some(backlog) = self.listeners.get_mut(&port)
        {
            backlog.members -= 1;
        }
    }

    /// Lets every connection that may have something to send do so; gives how long until the next
    /// turn, if nothing comes before.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Duration> {
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.deadline = None;
            }
            self.enqueue(id);
        }
        for _ in 0..self.queue.len() {
            if self.outgoing.is_full() {
                break;
            }
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.queued = false;
                self.serve(id, now);
            }
        }
        match self.queue.is_empty() {
            true => self.deadlines.first().map(|(at, _)| *at - now),
            false => Some(Duration::ZERO),
        }
    }

    fn serve(&mut self, id: Id, now: Instant) {
        let Self {
            interface,
            outgoing,
            mtu_bytes,
            connections,
            ..
        } = self;
        let Some(connection) = connections.get_mut(&id) else {
            return;
        };
        connection.unanswered = 0;
        connection.check_unowned(now);
        let sent_before = outgoing.len();
        if connection.numbers.probe.take_due(now) {
            let mut feed = |connection: &mut Connection, packet: &[u8]| {
                let mut link = Link {
                    incoming: Some(packet),
                    outgoing,
                    mtu_bytes: *mtu_bytes,
                };
                connection.run(Cause::Segment, |sockets| {
                    interface.poll_ingress_single(now, &mut link, sockets)
                });
            };
            if let Some(fin) = connection.repeat_end(&mut feed) {
                outgoing.push(&fin);
            }
        }
        let mut link = Link {
            incoming: None,
            outgoing,
            mtu_bytes: *mtu_bytes,
        };
        let egress = |sockets: &mut SocketSet<'_>| {
            for _ in 0..BURST {
                if link.outgoing.is_full() {
                    return true;
                }
                if interface.poll_egress(now, &mut link, sockets) == PollResult::None {
                    return false;
                }
            }
            true
        };
        let more = connection.run(Cause::Time, egress).unwrap_or(false);
        connection.on_sent(outgoing, sent_before, now);
        if let Some(at) = connection.deadline.take() {
            self.deadlines.remove(&(at, id));
        }
        if more {
            return self.enqueue(id);
        }
        let next = connection.next_turn(interface, now);
        if let Some(at) = next.map(|at| at.max(now + PAUSE)) {
            connection.deadline = Some(at);
            self.deadlines.insert((at, id));
        }
        self.settle(id);
    }

    /// Carries out what the state of a connection has come to.
    fn settle(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.is_over() {
            return self.forget(id);
        }
        let state = connection.state();
        if state == State::Closed {
            return self.leave_flow(id);
        }
        let Owner::Listener { port, ready: false } = connection.owner else {
            return;
        };
        if matches!(state, State::Listen | State::SynReceived) {
            return;
        }
        connection.owner = Owner::Listener { port, ready: true };
        let config = self.config.clone();
        connection.on_established(&config);
        if let Some(backlog) = self.listeners.get_mut(&port) {
            backlog.waiting.push_back(id);
            backlog.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether nobody needs the stack any more.
    pub(crate) fn is_done(&self) -> bool {
        self.closed || (self.released && self.connections.is_empty())
    }

    /// The node is closed: everything ends.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for connection in self.connections.values_mut() {
            connection.abort(ErrorKind::NotConnected);
        }
        for backlog in self.listeners.values_mut() {
            backlog.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// How many connections there are, in any state.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }
}

#[cfg(test)]
mod tests;
