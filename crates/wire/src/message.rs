//! The four WireGuard messages as they are in a datagram.
//!
//! Owns their lengths, offsets and field order. It never checks a mac and never decrypts.
//! WireGuard paper, section 5.4; all integers are little-endian.

use core::fmt;
use core::ops::Range;

/// The length of an authentication tag.
pub const TAG_LEN: usize = 16;

/// The smallest transport data message: a header and the tag of an empty packet, a keepalive.
pub const TRANSPORT_DATA_LEN_MIN: usize = TransportDataHeader::LEN + TAG_LEN;

/// A transport data plaintext is padded with zeros to a multiple of this.
pub const PADDING_MULTIPLE: usize = 16;

const TYPE_INITIATION: u32 = 1;
const TYPE_RESPONSE: u32 = 2;
const TYPE_COOKIE_REPLY: u32 = 3;
const TYPE_TRANSPORT_DATA: u32 = 4;

/// The first message of a handshake. WireGuard paper, section 5.4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeInitiation {
    /// The index by which the initiator finds this handshake again.
    pub sender: u32,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key, sealed.
    pub encrypted_static: [u8; 48],
    /// The TAI64N timestamp, sealed.
    pub encrypted_timestamp: [u8; 28],
    /// The mac keyed by the responder's public key.
    pub mac1: [u8; 16],
    /// The mac keyed by the last cookie, or zero.
    pub mac2: [u8; 16],
}

/// The second message of a handshake. WireGuard paper, section 5.4.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// The index by which the responder finds the session.
    pub sender: u32,
    /// The `sender` of the initiation that this answers.
    pub receiver: u32,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The tag of an empty plaintext.
    pub encrypted_nothing: [u8; 16],
    /// The mac keyed by the initiator's public key.
    pub mac1: [u8; 16],
    /// The mac keyed by the last cookie, or zero.
    pub mac2: [u8; 16],
}

/// The answer of a host under load. WireGuard paper, section 5.4.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The `sender` of the handshake message that this answers.
    pub receiver: u32,
    /// The XChaCha20-Poly1305 nonce.
    pub nonce: [u8; 24],
    /// The cookie, sealed.
    pub encrypted_cookie: [u8; 32],
}

/// The header of a transport data message. WireGuard paper, section 5.4.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportDataHeader {
    /// The index that the receiver gave to the session.
    pub receiver: u32,
    /// The nonce counter.
    pub counter: u64,
}

/// A datagram whose type and length are right; nothing in it is authenticated yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Initiation(HandshakeInitiation),
    /// Type 2.
    Response(HandshakeResponse),
    /// Type 3.
    CookieReply(CookieReply),
    /// Type 4; the sealed packet is the rest of the datagram, at least [`TAG_LEN`] bytes.
    TransportData(TransportDataHeader),
}

/// Why a datagram is not a WireGuard message; the sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// The type is not one of the four, or a reserved byte is not zero.
    UnknownType,
    /// The length does not fit the type, or is too small to have one.
    BadLength,
}

impl HandshakeInitiation {
    /// The length of the message in bytes.
    pub const LEN: usize = 148;
    /// Where the bytes that mac1 covers end and mac1 begins.
    pub const MAC1_OFFSET: usize = 116;
    /// Where the bytes that mac2 covers end and mac2 begins.
    pub const MAC2_OFFSET: usize = 132;
    /// The bytes of mac1.
    pub const MAC1_RANGE: Range<usize> = Self::MAC1_OFFSET..Self::MAC2_OFFSET;
    /// The bytes of mac2.
    pub const MAC2_RANGE: Range<usize> = Self::MAC2_OFFSET..Self::LEN;

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError::UnknownType`] if the type is not 1.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes, TYPE_INITIATION)?;
        Ok(Self {
            sender: reader.u32(),
            ephemeral: reader.bytes(),
            encrypted_static: reader.bytes(),
            encrypted_timestamp: reader.bytes(),
            mac1: reader.bytes(),
            mac2: reader.bytes(),
        })
    }

    /// Writes the message.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        Writer::new(&mut out, TYPE_INITIATION)
            .bytes(&self.sender.to_le_bytes())
            .bytes(&self.ephemeral)
            .bytes(&self.encrypted_static)
            .bytes(&self.encrypted_timestamp)
            .bytes(&self.mac1)
            .bytes(&self.mac2);
        out
    }
}

impl HandshakeResponse {
    /// The length of the message in bytes.
    pub const LEN: usize = 92;
    /// Where the bytes that mac1 covers end and mac1 begins.
    pub const MAC1_OFFSET: usize = 60;
    /// Where the bytes that mac2 covers end and mac2 begins.
    pub const MAC2_OFFSET: usize = 76;
    /// The bytes of mac1.
    pub const MAC1_RANGE: Range<usize> = Self::MAC1_OFFSET..Self::MAC2_OFFSET;
    /// The bytes of mac2.
    pub const MAC2_RANGE: Range<usize> = Self::MAC2_OFFSET..Self::LEN;

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError::UnknownType`] if the type is not 2.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes, TYPE_RESPONSE)?;
        Ok(Self {
            sender: reader.u32(),
            receiver: reader.u32(),
            ephemeral: reader.bytes(),
            encrypted_nothing: reader.bytes(),
            mac1: reader.bytes(),
            mac2: reader.bytes(),
        })
    }

    /// Writes the message.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        Writer::new(&mut out, TYPE_RESPONSE)
            .bytes(&self.sender.to_le_bytes())
            .bytes(&self.receiver.to_le_bytes())
            .bytes(&self.ephemeral)
            .bytes(&self.encrypted_nothing)
            .bytes(&self.mac1)
            .bytes(&self.mac2);
        out
    }
}

