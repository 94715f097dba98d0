//! The responder's side of a handshake, in steps of rising cost.
//!
//! Owns: opening and authenticating an initiation and answering it. Never does: compare the
//! timestamp with earlier ones, admit a peer, or choose secrets; the caller does so between the
//! steps. Specification: the WireGuard paper, sections 5.4.2, 5.4.3 and 5.4.4.

use core::fmt;
use wiremesh_wire::Tai64n;
use wiremesh_wire::{HandshakeInitiation, HandshakeResponse};
use wiremesh_wire::{NodeId, PresharedKey};

use super::HandshakeError;
use super::transcript::Transcript;
use crate::constants::{KEY_LEN, TAG_LEN};
use crate::cookie::mac1_of;
use crate::crypto::DhSecret;
use crate::identity::{LocalIdentity, RemoteIdentity, mac1_key};
use crate::session::{OpeningKey, Role, SealingKey, SessionKeys};

/// An initiation whose claimed sender is known but not proven; wiped on drop.
pub struct OpenedInitiation {
    transcript: Transcript,
    peer: NodeId,
    sender: u32,
    ephemeral: [u8; KEY_LEN],
    encrypted_timestamp: [u8; 12 + TAG_LEN],
}

/// Decrypts the static key of an initiation.
///
/// The caller has checked mac1 with [`crate::verify_mac1`] and, under load, mac2. Anybody who
/// knows our node id can make an initiation that opens; only [`OpenedInitiation::authenticate`]
/// proves the sender. Costs one key agreement and the check of a node id.
///
/// # Errors
///
/// The sender's fault in every case.
pub fn open_initiation(
    local: &LocalIdentity,
    initiation: &HandshakeInitiation,
) -> Result<OpenedInitiation, HandshakeError> {
    open_initiation_from(local, initiation, |_| None)
}

/// As [`open_initiation`], for one who knows many node ids: `checked` gives that of a static key
/// that was checked before, which saves a tenth of the responder's whole work.
///
/// # Errors
///
/// The same.
pub fn open_initiation_from(
    local: &LocalIdentity,
    initiation: &HandshakeInitiation,
    checked: impl FnOnce(&[u8; KEY_LEN]) -> Option<NodeId>,
) -> Result<OpenedInitiation, HandshakeError> {
    let mut transcript = Transcript::new(&local.node_id());
    transcript.mix_ephemeral(&initiation.ephemeral);
    let product = local.dh().agree(&initiation.ephemeral)?;
    let key = transcript.mix_key(&product);
    let peer = transcript.open::<KEY_LEN>(&key, &initiation.encrypted_static)?;
    let peer = match checked(&peer) {
        Some(node_id) => node_id,
        None => NodeId::from_bytes(&peer)?,
    };
    Ok(OpenedInitiation {
        transcript,
        peer,
        sender: initiation.sender,
        ephemeral: initiation.ephemeral,
        encrypted_timestamp: initiation.encrypted_timestamp,
    })
}

impl OpenedInitiation {
    /// The node id that the initiation claims to come from.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Proves that the initiation was made by the peer; a few hashes, no key agreement.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Authentication`] if the sender does not hold the peer's secret key;
    /// [`HandshakeError::WrongPeer`] if `remote` is not [`OpenedInitiation::peer`].
    pub fn authenticate(
        mut self,
        remote: &RemoteIdentity,
    ) -> Result<AuthenticatedInitiation, HandshakeError> {
        if remote.node_id() != self.peer {
            return Err(HandshakeError::WrongPeer);
        }
        let key = self.transcript.mix_key(remote.static_static());
        let timestamp = self
            .transcript
            .open::<12>(&key, &self.encrypted_timestamp)?;
        Ok(AuthenticatedInitiation {
            transcript: self.transcript,
            peer: self.peer,
            sender: self.sender,
            ephemeral: self.ephemeral,
            timestamp: Tai64n::from_bytes(timestamp),
        })
    }
}

/// An initiation that the peer has made, now or, if its timestamp is not new, earlier.
pub struct AuthenticatedInitiation {
    transcript: Transcript,
    peer: NodeId,
    sender: u32,
    ephemeral: [u8; KEY_LEN],
    timestamp: Tai64n,
}

impl AuthenticatedInitiation {
    /// The peer that made the initiation.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The initiation's timestamp; a replay unless it is greater than all before from this peer.
    #[must_use]
    pub fn timestamp(&self) -> Tai64n {
        self.timestamp
    }

    /// The index that the initiator chose.
    #[must_use]
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Makes the response, with mac1 set and mac2 zero, and the session keys.
    ///
    /// Borrows, so that the same initiation can be answered once more under another preshared
    /// key; each answer needs its own fresh `ephemeral` and its own `sender` index. Costs one
    /// fixed-base multiplication and two key agreements.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::ZeroProduct`] if the initiation carries a point of small order.
    pub fn respond(
        &self,
        psk: &PresharedKey,
        ephemeral: &[u8; KEY_LEN],
        sender: u32,
    ) -> Result<(HandshakeResponse, SessionKeys), HandshakeError> {
        let dh = DhSecret::new(ephemeral);
        let mut transcript = self.transcript.clone();
        transcript.mix_ephemeral(dh.public());
        transcript.mix_secret(&*dh.agree(&self.ephemeral)?);
        transcript.mix_secret(&*dh.agree(self.peer.as_bytes())?);
        let key = transcript.mix_preshared(psk);
        let mut encrypted_nothing = [0u8; TAG_LEN];
        transcript.seal(&key, &mut encrypted_nothing);
        let (opening, sealing) = transcript.split();

        let mut response = HandshakeResponse {
            sender,
            receiver: self.sender,
            ephemeral: *dh.public(),
            encrypted_nothing,
            mac1: [0; 16],
            mac2: [0; 16],
        };
        response.mac1 = mac1_of(&mac1_key(&self.peer), &response.emit());
        let keys = SessionKeys {
            sealing: SealingKey::new(&sealing),
            opening: OpeningKey::new(&opening),
            local_index: sender,
            remote_index: self.sender,
            role: Role::Responder,
        };
        Ok((response, keys))
    }
}

impl fmt::Debug for OpenedInitiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedInitiation")
            .field("peer", &self.peer)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthenticatedInitiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatedInitiation")
            .field("peer", &self.peer)
            .field("sender", &self.sender)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}
