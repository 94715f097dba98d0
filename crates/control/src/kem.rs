//! ML-KEM-768: keys from a seed, encapsulation, decapsulation.
//!
//! Owns the sizes and the check of foreign keys. Never does: draw randomness (it is an argument)
//! or decide what a shared secret is for. FIPS 203; sections 6 and 7 for what is cited below.

use alloc::boxed::Box;
use core::fmt;

use ml_kem::array::Array;
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport};
use zeroize::{Zeroize, Zeroizing};

/// The length of an encapsulation key in bytes.
pub const EK_LEN: usize = 1184;
/// The length of a ciphertext in bytes.
pub const CT_LEN: usize = 1088;
/// The length of the seed `d || z` in bytes.
pub const SEED_LEN: usize = 64;
/// The length of the random `m` of an encapsulation, and of a shared secret, in bytes.
pub const SHARED_LEN: usize = 32;

/// The secret half of an ML-KEM-768 key pair; about 5 KiB, wiped on drop, prints nothing.
pub struct KemSecret {
    key: DecapsulationKey,
    encapsulation_key: Box<[u8; EK_LEN]>,
}

/// An encapsulation key that the modulus check of FIPS 203, section 7.2, refuses: a coefficient is
/// not below 3329. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKemKey;

impl fmt::Display for InvalidKemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ML-KEM-768 key has a coefficient that is not reduced")
    }
}

impl core::error::Error for InvalidKemKey {}

impl KemSecret {
    /// Makes the key pair of a seed: 32 bytes `d`, 32 bytes `z` (`ML-KEM.KeyGen_internal`). Costs
    /// about 0.1 ms.
    ///
    /// The seed must be uniformly random and secret; the caller wipes its own copy.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let key = DecapsulationKey::from_seed(Array(*seed));
        let encapsulation_key = Box::new(key.encapsulation_key().to_bytes().0);
        Self {
            key,
            encapsulation_key,
        }
    }

    /// Lends the public half.
    #[must_use]
    pub fn encapsulation_key(&self) -> &[u8; EK_LEN] {
        &self.encapsulation_key
    }

    /// Recovers the shared secret of a ciphertext. Costs about 0.1 ms.
    ///
    /// Never fails: a ciphertext that was not made for this key gives a secret that nobody else
    /// knows (implicit rejection, FIPS 203, algorithm 18), in the same time.
    #[must_use]
    pub fn decapsulate(&self, ct: &[u8; CT_LEN]) -> Zeroizing<[u8; SHARED_LEN]> {
        let mut shared = self.key.decapsulate(Ciphertext::cast_from_core(ct));
        let kept = Zeroizing::new(shared.0);
        shared.zeroize();
        kept
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret(..)")
    }
}

/// Makes a shared secret for the holder of `ek`: the ciphertext to send, and the secret. Costs
/// about 0.1 ms.
///
/// `m` must be uniformly random, secret and used once.
///
/// # Errors
///
/// [`InvalidKemKey`] if `ek` fails the modulus check.
pub fn encapsulate(
    ek: &[u8; EK_LEN],
    m: &[u8; SHARED_LEN],
) -> Result<([u8; CT_LEN], Zeroizing<[u8; SHARED_LEN]>), InvalidKemKey> {
    let ek = EncapsulationKey::new(Array::cast_from_core(ek)).map_err(|_| InvalidKemKey)?;
    let (ct, mut shared) = ek.encapsulate_deterministic(Array::cast_from_core(m));
    let kept = Zeroizing::new(shared.0);
    shared.zeroize();
    Ok((ct.0, kept))
}