impl CookieReply {
    /// The length of the message in bytes.
    pub const LEN: usize = 64;

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError::UnknownType`] if the type is not 3.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes, TYPE_COOKIE_REPLY)?;
        Ok(Self {
            receiver: reader.u32(),
            nonce: reader.bytes(),
            encrypted_cookie: reader.bytes(),
        })
    }

    /// Writes the message.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        Writer::new(&mut out, TYPE_COOKIE_REPLY)
            .bytes(&self.receiver.to_le_bytes())
            .bytes(&self.nonce)
            .bytes(&self.encrypted_cookie);
        out
    }
}

impl TransportDataHeader {
    /// The length of the header in bytes; the sealed packet follows it.
    pub const LEN: usize = 16;

    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`MessageError::UnknownType`] if the type is not 4.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes, TYPE_TRANSPORT_DATA)?;
        Ok(Self {
            receiver: reader.u32(),
            counter: u64::from_le_bytes(reader.bytes()),
        })
    }

    /// Writes the header.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        Writer::new(&mut out, TYPE_TRANSPORT_DATA)
            .bytes(&self.receiver.to_le_bytes())
            .bytes(&self.counter.to_le_bytes());
        out
    }
}

impl Message {
    /// Reads the type of a datagram and the fields of that type.
    ///
    /// Lengths are exact for the types 1 to 3; type 4 has at least [`TRANSPORT_DATA_LEN_MIN`]
    /// bytes, of which only the header is read.
    ///
    /// # Errors
    ///
    /// [`MessageError::UnknownType`] if the first four bytes are none of the types with three
    /// zero bytes behind it; [`MessageError::BadLength`] if the length does not fit the type.
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        let word = datagram.first_chunk().ok_or(MessageError::BadLength)?;
        match u32::from_le_bytes(*word) {
            TYPE_INITIATION => HandshakeInitiation::parse(exact(datagram)?).map(Self::Initiation),
            TYPE_RESPONSE => HandshakeResponse::parse(exact(datagram)?).map(Self::Response),
            TYPE_COOKIE_REPLY => CookieReply::parse(exact(datagram)?).map(Self::CookieReply),
            TYPE_TRANSPORT_DATA if datagram.len() < TRANSPORT_DATA_LEN_MIN => {
                Err(MessageError::BadLength)
            }
            TYPE_TRANSPORT_DATA => {
                let header = datagram.first_chunk().ok_or(MessageError::BadLength)?;
                TransportDataHeader::parse(header).map(Self::TransportData)
            }
            _ => Err(MessageError::UnknownType),
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownType => "the datagram has no known message type",
            Self::BadLength => "the length of the datagram does not fit its message type",
        })
    }
}

impl core::error::Error for MessageError {}

fn exact<const LEN: usize>(datagram: &[u8]) -> Result<&[u8; LEN], MessageError> {
    datagram.try_into().map_err(|_| MessageError::BadLength)
}

/// Takes fields off the front of a message whose length is fixed by its type.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(message: &'a [u8], message_type: u32) -> Result<Self, MessageError> {
        let mut reader = Self(message);
        if reader.u32() == message_type {
            Ok(reader)
        } else {
            Err(MessageError::UnknownType)
        }
    }

    fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .expect("the fields of a message fill its length");
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }
}

/// Puts fields one after the other into a message whose length is fixed by its type.
struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    fn new(message: &'a mut [u8], message_type: u32) -> Self {
        Self(message).bytes(&message_type.to_le_bytes())
    }

    fn bytes<const LEN: usize>(self, field: &[u8; LEN]) -> Self {
        let (front, rest) = self
            .0
            .split_first_chunk_mut()
            .expect("the fields of a message fill its length");
        *front = *field;
        Self(rest)
    }
}
