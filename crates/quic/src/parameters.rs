//! Transport parameters as bytes (RFC 9000 section 18).
//!
//! Owns a strict walk over the encoding, the canonical form that we send, and reading a peer's.
//! Never decides limits; [`crate::transport`] does.

use bytes::{Buf, BufMut};
use quinn_proto::coding::Codec;
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, VarInt};

use crate::error::HandshakeError;
use crate::message::PARAMETERS_LEN_MAX;

/// Most parameters in one list; quinn knows 21.
const PARAMETERS_MAX: usize = 64;

/// Ids of RFC 9000 section 18.2 and RFC 9221 that this crate names.
pub(crate) mod id {
    pub(crate) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(crate) const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
    pub(crate) const INITIAL_MAX_DATA: u64 = 0x04;
    pub(crate) const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(crate) const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(crate) const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub(crate) const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub(crate) const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub(crate) const PREFERRED_ADDRESS: u64 = 0x0d;
    pub(crate) const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
    pub(crate) const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
}

/// One parameter: id and raw value.
pub(crate) type Parameter<'a> = (u64, &'a [u8]);

/// Splits an encoding into parameters; refuses cut values, repeated ids and too many.
pub(crate) fn walk(mut bytes: &[u8]) -> Result<Vec<Parameter<'_>>, HandshakeError> {
    let mut list: Vec<Parameter<'_>> = Vec::new();
    while bytes.has_remaining() {
        if list.len() == PARAMETERS_MAX {
            return Err(HandshakeError::Parameters("too many transport parameters"));
        }
        let id = VarInt::decode(&mut bytes).map_err(|_| CUT)?.into_inner();
        let len = VarInt::decode(&mut bytes).map_err(|_| CUT)?.into_inner();
        let len = usize::try_from(len).map_err(|_| CUT)?;
        let (value, rest) = bytes.split_at_checked(len).ok_or(CUT)?;
        bytes = rest;
        if list.iter().any(|&(known, _)| known == id) {
            return Err(HandshakeError::Parameters(
                "transport parameter given twice",
            ));
        }
        list.push((id, value));
    }
    Ok(list)
}

const CUT: HandshakeError = HandshakeError::Parameters("malformed transport parameters");

/// The value of the integer parameter `id`, `None` when it is absent or no integer.
pub(crate) fn integer(list: &[Parameter<'_>], id: u64) -> Option<u64> {
    let &(_, mut value) = list.iter().find(|(known, _)| *known == id)?;
    let integer = VarInt::decode(&mut value).ok()?;
    value.is_empty().then_some(integer.into_inner())
}

/// Appends one integer parameter.
pub(crate) fn emit_integer(id: u64, value: u64, out: &mut Vec<u8>) {
    let value = VarInt::from_u64(value).expect("limits are below 2^62");
    let mut encoded = Vec::with_capacity(VarInt::MAX_SIZE);
    value.encode(&mut encoded);
    emit(id, &encoded, out);
}

fn emit(id: u64, value: &[u8], out: &mut Vec<u8>) {
    VarInt::from_u64(id)
        .expect("ids come from decoded integers")
        .encode(out);
    VarInt::try_from(value.len())
        .expect("a length is below 2^62")
        .encode(out);
    out.put_slice(value);
}

/// Encodes our parameters in the one form that follows from the settings alone.
///
/// Quinn shuffles the order and adds a random reserved parameter; both go, so that bytes do not
/// depend on a generator's state. `active_connection_id_limit` goes too: connections do not
/// migrate, so the default of 2 saves the peer from making and us from storing more.
pub(crate) fn canonical(parameters: &TransportParameters) -> Vec<u8> {
    let mut written = Vec::new();
    parameters.write(&mut written);
    let mut list = walk(&written).expect("quinn writes well-formed parameters");
    list.retain(|&(id, _)| !is_reserved(id) && id != id::ACTIVE_CONNECTION_ID_LIMIT);
    list.sort_unstable_by_key(|&(id, _)| id);
    let mut out = Vec::with_capacity(written.len());
    for (id, value) in list {
        emit(id, value, &mut out);
    }
    out
}

/// Ids of the form 31 N + 27 carry no meaning (RFC 9000 section 18.1).
fn is_reserved(id: u64) -> bool {
    id % 31 == 27
}

/// Reads the parameters that a peer sent to us, the `side`.
pub(crate) fn parse(side: Side, bytes: &[u8]) -> Result<TransportParameters, HandshakeError> {
    if bytes.len() > PARAMETERS_LEN_MAX {
        return Err(HandshakeError::Parameters("transport parameters too long"));
    }
    let list = walk(bytes)?;
    if list.iter().any(|&(id, _)| id == id::PREFERRED_ADDRESS) {
        return Err(HandshakeError::Parameters(
            "preferred address inside a tunnel",
        ));
    }
    TransportParameters::read(side, &mut &*bytes).map_err(|e| HandshakeError::Quinn(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_refuses_repeats_and_cuts() {
        assert_eq!(
            walk(&[1, 1, 5, 4, 1, 9]).expect("valid"),
            [(1, &[5][..]), (4, &[9][..])]
        );
        let twice = HandshakeError::Parameters("transport parameter given twice");
        assert_eq!(walk(&[1, 1, 5, 1, 1, 5]), Err(twice));
        for cut in [&[1][..], &[1, 2, 0], &[0x40], &[1, 0xff]] {
            assert_eq!(walk(cut), Err(CUT), "{cut:?}");
        }
    }

    #[test]
    fn walk_is_bounded() {
        let many: Vec<u8> = (0..65u8).flat_map(|id| [0x40, id, 0]).collect();
        let too_many = HandshakeError::Parameters("too many transport parameters");
        assert_eq!(walk(&many), Err(too_many));
        assert_eq!(walk(&many[..64 * 3]).expect("at the limit").len(), 64);
    }

    #[test]
    fn preferred_address_is_refused() {
        let refused = HandshakeError::Parameters("preferred address inside a tunnel");
        assert_eq!(
            parse(Side::Client, &[0x0d, 1, 0]).expect_err("refused"),
            refused
        );
    }

    #[test]
    fn integer_refuses_other_shapes() {
        assert_eq!(integer(&[(4, &[0x40, 0x80])], 4), Some(128));
        assert_eq!(integer(&[(4, &[1, 2])], 4), None);
        assert_eq!(integer(&[], 4), None);
    }
}
