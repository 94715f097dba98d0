//! Control messages in pieces: the 16-byte frame header, cutting up, and putting together.
//!
//! Owns the limits: 1,024 body bytes a frame, 8 frames a message, one incomplete message a peer
//! for 10 s. Never does: look into a body. docs/spec.md section 7.3.
//!
//! All fragments of a message but the last are full, so a fragment's number gives its place and
//! two fragments cannot overlap.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use wiremesh_wire::Instant;

use crate::message::OFFER_MAX;

/// Bytes of the header of a frame.
pub const HEADER_LEN: usize = 16;
/// Most body bytes in one frame.
pub const FRAME_BODY_MAX: usize = 1024;
/// Most frames of one message.
pub const FRAGMENTS_MAX: usize = 8;
/// Most bytes of one message.
pub const MESSAGE_MAX: usize = FRAME_BODY_MAX * FRAGMENTS_MAX;
/// How long an incomplete message is kept after its first frame.
pub const REASSEMBLY_TIME: Duration = Duration::from_secs(10);

const VERSION: u8 = 1;

const _: () = assert!(OFFER_MAX <= MESSAGE_MAX);

/// Ties the messages of one exchange together. Random, chosen by who begins it; not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(pub [u8; 8]);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// B asks A to offer.
    Poke = 1,
    /// A to B: the first message of an exchange.
    Offer = 2,
    /// B to A: its answer.
    Reply = 3,
    /// A to B: A has checked the answer.
    Fin = 4,
    /// B to A: B has the new key in its slot.
    Done = 5,
    /// Both ways: a session under the new key is there.
    Live = 6,
    /// Both ways: refused, and why.
    Abort = 7,
    /// Asks for the static ML-KEM key.
    GetKey = 8,
    /// The static ML-KEM key.
    Key = 9,
}

impl MessageType {
    /// All types, by number.
    pub const ALL: [MessageType; 9] = [
        MessageType::Poke,
        MessageType::Offer,
        MessageType::Reply,
        MessageType::Fin,
        MessageType::Done,
        MessageType::Live,
        MessageType::Abort,
        MessageType::GetKey,
        MessageType::Key,
    ];

    /// Whether answering it costs neither a signature nor a key agreement.
    #[must_use]
    pub const fn is_cheap(self) -> bool {
        matches!(self, Self::Poke | Self::Done | Self::Live)
    }

    /// The type of a number; `None` for one that is not defined.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why a frame is refused. The peer is at fault, or a newer version; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than a header.
    TooShort,
    /// Another version than 1.
    UnknownVersion(u8),
    /// A type that is not defined.
    UnknownType(u8),
    /// The number of fragments is not the one that the total length needs, or the fragment is
    /// beyond it, or the message is longer than 8 KiB.
    WrongFragments,
    /// The body has not the length that the header says, or that the fragment must have.
    WrongLength,
    /// Another fragment of the same message gave another total length.
    Inconsistent,
    /// The fragment is there already.
    Duplicate,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("the frame is shorter than its header"),
            Self::UnknownVersion(version) => write!(f, "frame version {version} is unknown"),
            Self::UnknownType(number) => write!(f, "message type {number} is unknown"),
            Self::WrongFragments => f.write_str("number of fragments and total length disagree"),
            Self::WrongLength => f.write_str("the body has the wrong length"),
            Self::Inconsistent => f.write_str("two fragments disagree on the total length"),
            Self::Duplicate => f.write_str("the fragment is there already"),
        }
    }
}

impl core::error::Error for FrameError {}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// The exchange that it belongs to.
    pub id: ExchangeId,
    /// Its body, at most 8,192 bytes.
    pub body: Vec<u8>,
}

