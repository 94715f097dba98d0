//! The datagrams of `wiremesh bench`, the same inside the tunnel and beside it.
//!
//! Owns the layout, what is answered, and the count of what arrived. Never does I/O. An answer is
//! never longer than what it answers, and without the token there is none.
//!
//! | bytes | field |
//! |---|---|
//! | 16 | token |
//! | 1 | kind |
//! | 4 | number of the test, big-endian |
//! | 8 | number within it, big-endian |
//! | any | zeros |

use super::message::{TOKEN_LEN, Token};
use subtle::ConstantTimeEq;

/// The shortest datagram.
pub const HEADER_LEN: usize = TOKEN_LEN + 1 + 4 + 8;

/// Datagrams of a test that are told apart: 60 s of 10 Gbit/s in 1,200 bytes, and half as many more.
const SEQUENCE_MAX: u64 = 96_000_000;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Comes back as it is.
    Echo = 1,
    /// It has come back.
    Echoed = 2,
    /// Is counted.
    Count = 3,
    /// Is answered with a short one, however long it is.
    Probe = 4,
    /// The probe has arrived.
    Arrived = 5,
}

/// What a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// What it is for.
    pub kind: Kind,
    /// Number of the test.
    pub test: u32,
    /// Number within it.
    pub number: u64,
}

impl Datagram {
    /// Writes it over the beginning of a buffer.
    ///
    /// # Panics
    ///
    /// The buffer is shorter than [`HEADER_LEN`].
    pub fn emit(&self, token: &Token, buffer: &mut [u8]) {
        buffer[..TOKEN_LEN].copy_from_slice(token);
        buffer[TOKEN_LEN] = self.kind as u8;
        buffer[TOKEN_LEN + 1..TOKEN_LEN + 5].copy_from_slice(&self.test.to_be_bytes());
        buffer[TOKEN_LEN + 5..HEADER_LEN].copy_from_slice(&self.number.to_be_bytes());
    }

    /// Reads one that begins with the token.
    pub fn parse(token: &Token, bytes: &[u8]) -> Option<Self> {
        let (theirs, rest) = bytes.split_first_chunk::<TOKEN_LEN>()?;
        if !bool::from(theirs.ct_eq(token)) {
            return None;
        }
        let (&kind, rest) = rest.split_first()?;
        let (&test, rest) = rest.split_first_chunk()?;
        let (&number, _) = rest.split_first_chunk()?;
        Some(Self {
            kind: match kind {
                1 => Kind::Echo,
                2 => Kind::Echoed,
                3 => Kind::Count,
                4 => Kind::Probe,
                5 => Kind::Arrived,
                _ => return None,
            },
            test: u32::from_be_bytes(test),
            number: u64::from_be_bytes(number),
        })
    }

    /// What to answer to it, of this length; the answer's length is the second.
    pub fn answer(&self, length: usize) -> Option<(Self, usize)> {
        match self.kind {
            Kind::Echo => {
                let kind = Kind::Echoed;
                Some((Self { kind, ..*self }, length))
            }
            Kind::Probe => {
                let kind = Kind::Arrived;
                Some((Self { kind, ..*self }, HEADER_LEN))
            }
            Kind::Count | Kind::Echoed | Kind::Arrived => None,
        }
    }
}

/// How many datagrams of the latest test have arrived, each counted once.
#[derive(Debug, Default)]
pub struct Tally {
    test: u32,
    seen: Vec<u64>,
    received: u64,
}

impl Tally {
    /// Counts a datagram; a test with a higher number begins a new count.
    pub fn add(&mut self, test: u32, number: u64) {
        if test > self.test {
            self.test = test;
            self.seen.clear();
            self.received = 0;
        }
        if test < self.test || number >= SEQUENCE_MAX {
            return;
        }
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.received += 1;
        }
    }

    /// The count of a test.
    pub fn received(&self, test: u32) -> u64 {
        if test == self.test { self.received } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: Token = *b"sixteen bytes ok";

    fn echo(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let datagram = Datagram {
            kind: Kind::Echo,
            test: 2,
            number: 3,
        };
        datagram.emit(&TOKEN, &mut bytes);
        bytes
    }

    #[test]
    fn without_the_token_nothing_is_read() {
        let bytes = echo(64);
        let read = Datagram::parse(&TOKEN, &bytes).expect("it is one");
        assert_eq!((read.kind, read.test, read.number), (Kind::Echo, 2, 3));
        for at in 0..TOKEN_LEN {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!(Datagram::parse(&TOKEN, &wrong), None);
        }
        assert_eq!(Datagram::parse(&TOKEN, &bytes[..HEADER_LEN - 1]), None);
        assert!(Datagram::parse(&TOKEN, &bytes[..HEADER_LEN]).is_some());
    }

    #[test]
    fn datagrams_are_counted_once_and_tests_kept_apart() {
        let mut tally = Tally::default();
        for number in [0, 1, 63, 64, 1, 0, SEQUENCE_MAX, u64::MAX] {
            tally.add(4, number);
        }
        assert_eq!((tally.received(4), tally.received(5)), (4, 0));
        tally.add(5, 0);
        tally.add(4, 70);
        assert_eq!((tally.received(4), tally.received(5)), (0, 1));
    }

    proptest! {
        #[test]
        fn an_answer_is_never_longer_than_the_question(
            kind: u8,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [&TOKEN[..], &[kind % 8], &rest].concat();
            if let Some(datagram) = Datagram::parse(&TOKEN, &bytes)
                && let Some((answer, length)) = datagram.answer(bytes.len())
            {
                prop_assert!((HEADER_LEN..=bytes.len()).contains(&length));
                prop_assert!(answer.answer(length).is_none(), "no loop");
            }
        }
    }
}
