//! The bodies of the control messages: OFFER and REPLY here, the small ones in `message/small.rs`.
//!
//! Owns the layouts and their limits; integers are big-endian. Never does: check a signature, a
//! MAC or a key. docs/spec.md section 7.3.

mod fields;
mod small;

pub use small::{Abort, AbortCode, Fin, Key, Live};

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use wiremesh_wire::NetworkId;

use crate::kem::{CT_LEN, EK_LEN};
use crate::record::RECORD_LEN_MAX;
use crate::sign::SIGNATURE_LEN;
use crate::suite::{Level, SUITES_MAX, SuiteId, Suites, SuitesError};
use fields::{Reader, Tlvs};

/// Bit 0 of `caps`: the sender's gate is per session; it needs no LIVE.
pub const CAP_SESSION_GATE: u8 = 1 << 0;
/// Bit 1 of `caps`: a ciphertext for the receiver's static ML-KEM key follows.
pub const CAP_STATIC_CT: u8 = 1 << 1;
/// Bit 2 of `caps`: the sender takes stream packets without IP and UDP headers.
pub const CAP_BARE_STREAMS: u8 = 1 << 2;

/// Most bytes of an admission proof.
pub const PROOF_MAX: usize = 4096;
/// Bytes of a confirmation or MAC.
pub const CONFIRMATION_LEN: usize = 32;
/// Bytes at the end of a REPLY that its signature does not cover: itself and the confirmation.
pub const REPLY_TAIL_LEN: usize = SIGNATURE_LEN + CONFIRMATION_LEN;

/// From the nonce to the X25519 share, in an OFFER with the longest list.
const HEAD_MAX: usize = 16 + 4 + 2 + 1 + 2 * SUITES_MAX + 8 + 32 + 1 + 32;
const TLVS_MAX: usize = (3 + RECORD_LEN_MAX) + (3 + 8) + (3 + PROOF_MAX);
/// Bytes of the longest OFFER, which no other message exceeds.
pub const OFFER_MAX: usize = HEAD_MAX + EK_LEN + CT_LEN + TLVS_MAX;

/// Why a body is refused. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// It ends too early.
    Truncated,
    /// Something follows its end.
    Trailing,
    /// The list of suites breaks a rule.
    Suites(SuitesError),
    /// The promised level is not defined.
    UnknownLevel(u16),
    /// Epoch 0 is the boot key's.
    BootEpoch,
    /// A known TLV that occurs twice.
    Repeated(u8),
    /// A known TLV that is too long, or not of its length.
    WrongLength(u8),
    /// The network is not named.
    NoNetwork,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends too early"),
            Self::Trailing => f.write_str("bytes follow the end of the message"),
            Self::Suites(error) => error.fmt(f),
            Self::UnknownLevel(number) => write!(f, "level {number} is not defined"),
            Self::BootEpoch => f.write_str("epoch 0 is the boot key's"),
            Self::Repeated(kind) => write!(f, "field {kind} occurs twice"),
            Self::WrongLength(kind) => write!(f, "field {kind} has a wrong length"),
            Self::NoNetwork => f.write_str("the network is not named"),
        }
    }
}

impl core::error::Error for MessageError {}

/// What OFFER and REPLY both say of their sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Makes the message unique.
    pub nonce: [u8; 16],
    /// The level that the sender promises.
    pub min_level: Level,
    /// Its suites, most preferred first; GREASE among them.
    pub suites: Suites,
    /// The sequence number of its own record.
    pub own_seq: u64,
    /// Hash of the receiver's record that the sender used; zero for none.
    pub peer_record: [u8; 32],
    /// Capabilities; unknown bits mean nothing. [`CAP_STATIC_CT`] is set by the layout alone.
    pub caps: u8,
    /// Its own signed record (TLV 1), at most [`RECORD_LEN_MAX`] bytes.
    pub record: Option<Vec<u8>>,
    /// Its admission proof (TLV 3), at most [`PROOF_MAX`] bytes, opaque here.
    pub proof: Option<Vec<u8>>,
    /// First bytes of its network id (TLV 2).
    pub network: [u8; 8],
}

impl Hello {
    /// What stands for a network in TLV 2.
    #[must_use]
    pub fn network_prefix(network: &NetworkId) -> [u8; 8] {
        *network
            .as_bytes()
            .first_chunk()
            .expect("a network id has 32 bytes")
    }

    /// Reads from the promised level to the hash of the receiver's record.
    fn parse_head(nonce: [u8; 16], reader: &mut Reader<'_>) -> Result<Self, MessageError> {
        let number = u16::from_be_bytes(reader.array()?);
        let min_level = Level::from_number(number).ok_or(MessageError::UnknownLevel(number))?;
        let count = usize::from(reader.array::<1>()?[0]);
        let list = reader.bytes(count * 2)?.as_chunks::<2>().0;
        let suites = Suites::new(list.iter().map(|s| SuiteId(u16::from_be_bytes(*s))))
            .map_err(MessageError::Suites)?;
        Ok(Self {
            nonce,
            min_level,
            suites,
            own_seq: u64::from_be_bytes(reader.array()?),
            peer_record: reader.array()?,
            caps: 0,
            record: None,
            proof: None,
            network: [0; 8],
        })
    }