/// Cuts a message into frames and hands them to `each` in order: one for an empty body, at most 8.
///
/// # Panics
///
/// If `body` is longer than [`MESSAGE_MAX`]; no layout of [`crate::message`] is.
pub fn fragment(kind: MessageType, id: ExchangeId, body: &[u8], mut each: impl FnMut(Vec<u8>)) {
    assert!(body.len() <= MESSAGE_MAX, "no layout is that long");
    let count = fragments_of(body.len());
    for number in 0..count {
        let piece = &body[number * FRAME_BODY_MAX..body.len().min((number + 1) * FRAME_BODY_MAX)];
        let mut frame = Vec::with_capacity(HEADER_LEN + piece.len());
        frame.extend_from_slice(&[VERSION, kind as u8, number as u8, count as u8]);
        frame.extend_from_slice(&id.0);
        frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
        frame.extend_from_slice(&(piece.len() as u16).to_be_bytes());
        frame.extend_from_slice(piece);
        each(frame);
    }
}

/// Frames of a message of `len` bytes; an empty one still has one.
fn fragments_of(len: usize) -> usize {
    len.div_ceil(FRAME_BODY_MAX).max(1)
}

/// One frame, checked as far as it can be by itself.
struct Frame<'a> {
    kind: MessageType,
    id: ExchangeId,
    number: usize,
    total_len: usize,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FrameError::TooShort)?;
        let [version, kind, number, count, ids @ .., t0, t1, b0, b1] = header;
        if *version != VERSION {
            return Err(FrameError::UnknownVersion(*version));
        }
        let kind = MessageType::from_number(*kind).ok_or(FrameError::UnknownType(*kind))?;
        let total_len = usize::from(u16::from_be_bytes([*t0, *t1]));
        let (number, count) = (usize::from(*number), usize::from(*count));
        if total_len > MESSAGE_MAX || count != fragments_of(total_len) || number >= count {
            return Err(FrameError::WrongFragments);
        }
        let expected = FRAME_BODY_MAX.min(total_len - number * FRAME_BODY_MAX);
        let stated = usize::from(u16::from_be_bytes([*b0, *b1]));
        if stated != expected || body.len() != expected {
            return Err(FrameError::WrongLength);
        }
        Ok(Self {
            kind,
            id: ExchangeId(*ids),
            number,
            total_len,
            body,
        })
    }

    fn into_message(self) -> Message {
        Message {
            kind: self.kind,
            id: self.id,
            body: self.body.to_vec(),
        }
    }
}

/// Puts the messages of one peer together: one at a time, at most 8 KiB, 10 s.
#[derive(Debug, Default)]
pub struct Reassembly {
    incomplete: Option<Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    kind: MessageType,
    id: ExchangeId,
    body: Vec<u8>,
    /// Bit n: fragment n is there.
    present: u8,
    expires: Instant,
}

impl Reassembly {
    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incomplete.is_none()
    }

    /// Takes one frame; gives the message that it completes.
    ///
    /// A message of one frame needs no place and leaves an incomplete one alone. A fragment of
    /// another message than the incomplete one takes its place.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing has changed then but that an expired message is gone.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<Message>, FrameError> {
        self.incomplete.take_if(|known| now >= known.expires);
        let frame = Frame::parse(bytes)?;
        if frame.total_len <= FRAME_BODY_MAX {
            return Ok(Some(frame.into_message()));
        }
        self.incomplete
            .take_if(|known| known.kind != frame.kind || known.id != frame.id);
        let incomplete = self.incomplete.get_or_insert_with(|| Incomplete {
            kind: frame.kind,
            id: frame.id,
            body: vec![0; frame.total_len],
            present: 0,
            expires: now + REASSEMBLY_TIME,
        });
        incomplete.add(&frame)?;
        let complete = self.incomplete.take_if(|known| known.is_complete());
        Ok(complete.map(|message| Message {
            kind: message.kind,
            id: message.id,
            body: message.body,
        }))
    }
}

impl Incomplete {
    fn add(&mut self, frame: &Frame<'_>) -> Result<(), FrameError> {
        if frame.total_len != self.body.len() {
            return Err(FrameError::Inconsistent);
        }
        if self.present & (1 << frame.number) != 0 {
            return Err(FrameError::Duplicate);
        }
        let start = frame.number * FRAME_BODY_MAX;
        self.body[start..start + frame.body.len()].copy_from_slice(frame.body);
        self.present |= 1 << frame.number;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.present.count_ones() as usize == fragments_of(self.body.len())
    }
}
