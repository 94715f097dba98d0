//! The header of an object: class, expiry, size, salt.
//!
//! Owns its 21 bytes and its limits. docs/spec.md section 8.2.

use core::time::Duration;

use wiremesh_wire::{Priority, UnixTime};

/// Bytes of a chunk; the last one of an object may be shorter. An object of no more than this
/// travels whole.
pub const CHUNK_LEN: usize = 16 * 1024;
/// Most bytes of an object.
pub const OBJECT_MAX: usize = 64 * 1024 * 1024;
/// Most chunks of an object.
pub const CHUNKS_MAX: usize = OBJECT_MAX / CHUNK_LEN;
/// Bytes of a header on the wire.
pub const HEADER_LEN: usize = 21;

/// What is known of an object before its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its class, at every hop.
    pub priority: Priority,
    /// When it expires: milliseconds since 1970.
    pub expiry_ms: u64,
    /// Its length, 1 to [`OBJECT_MAX`].
    pub size_bytes: u32,
    /// Random, so that equal contents are different objects.
    pub salt: u64,
}

impl Header {
    /// Reads the front of `bytes`; returns what is behind it.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (front, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&front[at..at + 8]);
            u64::from_be_bytes(word)
        };
        let header = Self {
            priority: Priority::from_byte(front[0])?,
            expiry_ms: word(1),
            size_bytes: u32::from_be_bytes([front[9], front[10], front[11], front[12]]),
            salt: word(13),
        };
        let fits = (1..=OBJECT_MAX).contains(&header.size());
        fits.then_some((header, rest))
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = self.priority as u8;
        out[1..9].copy_from_slice(&self.expiry_ms.to_be_bytes());
        out[9..13].copy_from_slice(&self.size_bytes.to_be_bytes());
        out[13..].copy_from_slice(&self.salt.to_be_bytes());
        out
    }

    /// Its length.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size_bytes as usize
    }

    /// Whether it travels as the hashes of its chunks.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.size() > CHUNK_LEN
    }

    /// How many chunks it has; one if it is not large.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        self.size().div_ceil(CHUNK_LEN)
    }

    /// The length of what follows the header: the content, or the hashes of its chunks.
    #[must_use]
    pub const fn body_len(&self) -> usize {
        if self.is_large() {
            self.chunks() * 32
        } else {
            self.size()
        }
    }

    /// The length of the chunk at `index`.
    #[must_use]
    pub const fn chunk_len(&self, index: usize) -> usize {
        let left = self.size().saturating_sub(index * CHUNK_LEN);
        if left < CHUNK_LEN { left } else { CHUNK_LEN }
    }

    pub(crate) fn is_expired(&self, unix: UnixTime) -> bool {
        self.expiry_ms <= millis(unix)
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(unix: UnixTime) -> u64 {
    duration_millis(unix.as_duration())
}

pub(crate) fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
