//! Keys: the packet keys that hide nothing, and the seeded secrets that quinn asks for besides them.
//!
//! Owns the packet tag, the reset key, the token key, and the generators of connection ids; all derive from a seed
//! with keyed BLAKE2s (RFC 7693). Never encrypts; never draws randomness.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use bytes::BytesMut;
use quinn_proto::crypto::{
    AeadKey, CryptoError, HandshakeTokenKey, HeaderKey, HmacKey, KeyPair, Keys, PacketKey,
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Length of the connection ids that we issue.
pub(crate) const CID_LEN: usize = 8;
/// Length of the connection id that a client invents for a server, the longest that QUIC has.
const INITIAL_CID_LEN: usize = 20;
/// Length of the authenticator behind an address token.
const TOKEN_MAC_LEN: usize = 16;

/// Length of a stateless reset token (RFC 9000 section 10.3), the head of what [`ResetKey`] signs.
const RESET_TOKEN_LEN: usize = 16;

/// The byte that ends each packet in the place of an AEAD tag.
///
/// Quinn takes a packet whose last 16 bytes are the peer's reset token for a stateless reset before
/// it opens it (RFC 9000 section 10.3.1), and without a tag the last bytes are a frame's: a
/// NEW_CONNECTION_ID ends in a token, and application data can end in anything. So a packet ends in
/// this byte, and a token never does, since [`ResetKey`] clears the top bit of its last byte.
pub const PACKET_TAG: u8 = 0xff;

/// The bits that the last byte of a stateless reset token may have.
const RESET_TOKEN_LAST_MASK: u8 = 0x7f;

const _: () = assert!(PACKET_TAG & !RESET_TOKEN_LAST_MASK != 0);

/// A 32-byte secret that is wiped on drop.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Derives the secret for one purpose from a seed.
pub(crate) fn derive(seed: &[u8; 32], purpose: &str) -> Secret {
    mac(seed, &[b"wiremesh quic v1 ", purpose.as_bytes()])
}

/// Keyed BLAKE2s-256 over the concatenation of `parts`.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let mut state = Blake2sMac256::new_from_slice(key).expect("BLAKE2s takes keys of 32 bytes");
    for part in parts {
        state.update(part);
    }
    Zeroizing::new(state.finalize_fixed().into())
}

/// Packet and header keys that leave packets as they are, but for [`PACKET_TAG`] at the end.
pub(crate) struct NullKey;

impl HeaderKey for NullKey {
    fn decrypt(&self, _: usize, _: &mut [u8]) {}

    fn encrypt(&self, _: usize, _: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        0
    }
}

impl PacketKey for NullKey {
    fn encrypt(&self, _: u64, packet: &mut [u8], _: usize) {
        let tag = packet.last_mut().expect("quinn leaves room for the tag");
        *tag = PACKET_TAG;
    }

    fn decrypt(&self, _: u64, _: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let (&tag, frames) = payload.split_last().ok_or(CryptoError)?;
        if tag != PACKET_TAG {
            return Err(CryptoError);
        }
        let len = frames.len();
        payload.truncate(len);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        1
    }

