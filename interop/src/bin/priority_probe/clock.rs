//! The clock that both ends read, and messages that carry its time.
//!
//! Owns the layout of a message: nanoseconds (big-endian), kind, padding.

use rustix::time::{ClockId, clock_gettime};

/// An urgent object or datagram.
pub const URGENT_BYTES: usize = 1_024;
/// A large object.
pub const OBJECT_BYTES: usize = 1_000_000;
const HEAD_BYTES: usize = 9;

/// What an urgent message was sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object: all of its bytes count.
    Object,
    /// A datagram.
    Datagram,
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(|part| part.unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// A message that is sent now.
pub fn stamped(kind: Kind) -> Vec<u8> {
    let mut message = vec![0x55; URGENT_BYTES];
    message[..8].copy_from_slice(&now().to_be_bytes());
    message[8] = kind as u8;
    message
}

/// What a message is, and how long it was under way.
pub fn delay(message: &[u8]) -> Option<(Kind, u64)> {
    let head: &[u8; HEAD_BYTES] = message.first_chunk()?;
    let sent = u64::from_be_bytes(*head.first_chunk()?);
    let kind = match head[8] {
        0 => Kind::Object,
        1 => Kind::Datagram,
        _ => return None,
    };
    Some((kind, now().checked_sub(sent)?))
}
