//! A connection to a node of which topics make use.
//!
//! Owns its streams and its one task, which reads what comes and writes what the topics give,
//! the most urgent first. What a peer may do here is bounded: streams, messages, and streams that
//! were refused. Never waits for an application.

use super::lane::{Arrival, READ_BYTES, Reader, Writer, Written};
use super::running::Running;
use super::service::Service;
use crate::connection::Linked;
use crate::port::lock;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use wiremesh_core::PeerKey;
use wiremesh_gossip::TopicId;
use wiremesh_wire::{NodeId, Priority};

/// Application codes of QUIC; docs/spec.md section 9.1.
pub(super) mod code {
    /// Nothing is wrong.
    pub(crate) const DONE: u32 = 0;
    /// Whoever opened the stream named a topic that this node is not in.
    pub(crate) const UNKNOWN_TOPIC: u32 = 0x77_6d10;
    /// More streams than topics could need.
    pub(crate) const TOO_MANY_STREAMS: u32 = 0x77_6d11;
    /// Bytes that no honest node sends.
    pub(crate) const MALFORMED: u32 = 0x77_6d12;
    /// The peer has made a newer connection.
    pub(crate) const REPLACED: u32 = 0x77_6d13;
    /// No more connections here.
    pub(crate) const BUSY: u32 = 0x77_6d14;
}

/// Streams that a link may have refused before it is closed.
const REFUSED_MAX: u32 = 64;
/// How often unused links and unfinished headers are looked for.
const TICK: Duration = Duration::from_secs(5);
/// Turns after which a stream must have said what it is for.
const HEADER_TICKS: u32 = 2;
/// Turns after which a link that nobody uses is closed.
const UNUSED_TICKS: u32 = 3;
/// Messages handled before others get their turn.
const TURN: usize = 16;
/// Bytes that a class may have in quinn beyond what is on its way; see [`Link::make_room`].
const AHEAD_BYTES: [u64; 3] = [1 << 20, 48 * 1024, 16 * 1024];

/// What others tell the link's task.
#[derive(Default)]
struct Mailbox {
    waker: Option<Waker>,
    /// Something is to be sent.
    ready: Vec<(Arc<Running>, Priority)>,
    /// Topics that need the link no more.
    detached: Vec<TopicId>,
    /// All of these: they never use it again, as what was sent for them may be lost.
    spent: Vec<TopicId>,
}

/// See the module.
pub(crate) struct Link {
    pub(super) id: u64,
    pub(super) peer: NodeId,
    /// Whether this node made it.
    pub(super) outgoing: bool,
    pub(super) connection: quinn::Connection,
    /// What the egress scheduler knows it by.
    pub(super) flow: (u64, PeerKey),
    mailbox: Mutex<Mailbox>,
    /// The run of this node that it belongs to.
    own: u64,
    /// The run of the peer that it belongs to, once known.
    pub(super) instance: Mutex<Option<u64>>,
}

impl Link {
    pub(super) fn new(
        id: u64,
        (peer, key): (NodeId, PeerKey),
        outgoing: bool,
        own: u64,
        linked: Linked,
    ) -> Self {
        Self {
            id,
            peer,
            outgoing,
            connection: linked.quinn,
            flow: (linked.flow, key),
            mailbox: Mutex::default(),
            own,
            instance: Mutex::new(None),
        }
    }

    pub(super) fn ready(&self, topic: &Arc<Running>, class: Priority) {
        self.tell(|mailbox| mailbox.ready.push((Arc::clone(topic), class)));
    }

    pub(super) fn detach(&self, topic: TopicId) {
        self.tell(|mailbox| {
            mailbox.ready.retain(|(known, _)| known.id != topic);
            mailbox.detached.push(topic);
            mailbox.spent.push(topic);
        });
    }

    /// Whether the topic may begin to use it.
    pub(super) fn is_good_for(&self, topic: &TopicId) -> bool {
        let spent = lock(&self.mailbox).spent.contains(topic);
        !spent && self.connection.close_reason().is_none()
    }

    fn tell(&self, what: impl FnOnce(&mut Mailbox)) {
        let mut mailbox = lock(&self.mailbox);
        what(&mut mailbox);
        if let Some(waker) = mailbox.waker.take() {
            waker.wake();
        }
    }

