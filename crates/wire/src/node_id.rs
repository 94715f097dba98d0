//! Node ids: X25519 public keys that passed every check.
//!
//! Owns the rules of validity and the text forms. It never does a Diffie-Hellman operation.
//! RFC 7748, section 5 (encoding) and section 6.1 (why small orders are refused).

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use curve25519_dalek::montgomery::MontgomeryPoint;

use crate::base32::{self, Base32Error};
use crate::text::{self, KeyTextError};

/// The prime of the field, 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed;
    bytes[31] = 0x7f;
    bytes
};

/// The length of a node id in base32.
pub const BASE32_LEN: usize = 52;

/// The identity of a node: its WireGuard public key.
///
/// A value is always canonical (below 2^255 - 19 with the top bit clear), on the curve and not
/// of small order, so that each node has one id, its Ed25519 form exists, and a Diffie-Hellman
/// operation with it never gives zero. It is public: comparing and printing take variable time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// Which rule a public key breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidNodeId {
    /// Bit 255 is set.
    TopBit,
    /// The number is 2^255 - 19 or more.
    NotReduced,
    /// The point is on the twist, not on the curve.
    NotOnCurve,
    /// The point has order 1, 2, 4 or 8.
    SmallOrder,
}

/// Why a text is not a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseNodeIdError {
    /// It is not the base64 of 32 bytes.
    Base64(KeyTextError),
    /// It has this many characters where 52 of base32 are needed.
    Base32Length(usize),
    /// The character at this index is not in the base32 alphabet.
    Base32Character(usize),
    /// The last base32 character has bits that no byte uses.
    Base32Ending,
    /// The 32 bytes are not a valid public key.
    Invalid(InvalidNodeId),
}

impl NodeId {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// Checks the 32 bytes of a public key. Costs one square root in the field, about 5 us.
    ///
    /// # Errors
    ///
    /// The first rule that the key breaks, in the order of [`InvalidNodeId`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidNodeId> {
        if bytes[31] & 0x80 != 0 {
            return Err(InvalidNodeId::TopBit);
        }
        if bytes.iter().rev().ge(FIELD_PRIME.iter().rev()) {
            return Err(InvalidNodeId::NotReduced);
        }
        let point = MontgomeryPoint(*bytes)
            .to_edwards(0)
            .ok_or(InvalidNodeId::NotOnCurve)?;
        if point.is_small_order() {
            return Err(InvalidNodeId::SmallOrder);
        }
        Ok(Self(*bytes))
    }

    /// Lends the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 52 lower-case base32 characters, for file names and DNS labels.
    #[must_use]
    pub fn to_base32(&self) -> String {
        let mut text = String::with_capacity(BASE32_LEN);
        base32::encode(&self.0, |character| text.push(character));
        text
    }

    /// Reads 52 base32 characters of either case; white space around them is cut.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, or which rule the key breaks.
    pub fn from_base32(text: &str) -> Result<Self, ParseNodeIdError> {
        let text = text.trim_ascii();
        let count = text.chars().count();
        if count != BASE32_LEN {
            return Err(ParseNodeIdError::Base32Length(count));
        }
        let mut bytes = [0; 32];
        base32::decode(text.chars(), &mut bytes).map_err(|error| match error {
            Base32Error::Character(index) => ParseNodeIdError::Base32Character(index),
            Base32Error::Tail(_) | Base32Error::TooLong => ParseNodeIdError::Base32Ending,
        })?;
        Self::from_bytes(&bytes).map_err(ParseNodeIdError::Invalid)
    }
}

impl AsRef<[u8]> for NodeId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<[u8; 32]> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(bytes: [u8; 32]) -> Result<Self, InvalidNodeId> {
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for NodeId {
    /// Writes base64, as `wg show` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::with_key_text(&self.0, |text| f.pad(text))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    /// Reads base64; white space around it is cut.
    fn from_str(text: &str) -> Result<Self, ParseNodeIdError> {
        let bytes = text::decode_key(text).map_err(ParseNodeIdError::Base64)?;
        Self::from_bytes(&bytes).map_err(ParseNodeIdError::Invalid)
    }
}

impl fmt::Display for InvalidNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TopBit => "the public key has its top bit set",
            Self::NotReduced => "the public key is not below 2^255 - 19",
            Self::NotOnCurve => "the public key is not a point of the curve",
            Self::SmallOrder => "the public key is a point of small order",
        })
    }
}

impl core::error::Error for InvalidNodeId {}

impl fmt::Display for ParseNodeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base64(error) => error.fmt(f),
            Self::Base32Length(len) => {
                write!(
                    f,
                    "a node id has {BASE32_LEN} base32 characters, this text has {len}"
                )
            }
            Self::Base32Character(index) => {
                write!(f, "character {} is not a base32 character", index + 1)
            }
            Self::Base32Ending => {
                f.write_str("the text does not end as the base32 of 32 bytes does")
            }
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ParseNodeIdError {}
