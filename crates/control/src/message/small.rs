//! The bodies of FIN, LIVE, ABORT and KEY. POKE and GETKEY have none; DONE is a confirmation.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::fields::{Reader, Tlvs};
use super::{CONFIRMATION_LEN, MessageError};
use crate::kem::EK_LEN;
use crate::record::RECORD_LEN_MAX;
use crate::sign::SIGNATURE_LEN;
use crate::suite::SuiteId;

/// The body of a FIN, and the end of a REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fin {
    /// The sender's signature over the transcript.
    pub signature: [u8; SIGNATURE_LEN],
    /// Shows that the sender has the keys.
    pub confirmation: [u8; CONFIRMATION_LEN],
}

impl Fin {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let (signature, confirmation) = (reader.array()?, reader.array()?);
        reader.end()?;
        Ok(Self {
            signature,
            confirmation,
        })
    }

    /// Writes the body, 96 bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        [&self.signature[..], &self.confirmation[..]].concat()
    }
}

/// The body of a LIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// The epoch that the sender has a session under.
    pub epoch: u32,
    /// Shows that the sender has the keys of that epoch.
    pub mac: [u8; CONFIRMATION_LEN],
}

impl Live {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let (epoch, mac) = (u32::from_be_bytes(reader.array()?), reader.array()?);
        reader.end()?;
        Ok(Self { epoch, mac })
    }

    /// Writes the body, 36 bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        [&self.epoch.to_be_bytes()[..], &self.mac[..]].concat()
    }
}

/// Why an exchange is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum AbortCode {
    /// The lists have no suite in common.
    NoCommonSuite = 1,
    /// The suite is below the minimum of the sender, or below what was promised to it.
    BelowMinLevel = 2,
    /// The receiver used an older record of the sender; the new one comes with it.
    StaleRecord = 3,
    /// Later.
    Busy = 4,
    /// The sender has retired what the receiver offers.
    Retired = 5,
    /// The two are in different networks.
    OtherNetwork = 6,
    /// The application of the sender does not let the receiver in.
    NotAdmitted = 7,
}

impl AbortCode {
    /// All codes, by number.
    pub const ALL: [AbortCode; 7] = [
        AbortCode::NoCommonSuite,
        AbortCode::BelowMinLevel,
        AbortCode::StaleRecord,
        AbortCode::Busy,
        AbortCode::Retired,
        AbortCode::OtherNetwork,
        AbortCode::NotAdmitted,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number; `None` for one that is not defined.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

/// Bit 0 of the flags of an ABORT: a MAC follows. Other bits mean nothing.
const FLAG_MAC: u8 = 1 << 0;

/// The body of an ABORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The reason, a number of [`AbortCode`] or of a newer version.
    pub code: u16,
    /// The best suite that the sender speaks.
    pub highest: SuiteId,
    /// Shows that the sender has the keys of the exchange, if there are any yet.
    pub mac: Option<[u8; CONFIRMATION_LEN]>,
    /// The sender's newest record (TLV 1), at most [`RECORD_LEN_MAX`] bytes.
    pub record: Option<Vec<u8>>,
}

impl Abort {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let code = u16::from_be_bytes(reader.array()?);
        let highest = SuiteId(u16::from_be_bytes(reader.array()?));
        let [flags] = reader.array()?;
        let mac = match flags & FLAG_MAC {
            0 => None,
            _ => Some(reader.array()?),
        };
        let tlvs = Tlvs::parse(reader.0)?;
        Ok(Self {
            code,
            highest,
            mac,
            record: tlvs.record.map(Vec::from),
        })
    }

    /// Writes the body, at most 1,036 bytes. A record above its limit is left out.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(&self.highest.0.to_be_bytes());
        out.push(if self.mac.is_some() { FLAG_MAC } else { 0 });
        if let Some(mac) = &self.mac {
            out.extend_from_slice(mac);
        }
        Tlvs {
            record: self.record.as_deref(),
            ..Tlvs::default()
        }
        .emit(&mut out);
        out
    }
}

/// The body of a KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The sender's signed record, at most [`RECORD_LEN_MAX`] bytes.
    pub record: Vec<u8>,
    /// The sender's static ML-KEM-768 key, which that record names by its hash; not checked here.
    pub ek: Option<Box<[u8; EK_LEN]>>,
}

impl Key {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first rule of the layout that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let len = usize::from(u16::from_be_bytes(reader.array()?));
        if len > RECORD_LEN_MAX {
            return Err(MessageError::Truncated);
        }
        let record = reader.bytes(len)?.to_vec();
        let ek = match reader.0 {
            [] => None,
            _ => Some(Box::new(reader.array()?)),
        };
        reader.end()?;
        Ok(Self { record, ek })
    }

    /// Writes the body, at most 2,182 bytes. A record above its limit is left out.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let record = match self.record.len() {
            0..=RECORD_LEN_MAX => &self.record[..],
            _ => &[],
        };
        let mut out = Vec::with_capacity(2 + record.len() + EK_LEN);
        out.extend_from_slice(&(record.len() as u16).to_be_bytes());
        out.extend_from_slice(record);
        if let Some(ek) = &self.ek {
            out.extend_from_slice(&**ek);
        }
        out
    }
}
