//! Session keys: sealing and opening transport data.
//!
//! Owns: the two keys of a session, the send counter and the replay window. Never does: know
//! time, peers or which session is current; allocate or copy on the data path. Specification:
//! the WireGuard paper, section 5.4.6.

use aws_lc_rs::aead::{Aad, LessSafeKey};
use core::fmt;
use wiremesh_wire::TransportDataHeader;

use crate::constants::{KEY_LEN, REJECT_AFTER_MESSAGES, TAG_LEN};
use crate::crypto::{aead_key, aead_nonce};
use crate::replay::ReplayWindow;

/// Bytes that transport data adds to its plaintext: header and tag.
pub const OVERHEAD: usize = TransportDataHeader::LEN + TAG_LEN;

/// The side of the handshake that this node was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent the initiation.
    Initiator,
    /// It sent the response.
    Responder,
}

/// What a finished handshake gives: the only way to come by session keys.
#[derive(Debug)]
pub struct SessionKeys {
    /// Seals what we send.
    pub sealing: SealingKey,
    /// Opens what we receive.
    pub opening: OpeningKey,
    /// The index that we chose: incoming transport data names it.
    pub local_index: u32,
    /// The index that the peer chose: outgoing transport data names it.
    pub remote_index: u32,
    /// Our role in the handshake.
    pub role: Role,
}

impl SessionKeys {
    /// Turns the keys into a sealer with counter zero and an opener that has seen nothing.
    #[must_use]
    pub fn split(self) -> (Sealer, Opener) {
        (
            Sealer::new(self.sealing, self.remote_index),
            Opener::new(self.opening),
        )
    }
}

/// The key that seals what we send; shareable between threads, wiped on drop.
pub struct SealingKey(LessSafeKey);

/// The key that opens what we receive; shareable between threads, wiped on drop.
pub struct OpeningKey(LessSafeKey);

impl SealingKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> SealingKey {
        SealingKey(aead_key(key))
    }

    /// Seals one datagram in place under a counter that must never be used twice.
    ///
    /// `datagram` is 16 bytes of room for the header, the plaintext padded by the caller to a
    /// multiple of 16, and 16 bytes of room for the tag. Does not allocate.
    ///
    /// # Errors
    ///
    /// The caller's fault: see [`SealError`]. The datagram is unchanged.
    #[inline]
    pub fn seal_with_counter(
        &self,
        receiver: u32,
        counter: u64,
        datagram: &mut [u8],
    ) -> Result<(), SealError> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(SealError::Exhausted);
        }
        let (header, rest) = datagram
            .split_first_chunk_mut::<{ TransportDataHeader::LEN }>()
            .ok_or(SealError::TooShort)?;
        let (plaintext, tag) = rest
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(SealError::TooShort)?;
        *header = TransportDataHeader { receiver, counter }.emit();
        self.0
            .seal_in_place_scatter(aead_nonce(counter), Aad::empty(), plaintext, &[], tag)
            .expect("a datagram is far below the length limit of the cipher");
        Ok(())
    }
}

impl OpeningKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> OpeningKey {
        OpeningKey(aead_key(key))
    }

    /// Opens ciphertext and tag in place, without any check of replay. Does not allocate.
    ///
    /// # Errors
    ///
    /// [`OpenError::CounterTooLarge`] before the cipher runs, [`OpenError::Authentication`]
    /// after; the bytes are then unspecified.
    #[inline]
    pub fn open_with_counter<'a>(
        &self,
        counter: u64,
        ciphertext_and_tag: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(OpenError::CounterTooLarge);
        }
        let (ciphertext, tag) = ciphertext_and_tag
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(OpenError::Authentication)?;
        // The tag apart: the call for both together ends with a copy of the plaintext onto itself.
        self.0
            .open_in_place_separate_tag(aead_nonce(counter), Aad::empty(), tag, ciphertext)
            .map_err(|_| OpenError::Authentication)
    }
}