    /// Lets a class have a little more in quinn than what is on its way: what waits, waits in the
    /// topic, where it can expire and be overtaken. The more urgent the class the more room it
    /// has, so bulk never keeps urgent from being written.
    fn make_room(&self, class: Priority, window: u64) {
        let bytes = window + AHEAD_BYTES[class.index()];
        self.connection.set_send_window(bytes);
    }
}

/// Whether the task goes on.
enum Turn {
    More,
    Wait,
    Over,
}

type Incoming =
    Pin<Box<dyn Future<Output = Result<quinn::RecvStream, quinn::ConnectionError>> + Send>>;

/// The task of a link.
struct Task {
    link: Arc<Link>,
    service: Arc<Service>,
    incoming: Incoming,
    readers: Vec<Reader>,
    writers: Vec<Writer>,
    refused: u32,
    /// A topic has used it.
    was_used: bool,
    unused: u32,
    tick: Interval,
    scratch: Box<[u8]>,
}

/// Serves a link until its connection ends.
pub(super) async fn serve(service: Arc<Service>, link: Arc<Link>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = Task {
        incoming: accept(&link.connection),
        link: Arc::clone(&link),
        service: Arc::clone(&service),
        readers: Vec::new(),
        writers: Vec::new(),
        refused: 0,
        was_used: false,
        unused: 0,
        tick,
        scratch: vec![0; READ_BYTES].into(),
    };
    std::future::poll_fn(|cx| task.poll(cx)).await;
    drop(task);
    service.remove_link(&link);
}

