//! XEdDSA: Ed25519 signatures under the X25519 key of a node.
//!
//! Owns the mapping between both kinds of key. Never does: draw randomness (it is an argument) or
//! decide what is signed; the context keeps the uses apart. "The XEdDSA and VXEdDSA Signature
//! Schemes" (Signal, 2016), sections 2.3 and 2.4; RFC 8032 for the signature itself.
//!
//! The Ed25519 key of a node is the point with the node id's u coordinate and sign bit 0, so any
//! Ed25519 verifier can check a signature.

use alloc::vec::Vec;
use core::fmt;

use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha512};
use subtle::{Choice, ConditionallyNegatable};
use wiremesh_wire::{NodeId, SecretKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// What the specification's `hash_1` puts before its input: 2^256 - 2, little-endian. No encoded
/// point has this value, so the hash meets no other use of SHA-512.
const HASH_1_PREFIX: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xfe;
    bytes
};

/// A signature that is not the signer's over these bytes. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSignature;

impl fmt::Display for InvalidSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature is not valid")
    }
}

impl core::error::Error for InvalidSignature {}

/// A node's signing key, ready for use; wiped on drop, prints nothing.
pub struct Signer {
    scalar: Scalar,
    public: VerifyingKey,
}

impl Signer {
    /// Derives the signing key; costs one fixed-base multiplication, about 20 us.
    #[must_use]
    pub fn new(secret: &SecretKey) -> Self {
        // calculate_key_pair of the specification: the scalar is negated if its point has sign
        // bit 1. The bit is not part of the node id, so no branch depends on it.
        let clamped = Zeroizing::new(curve25519_dalek::scalar::clamp_integer(*secret.as_bytes()));
        let mut scalar = Scalar::from_bytes_mod_order(*clamped);
        let mut point = EdwardsPoint::mul_base(&scalar);
        let sign = Choice::from(point.compress().as_bytes()[31] >> 7);
        scalar.conditional_negate(sign);
        point.conditional_negate(sign);
        Self {
            scalar,
            public: VerifyingKey::from(point),
        }
    }

    /// Signs `context || message`; costs one fixed-base multiplication, about 20 us.
    ///
    /// `random` should be fresh. If it ever repeats, the nonce still differs for every message,
    /// as in RFC 8032.
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8], random: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        let mut hash = Sha512::new();
        hash.update(HASH_1_PREFIX);
        hash.update(self.scalar.as_bytes());
        hash.update(random);
        let mut digest = hash.finalize();
        let mut hash_prefix = [0; 32];
        hash_prefix.copy_from_slice(&digest[..32]);
        digest.zeroize();
        let key = ExpandedSecretKey {
            scalar: self.scalar,
            hash_prefix,
        };
        hash_prefix.zeroize();
        raw_sign::<Sha512>(&key, &[context, message].concat(), &self.public).to_bytes()
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

impl ZeroizeOnDrop for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// Signs `context || message` with a node's secret key; see [`Signer`], which costs half for each
/// signature but the first.
#[must_use]
pub fn sign(
    secret: &SecretKey,
    context: &[u8],
    message: &[u8],
    random: &[u8; 32],
) -> [u8; SIGNATURE_LEN] {
    Signer::new(secret).sign(context, message, random)
}

/// Checks that `signer` signed `context || message`; costs about 50 us.
///
/// # Errors
///
/// [`InvalidSignature`], also for what only lax verifiers accept: an `s` that is not reduced, an
/// `R` that is not canonical or of small order.
pub fn verify(
    signer: &NodeId,
    context: &[u8],
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), InvalidSignature> {
    let point = MontgomeryPoint(*signer.as_bytes())
        .to_edwards(0)
        .ok_or(InvalidSignature)?;
    let signed: Vec<u8> = [context, message].concat();
    VerifyingKey::from(point)
        .verify_strict(&signed, &Signature::from_bytes(signature))
        .map_err(|_| InvalidSignature)
}
