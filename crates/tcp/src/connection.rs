//! One connection: a smoltcp socket, and who holds it.
//!
//! Owns what its end means (refused, reset, timed out, in order) and how long what nobody holds any
//! more may stay. RFC 9293 is smoltcp's matter.

use crate::TcpConfig;
use crate::link::Outgoing;
use crate::numbers::Numbers;
use crate::probe::Bare;
use crate::recovery::Recovery;
use crate::segment::Flow;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long a connection that waits for its handshake to end is kept.
const HALF_OPEN_MAX: Duration = Duration::from_secs(30);
/// How often an idle connection asks whether the peer is there.
const ALIVE_EVERY: Duration = Duration::from_secs(45);
/// How long the peer of a connection that nobody holds may take to close its side (as Linux).
const LINGER_MAX: Duration = Duration::from_secs(60);

/// Who has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The listener of this port, which has not given it out yet.
    Listener {
        /// The port.
        port: u16,
        /// Whether the handshake is done.
        ready: bool,
    },
    /// A stream.
    Stream,
    /// Nobody: what was written is still sent, then it ends.
    Nobody,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) flow: Flow,
    pub(crate) owner: Owner,
    /// Why it ended, if not in order.
    pub(crate) failure: Option<ErrorKind>,
    /// It is in the queue of those that may have something to send.
    pub(crate) queued: bool,
    /// Its entry among the deadlines.
    pub(crate) deadline: Option<Instant>,
    /// Segments taken in since it was last asked for what to send.
    pub(crate) unanswered: usize,
    pub(crate) recovery: Recovery,
    pub(crate) numbers: Numbers,
    linger_until: Option<Instant>,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Connection {
    /// A closed one, with buffers.
    pub(crate) fn new(flow: Flow, owner: Owner, config: &TcpConfig) -> Self {
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(config.receive_bytes), buffer(config.send_bytes));
        socket.set_congestion_control(CongestionControl::Cubic);
        // Those who write small pieces here have another TCP before us, which has gathered them.
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(HALF_OPEN_MAX));
        socket.set_keep_alive(Some(ALIVE_EVERY.min(silence_max(config) / 3)));
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            flow,
            owner,
            failure: None,
            queued: false,
            deadline: None,
            unanswered: 0,
            recovery: Recovery::default(),
            numbers: Numbers::default(),
            linger_until: None,
            sockets,
            handle,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(crate) fn state(&self) -> State {
        self.sockets.get::<Socket<'static>>(self.handle).state()
    }

    /// The handshake is done: from now on the peer has to be silent for long to lose it.
    pub(crate) fn on_established(&mut self, config: &TcpConfig) {
        self.socket().set_timeout(Some(silence_max(config)));
    }

    /// Runs smoltcp on it and notes how it ends. A panic in there costs this connection only.
    pub(crate) fn run<T>(
        &mut self,
        cause: Cause,
        f: impl FnOnce(&mut SocketSet<'_>) -> T,
    ) -> Option<T> {
        let before = self.state();
        let sockets = &mut self.sockets;
        let result = catch_unwind(AssertUnwindSafe(|| f(sockets))).ok();
        if result.is_none() {
            tracing::error!(flow = %self.flow, "a TCP connection failed: a fault of this program");
            self.failure = Some(ErrorKind::ConnectionAborted);
            self.replace_socket();
        } else if self.state() == State::Closed && self.failure.is_none() {
            self.failure = cause.failure(before);
        }
        result
    }

    /// A fresh socket in the place of one that cannot be trusted; who waits for that one wakes.
    fn replace_socket(&mut self) {
        let buffer = || SocketBuffer::new(Vec::new());
        let fresh = self.sockets.add(Socket::new(buffer(), buffer()));
        let smoltcp::socket::Socket::Tcp(mut broken) = self.sockets.remove(self.handle);
        self.handle = fresh;
        // Its change of state wakes whoever waits.
        broken.abort();
    }

    /// Takes note of what it sent: the packets from the one with this number on.
    pub(crate) fn on_sent(&mut self, outgoing: &mut Outgoing, from: usize, now: Instant) {
        for n in from..outgoing.len() {
            self.numbers.on_sent(outgoing.packet_mut(n), now);
        }
    }

    /// Our FIN once more, if it is all that the peer lacks.
    pub(crate) fn bare_fin(&mut self) -> Option<Bare> {
        let queued = self.socket().send_queue();
        self.numbers.bare_fin(queued)
    }

    /// Has smoltcp repeat what the peer lacks first, by way of `feed`; gives a packet to send where
    /// that is a FIN, which smoltcp does not repeat for duplicate ACKs.
    pub(crate) fn repeat_end(
        &mut self,
        feed: &mut impl FnMut(&mut Self, &[u8]),
    ) -> Option<Vec<u8>> {
        for ack in self.numbers.duplicates()? {
            // A SYN is repeated by smoltcp alone.
            if matches!(
                self.state(),
                State::SynSent | State::SynReceived | State::Closed
            ) {
                break;
            }
            if let Some(fin) = self.bare_fin() {
                return Some(fin.packet(&self.flow));
            }
            feed(self, &ack.packet(&self.flow.reversed()));
        }
        None
    }

    /// Ends it with a reset.
    pub(crate) fn abort(&mut self, why: ErrorKind) {
        self.failure.get_or_insert(why);
        self.socket().abort();
    }

    /// Ends what nobody holds when it can come to no good end.
    pub(crate) fn check_unowned(&mut self, now: Instant) {
        if self.owner != Owner::Nobody {
            return;
        }
        // Data that nobody reads: the peer must not believe that it arrived (RFC 2525, 2.17).
        if self.socket().can_recv() && self.state() != State::Closed {
            return self.abort(ErrorKind::ConnectionAborted);
        }
        if self.state() == State::FinWait2 {
            let until = *self.linger_until.get_or_insert(now + LINGER_MAX);
            if now >= until {
                self.abort(ErrorKind::TimedOut);
            }
        }
    }

    /// When it wants to be run again.
    pub(crate) fn next_turn(&mut self, interface: &mut Interface, now: Instant) -> Option<Instant> {
        let sockets = &self.sockets;
        let at = catch_unwind(AssertUnwindSafe(|| interface.poll_at(now, sockets)));
        let linger = self
            .linger_until
            .filter(|_| self.state() == State::FinWait2);
        let probe = self.numbers.probe.due();
        let at = at.ok().flatten().into_iter();
        at.chain(linger).chain(probe).min()
    }

    /// Whether nothing more is to come of it and nobody wants to know.
    pub(crate) fn is_over(&self) -> bool {
        let ended = matches!(self.state(), State::Closed | State::Listen);
        let wanted = match self.owner {
            Owner::Stream => true,
            Owner::Listener { ready, .. } => ready,
            Owner::Nobody => false,
        };
        ended && !wanted
    }
}

