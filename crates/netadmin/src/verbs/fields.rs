//! The fields of messages: how lists, keys, and what may be missing are read and written.
//!
//! Owns that each has one form.

use super::{Key, Reason, Refusal};
use std::fmt::{self, Display};
use std::str::FromStr;

/// A number, an address: as it is displayed, and in no other way.
pub fn parse<T: FromStr + Display>(text: &str) -> Result<T, Refusal> {
    let value: Option<T> = text.parse().ok();
    let value = value.filter(|value| value.to_string() == text);
    value.ok_or(Reason::Malformed.into())
}

/// Some with commas between.
pub fn list<T: FromStr + Display>(text: &str) -> Result<Vec<T>, Refusal> {
    match text {
        "" => Ok(Vec::new()),
        text => text.split(',').map(parse).collect(),
    }
}

/// What may be missing.
pub fn maybe<T>(text: &str, read: fn(&str) -> Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    Some(text).filter(|text| *text != "-").map(read).transpose()
}

/// A key in hexadecimal, lower-case.
pub fn key(text: &str) -> Result<Key, Refusal> {
    let mut key = Key::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != key.len() || !rest.is_empty() {
        return Err(Reason::Malformed.into());
    }
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        let value = |digit: &u8| b"0123456789abcdef".iter().position(|known| known == digit);
        let value = |digit: &u8| value(digit).ok_or(Reason::Malformed);
        *byte = (value(high)? << 4 | value(low)?) as u8;
    }
    Ok(key)
}

/// Writes what [`maybe`] reads.
pub struct Maybe<T>(pub Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Writes what [`key`] reads.
pub struct Hex<'a>(pub &'a Key);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
