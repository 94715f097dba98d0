//! Broadcast to all nodes of a topic: HyParView for who knows whom, Plumtree for who sends to whom,
//! with classes, expiry, a say of the application before anything is forwarded, and limits on
//! everything.
//!
//! Layer 1. Owns the messages between neighbours and the state of one topic of one node,
//! [`Topic`]. Never does: I/O, clocks, randomness of its own (all are arguments). Source:
//! docs/spec.md section 8.
//!
//! # How to drive a [`Topic`]
//!
//! 1. Make it, tell it where this node is with [`Topic::set_addresses`], and [`Topic::join`] with
//!    a few contacts (none for the first node).
//! 2. After *every* call of a method that takes `now`, drain [`Topic::poll_output`]:
//!    * [`Output::Connect`]: make a link, and answer with [`Topic::peer_up`] or
//!      [`Topic::peer_down`]. A link is three reliable ordered streams of whole messages each way,
//!      one per class. Links that the other side made are told by `peer_up` too. Where both sides
//!      made one at once, either serves; tell `peer_up` once, and `peer_down` when the last is gone.
//!    * [`Output::Ready`]: call [`Topic::poll_send`] for that node and class as long as its stream
//!      takes more, until it gives `None`. Do not take messages ahead of what the stream takes:
//!      what waits in the topic can still expire or turn out to be there already, and a node that
//!      takes nothing is noticed. When the stream is full, go on when it is not; there is no second
//!      `Ready` before `None`.
//!    * [`Output::Validate`] (only with `Config::validate`): answer with [`Topic::verdict`], at any
//!      time.
//!    * [`Output::Deliver`]: the object is the application's.
//!    * [`Output::Disconnect`]: the link is not needed for this topic; let what was taken from
//!      `poll_send` leave first. The topic has forgotten the node; no `peer_down` is needed.
//!    * [`Output::Room`]: `publish` may be tried again.
//! 3. Give each message that arrives to [`Topic::handle_message`].
//! 4. Call [`Topic::handle_timeout`] at [`Topic::poll_timeout`].
//!
//! Which topic a message belongs to is the caller's matter; a message for a topic that a node does
//! not have is dropped, and no state is made for it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bits;
mod chunks;
mod config;
mod header;
mod id;
mod membership;
pub mod message;
mod missing;
mod near;
mod objects;
mod peer;
mod random;
mod score;
mod status;
mod topic;
mod tree;

pub use config::{Config, PEERS_MAX};
pub use header::{CHUNK_LEN, CHUNKS_MAX, HEADER_LEN, Header, OBJECT_MAX};
pub use id::{ObjectId, TopicId, chunk_hash};
pub use message::{ADDRESSES_MAX, Contact, MESSAGE_MAX, Message, MessageError, Wish};
pub use status::{Counters, Memory, Output, PublishError, Verdict};
pub use topic::Topic;