fn silence_max(config: &TcpConfig) -> Duration {
    Duration::from_millis(u64::try_from(config.silence_max.as_millis()).unwrap_or(u64::MAX / 1_000))
}

/// During what a connection ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    /// A segment of the peer's.
    Segment,
    /// A deadline.
    Time,
}

impl Cause {
    /// What the end means for who holds the connection; `None` if it ended in order.
    fn failure(self, before: State) -> Option<ErrorKind> {
        let in_order = matches!(
            before,
            State::Closed | State::LastAck | State::Closing | State::TimeWait
        );
        match (self, before) {
            _ if in_order => None,
            (Self::Time, _) => Some(ErrorKind::TimedOut),
            (Self::Segment, State::SynSent) => Some(ErrorKind::ConnectionRefused),
            (Self::Segment, _) => Some(ErrorKind::ConnectionReset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_happened() {
        for (cause, before, expected) in [
            (
                Cause::Segment,
                State::SynSent,
                Some(ErrorKind::ConnectionRefused),
            ),
            (
                Cause::Segment,
                State::Established,
                Some(ErrorKind::ConnectionReset),
            ),
            (
                Cause::Segment,
                State::CloseWait,
                Some(ErrorKind::ConnectionReset),
            ),
            (Cause::Segment, State::LastAck, None),
            (Cause::Time, State::TimeWait, None),
            (Cause::Time, State::Established, Some(ErrorKind::TimedOut)),
            (Cause::Time, State::SynSent, Some(ErrorKind::TimedOut)),
        ] {
            assert_eq!(cause.failure(before), expected, "{cause:?} in {before}");
        }
    }
}
