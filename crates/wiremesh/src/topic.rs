//! Topics: objects that go to every node of a network that has joined, the most urgent first.
//!
//! Owns the handles that an application holds. Membership and broadcast are `wiremesh-gossip`'s;
//! what is here connects it with streams, peers and time. docs/topics.md is the manual.

mod buffer;
mod contact;
mod lane;
mod link;
mod running;
mod service;

use crate::node::Node;
use buffer::Buffer;
use bytes::Bytes;
use running::Running;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wiremesh_gossip::{Counters, Memory, PublishError as Refusal};
use wiremesh_quic::InvalidProtocols;
use wiremesh_wire::{NodeId, Priority};

pub(crate) use service::{Service, ServiceParts};
pub use wiremesh_gossip::{Counters as TopicCounters, Memory as TopicMemory};
pub use wiremesh_gossip::{ObjectId, TopicId, Verdict};

/// The protocol of the connections that topics make.
pub(crate) const PROTOCOL: &str = "wiremesh-gossip/1";
/// Longest name of a topic, bytes.
const NAME_MAX: usize = 255;

/// Why a topic was not joined.
#[derive(Debug)]
#[non_exhaustive]
pub enum TopicError {
    /// A name of no or more than 255 bytes.
    Name(usize),
    /// The node is in this many topics already.
    TooMany(usize),
    /// The node's own protocols leave no room for that of the topics.
    Protocols(InvalidProtocols),
    /// The node has no streams: it is plain WireGuard.
    NoStreams,
    /// The operating system gave no randomness.
    System(io::Error),
    /// The node was closed.
    Closed,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(len) => write!(
                f,
                "a topic's name of {len} bytes; fix: give it 1 to {NAME_MAX} bytes"
            ),
            Self::TooMany(most) => write!(
                f,
                "the node is in {most} topics, as many as it may be; fix: leave one first"
            ),
            Self::Protocols(error) => write!(
                f,
                "topics need a protocol of their own beside those of the node: {error}; fix: serve \
                 fewer protocols"
            ),
            Self::NoStreams => write!(
                f,
                "the node is plain WireGuard and has no streams; fix: build it without \
                 `plain_wireguard`"
            ),
            Self::System(error) => write!(f, "{error}"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for TopicError {}

/// Why an object was not published. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// No content.
    Empty,
    /// More than 64 MiB.
    TooLarge(usize),
    /// A lifetime of zero, or longer than the topic's limit.
    Lifetime(Duration),
    /// The node was closed.
    Closed,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "{}", Refusal::Empty),
            Self::TooLarge(len) => write!(f, "{len} bytes: {}", Refusal::TooLarge),
            Self::Lifetime(lifetime) => {
                write!(f, "{} ms: {}", lifetime.as_millis(), Refusal::Lifetime)
            }
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for PublishError {}

/// An object that came in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Object {
    /// Which one: the hash of its topic, class, expiry and content.
    pub id: ObjectId,
    /// Its class, as its publisher gave it.
    pub priority: Priority,
    /// The neighbour that it came from, which is seldom who published it. Nothing in an object says
    /// who did: an application that wants to know signs the content.
    pub from: NodeId,
    /// When it expires, on the publisher's clock.
    pub expires: SystemTime,
    /// All of it.
    pub content: Bytes,
}

/// How a topic is, and what happened in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicStatus {
    /// Its name.
    pub name: String,
    /// Its id: the hash of its name and the network's.
    pub id: TopicId,
    /// The nodes that objects come from and go to.
    pub neighbours: Vec<NodeId>,
    /// Nodes that are connected for the topic, neighbours among them.
    pub links: usize,
    /// Objects that subscribers missed because they were slow.
    pub missed: u64,
    /// What happened.
    pub counters: Counters,
    /// What is kept.
    pub memory: Memory,
}

/// Those who use a topic. Holds the node.
pub(crate) struct Handle {
    node: Node,
    running: Arc<Running>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.running.leave();
    }
}

/// A topic that the node has joined. Cheap to clone; the node leaves it when the last handle and
/// the last [`Subscription`] are dropped.
#[derive(Clone)]
pub struct Topic(Arc<Handle>);

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", self.name())
    }
}

