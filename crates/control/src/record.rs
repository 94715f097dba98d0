//! Signed records: what a node says of itself to everybody.
//!
//! Owns the layout, its limits and the signature. Never does: decide whom to believe, read a clock,
//! or interpret fields. The node id is not inside: who opens a record says whose it must be, and
//! compares the network itself. docs/spec.md section 7.2.
//!
//! Integers are big-endian:
//!
//! ```text
//! 1 version = 1 | 32 network id | 8 seq | 8 not_before | 8 expiry (Unix seconds) | 2 min_level
//! | 1 caps | 32 kem_pk_hash or 0 | 1 n | n * 2 suites | fields: 1 type | 2 len | len bytes
//! | 64 signature over "wiremesh record v1" || everything before
//! ```

use alloc::vec::Vec;
use core::fmt;

use blake2::{Blake2s256, Digest};
use wiremesh_wire::{NetworkId, NodeId, SecretKey};

use crate::sign::{self, SIGNATURE_LEN};
use crate::suite::{Level, SuiteId, Suites, SuitesError};

/// The longest record in bytes, with its signature: as a byte string it fills a BEP 44 item.
pub const RECORD_LEN_MAX: usize = 996;
/// The longest time from `not_before` to `expiry`: 7 days.
pub const LIFETIME_SECS_MAX: u64 = 7 * 24 * 3_600;
/// By how much the signer's clock may be ahead of ours.
pub const SKEW_SECS: u64 = 300;

/// The type of the field that holds endpoints.
pub const FIELD_ENDPOINTS: u8 = 0x01;
/// The type of the field that holds relays.
pub const FIELD_RELAYS: u8 = 0x02;
/// The type of the field that is reserved for the node id that follows this one.
pub const FIELD_SUCCESSOR: u8 = 0x03;

const VERSION: u8 = 1;
/// Keeps the signature apart from all others that the key makes.
const CONTEXT: &[u8] = b"wiremesh record v1";

/// One field: a type and a value that is kept byte for byte, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The type; none occurs twice in a record.
    pub kind: u8,
    /// The value.
    pub value: Vec<u8>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The network that it is for.
    pub network: NetworkId,
    /// Grows with each record of a node: the newest counts.
    pub seq: u64,
    /// Valid from here on, Unix seconds.
    pub not_before: u64,
    /// Valid until just before, Unix seconds; after `not_before` by at most 7 days.
    pub expiry: u64,
    /// The node never goes below this level again.
    pub min_level: Level,
    /// What the node can do, as in OFFER; unknown bits are kept.
    pub caps: u8,
    /// BLAKE2s-256 of the node's static ML-KEM-768 key, if it has one; all zero counts as none.
    pub kem_pk_hash: Option<[u8; 32]>,
    /// What it speaks, most preferred first.
    pub suites: Suites,
    /// The rest, in the order in which it stands there.
    pub fields: Vec<Field>,
}

/// A record with its signature. A value was either signed here or checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    bytes: Vec<u8>,
}

/// Why bytes are no valid record, or a record cannot be signed. Whoever made it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// More than 996 bytes with the signature.
    TooLong,
    /// The bytes end inside a part.
    Truncated,
    /// A version that this build does not know.
    Version(u8),
    /// The list of suites is none.
    Suites(SuitesError),
    /// The level is not defined.
    MinLevel(u16),
    /// It expires before it begins, or more than 7 days later.
    Lifetime,
    /// Two fields of this type.
    DuplicateField(u8),
    /// The signature is not the signer's over these bytes.
    Signature,
    /// It is not valid yet.
    NotYetValid,
    /// It is not valid any more.
    Expired,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the record is longer than {RECORD_LEN_MAX} bytes"),
            Self::Truncated => f.write_str("the record is cut off"),
            Self::Version(version) => write!(f, "record version {version} is not known"),
            Self::Suites(error) => error.fmt(f),
            Self::MinLevel(number) => write!(f, "level {number} is not defined"),
            Self::Lifetime => f.write_str("a record is valid for more than 0 and up to 7 days"),
            Self::DuplicateField(kind) => write!(f, "field {kind} occurs twice"),
            Self::Signature => f.write_str("the record's signature is not valid"),
            Self::NotYetValid => f.write_str("the record is not valid yet"),
            Self::Expired => f.write_str("the record has expired"),
        }
    }
}

impl core::error::Error for RecordError {}

impl Record {
    /// Checks that `unix_secs` is in the time of validity; its start may be up to 300 s ahead.
    ///
    /// # Errors
    ///
    /// [`RecordError::NotYetValid`] or [`RecordError::Expired`].
    pub fn check_fresh(&self, unix_secs: u64) -> Result<(), RecordError> {
        if self.not_before > unix_secs.saturating_add(SKEW_SECS) {
            return Err(RecordError::NotYetValid);
        }
        if self.expiry <= unix_secs {
            return Err(RecordError::Expired);
        }
        Ok(())
    }

