//! One association: dcsctp's socket, and what keeps its data waiting in streams, not in packets.
//!
//! Owns the packets that wait to leave, one or two. dcsctp sends whatever its windows allow at once; a
//! long queue of packets would make what is urgent wait behind what is not. So dcsctp makes one
//! packet at a time. Where the way out is narrow, the peer's window is closed in every SACK before
//! dcsctp sees it as long as a packet waits here, and when it has left, the newest SACK is shown
//! again with its window: then dcsctp chooses anew which stream is next. It reads no clock.

use crate::confined::Confined;
use crate::packet::{self, class, close_window, cumulative_tsn, may_end, sack};
use dcsctp::api::{
    DcSctpSocket, Message, Options, SendError, SendOptions, SocketEvent, SocketState, SocketTime,
    StreamId,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use wiremesh_wire::Priority;

/// Weights of the streams of each class in RFC 8260's weighted fair queueing. Far apart, so that a
/// better class leaves a worse one little; not nothing, so that nothing starves.
const WEIGHTS: [u16; 3] = [u16::MAX, 1_024, 16];

/// After so many packets that left at once the way out is wide again.
const NARROW_FOR: u32 = 64;

/// Why an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have shut it down.
    Shutdown,
    /// One side has broken it off, or the peer does not answer.
    Aborted(String),
}

/// What an association did, as far as others care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Open,
    Over,
}

/// See the module.
pub(crate) struct Association {
    socket: Confined,
    /// When the socket's clock began, on the stack's.
    began: Duration,
    outgoing: VecDeque<(Priority, Vec<u8>)>,
    /// The newest SACK, with its window.
    newest: Option<Vec<u8>>,
    /// Packets for which the way out still counts as narrow: one had to wait.
    narrow: u32,
    classes: BTreeMap<u16, Priority>,
    /// Messages that came before the end: dcsctp drops what is unread when an association ends. At
    /// most one receive window of them.
    kept: VecDeque<Message>,
    pub(crate) end: Option<End>,
    opened: bool,
    /// Wakes everybody who waits for something here.
    pub(crate) changed: Arc<Notify>,
    /// Somebody has a handle, or will accept it.
    pub(crate) held: bool,
}

impl Association {
    pub(crate) fn new(options: &Options, now: Duration) -> Self {
        Self {
            socket: Confined::new(options),
            began: now,
            outgoing: VecDeque::new(),
            newest: None,
            narrow: 0,
            classes: BTreeMap::new(),
            kept: VecDeque::new(),
            end: None,
            opened: false,
            changed: Arc::new(Notify::new()),
            held: true,
        }
    }

    pub(crate) fn connect(&mut self) {
        self.socket.connect();
        self.collect();
    }

    pub(crate) fn handle_packet(&mut self, now: Duration, packet: &mut [u8]) {
        self.advance(now);
        if let Some(newest) = sack(packet) {
            let older = |known: &Vec<u8>| {
                cumulative_tsn(&newest).wrapping_sub(cumulative_tsn(known)) > u32::MAX / 2
            };
            if !self.newest.as_ref().is_some_and(older) {
                self.newest = Some(newest);
            }
            if self.narrow > 0 && !self.outgoing.is_empty() {
                close_window(packet);
            }
        }
        if self.kept.is_empty() && may_end(packet) {
            self.kept
                .extend(std::iter::from_fn(|| self.socket.get_next_message()));
        }
        self.socket.handle_input(packet);
        self.collect();
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.advance(now);
        self.collect();
    }

    fn advance(&mut self, now: Duration) {
        let since = now.saturating_sub(self.began);
        self.socket.advance_time(SocketTime::zero() + since);
    }