impl Node {
    /// Joins a topic of the network, through the peers of this node; joining goes on in the
    /// background, and again when all neighbours are lost.
    ///
    /// Only peers take part. Where [`crate::Admission::AllowAll`] lets strangers in, nodes that
    /// others name become peers too, at most as many as strangers are let in.
    ///
    /// # Errors
    ///
    /// [`TopicError`].
    pub fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        if !(1..=NAME_MAX).contains(&name.len()) {
            return Err(TopicError::Name(name.len()));
        }
        if self.tunnel().plain {
            return Err(TopicError::NoStreams);
        }
        let service = self.topics();
        service.topic(self, name, &self.network_id()).map(Topic)
    }
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.running.name
    }

    /// Its id: the hash of its name and the network's.
    pub fn id(&self) -> TopicId {
        self.0.running.id
    }

    /// Sends an object to every other node of the topic, which has it once, or not at all if it
    /// expires on the way. 1 byte to 64 MiB; `lifetime` is at most an hour unless the node's
    /// limit is another, and begins when there is room.
    ///
    /// Waits while the neighbours are slower than this node publishes. What was published before
    /// there is a neighbour is given to the first one.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was sent then.
    pub async fn publish(
        &self,
        content: impl AsRef<[u8]>,
        priority: Priority,
        lifetime: Duration,
    ) -> Result<ObjectId, PublishError> {
        let content: Arc<[u8]> = Arc::from(content.as_ref());
        let running = &self.0.running;
        loop {
            // Registered before trying, so that nothing is missed in between.
            let room = running.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let published = running.publish(Arc::clone(&content), priority, lifetime);
            match published.ok_or(PublishError::Closed)? {
                Ok(id) => return Ok(id),
                Err(Refusal::Full) => room.await,
                Err(Refusal::Empty) => return Err(PublishError::Empty),
                Err(Refusal::TooLarge) => return Err(PublishError::TooLarge(content.len())),
                Err(_) => return Err(PublishError::Lifetime(lifetime)),
            }
        }
    }

    /// Objects that come in from now on, for one reader. Several subscriptions get all of them
    /// each. What this node publishes is not among them.
    pub fn subscribe(&self) -> Subscription {
        let buffer = Arc::new(Buffer::default());
        self.0.running.subscribe(&buffer);
        Subscription {
            topic: self.clone(),
            buffer,
        }
    }

    /// Asks `validator` about each object that comes in from now on, before it is delivered and
    /// forwarded: [`Verdict::Accept`], [`Verdict::Ignore`], or [`Verdict::Reject`], which counts
    /// against the neighbour that sent it. Takes the place of the one before; call it right after
    /// [`Node::topic`].
    ///
    /// It runs in a thread where it may block, for one object of each class at a time. A panic
    /// counts as [`Verdict::Ignore`]. Objects above 16 KiB are forwarded only when they are
    /// complete then.
    pub fn validate(&self, validator: impl Fn(&Object) -> Verdict + Send + Sync + 'static) {
        self.0.running.validate(Arc::new(validator));
    }

    /// A snapshot.
    pub fn status(&self) -> TopicStatus {
        self.0.running.status()
    }
}

/// Objects of a topic, as they come in.
///
/// At most 4,096 objects and 128 MiB wait here. When the application is slower, the oldest object of
/// the lowest class goes, and is counted: [`Subscription::missed`].
pub struct Subscription {
    topic: Topic,
    buffer: Arc<Buffer>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?})", self.topic.name())
    }
}

impl Subscription {
    /// Waits for an object; the most urgent class first, and in it the oldest. `None` once the node
    /// is closed.
    pub async fn recv(&mut self) -> Option<Object> {
        let host = &self.topic.0.node.tunnel().host;
        std::future::poll_fn(|cx| self.buffer.poll(cx, running::date(host.now()))).await
    }

    /// How many objects were dropped here: there was no room, or they expired before they were
    /// taken.
    pub fn missed(&self) -> u64 {
        self.buffer.missed()
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.topic.0.running.unsubscribe(&self.buffer);
    }
}