    /// Adds what comes later in both layouts.
    fn with_rest(self, caps: u8, tlvs: &[u8]) -> Result<Self, MessageError> {
        let tlvs = Tlvs::parse(tlvs)?;
        Ok(Self {
            caps,
            record: tlvs.record.map(Vec::from),
            proof: tlvs.proof.map(Vec::from),
            network: tlvs.network.ok_or(MessageError::NoNetwork)?,
            ..self
        })
    }

    fn emit_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.min_level.number().to_be_bytes());
        let suites = self.suites.as_slice();
        out.push(suites.len() as u8);
        for suite in suites {
            out.extend_from_slice(&suite.0.to_be_bytes());
        }
        out.extend_from_slice(&self.own_seq.to_be_bytes());
        out.extend_from_slice(&self.peer_record);
    }

    fn emit_caps(&self, out: &mut Vec<u8>, static_ct: bool) {
        out.push(match static_ct {
            true => self.caps | CAP_STATIC_CT,
            false => self.caps & !CAP_STATIC_CT,
        });
    }

    fn emit_tlvs(&self, out: &mut Vec<u8>) {
        Tlvs {
            record: self.record.as_deref(),
            network: Some(self.network),
            proof: self.proof.as_deref(),
        }
        .emit(out);
    }
}

/// The body of an OFFER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What A says of itself.
    pub hello: Hello,
    /// The epoch of the key to come: A's last, plus one. Never 0.
    pub epoch: u32,
    /// A's X25519 share.
    pub ephemeral: [u8; 32],
    /// A's ephemeral ML-KEM-768 key, not checked yet.
    pub ek: Box<[u8; EK_LEN]>,
    /// A ciphertext for B's static ML-KEM key.
    pub static_ct: Option<Box<[u8; CT_LEN]>>,
}

impl Offer {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let nonce = reader.array()?;
        let epoch = u32::from_be_bytes(reader.array()?);
        if epoch == 0 {
            return Err(MessageError::BootEpoch);
        }
        let hello = Hello::parse_head(nonce, &mut reader)?;
        let [caps] = reader.array()?;
        let ephemeral = reader.array()?;
        let ek = Box::new(reader.array()?);
        let static_ct = reader.static_ct(caps)?;
        Ok(Self {
            hello: hello.with_rest(caps, reader.0)?,
            epoch,
            ephemeral,
            ek,
            static_ct,
        })
    }

    /// Writes the body, at most [`OFFER_MAX`] bytes. A record or proof above its limit is left out.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(&self.hello.nonce);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        self.hello.emit_head(&mut out);
        self.hello.emit_caps(&mut out, self.static_ct.is_some());
        out.extend_from_slice(&self.ephemeral);
        out.extend_from_slice(&*self.ek);
        if let Some(ct) = &self.static_ct {
            out.extend_from_slice(&**ct);
        }
        self.hello.emit_tlvs(&mut out);
        out
    }
}

/// The body of a REPLY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What B says of itself.
    pub hello: Hello,
    /// The suite that B has computed from both lists.
    pub chosen: SuiteId,
    /// B's X25519 share.
    pub ephemeral: [u8; 32],
    /// The ciphertext for A's ephemeral ML-KEM key.
    pub ct: Box<[u8; CT_LEN]>,
    /// A ciphertext for A's static ML-KEM key.
    pub static_ct: Option<Box<[u8; CT_LEN]>>,
    /// B's signature over the transcript.
    pub signature: [u8; SIGNATURE_LEN],
    /// Shows that B has the keys.
    pub confirmation: [u8; CONFIRMATION_LEN],
}

impl Reply {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (signed, tail) = bytes
            .split_last_chunk::<REPLY_TAIL_LEN>()
            .ok_or(MessageError::Truncated)?;
        let Fin {
            signature,
            confirmation,
        } = Fin::parse(tail)?;
        let mut reader = Reader(signed);
        let nonce = reader.array()?;
        let hello = Hello::parse_head(nonce, &mut reader)?;
        let chosen = SuiteId(u16::from_be_bytes(reader.array()?));
        let [caps] = reader.array()?;
        let ephemeral = reader.array()?;
        let ct = Box::new(reader.array()?);
        let static_ct = reader.static_ct(caps)?;
        Ok(Self {
            hello: hello.with_rest(caps, reader.0)?,
            chosen,
            ephemeral,
            ct,
            static_ct,
            signature,
            confirmation,
        })
    }

    /// Writes the body, at most 7,507 bytes. A record or proof above its limit is left out.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(&self.hello.nonce);
        self.hello.emit_head(&mut out);
        out.extend_from_slice(&self.chosen.0.to_be_bytes());
        self.hello.emit_caps(&mut out, self.static_ct.is_some());
        out.extend_from_slice(&self.ephemeral);
        out.extend_from_slice(&*self.ct);
        if let Some(ct) = &self.static_ct {
            out.extend_from_slice(&**ct);
        }
        self.hello.emit_tlvs(&mut out);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&self.confirmation);
        out
    }

    /// What the signature of a REPLY covers: the body without its last [`REPLY_TAIL_LEN`] bytes.
    #[must_use]
    pub fn signed_part(bytes: &[u8]) -> &[u8] {
        &bytes[..bytes.len().saturating_sub(REPLY_TAIL_LEN)]
    }
}
