//! The running state of a handshake: chaining key and transcript hash.
//!
//! Owns: the two values and how each token of the pattern changes them. Never does: know roles or
//! message layouts. Specification: the WireGuard paper, sections 5.4.2 and 5.4.3.

use wiremesh_wire::{NodeId, PresharedKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::constants::{CONSTRUCTION, IDENTIFIER, KEY_LEN, TAG_LEN};
use crate::crypto::{
    AuthenticationFailed, Secret, aead_open, aead_seal, hash, kdf1, kdf2, kdf3, wipe,
};

/// Chaining key and transcript hash; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Transcript {
    chaining_key: [u8; KEY_LEN],
    hash: [u8; KEY_LEN],
}

impl Transcript {
    /// Starts a handshake with the given responder.
    pub(super) fn new(responder: &NodeId) -> Transcript {
        let chaining_key = hash(&[CONSTRUCTION]);
        let identified = hash(&[&chaining_key, IDENTIFIER]);
        Transcript {
            chaining_key,
            hash: hash(&[&identified, responder.as_bytes()]),
        }
    }

    /// Mixes in an ephemeral public key: into the chaining key too, as a PSK pattern asks.
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; KEY_LEN]) {
        self.hash = hash(&[&self.hash, public]);
        self.mix_secret(public);
    }

    /// Mixes in a secret whose cipher key is not used.
    pub(super) fn mix_secret(&mut self, secret: &[u8; KEY_LEN]) {
        self.chaining_key = *kdf1(&self.chaining_key, secret);
    }

    /// Mixes in a secret and gives back the cipher key that follows from it.
    pub(super) fn mix_key(&mut self, secret: &[u8; KEY_LEN]) -> Secret {
        let (chaining_key, key) = kdf2(&self.chaining_key, secret);
        self.chaining_key = *chaining_key;
        key
    }

    /// Mixes in the preshared key and gives back the cipher key that follows from it.
    pub(super) fn mix_preshared(&mut self, psk: &PresharedKey) -> Secret {
        let (chaining_key, temporary, key) = kdf3(&self.chaining_key, psk.as_bytes());
        self.chaining_key = *chaining_key;
        self.hash = hash(&[&self.hash, &temporary[..]]);
        key
    }

    /// Seals `buffer` (plaintext and 16 bytes of room) under the transcript and mixes it in.
    pub(super) fn seal(&mut self, key: &Secret, buffer: &mut [u8]) {
        aead_seal(key, 0, &self.hash, buffer);
        self.hash = hash(&[&self.hash, buffer]);
    }

    /// Opens a field under the transcript and mixes in its ciphertext.
    ///
    /// `N` is the length of the plaintext; `field` has 16 bytes more. The transcript is to be
    /// thrown away after an error.
    pub(super) fn open<const N: usize>(
        &mut self,
        key: &Secret,
        field: &[u8],
    ) -> Result<[u8; N], AuthenticationFailed> {
        // The largest field is the static key; working on a copy leaves the message untouched.
        let mut copy = [0u8; KEY_LEN + TAG_LEN];
        let copy = copy.get_mut(..field.len()).ok_or(AuthenticationFailed)?;
        copy.copy_from_slice(field);
        let opened = aead_open(key, 0, &self.hash, copy)?;
        let plaintext = (&*opened).try_into().map_err(|_| AuthenticationFailed)?;
        wipe(opened);
        self.hash = hash(&[&self.hash, field]);
        Ok(plaintext)
    }

    /// Ends the handshake: the key that the initiator seals with, and the responder's.
    pub(super) fn split(&self) -> (Secret, Secret) {
        kdf2(&self.chaining_key, &[])
    }
}