    /// Writes everything before the signature.
    fn emit(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(RECORD_LEN_MAX);
        out.push(VERSION);
        out.extend_from_slice(self.network.as_bytes());
        for number in [self.seq, self.not_before, self.expiry] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.min_level.number().to_be_bytes());
        out.push(self.caps);
        out.extend_from_slice(&self.kem_pk_hash.unwrap_or_default());
        let suites = self.suites.as_slice();
        out.push(u8::try_from(suites.len()).expect("a list has at most 16 suites"));
        for suite in suites {
            out.extend_from_slice(&suite.0.to_be_bytes());
        }
        for field in &self.fields {
            let len = u16::try_from(field.value.len()).map_err(|_| RecordError::TooLong)?;
            out.push(field.kind);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&field.value);
        }
        Ok(out)
    }

    /// Reads everything before the signature, and checks each rule but that.
    fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let network = NetworkId::from_bytes(take(&mut rest)?);
        let seq = u64::from_be_bytes(take(&mut rest)?);
        let not_before = u64::from_be_bytes(take(&mut rest)?);
        let expiry = u64::from_be_bytes(take(&mut rest)?);
        let lifetime = expiry.saturating_sub(not_before);
        if !(1..=LIFETIME_SECS_MAX).contains(&lifetime) {
            return Err(RecordError::Lifetime);
        }
        let level = u16::from_be_bytes(take(&mut rest)?);
        let min_level = Level::from_number(level).ok_or(RecordError::MinLevel(level))?;
        let [caps] = take(&mut rest)?;
        let hash: [u8; 32] = take(&mut rest)?;
        let [count] = take(&mut rest)?;
        let listed = take_slice(&mut rest, usize::from(count) * 2)?;
        let listed = listed
            .chunks_exact(2)
            .map(|s| u16::from_be_bytes([s[0], s[1]]));
        Ok(Self {
            network,
            seq,
            not_before,
            expiry,
            min_level,
            caps,
            kem_pk_hash: (hash != [0; 32]).then_some(hash),
            suites: Suites::new(listed.map(SuiteId)).map_err(RecordError::Suites)?,
            fields: parse_fields(rest)?,
        })
    }
}

impl SignedRecord {
    /// Signs a record. `random` should be fresh.
    ///
    /// # Errors
    ///
    /// The rule that the record breaks, as a reader would find it.
    pub fn sign(
        record: Record,
        secret: &SecretKey,
        random: &[u8; 32],
    ) -> Result<Self, RecordError> {
        let mut bytes = record.emit()?;
        check_len(bytes.len() + SIGNATURE_LEN)?;
        let record = Record::parse(&bytes)?;
        bytes.extend_from_slice(&sign::sign(secret, CONTEXT, &bytes, random));
        Ok(Self { record, bytes })
    }

    /// Reads a record and checks that `signer` signed it; costs about 50 us. Time and network are
    /// for the caller to check.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break; the signature comes last.
    pub fn open(bytes: &[u8], signer: &NodeId) -> Result<Self, RecordError> {
        check_len(bytes.len())?;
        let (signed, signature) = bytes.split_last_chunk().ok_or(RecordError::Truncated)?;
        let record = Record::parse(signed)?;
        sign::verify(signer, CONTEXT, signed, signature).map_err(|_| RecordError::Signature)?;
        let bytes = bytes.to_vec();
        Ok(Self { record, bytes })
    }

    /// What it says.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The bytes as they were signed, with the signature: at most 996.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE2s-256 of [`Self::bytes`], by which messages name a record.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Blake2s256::digest(&self.bytes).into()
    }
}

fn check_len(len: usize) -> Result<(), RecordError> {
    if len > RECORD_LEN_MAX {
        return Err(RecordError::TooLong);
    }
    Ok(())
}

fn parse_fields(mut rest: &[u8]) -> Result<Vec<Field>, RecordError> {
    let mut fields: Vec<Field> = Vec::new();
    while !rest.is_empty() {
        let [kind] = take(&mut rest)?;
        let len = u16::from_be_bytes(take(&mut rest)?);
        let value = take_slice(&mut rest, usize::from(len))?.to_vec();
        // Of two fields, one reader would take the first and another the last.
        if fields.iter().any(|field| field.kind == kind) {
            return Err(RecordError::DuplicateField(kind));
        }
        fields.push(Field { kind, value });
    }
    Ok(fields)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (taken, after) = rest.split_first_chunk().ok_or(RecordError::Truncated)?;
    *rest = after;
    Ok(*taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RecordError> {
    let (taken, after) = rest.split_at_checked(len).ok_or(RecordError::Truncated)?;
    *rest = after;
    Ok(taken)
}
