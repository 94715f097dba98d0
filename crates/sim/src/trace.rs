//! What happened, as a hash and, when wanted, as lines of text.
//!
//! Owns the running hash. Two runs with one seed must end with the same one: anything unordered or
//! random in the engine shows here.

use blake2::{Blake2s256, Digest};
use std::fmt;

/// The record of one run.
pub(crate) struct Trace {
    hash: Blake2s256,
    print: bool,
}

/// The first 16 bytes of the BLAKE2s hash: names a datagram.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 16] {
    let hash = Blake2s256::digest(bytes);
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self {
            hash: Blake2s256::new(),
            print,
        }
    }

    /// Notes one thing that happened at `time` to `host`.
    pub(crate) fn note(&mut self, time: u64, host: usize, what: Note<'_>) {
        self.hash.update(time.to_le_bytes());
        self.hash.update((host as u64).to_le_bytes());
        match &what {
            Note::Sent(bytes) => self.datagram(1, bytes),
            Note::Arrived(bytes) => self.datagram(2, bytes),
            Note::Lost(bytes) => self.datagram(3, bytes),
            Note::Said(text) => self.hash.update(fmt::format(*text).as_bytes()),
        }
        if self.print {
            println!("{:>12.6} node {host} {what}", time as f64 / 1e9);
        }
    }

    fn datagram(&mut self, kind: u8, bytes: &[u8]) {
        self.hash.update([kind]);
        self.hash.update(digest(bytes));
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

/// One entry of a trace.
pub(crate) enum Note<'a> {
    Sent(&'a [u8]),
    Arrived(&'a [u8]),
    Lost(&'a [u8]),
    Said(fmt::Arguments<'a>),
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, bytes) = match self {
            Note::Sent(bytes) => ("sends", bytes),
            Note::Arrived(bytes) => ("gets", bytes),
            Note::Lost(bytes) => ("loses", bytes),
            Note::Said(text) => return f.write_fmt(*text),
        };
        let kind = match bytes.first() {
            Some(1) => "initiation",
            Some(2) => "response",
            Some(3) => "cookie reply",
            Some(4) if bytes.len() == 32 => "keepalive",
            Some(4) => "data",
            _ => "junk",
        };
        write!(f, "{verb} {kind}, {} bytes", bytes.len())?;
        if let (Some(4), Some(head)) = (bytes.first(), bytes.get(4..16)) {
            let (index, counter) = head.split_at(4);
            let index = index.try_into().map_or(0, u32::from_le_bytes);
            let counter = counter.try_into().map_or(0, u64::from_le_bytes);
            write!(f, ", index {index:08x} counter {counter}")?;
        }
        Ok(())
    }
}
