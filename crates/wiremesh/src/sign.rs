//! Signatures by a node's key, for the application: invitations, receipts, lists of members.
//!
//! Owns the prefix that keeps them apart from everything that the protocol signs with the same
//! key, so that nobody can be talked into signing a record or a handshake.

use crate::host;
pub use wiremesh_control::{InvalidSignature, SIGNATURE_LEN};
use wiremesh_wire::{NodeId, SecretKey};

/// Begins the context of every signature of an application.
const PREFIX: &[u8] = b"wiremesh application v1";

/// Signs a message with a node's secret key (XEdDSA). `context` says what the signature is for,
/// such as `b"my-application invitation v1"`: it is valid under the same context only.
///
/// Costs about 40 us.
#[must_use]
pub fn sign(secret_key: &SecretKey, context: &[u8], message: &[u8]) -> [u8; SIGNATURE_LEN] {
    // Without randomness the signature is as good as one of RFC 8032, which uses none.
    let random = host::entropy().unwrap_or_default();
    wiremesh_control::sign::sign(secret_key, &separated(context), message, &random)
}

/// Checks that the node `signer` signed the message under this context. Costs about 50 us.
///
/// # Errors
///
/// [`InvalidSignature`].
pub fn verify(
    signer: &NodeId,
    context: &[u8],
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), InvalidSignature> {
    wiremesh_control::sign::verify(signer, &separated(context), message, signature)
}

/// With the length, so that no two pairs of context and message are the same bytes.
fn separated(context: &[u8]) -> Vec<u8> {
    let len = context.len() as u64;
    [PREFIX, &len.to_le_bytes(), context].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_signer_context_and_message_only() {
        let key = |n| SecretKey::from_bytes([n; 32]);
        let (one, two) = (key(1), key(2));
        let id = crate::node_id(&one).expect("valid");
        let other = crate::node_id(&two).expect("valid");
        let signature = sign(&one, b"ctx", b"message");
        assert_eq!(verify(&id, b"ctx", b"message", &signature), Ok(()));
        assert!(verify(&other, b"ctx", b"message", &signature).is_err());
        assert!(verify(&id, b"ct", b"xmessage", &signature).is_err());
        assert!(verify(&id, b"ctx", b"messag", &signature).is_err());
        // Nor is it one of the protocol's.
        let raw = wiremesh_control::sign::verify(&id, b"ctx", b"message", &signature);
        assert!(raw.is_err());
        assert_ne!(sign(&one, b"ctx", b"message"), signature, "hedged");
    }
}
