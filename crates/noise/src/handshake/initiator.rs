//! The initiator's side of a handshake.
//!
//! Owns: making the initiation and consuming the response. Never does: choose the ephemeral
//! secret, the index or the timestamp; add mac2. Specification: the WireGuard paper, sections
//! 5.4.2, 5.4.3 and 5.4.4.

use core::fmt;
use wiremesh_wire::PresharedKey;
use wiremesh_wire::Tai64n;
use wiremesh_wire::{HandshakeInitiation, HandshakeResponse};

use super::HandshakeError;
use super::transcript::Transcript;
use crate::constants::{KEY_LEN, TAG_LEN};
use crate::cookie::mac1_of;
use crate::crypto::{DhSecret, wipe};
use crate::identity::{LocalIdentity, RemoteIdentity, mac1_key};
use crate::session::{OpeningKey, Role, SealingKey, SessionKeys};

/// A handshake that waits for its response; wiped on drop.
pub struct InitiatorHandshake {
    ephemeral: DhSecret,
    transcript: Transcript,
    local_index: u32,
}

/// Makes a handshake initiation with mac1 set and mac2 zero.
///
/// `ephemeral` is 32 fresh random bytes and `sender` an index that is unused on this node.
/// `timestamp` must be greater than every earlier one sent to this peer, or the peer drops the
/// message as a replay. Costs one fixed-base multiplication and one key agreement.
#[must_use]
pub fn create_initiation(
    local: &LocalIdentity,
    remote: &RemoteIdentity,
    mut ephemeral: [u8; KEY_LEN],
    sender: u32,
    timestamp: Tai64n,
) -> (HandshakeInitiation, InitiatorHandshake) {
    let dh = DhSecret::new(&ephemeral);
    wipe(&mut ephemeral);
    let responder = remote.node_id();
    let mut transcript = Transcript::new(&responder);
    transcript.mix_ephemeral(dh.public());

    let product = dh
        .agree(responder.as_bytes())
        .expect("a node id is not of small order");
    let key = transcript.mix_key(&product);
    let mut encrypted_static = [0u8; KEY_LEN + TAG_LEN];
    encrypted_static[..KEY_LEN].copy_from_slice(local.node_id().as_bytes());
    transcript.seal(&key, &mut encrypted_static);

    let key = transcript.mix_key(remote.static_static());
    let mut encrypted_timestamp = [0u8; 12 + TAG_LEN];
    encrypted_timestamp[..12].copy_from_slice(timestamp.as_bytes());
    transcript.seal(&key, &mut encrypted_timestamp);

    let mut initiation = HandshakeInitiation {
        sender,
        ephemeral: *dh.public(),
        encrypted_static,
        encrypted_timestamp,
        mac1: [0; 16],
        mac2: [0; 16],
    };
    initiation.mac1 = mac1_of(&mac1_key(&responder), &initiation.emit());
    (
        initiation,
        InitiatorHandshake {
            ephemeral: dh,
            transcript,
            local_index: sender,
        },
    )
}

impl InitiatorHandshake {
    /// The index that we chose; the response must name it as its receiver.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Checks a response under one preshared key and derives the session keys.
    ///
    /// As [`InitiatorHandshake::consume_response_any`] with one key.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn consume_response(
        &self,
        local: &LocalIdentity,
        response: &HandshakeResponse,
        psk: &PresharedKey,
    ) -> Result<SessionKeys, HandshakeError> {
        let (_, keys) = self.consume_response_any(local, response, &[psk])?;
        Ok(keys)
    }

    /// Checks a response under several preshared keys in turn, and derives the session keys under
    /// the first that fits, with its place in `psks`.
    ///
    /// Nothing in the pending handshake changes, whatever the outcome: a spoofed response leaves
    /// it waiting for the true one. The caller has checked mac1 with [`crate::verify_mac1`]. Costs
    /// two key agreements, and a few hashes for each preshared key.
    ///
    /// # Errors
    ///
    /// The peer's fault in every case; [`HandshakeError::Authentication`] also covers a preshared
    /// key that is none of these.
    pub fn consume_response_any(
        &self,
        local: &LocalIdentity,
        response: &HandshakeResponse,
        psks: &[&PresharedKey],
    ) -> Result<(usize, SessionKeys), HandshakeError> {
        if response.receiver != self.local_index {
            return Err(HandshakeError::WrongReceiver);
        }
        let mut agreed = self.transcript.clone();
        agreed.mix_ephemeral(&response.ephemeral);
        agreed.mix_secret(&*self.ephemeral.agree(&response.ephemeral)?);
        agreed.mix_secret(&*local.dh().agree(&response.ephemeral)?);
        for (place, psk) in psks.iter().enumerate() {
            let mut transcript = agreed.clone();
            let key = transcript.mix_preshared(psk);
            if let Ok([]) = transcript.open::<0>(&key, &response.encrypted_nothing) {
                let (sealing, opening) = transcript.split();
                let keys = SessionKeys {
                    sealing: SealingKey::new(&sealing),
                    opening: OpeningKey::new(&opening),
                    local_index: self.local_index,
                    remote_index: response.sender,
                    role: Role::Initiator,
                };
                return Ok((place, keys));
            }
        }
        Err(HandshakeError::Authentication)
    }
}

impl fmt::Debug for InitiatorHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitiatorHandshake")
            .field("local_index", &self.local_index)
            .finish_non_exhaustive()
    }
}
