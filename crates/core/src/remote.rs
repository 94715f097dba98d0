//! Who a peer is: its key, and from the first handshake on the product of its static key and ours.
//!
//! Owns when that product is made. It costs a key agreement, more than all else that adding a peer
//! does, and most peers of a large node never handshake.

use wiremesh_noise::{LocalIdentity, RemoteIdentity};
use wiremesh_wire::NodeId;

/// A peer's identity.
pub(crate) enum Remote {
    /// No handshake has needed more so far.
    Named(NodeId),
    /// With the product, which every handshake uses.
    Met(RemoteIdentity),
}

impl Remote {
    pub(crate) fn node_id(&self) -> NodeId {
        match self {
            Self::Named(node_id) => *node_id,
            Self::Met(identity) => identity.node_id(),
        }
    }

    /// What a handshake needs; the first call costs a key agreement.
    pub(crate) fn identity(&mut self, local: &LocalIdentity) -> &RemoteIdentity {
        if let Self::Named(node_id) = *self {
            *self = Self::Met(RemoteIdentity::new(local, node_id));
        }
        match self {
            Self::Met(identity) => identity,
            Self::Named(_) => unreachable!("it was made just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wiremesh_wire::SecretKey;

    #[test]
    fn the_product_is_made_once_and_not_before_it_is_needed() {
        let local = |byte| LocalIdentity::new(SecretKey::from_bytes([byte; 32])).expect("valid");
        let (ours, theirs) = (local(1), local(2));
        let mut remote = Remote::Named(theirs.node_id());
        assert!(matches!(remote, Remote::Named(id) if id == theirs.node_id()));
        let first: *const RemoteIdentity = remote.identity(&ours);
        assert!(matches!(remote, Remote::Met(_)));
        assert_eq!(remote.identity(&ours) as *const _, first);
        assert_eq!(remote.node_id(), theirs.node_id());
    }
}
