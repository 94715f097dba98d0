//! The cryptographic functions of the WireGuard paper, section 5.4, in its own names.
//!
//! Owns: HASH, MAC, HMAC, KDF1..3 (BLAKE2s, RFC 7693), AEAD (ChaCha20-Poly1305, RFC 8439),
//! XAEAD (XChaCha20-Poly1305) and DH (X25519, RFC 7748). Never does: keep state, draw randomness,
//! print a secret. Intermediate secrets are wiped when they go out of scope.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement;
use blake2::digest::{FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::{AeadInOut, XChaCha20Poly1305};
use core::fmt;
use zeroize::{Zeroize, Zeroizing};

use crate::constants::{COOKIE_NONCE_LEN, KEY_LEN, MAC_LEN, TAG_LEN};

/// A 32-byte secret that is wiped on drop.
pub type Secret = Zeroizing<[u8; KEY_LEN]>;

const BLOCK_LEN: usize = 64;

/// HASH: the BLAKE2s-256 digest of the concatenated parts.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut state = Blake2s256::default();
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// MAC: keyed BLAKE2s with a 16-byte output.
///
/// # Panics
///
/// If the key is longer than 32 bytes; keys are never taken from the network.
#[must_use]
pub fn mac(key: &[u8], input: &[u8]) -> [u8; MAC_LEN] {
    let mut state =
        Blake2sMac::<U16>::new_from_slice(key).expect("a BLAKE2s key has at most 32 bytes");
    state.update(input);
    state.finalize_fixed().into()
}

/// HMAC: RFC 2104 over BLAKE2s-256, of the concatenated parts.
#[must_use]
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut pad = Zeroizing::new([0u8; BLOCK_LEN]);
    if key.len() > BLOCK_LEN {
        pad[..KEY_LEN].copy_from_slice(&hash(&[key]));
    } else {
        pad[..key.len()].copy_from_slice(key);
    }
    pad.iter_mut().for_each(|byte| *byte ^= 0x36);
    let mut inner = Blake2s256::default();
    Update::update(&mut inner, &pad[..]);
    for part in parts {
        Update::update(&mut inner, part);
    }
    let inner: Secret = Zeroizing::new(inner.finalize_fixed().into());
    pad.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
    Zeroizing::new(hash(&[&pad[..], &inner[..]]))
}

/// KDF1: one output of HKDF over HMAC-BLAKE2s.
#[must_use]
pub fn kdf1(key: &[u8], input: &[u8]) -> Secret {
    let root = hmac(key, &[input]);
    hmac(&root[..], &[&[1]])
}

/// KDF2: two outputs of HKDF over HMAC-BLAKE2s.
#[must_use]
pub fn kdf2(key: &[u8], input: &[u8]) -> (Secret, Secret) {
    let root = hmac(key, &[input]);
    let first = hmac(&root[..], &[&[1]]);
    let second = hmac(&root[..], &[&first[..], &[2]]);
    (first, second)
}

/// KDF3: three outputs of HKDF over HMAC-BLAKE2s.
#[must_use]
pub fn kdf3(key: &[u8], input: &[u8]) -> (Secret, Secret, Secret) {
    let root = hmac(key, &[input]);
    let first = hmac(&root[..], &[&[1]]);
    let second = hmac(&root[..], &[&first[..], &[2]]);
    let third = hmac(&root[..], &[&second[..], &[3]]);
    (first, second, third)
}

/// The bytes did not authenticate under this key, nonce and associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationFailed;

impl fmt::Display for AuthenticationFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("authentication failed")
    }
}

impl core::error::Error for AuthenticationFailed {}

/// Builds the ready-to-use ChaCha20-Poly1305 key; one heap allocation of about 600 bytes, wiped
/// by the library when it is freed.
pub(crate) fn aead_key(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the length of the algorithm"),
    )
}

