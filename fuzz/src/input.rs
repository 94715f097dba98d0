//! Takes decisions off the front of a fuzz input.
//!
//! Owns the position in the input. Never fails: an input that has ended gives zeros, so every
//! prefix of an input is an input.

use wiremesh_control::{Level, Policy, Stage};

/// The bytes that are left.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// One bit; takes a byte.
    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Up to `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// A length of one or two bytes, and up to so many bytes.
    pub fn block(&mut self) -> &'a [u8] {
        let len = match self.u8() {
            len @ 0..=251 => usize::from(len),
            high => usize::from(high - 252) * 256 + 252 + usize::from(self.u8()),
        };
        self.bytes(len)
    }

    /// One of the policies that do not contradict themselves; takes a byte.
    pub fn policy(&mut self) -> Policy {
        let number = self.u8();
        let policy = Policy {
            minimum: Level::ALL[usize::from(number >> 3 & 3) % 3],
            stage: Stage::ALL[usize::from(number & 3)],
            static_kem: number & 4 != 0,
        };
        match policy.suites() {
            Ok(_) => policy,
            Err(_) => Policy::at(policy.stage),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}
