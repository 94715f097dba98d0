//! The key schedule of the PSK exchange: the transcript hashes, and the keys from the secrets.
//!
//! Owns the labels and the order of what goes in. Never does: check a signature or compare a
//! confirmation. docs/spec.md section 7.3; HKDF as RFC 5869 over HMAC-BLAKE2s (RFC 2104, RFC 7693).

use blake2::{Blake2s256, Digest};
use core::fmt;

use wiremesh_wire::{NetworkId, NodeId, PresharedKey};
use zeroize::Zeroizing;

use crate::suite::SuiteId;

/// A 32-byte secret that is wiped on drop.
pub type Secret = Zeroizing<[u8; 32]>;

/// What B's signature is over, before TH2.
pub const CONTEXT_B: &[u8] = b"wiremesh PSKX v1 sig B";
/// What A's signature is over, before TH3.
pub const CONTEXT_A: &[u8] = b"wiremesh PSKX v1 sig A";

const PROTOCOL: &[u8] = b"wiremesh PSKX v1";
const BLOCK_LEN: usize = 64;

/// H: BLAKE2s-256 of the concatenated parts.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// HMAC-BLAKE2s of the concatenated parts.
///
/// Not the `hmac` crate: that leaves the padded key in memory.
#[must_use]
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let mut state = Hmac::new(key);
    for part in parts {
        state.inner.update(part);
    }
    state.finish()
}

struct Hmac {
    inner: Blake2s256,
    /// The key, padded for the outer hash.
    outer: Zeroizing<[u8; BLOCK_LEN]>,
}

impl Hmac {
    fn new(key: &[u8; 32]) -> Self {
        let mut pad = Zeroizing::new([0; BLOCK_LEN]);
        pad[..32].copy_from_slice(key);
        pad.iter_mut().for_each(|byte| *byte ^= 0x36);
        let inner = Blake2s256::new_with_prefix(pad.as_slice());
        pad.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
        Self { inner, outer: pad }
    }

    fn finish(self) -> Secret {
        let inner: Secret = Zeroizing::new(self.inner.finalize().into());
        Zeroizing::new(hash(&[&*self.outer, &*inner]))
    }
}

/// `lp(x)` without x: its length as 4 bytes, least significant first.
fn lp(part: &[u8]) -> [u8; 4] {
    // Only 32-byte values and messages of at most 8 KiB come here.
    (part.len() as u32).to_le_bytes()
}

/// TH0: the protocol, the network, and who is A and who is B.
#[must_use]
pub fn th0(network: &NetworkId, a: &NodeId, b: &NodeId) -> [u8; 32] {
    let (network, a, b) = (network.as_bytes(), a.as_bytes(), b.as_bytes());
    hash(&[PROTOCOL, &lp(network), network, &lp(a), a, &lp(b), b])
}

/// TH1: TH0 and the whole OFFER. TH2: TH1 and the signed part of the REPLY.
#[must_use]
pub fn absorb(th: &[u8; 32], message: &[u8]) -> [u8; 32] {
    hash(&[th, &lp(message), message])
}

/// TH3: TH2 and what ends a REPLY. The input of conf_D: TH3 and FIN.
#[must_use]
pub fn absorb_proof(th: &[u8; 32], signature: &[u8; 64], confirmation: &[u8; 32]) -> [u8; 32] {
    hash(&[th, signature, confirmation])
}

/// The secrets of one exchange.
pub struct Shared {
    /// From A's ephemeral ML-KEM key.
    pub ephemeral_kem: Secret,
    /// From both X25519 shares.
    pub ephemeral_dh: Secret,
    /// From A's static ML-KEM key; suite 3 only.
    pub static_a: Option<Secret>,
    /// From B's static ML-KEM key; suite 3 only.
    pub static_b: Option<Secret>,
}

impl Shared {
    /// PRK = Extract(TH2, IKM).
    #[must_use]
    pub fn extract(&self, th2: &[u8; 32]) -> Secret {
        let mut state = Hmac::new(th2);
        for secret in [
            Some(&self.ephemeral_kem),
            Some(&self.ephemeral_dh),
            self.static_a.as_ref(),
            self.static_b.as_ref(),
        ] {
            let secret = secret.map_or(&[][..], |secret| &secret[..]);
            state.inner.update(lp(secret));
            state.inner.update(secret);
        }
        state.finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

/// The keys of one exchange.
#[derive(Clone)]
pub struct Keys {
    /// PSK_e: what WireGuard gets.
    pub psk: PresharedKey,
    /// K_B: confirms REPLY.
    pub confirm_b: Secret,
    /// K_A: confirms FIN.
    pub confirm_a: Secret,
    /// K_D: confirms DONE.
    pub done: Secret,
    /// K_L: authenticates LIVE and ABORT.
    pub live: Secret,
}

impl Keys {
    /// Expands PRK.
    #[must_use]
    pub fn expand(prk: &Secret, suite: SuiteId, epoch: u32) -> Self {
        // One block of output each, so RFC 5869's T(1) is all there is.
        let expand = |info: &[&[u8]]| {
            let mut state = Hmac::new(prk);
            for part in info {
                state.inner.update(part);
            }
            state.inner.update([1]);
            state.finish()
        };
        let psk = expand(&[b"psk", &suite.0.to_be_bytes(), &epoch.to_be_bytes()]);
        Self {
            psk: PresharedKey::from_bytes(*psk),
            confirm_b: expand(&[b"conf B"]),
            confirm_a: expand(&[b"conf A"]),
            done: expand(&[b"done"]),
            live: expand(&[b"live"]),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}
