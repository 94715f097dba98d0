//! Who we are and whom we talk to, with the values that every handshake needs again.
//!
//! Owns: the static secret, and per peer the product of both static keys. Never does: decide
//! whom to trust, or keep a peer's state. Specification: the WireGuard paper, section 5.4.

use core::fmt;
use wiremesh_wire::{InvalidNodeId, NodeId, SecretKey};

use crate::constants::{KEY_LEN, LABEL_COOKIE, LABEL_MAC1};
use crate::crypto::{DhSecret, Secret, hash};

/// Our own key pair, with the keys under which others address us.
pub struct LocalIdentity {
    secret: SecretKey,
    dh: DhSecret,
    node_id: NodeId,
    mac1_key: [u8; KEY_LEN],
    cookie_key: [u8; KEY_LEN],
}

impl LocalIdentity {
    /// Derives the node id; costs one fixed-base multiplication and three hashes.
    ///
    /// # Errors
    ///
    /// [`InvalidNodeId`] if the public key breaks a rule for node ids. No clamped secret has
    /// such a public key, so the error means that the arithmetic is broken.
    pub fn new(secret: SecretKey) -> Result<LocalIdentity, InvalidNodeId> {
        let dh = DhSecret::new(secret.as_bytes());
        let node_id = NodeId::from_bytes(dh.public())?;
        let mac1_key = mac1_key(&node_id);
        let cookie_key = cookie_key(&node_id);
        Ok(LocalIdentity {
            secret,
            dh,
            node_id,
            mac1_key,
            cookie_key,
        })
    }

    /// Our node id: the public key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Our secret key, for signatures.
    #[must_use]
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    pub(crate) fn dh(&self) -> &DhSecret {
        &self.dh
    }

    pub(crate) fn mac1_key(&self) -> &[u8; KEY_LEN] {
        &self.mac1_key
    }

    pub(crate) fn cookie_key(&self) -> &[u8; KEY_LEN] {
        &self.cookie_key
    }
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIdentity")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// A peer's node id with the product of its static key and ours; 64 bytes, wiped on drop.
///
/// The product costs one key agreement and is the same for every handshake with the peer. The
/// keys of mac1 and of cookies cost one hash each and are not worth the memory.
pub struct RemoteIdentity {
    node_id: NodeId,
    static_static: Secret,
}

impl RemoteIdentity {
    /// Computes the product of the static keys; costs one key agreement.
    ///
    /// # Panics
    ///
    /// Never for a valid [`NodeId`]: a clamped scalar is a multiple of eight and below eight
    /// times the group order, so only a point of small order could give zero.
    #[must_use]
    pub fn new(local: &LocalIdentity, node_id: NodeId) -> RemoteIdentity {
        let static_static = local
            .dh
            .agree(node_id.as_bytes())
            .expect("a node id is not of small order");
        RemoteIdentity {
            node_id,
            static_static,
        }
    }

    /// The peer's node id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(crate) fn static_static(&self) -> &Secret {
        &self.static_static
    }
}

impl fmt::Debug for RemoteIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteIdentity")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// The key of mac1 in messages to this node.
pub(crate) fn mac1_key(node_id: &NodeId) -> [u8; KEY_LEN] {
    hash(&[LABEL_MAC1, node_id.as_bytes()])
}

/// The key that encrypts the cookies that this node gives out.
pub(crate) fn cookie_key(node_id: &NodeId) -> [u8; KEY_LEN] {
    hash(&[LABEL_COOKIE, node_id.as_bytes()])
}