    // No key wears out where there is no key: quinn then never updates "keys" after the first time.
    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// The shortest packet to which every QUIC stack gives a stateless reset, which must be shorter and
/// still have room for its token (RFC 9000, section 10.3).
const ANSWERED_BYTES_MIN: usize = 43;

/// The same packet, with PADDING frames where it would be too short for a stateless reset. A packet
/// with a long header stays as it is: it has a length, and is padded already.
pub fn long_enough_for_a_reset(packet: &[u8]) -> Vec<u8> {
    let mut longer = packet.to_vec();
    let has_short_header = packet.first().is_some_and(|first| first & 0x80 == 0);
    if let Some(tag) = longer.pop_if(|_| has_short_header) {
        longer.resize(longer.len().max(ANSWERED_BYTES_MIN - 1), 0);
        longer.push(tag);
    }
    longer
}

/// Both directions of the packet key; boxes of a zero-sized type allocate nothing.
pub(crate) fn packet_keys() -> KeyPair<Box<dyn PacketKey>> {
    KeyPair {
        local: Box::new(NullKey),
        remote: Box::new(NullKey),
    }
}

/// The keys of one packet number space.
pub(crate) fn space_keys() -> Keys {
    Keys {
        header: KeyPair {
            local: Box::new(NullKey),
            remote: Box::new(NullKey),
        },
        packet: packet_keys(),
    }
}

/// Key of stateless reset tokens: keyed BLAKE2s-256 over the connection id, of which quinn takes
/// the first 16 bytes. The top bit of the 16th is cleared, so that no token ends in [`PACKET_TAG`];
/// another [`HmacKey`] in its place would let packets pass for stateless resets.
///
/// [`crate::Provider`] derives one from its seed. A node whose seed changes at each start, as it
/// must, can set one that survives a restart through
/// [`quinn_proto::EndpointConfig::reset_key`]: its peers then learn from the first stray packet
/// that their connection is gone, instead of after the idle timeout.
pub struct ResetKey(Secret);

impl ResetKey {
    /// Makes the key from 32 secret bytes, which serve no other purpose.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    fn signature(&self, data: &[u8]) -> Secret {
        let mut signature = mac(&self.0, &[data]);
        signature[RESET_TOKEN_LEN - 1] &= RESET_TOKEN_LAST_MASK;
        signature
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(..)")
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&*self.signature(data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        match bool::from(self.signature(data).ct_eq(signature)) {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Key of address tokens: authenticated, not encrypted.
///
/// A token tells a client its own inner address and a time, nothing that is secret from it. Tokens
/// are not used inside a tunnel, where the address is proven already; quinn demands the key.
pub(crate) struct TokenKey(pub(crate) Secret);

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(TokenMac(mac(&self.0, &[random_bytes])))
    }
}

/// The key of one token; appends the first 16 bytes of keyed BLAKE2s-256.
struct TokenMac(Secret);

impl TokenMac {
    fn tag(&self, data: &[u8], additional_data: &[u8]) -> [u8; TOKEN_MAC_LEN] {
        let len = u64::try_from(additional_data.len()).expect("lengths fit 64 bits");
        let full = mac(&self.0, &[&len.to_le_bytes(), additional_data, data]);
        *full.first_chunk().expect("a digest has 32 bytes")
    }
}

impl AeadKey for TokenMac {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let tag = self.tag(data, additional_data);
        data.extend_from_slice(&tag);
        Ok(())
    }

    fn open<'a>(
        &self,
        data: &'a mut [u8],
        additional_data: &[u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let len = data.len().checked_sub(TOKEN_MAC_LEN).ok_or(CryptoError)?;
        let (data, tag) = data.split_at_mut(len);
        match bool::from(self.tag(data, additional_data).ct_eq(tag)) {
            true => Ok(data),
            false => Err(CryptoError),
        }
    }
}

/// Issues 8-byte connection ids: keyed BLAKE2s-256 of a counter, cut.
///
/// One peer cannot guess the ids of another's connections. Quinn finds a repeat and asks again.
pub(crate) struct CidGenerator {
    key: Secret,
    issued: u64,
}

impl CidGenerator {
    pub(crate) fn new(key: Secret) -> Self {
        Self { key, issued: 0 }
    }
}

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.issued += 1;
        ConnectionId::new(&mac(&self.key, &[&self.issued.to_le_bytes()])[..CID_LEN])
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Makes the first destination ids of a node's outgoing connections; clones share the counter.
#[derive(Clone)]
pub(crate) struct InitialCids(Arc<(Secret, AtomicU64)>);

impl InitialCids {
    pub(crate) fn new(key: Secret) -> Self {
        Self(Arc::new((key, AtomicU64::new(0))))
    }