fn accept(connection: &quinn::Connection) -> Incoming {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (ready, detached) = {
            let mut mailbox = lock(&self.link.mailbox);
            // Before looking, so that nothing is missed in between.
            mailbox.waker = Some(cx.waker().clone());
            let mailbox = &mut *mailbox;
            (
                std::mem::take(&mut mailbox.ready),
                std::mem::take(&mut mailbox.detached),
            )
        };
        self.was_used |= !detached.is_empty();
        detached.into_iter().for_each(|topic| self.detach(topic));
        for (topic, class) in ready {
            self.ready(topic, class);
        }
        while self.tick.poll_tick(cx).is_ready() {
            self.on_tick();
        }
        if let Turn::Over = self.accept(cx) {
            return Poll::Ready(());
        }
        let read = self.read(cx);
        self.write(cx);
        if self.was_used && self.writers.is_empty() && !self.service.uses(&self.link) {
            self.link.connection.close(code::DONE.into(), b"unused");
            return Poll::Ready(());
        }
        match read {
            Turn::Over => return Poll::Ready(()),
            Turn::More => cx.waker().wake_by_ref(),
            Turn::Wait => {}
        }
        Poll::Pending
    }

    fn detach(&mut self, topic: TopicId) {
        for writer in &mut self.writers {
            writer.ending |= writer.topic.id == topic;
        }
        self.stop_reading(topic, code::DONE);
    }

    fn stop_reading(&mut self, topic: TopicId, code: u32) {
        let of_topic = |reader: &mut Reader| {
            let known = reader.topic.as_ref();
            known.is_some_and(|known| known.id == topic)
        };
        let stopped = self.readers.extract_if(.., of_topic);
        stopped.for_each(|reader| reader.stop(code));
    }

    fn ready(&mut self, topic: Arc<Running>, class: Priority) {
        let known = self
            .writers
            .iter_mut()
            .find(|writer| writer.topic.id == topic.id && writer.class == class && !writer.ending);
        if let Some(writer) = known {
            writer.ready = true;
            return;
        }
        let writer = Writer::new(topic, class, self.link.peer, self.link.own);
        let place = self.writers.partition_point(|known| known.class <= class);
        self.writers.insert(place, writer);
    }

    fn on_tick(&mut self) {
        self.refused = self.refused.saturating_sub(1);
        for reader in &mut self.readers {
            reader.age = reader.age.saturating_add(1);
        }
        let idle = |reader: &mut Reader| reader.topic.is_none() && reader.age > HEADER_TICKS;
        let stopped: Vec<Reader> = self.readers.extract_if(.., idle).collect();
        for reader in stopped {
            self.refuse(reader, code::MALFORMED);
        }
        let used = !self.writers.is_empty() || self.service.uses(&self.link);
        self.unused = if used { 0 } else { self.unused + 1 };
        if self.unused > UNUSED_TICKS {
            self.link.connection.close(code::DONE.into(), b"unused");
        }
    }

    /// Takes the streams that the peer opens.
    fn accept(&mut self, cx: &mut Context<'_>) -> Turn {
        while let Poll::Ready(stream) = self.incoming.as_mut().poll(cx) {
            let Ok(stream) = stream else {
                return Turn::Over;
            };
            self.incoming = accept(&self.link.connection);
            let reader = Reader::new(stream);
            if self.readers.len() >= self.service.streams_max() {
                self.refuse(reader, code::TOO_MANY_STREAMS);
            } else {
                self.readers.push(reader);
            }
        }
        Turn::Wait
    }

    fn refuse(&mut self, reader: Reader, code: u32) {
        reader.stop(code);
        self.service.counters.streams_refused.fetch_add(1, Relaxed);
        self.refused += 1;
        if self.refused > REFUSED_MAX {
            self.close_for(code, b"too many streams were refused");
        }
    }

    /// Ends the connection with a peer that does what no honest node does.
    fn close_for(&mut self, code: u32, reason: &[u8]) {
        self.service.shun(self.link.peer);
        self.link.connection.close(code.into(), reason);
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut left = TURN;
        let mut place = 0;
        while let Some(reader) = self.readers.get_mut(place) {
            if left == 0 {
                return Turn::More;
            }
            let Poll::Ready(arrival) = reader.poll(cx, &mut self.scratch) else {
                place += 1;
                continue;
            };
            left -= 1;
            match arrival {
                Arrival::Header(header) => {
                    self.service.note_instance(&self.link, header.instance);
                    let mut reader = self.readers.remove(place);
                    let Some(topic) = self.service.running(&header.topic) else {
                        self.service.counters.unknown_topics.fetch_add(1, Relaxed);
                        self.refuse(reader, code::UNKNOWN_TOPIC);
                        continue;
                    };
                    topic.attach(&self.link);
                    reader.open_for(topic, header.class);
                    // The most urgent is read first.
                    let urgency = |known: &Reader| known.class <= reader.class;
                    let at = self.readers.partition_point(urgency);
                    self.readers.insert(at, reader);
                    place = 0;
                }
                Arrival::Message => {
                    let topic = reader.topic.as_ref().expect("a message is behind a header");
                    if !topic.handle_message(&self.link.peer, reader.message()) {
                        self.readers.remove(place).stop(code::DONE);
                    }
                }
                Arrival::Nonsense => {
                    self.service.counters.malformed.fetch_add(1, Relaxed);
                    self.readers.remove(place).stop(code::MALFORMED);
                    self.close_for(code::MALFORMED, b"not a stream of topics");
                    return Turn::Over;
                }
                Arrival::End => {
                    self.readers.remove(place);
                }
            }
        }
        Turn::Wait
    }

    /// Writes what the topics give, class after class.
    fn write(&mut self, cx: &mut Context<'_>) {
        if !self.writers.iter().any(Writer::wants) {
            return;
        }
        let window = self.link.connection.stats().path.cwnd;
        let mut class = None;
        let mut place = 0;
        while let Some(writer) = self.writers.get_mut(place) {
            if !writer.wants() {
                place += 1;
                continue;
            }
            if class != Some(writer.class) {
                class = Some(writer.class);
                self.link.make_room(writer.class, window);
            }
            match writer.poll(cx, &self.link) {
                Poll::Pending | Poll::Ready(Written::Idle | Written::Full) => place += 1,
                Poll::Ready(Written::End) => {
                    self.writers.remove(place);
                }
                Poll::Ready(Written::Refused(reason)) => {
                    let topic = Arc::clone(&writer.topic);
                    // A topic that the peer is not in may be asked for again; one that it has left
                    // may have lost what was sent.
                    if reason != code::UNKNOWN_TOPIC.into() {
                        self.service.detach(&self.link, topic.id);
                    }
                    self.writers.retain(|known| known.topic.id != topic.id);
                    self.stop_reading(topic.id, code::DONE);
                    topic.lose(&self.link, None);
                    place = 0;
                }
            }
        }
    }
}