/// Seals the transport data of one session in the order of its counter.
#[derive(Debug)]
pub struct Sealer {
    key: SealingKey,
    receiver: u32,
    next_counter: u64,
}

impl Sealer {
    /// Starts at counter zero; `receiver` is the index that the peer chose.
    #[must_use]
    pub fn new(key: SealingKey, receiver: u32) -> Sealer {
        Sealer {
            key,
            receiver,
            next_counter: 0,
        }
    }

    /// Seals one datagram in place under the next counter; the layout is that of
    /// [`SealingKey::seal_with_counter`]. Does not allocate.
    ///
    /// # Errors
    ///
    /// See [`SealError`]; the datagram and the counter are unchanged.
    #[inline]
    pub fn seal(&mut self, datagram: &mut [u8]) -> Result<(), SealError> {
        self.key
            .seal_with_counter(self.receiver, self.next_counter, datagram)?;
        self.next_counter += 1;
        Ok(())
    }

    /// The counter that the next datagram gets: how many were sealed so far.
    #[must_use]
    pub fn next_counter(&self) -> u64 {
        self.next_counter
    }

    /// The index that the peer chose.
    #[must_use]
    pub fn receiver(&self) -> u32 {
        self.receiver
    }
}

/// Opens the transport data of one session, each counter once.
#[derive(Debug)]
pub struct Opener {
    key: OpeningKey,
    replay: ReplayWindow,
}

impl Opener {
    /// Starts with a replay window that has seen nothing.
    #[must_use]
    pub fn new(key: OpeningKey) -> Opener {
        Opener {
            key,
            replay: ReplayWindow::new(),
        }
    }

    /// Opens ciphertext and tag in place and gives back the plaintext. Does not allocate.
    ///
    /// The counter is looked up before the cipher runs, so that a replay is cheap, and marked
    /// only after the packet has authenticated, so that a forgery cannot burn it.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the window is then unchanged.
    #[inline]
    pub fn open<'a>(
        &mut self,
        counter: u64,
        ciphertext_and_tag: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(OpenError::CounterTooLarge);
        }
        if !self.replay.check(counter) {
            return Err(OpenError::Replayed);
        }
        let plaintext = self.key.open_with_counter(counter, ciphertext_and_tag)?;
        self.replay.mark(counter);
        Ok(plaintext)
    }

    /// The replay window as it stands.
    #[must_use]
    pub fn replay(&self) -> &ReplayWindow {
        &self.replay
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpeningKey(..)")
    }
}

/// Why a datagram was not sealed: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The session has used all its counters; only a new handshake helps.
    Exhausted,
    /// The datagram has no room for header and tag.
    TooShort,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Exhausted => "the session has used all its counters",
            SealError::TooShort => "the datagram has no room for header and tag",
        })
    }
}

impl core::error::Error for SealError {}

/// Why transport data was not opened: the sender's fault, or the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The bytes were not sealed under this key and counter.
    Authentication,
    /// The counter was seen before or lies too far behind.
    Replayed,
    /// The counter lies beyond what a session may use.
    CounterTooLarge,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::Authentication => "authentication failed",
            OpenError::Replayed => "the counter was seen before or is too old",
            OpenError::CounterTooLarge => "the counter is beyond the limit of a session",
        })
    }
}

impl core::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// WireGuard paper, section 6.1: no message is sealed at or beyond the limit.
    #[test]
    fn sealer_stops_at_the_limit() {
        let mut sealer = Sealer::new(SealingKey::new(&[1; KEY_LEN]), 2);
        sealer.next_counter = REJECT_AFTER_MESSAGES - 1;
        let mut datagram = vec![0; OVERHEAD];
        assert_eq!(sealer.seal(&mut datagram), Ok(()));
        let last = datagram.clone();
        for _ in 0..3 {
            assert_eq!(sealer.seal(&mut datagram), Err(SealError::Exhausted));
        }
        assert_eq!(datagram, last);
        assert_eq!(sealer.next_counter(), REJECT_AFTER_MESSAGES);
    }
}