    pub(crate) fn next(&self) -> ConnectionId {
        let (key, used) = &*self.0;
        let count = used.fetch_add(1, Ordering::Relaxed);
        ConnectionId::new(&mac(key, &[&count.to_le_bytes()])[..INITIAL_CID_LEN])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_seeds_give_different_secrets() {
        assert_ne!(derive(&[1; 32], "a"), derive(&[1; 32], "b"));
        assert_ne!(derive(&[1; 32], "a"), derive(&[2; 32], "a"));
        assert_eq!(derive(&[1; 32], "a"), derive(&[1; 32], "a"));
    }

    #[test]
    fn reset_signature_verifies_and_is_bound_to_data() {
        let key = ResetKey::new([7; 32]);
        let mut signature = vec![0; key.signature_len()];
        key.sign(b"id", &mut signature);
        assert!(key.verify(b"id", &signature).is_ok());
        assert!(key.verify(b"di", &signature).is_err());
        assert!(key.verify(b"id", &signature[..31]).is_err());
        assert_eq!(format!("{key:?}"), "ResetKey(..)");
    }

    #[test]
    fn reset_token_never_ends_in_the_packet_tag() {
        let mut raw_ends_in_tag = 0;
        for key in 0..8u8 {
            let key = ResetKey::new([key; 32]);
            for id in 0..1_000u64 {
                let mut signature = [0; 32];
                key.sign(&id.to_be_bytes(), &mut signature);
                assert_ne!(signature[RESET_TOKEN_LEN - 1], PACKET_TAG, "id {id}");
                let raw = mac(&key.0, &[&id.to_be_bytes()]);
                raw_ends_in_tag += usize::from(raw[RESET_TOKEN_LEN - 1] == PACKET_TAG);
                // Only the one bit is lost.
                assert_eq!(signature[..15], raw[..15]);
                assert_eq!(signature[15], raw[15] & 0x7f);
            }
        }
        assert!(raw_ends_in_tag > 0, "the digests never come near");
    }

    #[test]
    fn packet_opens_only_with_its_tag() {
        for payload in [&b""[..], b"a", b"frames", &[PACKET_TAG; 3]] {
            let mut packet = [payload, &[0]].concat();
            PacketKey::encrypt(&NullKey, 1, &mut packet, 0);
            assert_eq!(packet, [payload, &[PACKET_TAG]].concat());
            let mut opened = BytesMut::from(&packet[..]);
            PacketKey::decrypt(&NullKey, 1, b"header", &mut opened).expect("its own");
            assert_eq!(opened, payload);
        }
        for bad in [&[][..], &[0], &[PACKET_TAG, 0], &[PACKET_TAG, 0x7f]] {
            let mut packet = BytesMut::from(bad);
            assert!(PacketKey::decrypt(&NullKey, 1, b"", &mut packet).is_err());
            assert_eq!(packet, bad);
        }
    }

    #[test]
    fn token_opens_only_unchanged() {
        let key = TokenKey(derive(&[1; 32], "token"));
        let token_key = key.aead_from_hkdf(b"nonce");
        let mut token = b"address".to_vec();
        token_key
            .seal(&mut token, b"more")
            .expect("sealing cannot fail");
        assert_eq!(
            token_key.open(&mut token.clone(), b"more").expect("valid"),
            b"address"
        );
        assert!(token_key.open(&mut token.clone(), b"").is_err());
        assert!(
            key.aead_from_hkdf(b"other")
                .open(&mut token.clone(), b"more")
                .is_err()
        );
        for index in 0..token.len() {
            let mut flipped = token.clone();
            flipped[index] ^= 1;
            assert!(
                token_key.open(&mut flipped, b"more").is_err(),
                "byte {index}"
            );
        }
        assert!(token_key.open(&mut [0; 15], b"").is_err());
    }

    #[test]
    fn connection_ids_follow_from_the_key() {
        let ids = |key| {
            let mut generator = CidGenerator::new(derive(&[key; 32], "cid"));
            (0..100)
                .map(|_| generator.generate_cid().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        let mut distinct = ids(1);
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
        assert!(distinct.iter().all(|id| id.len() == CID_LEN));
    }

    #[test]
    fn a_short_packet_is_padded_in_front_of_its_tag() {
        let short = [0x40, 1, 2, PACKET_TAG];
        let padded = long_enough_for_a_reset(&short);
        assert_eq!(padded.len(), ANSWERED_BYTES_MIN);
        assert_eq!(
            (&padded[..3], padded.last()),
            (&short[..3], Some(&PACKET_TAG))
        );
        assert!(padded[3..padded.len() - 1].iter().all(|byte| *byte == 0));
        for unchanged in [&[0x40; 43][..], &[0xc0; 20], &[]] {
            assert_eq!(long_enough_for_a_reset(unchanged), unchanged);
        }
    }

    #[test]
    fn clones_never_repeat_an_initial_id() {
        let ids = InitialCids::new(derive(&[1; 32], "initial"));
        let clone = ids.clone();
        assert_ne!(ids.next(), clone.next());
    }
}
