//! Reading fields in order, and the TLVs at the end of a body.
//!
//! Owns the TLV numbers: 1 type, 2 length, then the value. Unknown types are skipped.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{CAP_STATIC_CT, MessageError, PROOF_MAX};
use crate::kem::CT_LEN;
use crate::record::RECORD_LEN_MAX;

const TLV_RECORD: u8 = 1;
const TLV_NETWORK: u8 = 2;
const TLV_PROOF: u8 = 3;

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(MessageError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(MessageError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The ciphertext for a static key, if `caps` announces one.
    pub(super) fn static_ct(
        &mut self,
        caps: u8,
    ) -> Result<Option<Box<[u8; CT_LEN]>>, MessageError> {
        match caps & CAP_STATIC_CT {
            0 => Ok(None),
            _ => Ok(Some(Box::new(self.array()?))),
        }
    }

    pub(super) fn end(self) -> Result<(), MessageError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(MessageError::Trailing),
        }
    }
}

/// The TLVs that are known, each at most once.
#[derive(Default)]
pub(super) struct Tlvs<'a> {
    pub(super) record: Option<&'a [u8]>,
    pub(super) network: Option<[u8; 8]>,
    pub(super) proof: Option<&'a [u8]>,
}

impl<'a> Tlvs<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let mut found = Self::default();
        while !reader.0.is_empty() {
            let [kind, l0, l1] = reader.array()?;
            let value = reader.bytes(usize::from(u16::from_be_bytes([l0, l1])))?;
            let wrong = MessageError::WrongLength(kind);
            let again = match kind {
                TLV_RECORD if value.len() > RECORD_LEN_MAX => return Err(wrong),
                TLV_RECORD => found.record.replace(value).is_some(),
                TLV_NETWORK => {
                    let value = value.try_into().map_err(|_| wrong)?;
                    found.network.replace(value).is_some()
                }
                TLV_PROOF if value.len() > PROOF_MAX => return Err(wrong),
                TLV_PROOF => found.proof.replace(value).is_some(),
                _ => false,
            };
            if again {
                return Err(MessageError::Repeated(kind));
            }
        }
        Ok(found)
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let network = self.network.as_ref().map(<[u8; 8]>::as_slice);
        for (kind, value, max) in [
            (TLV_RECORD, self.record, RECORD_LEN_MAX),
            (TLV_NETWORK, network, 8),
            (TLV_PROOF, self.proof, PROOF_MAX),
        ] {
            if let Some(value) = value.filter(|value| value.len() <= max) {
                out.push(kind);
                out.extend_from_slice(&(value.len() as u16).to_be_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}
