//! The constants of the WireGuard protocol, under their published names.
//!
//! Owns: names and values. Never does: decide when they apply. Specification: the WireGuard
//! paper, sections 5.4 (labels), 5.3 and 5.4.7 (cookies) and 6.1 (timers and limits).

use core::time::Duration;

pub use wiremesh_wire::message::{PADDING_MULTIPLE, TAG_LEN};

/// The Noise protocol name that starts the chaining key.
pub const CONSTRUCTION: &[u8; 37] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// The protocol identifier that starts the transcript hash.
pub const IDENTIFIER: &[u8; 34] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// The label in front of a public key in the key of mac1.
pub const LABEL_MAC1: &[u8; 8] = b"mac1----";
/// The label in front of a public key in the key that encrypts cookies.
pub const LABEL_COOKIE: &[u8; 8] = b"cookie--";

/// Messages sealed under one key after which the initiator starts a new handshake.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// The first counter that is neither sealed nor opened: 2^64 - 2^13 - 1.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age of a session at which its initiator starts a new handshake when it has data to send.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age of a session from which it neither seals nor opens.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Time for which initiations are repeated before the attempt is given up.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Time without an answer after which an initiation is repeated.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without sending, after something was received, at which a keepalive is due.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Upper bound of the random time added to [`REKEY_TIMEOUT`].
pub const REKEY_TIMEOUT_JITTER_MAX: Duration = Duration::from_millis(333);
/// Lifetime of a cookie, and the time after which a responder changes its cookie secret.
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);

/// Length of a key, a hash, a chaining key and a public key.
pub const KEY_LEN: usize = 32;
/// Length of mac1 and mac2.
pub const MAC_LEN: usize = 16;
/// Length of a cookie.
pub const COOKIE_LEN: usize = 16;
/// Length of the nonce of a cookie reply.
pub const COOKIE_NONCE_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reject_after_messages_is_the_value_of_the_paper() {
        assert_eq!(
            u128::from(REJECT_AFTER_MESSAGES),
            (1u128 << 64) - (1 << 13) - 1
        );
    }
}
