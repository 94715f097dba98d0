//! Base64 text of 32-byte keys, as the `wg` tool reads and shows them.
//!
//! Owns the text rules and their errors. It never keeps a copy of what it decoded.

use core::fmt;
use core::str;

use data_encoding::{BASE64, DecodeKind};
use zeroize::Zeroize;

/// The length of a 32-byte key in base64.
pub const KEY_TEXT_LEN: usize = 44;

/// Why a text is not a 32-byte key in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyTextError {
    /// The text has this many bytes where 44 are needed.
    Length(usize),
    /// The byte at this index is not in the base64 alphabet.
    Character(usize),
    /// The text does not end with one `=` after a character whose spare bits are zero.
    Ending,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => {
                write!(
                    f,
                    "a key has {KEY_TEXT_LEN} base64 characters, this text has {len}"
                )
            }
            Self::Character(index) => {
                write!(f, "character {} is not a base64 character", index + 1)
            }
            Self::Ending => f.write_str("the text does not end as the base64 of 32 bytes does"),
        }
    }
}

impl core::error::Error for KeyTextError {}

/// Decodes a key; white space around it is cut, since key files end with a line feed.
pub(crate) fn decode_key(text: &str) -> Result<[u8; 32], KeyTextError> {
    let text = text.trim_ascii().as_bytes();
    if text.len() != KEY_TEXT_LEN {
        return Err(KeyTextError::Length(text.len()));
    }
    // 44 characters give up to 33 bytes; the padding leaves 32.
    let mut out = [0u8; 33];
    let result = BASE64.decode_mut(text, &mut out);
    let mut key = [0u8; 32];
    key.copy_from_slice(&out[..32]);
    out.zeroize();
    match result {
        Ok(32) => Ok(key),
        Ok(_) => {
            key.zeroize();
            Err(KeyTextError::Ending)
        }
        Err(partial) => {
            key.zeroize();
            Err(match partial.error.kind {
                DecodeKind::Symbol if partial.error.position < KEY_TEXT_LEN - 1 => {
                    KeyTextError::Character(partial.error.position)
                }
                _ => KeyTextError::Ending,
            })
        }
    }
}

/// Gives the base64 of `key` to `use_text` and wipes it afterwards.
pub(crate) fn with_key_text<T>(key: &[u8; 32], use_text: impl FnOnce(&str) -> T) -> T {
    let mut text = [0u8; KEY_TEXT_LEN];
    BASE64.encode_mut(key, &mut text);
    let result = use_text(str::from_utf8(&text).expect("base64 is ASCII"));
    text.zeroize();
    result
}