/// The nonce of the paper: four zero bytes, then the counter in little-endian order.
pub(crate) fn aead_nonce(counter: u64) -> Nonce {
    let mut nonce = [0u8; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// AEAD: seals in place; `buffer` is the plaintext followed by 16 bytes of room for the tag.
///
/// # Panics
///
/// If `buffer` has no room for the tag.
pub fn aead_seal(key: &[u8; KEY_LEN], counter: u64, associated: &[u8], buffer: &mut [u8]) {
    let (plaintext, tag) = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .expect("the buffer has room for the tag");
    aead_key(key)
        .seal_in_place_scatter(
            aead_nonce(counter),
            Aad::from(associated),
            plaintext,
            &[],
            tag,
        )
        .expect("handshake fields are far below the length limit of the cipher");
}

/// AEAD: opens `buffer` (ciphertext and tag) in place and gives back the plaintext.
///
/// # Errors
///
/// [`AuthenticationFailed`]; the content of `buffer` is then unspecified.
pub fn aead_open<'a>(
    key: &[u8; KEY_LEN],
    counter: u64,
    associated: &[u8],
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], AuthenticationFailed> {
    let (ciphertext, tag) = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(AuthenticationFailed)?;
    aead_key(key)
        .open_in_place_separate_tag(aead_nonce(counter), Aad::from(associated), tag, ciphertext)
        .map_err(|_| AuthenticationFailed)
}

/// XAEAD: seals in place with a 24-byte random nonce; `buffer` as in [`aead_seal`].
///
/// # Panics
///
/// If `buffer` has no room for the tag.
pub fn xaead_seal(
    key: &[u8; KEY_LEN],
    nonce: &[u8; COOKIE_NONCE_LEN],
    associated: &[u8],
    buffer: &mut [u8],
) {
    let (plaintext, tag) = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .expect("the buffer has room for the tag");
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), associated, plaintext.into())
        .expect("a cookie is far below the length limit of the cipher");
    tag.copy_from_slice(&sealed);
}

/// XAEAD: opens `buffer` (ciphertext and tag) in place and gives back the plaintext.
///
/// # Errors
///
/// [`AuthenticationFailed`]; the content of `buffer` is then unspecified.
pub fn xaead_open<'a>(
    key: &[u8; KEY_LEN],
    nonce: &[u8; COOKIE_NONCE_LEN],
    associated: &[u8],
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], AuthenticationFailed> {
    let (ciphertext, tag) = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(AuthenticationFailed)?;
    let tag: &[u8; TAG_LEN] = tag;
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(
            nonce.into(),
            associated,
            (&mut *ciphertext).into(),
            tag.into(),
        )
        .map_err(|_| AuthenticationFailed)?;
    Ok(ciphertext)
}

/// The product of a key agreement is zero: the other side sent a point of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroProduct;

impl fmt::Display for ZeroProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key agreement gave zero")
    }
}

impl core::error::Error for ZeroProduct {}

/// An X25519 secret scalar, clamped, together with its public key.
///
/// Making one costs a fixed-base multiplication and about 200 bytes of heap, wiped when freed.
pub struct DhSecret {
    key: agreement::PrivateKey,
    public: [u8; KEY_LEN],
}

impl DhSecret {
    /// Makes the secret from 32 random bytes, which are clamped as RFC 7748 section 5 says.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_LEN]) -> DhSecret {
        let mut clamped = Zeroizing::new(*bytes);
        clamped[0] &= 0xf8;
        clamped[31] = (clamped[31] & 0x7f) | 0x40;
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, &clamped[..])
            .expect("any 32 bytes are an X25519 secret");
        let computed = key
            .compute_public_key()
            .expect("an X25519 secret has a public key");
        let mut public = [0u8; KEY_LEN];
        public.copy_from_slice(computed.as_ref());
        DhSecret { key, public }
    }

    /// The public key of this secret.
    #[must_use]
    pub fn public(&self) -> &[u8; KEY_LEN] {
        &self.public
    }

    /// DH: the product of this secret and the other side's public key.
    ///
    /// # Errors
    ///
    /// [`ZeroProduct`] if the product is zero, which RFC 7748 section 6.1 lets one refuse and
    /// which is always refused here.
    pub fn agree(&self, public: &[u8; KEY_LEN]) -> Result<Secret, ZeroProduct> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public);
        agreement::agree(&self.key, peer, ZeroProduct, |product| {
            let mut secret = Secret::default();
            secret.copy_from_slice(product);
            if is_zero(&secret) {
                Err(ZeroProduct)
            } else {
                Ok(secret)
            }
        })
    }
}

impl fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhSecret(..)")
    }
}

/// X25519 of RFC 7748 section 5 on raw bytes; the scalar is clamped.
///
/// # Errors
///
/// [`ZeroProduct`] as for [`DhSecret::agree`].
pub fn x25519(scalar: &[u8; KEY_LEN], point: &[u8; KEY_LEN]) -> Result<Secret, ZeroProduct> {
    DhSecret::new(scalar).agree(point)
}

fn is_zero(bytes: &[u8; KEY_LEN]) -> bool {
    use subtle::ConstantTimeEq;
    bytes.ct_eq(&[0u8; KEY_LEN]).into()
}

/// Overwrites the bytes with zeros in a way that the compiler keeps.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}