    /// On the stack's clock.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let at = self.socket.poll_timeout();
        let never = at == SocketTime::infinite_future();
        (!never).then(|| self.began.saturating_add(at - SocketTime::zero()))
    }

    /// The next packet and the class in which all that wait here may go.
    pub(crate) fn front(&self) -> Option<(Priority, &[u8])> {
        let (_, packet) = self.outgoing.front()?;
        let class = self.outgoing.iter().map(|(class, _)| *class).min();
        Some((class.unwrap_or_default(), packet))
    }

    /// The packet in front has left.
    pub(crate) fn pop(&mut self) {
        self.outgoing.pop_front();
        let was_narrow = self.narrow > 0;
        self.narrow = self.narrow.saturating_sub(1);
        if !self.outgoing.is_empty() {
            return;
        }
        match self.newest.as_ref().filter(|_| was_narrow) {
            Some(newest) => self.socket.handle_input(newest),
            // Nothing new; it is only asked whether it has more.
            None => drop(self.socket.send_many(Vec::new(), &SendOptions::default())),
        }
        self.collect();
    }

    /// The packet in front has to wait.
    pub(crate) fn refused(&mut self) {
        self.narrow = NARROW_FOR;
    }

    pub(crate) fn phase(&self) -> Phase {
        match (&self.end, self.opened) {
            (Some(_), _) => Phase::Over,
            (None, true) => Phase::Open,
            (None, false) => Phase::Opening,
        }
    }

    pub(crate) fn set_class(&mut self, stream: u16, class: Priority) {
        self.classes.insert(stream, class);
        let weight = WEIGHTS[class.index()];
        self.socket.set_stream_priority(StreamId(stream), weight);
    }

    /// Puts a message into the queue of its stream.
    pub(crate) fn send(
        &mut self,
        message: Message,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        let sent = self.socket.send(message, options);
        self.collect();
        sent
    }

    /// Bytes of a stream that are not sent yet.
    pub(crate) fn unsent(&self, stream: u16) -> usize {
        self.socket.buffered_amount(StreamId(stream))
    }

    /// Bytes that are not sent yet, of streams that were given a class or a message.
    pub(crate) fn unsent_in_all(&self) -> usize {
        self.classes.keys().map(|stream| self.unsent(*stream)).sum()
    }

    /// Notes a stream that has no class yet.
    pub(crate) fn touch(&mut self, stream: u16) {
        if !self.classes.contains_key(&stream) {
            self.set_class(stream, Priority::Normal);
        }
    }

    pub(crate) fn class_of(&self, stream: u16) -> Priority {
        self.classes.get(&stream).copied().unwrap_or_default()
    }

    pub(crate) fn receive(&mut self) -> Option<Message> {
        let kept = self.kept.pop_front();
        let message = kept.or_else(|| self.socket.get_next_message());
        self.collect();
        message
    }

    pub(crate) fn interleaves(&self) -> bool {
        let metrics = self.socket.get_metrics();
        metrics.is_some_and(|metrics| metrics.uses_message_interleaving)
    }

    pub(crate) fn shut_down(&mut self) {
        self.socket.shutdown();
        self.collect();
        self.changed.notify_waiters();
    }

    pub(crate) fn abort(&mut self, why: &str) {
        self.socket.close();
        self.collect();
        self.end.get_or_insert(End::Aborted(why.to_owned()));
        self.changed.notify_waiters();
    }

    /// Whether nothing of it is needed any more.
    pub(crate) fn is_done(&self) -> bool {
        let over = self.end.is_some() || self.socket.state() == SocketState::Closed && !self.held;
        over && self.outgoing.is_empty() && !self.held
    }

    /// Takes what dcsctp has to say.
    fn collect(&mut self) {
        let mut changed = self.socket.messages_ready_count() > 0;
        while let Some(event) = self.socket.poll_event() {
            match event {
                SocketEvent::SendPacket(packet) => {
                    let class = class(&packet, |stream| self.class_of(stream));
                    self.outgoing.push_back((class, packet));
                    continue;
                }
                SocketEvent::OnConnected() => self.opened = true,
                SocketEvent::OnClosed() => {
                    self.end.get_or_insert(End::Shutdown);
                }
                SocketEvent::OnAborted(_, why) => {
                    self.end.get_or_insert(End::Aborted(why));
                }
                SocketEvent::OnError(kind, why) => tracing::debug!(?kind, why, "SCTP"),
                _ => {}
            }
            changed = true;
        }
        if changed {
            self.changed.notify_waiters();
        }
    }
}

/// Whether a packet can begin an association with one who listens.
pub(crate) fn begins(packet: &[u8]) -> bool {
    matches!(
        packet::first_chunk(packet),
        Some(packet::INIT | packet::COOKIE_ECHO)
    )
}
