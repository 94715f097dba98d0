//! Ids of topics, objects and chunks, and the hashes that they are.
//!
//! Owns the contexts of the hashes. docs/spec.md section 8.1.

use core::fmt;

use blake2::{Blake2s256, Digest};
use wiremesh_wire::NetworkId;

use crate::header::Header;

const TOPIC_CONTEXT: &[u8] = b"wiremesh topic v1";
const OBJECT_CONTEXT: &[u8] = b"wiremesh object v1";
const CHUNK_CONTEXT: &[u8] = b"wiremesh chunk v1";

/// Which topic: BLAKE2s-256 of a context, the network's id and the topic's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 32]);

impl TopicId {
    /// The id of the topic `name` of a network.
    #[must_use]
    pub fn new(network: &NetworkId, name: &str) -> Self {
        let parts: [&[u8]; 2] = [network.as_bytes(), name.as_bytes()];
        Self(digest(TOPIC_CONTEXT, &parts))
    }

    /// Takes the 32 bytes as they are on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Lends the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which object: BLAKE2s-256 of a context, the topic, the object's header, and its content or the
/// hashes of its chunks. So nobody on the way changes any of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// The id of the object with this header and body: its content, or the hashes of its chunks.
    #[must_use]
    pub fn new(topic: &TopicId, header: &Header, body: &[u8]) -> Self {
        Self(digest(OBJECT_CONTEXT, &[&topic.0, &header.emit(), body]))
    }

    /// Takes the 32 bytes as they are on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Lends the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The hash of a chunk, as the header of a large object lists it.
#[must_use]
pub fn chunk_hash(chunk: &[u8]) -> [u8; 32] {
    digest(CHUNK_CONTEXT, &[chunk])
}

fn digest(context: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new_with_prefix(context);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..6], f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..6], f)
    }
}
