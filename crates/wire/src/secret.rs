//! Secret keys and preshared keys: 32 bytes that are wiped on drop and never printed.
//!
//! Owns their text form (base64, as `wg genkey` and `wg genpsk` write it). It never computes
//! with a key and never draws one.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::text::{self, KeyTextError};

/// The secret half of a node's key pair: the 32 bytes that `wg genkey` makes.
///
/// All 2^256 values are accepted, as X25519 clamps them. It is wiped on drop, prints nothing and
/// compares in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

/// A preshared key: the 32 bytes that `wg genpsk` makes; the default, all zero, means none.
///
/// It is wiped on drop, prints nothing and compares in constant time.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// Returns whether it is the zero key, which WireGuard takes for "no preshared key".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.ct_eq(&[0; 32]).into()
    }
}

macro_rules! secret_bytes {
    ($name:ident, $shown:literal) => {
        impl $name {
            /// Takes the 32 bytes; the caller wipes its own copy.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Lends the 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Returns the base64 text, 44 characters, wiped on drop.
            #[must_use]
            pub fn to_base64(&self) -> Zeroizing<String> {
                text::with_key_text(&self.0, |text| Zeroizing::new(String::from(text)))
            }
        }

        impl FromStr for $name {
            type Err = KeyTextError;

            /// Reads base64; white space around it is cut.
            fn from_str(text: &str) -> Result<Self, KeyTextError> {
                text::decode_key(text).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($shown)
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> subtle::Choice {
                self.0.ct_eq(&other.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.ct_eq(other).into()
            }
        }

        impl Eq for $name {}
    };
}

secret_bytes!(SecretKey, "SecretKey(..)");
secret_bytes!(PresharedKey, "PresharedKey(..)");
