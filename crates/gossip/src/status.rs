//! What a topic tells its owner: outputs, errors, counters.
//!
//! Owns their types. Never does: decide anything.

use alloc::sync::Arc;
use core::fmt;

use wiremesh_wire::{NodeId, Priority};

use crate::config::{
    CONTACT_BYTES, HELD_BYTES, MISSING_BYTES, PEER_BYTES, PULL_BYTES, SCORE_BYTES, SEEN_BYTES,
};
use crate::header::OBJECT_MAX;
use crate::id::ObjectId;
use crate::message::Contact;

/// What the owner of a topic has to do or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A link to this node is wanted; answered by `peer_up`, or `peer_down` when there is none.
    Connect(Contact),
    /// The topic needs no link to this node any more; the topic has forgotten it.
    Disconnect(NodeId),
    /// There is something to send: call `poll_send` until it gives nothing.
    Ready(NodeId, Priority),
    /// Is this object valid? Answered by `verdict`.
    Validate {
        /// Which one.
        id: ObjectId,
        /// Its class.
        priority: Priority,
        /// The neighbour that it came from.
        from: NodeId,
        /// When it expires: milliseconds since 1970.
        expiry_ms: u64,
        /// All of it.
        content: Arc<[u8]>,
    },
    /// A new object, once for each, not expired.
    Deliver {
        /// Which one.
        id: ObjectId,
        /// Its class.
        priority: Priority,
        /// The neighbour that it came from, which is seldom who published it.
        from: NodeId,
        /// When it expires: milliseconds since 1970.
        expiry_ms: u64,
        /// All of it.
        content: Arc<[u8]>,
    },
    /// `publish` may go on after it was [`PublishError::Full`].
    Room,
}

/// The answer to [`Output::Validate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver and forward it.
    Accept,
    /// Neither, and nobody is to blame.
    Ignore,
    /// Neither, and who sent it is to blame.
    Reject,
}

/// Why an object was not published. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The neighbours have not taken what was published before; wait for [`Output::Room`].
    Full,
    /// No content.
    Empty,
    /// More than [`OBJECT_MAX`] bytes.
    TooLarge,
    /// A lifetime of zero, or above `Config::lifetime_max`.
    Lifetime,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => {
                f.write_str("neighbours are slower than the publisher; fix: wait for room")
            }
            Self::Empty => f.write_str("the object is empty; fix: publish at least one byte"),
            Self::TooLarge => write!(
                f,
                "the object is longer than {OBJECT_MAX} bytes; fix: publish it in parts"
            ),
            Self::Lifetime => {
                f.write_str("the lifetime is zero or too long; fix: at most an hour by default")
            }
        }
    }
}

impl core::error::Error for PublishError {}

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Nodes with a link.
    pub peers: usize,
    /// Contacts in the passive view.
    pub passive: usize,
    /// Ids that are remembered.
    pub seen: usize,
    /// Objects that are held, and their bytes.
    pub held: usize,
    /// Bytes of their contents.
    pub store_bytes: usize,
    /// Those of own large objects that not all neighbours have yet.
    pub pinned_bytes: usize,
    /// Bytes that wait in queues.
    pub queue_bytes: usize,
    /// Ids that wait to be announced.
    pub announced: usize,
    /// Ids that were announced and have not come.
    pub missing: usize,
    /// Large objects that are being fetched.
    pub pulls: usize,
    /// Objects that wait for a verdict.
    pub pending: usize,
    /// Nodes with points or a ban.
    pub scores: usize,
}

impl Memory {
    /// About how many bytes that is; each kind of entry is reckoned with what it takes at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.peers * PEER_BYTES
            + self.passive * CONTACT_BYTES
            + self.seen * SEEN_BYTES
            + self.held * HELD_BYTES
            + self.store_bytes
            + self.queue_bytes
            + self.announced * 32
            + self.missing * MISSING_BYTES
            + self.pulls * PULL_BYTES
            + self.scores * SCORE_BYTES
    }
}

/// What happened, in numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Objects published here.
    pub published: u64,
    /// Objects delivered to the owner.
    pub delivered: u64,
    /// Bytes of their contents.
    pub delivered_bytes: u64,
    /// Bytes of messages given to `poll_send`'s caller.
    pub sent_bytes: u64,
    /// Messages given to `poll_send`'s caller.
    pub sent_messages: u64,
    /// Objects that came whole and were there already.
    pub duplicates: u64,
    /// Bytes of those.
    pub duplicate_bytes: u64,
    /// Objects and ids dropped because they had expired.
    pub expired: u64,
    /// Payloads that were announced and not sent, because a queue was full.
    pub demoted: u64,
    /// Objects refused: too many of them, or expiring too late.
    pub refused: u64,
    /// Objects that the owner rejected or ignored.
    pub rejected: u64,
    /// Announced ids that had no room.
    pub missing_dropped: u64,
    /// Objects asked for by GRAFT.
    pub grafted: u64,
    /// PRUNE sent.
    pub pruned: u64,
    /// Objects that were announced and never came.
    pub broken_promises: u64,
    /// Messages that could not be read, or came from nobody who may send them.
    pub malformed: u64,
    /// Neighbours dropped because they did not read.
    pub stuck: u64,
    /// Nodes banned for what they did.
    pub banned: u64,
    /// Chunks with another hash than the header's.
    pub wrong_chunks: u64,
    /// Large objects given up because nobody had their chunks.
    pub abandoned: u64,
}
