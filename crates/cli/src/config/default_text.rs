//! The documented default configuration, as `wiremesh config` prints it.
//!
//! Owns the text. Tests compare every default in it with the one that the code uses.

/// Every field with its meaning and its default.
pub const DEFAULT_TEXT: &str = include_str!("default.toml");
