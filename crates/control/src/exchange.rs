//! The cryptographic steps of the PSK exchange: OFFER, REPLY, FIN, and what both have then.
//!
//! Owns what is signed, what is confirmed, and the secrets in between. Never does: choose a suite,
//! look at records or policy, repeat a message, or keep state beyond one exchange. docs/spec.md
//! section 7.3.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use curve25519_dalek::montgomery::MontgomeryPoint;
use subtle::ConstantTimeEq;
use wiremesh_wire::{NetworkId, NodeId, PresharedKey, SecretKey};
use zeroize::{Zeroize, Zeroizing};

use crate::Random;
use crate::kem::{CT_LEN, EK_LEN, KemSecret, SEED_LEN, encapsulate};
use crate::message::{CONFIRMATION_LEN, Fin, Hello, Live, Offer, Reply};
use crate::schedule::{self, CONTEXT_A, CONTEXT_B, Keys, Secret, Shared};
use crate::sign::{SIGNATURE_LEN, sign, verify};
use crate::suite::{Level, SuiteId};

/// Who is who in an exchange: A is the node with the smaller id, and only A offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The smaller node id, compared as raw bytes.
    A,
    /// The greater one.
    B,
}

impl Role {
    /// The role of `own` towards `peer`.
    #[must_use]
    pub fn of(own: &NodeId, peer: &NodeId) -> Self {
        match own.as_bytes() < peer.as_bytes() {
            true => Role::A,
            false => Role::B,
        }
    }

    /// The peer's role.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Role::A => Role::B,
            Role::B => Role::A,
        }
    }

    const fn letter(self) -> u8 {
        match self {
            Role::A => b'A',
            Role::B => b'B',
        }
    }
}

/// Our side of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// Our WireGuard key.
    pub secret: &'a SecretKey,
    /// Its public half.
    pub node_id: NodeId,
    /// Our network.
    pub network: NetworkId,
    /// Our static ML-KEM key, if we have one.
    pub static_kem: Option<&'a KemSecret>,
}

/// Why a message of the exchange is refused; nothing has changed. The peer is at fault, or who
/// changed its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The sender's id makes it the other role.
    WrongRole,
    /// The chosen suite is not one of this build.
    UnknownSuite,
    /// Suite 3 needs static ciphertexts both ways, and one is missing, or the key for one.
    MissingStatic,
    /// The ML-KEM key fails the check of FIPS 203, section 7.2.
    InvalidKemKey,
    /// The X25519 share is of small order: the product is zero.
    ZeroShare,
    /// A body that has not its layout.
    Malformed,
    /// The signature is not the peer's over this exchange.
    InvalidSignature,
    /// The confirmation does not show the keys of this exchange.
    InvalidConfirmation,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongRole => "the sender has the other role",
            Self::UnknownSuite => "the chosen suite is unknown",
            Self::MissingStatic => "a static ciphertext or key that suite 3 needs is missing",
            Self::InvalidKemKey => "the ML-KEM key is not valid",
            Self::ZeroShare => "the X25519 share is of small order",
            Self::Malformed => "the message has not its layout",
            Self::InvalidSignature => "the signature is not the peer's over this exchange",
            Self::InvalidConfirmation => "the confirmation is wrong",
        })
    }
}

impl core::error::Error for ExchangeError {}

/// A has sent an OFFER. About 6 KiB, wiped on drop.
pub struct Offered {
    hello: Hello,
    epoch: u32,
    th1: [u8; 32],
    ephemeral: Secret,
    kem: KemSecret,
    static_b: Option<Secret>,
}

/// Makes the OFFER of A: what waits for the REPLY, and the body to send. Costs about 0.1 ms.
///
/// `epoch` is not 0. `peer_static` is B's static ML-KEM key, already compared with its record; one
/// that is not valid counts as none.
#[must_use]
pub fn offer(
    party: &Party<'_>,
    hello: Hello,
    epoch: u32,
    peer: &NodeId,
    peer_static: Option<&[u8; EK_LEN]>,
    random: &mut dyn Random,
) -> (Offered, Vec<u8>) {
    let ephemeral = secret(random);
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    random.fill(&mut *seed);
    let kem = KemSecret::from_seed(&seed);
    let sealed = peer_static.and_then(|ek| seal(ek, random).ok());
    let (static_ct, static_b) = sealed.unzip();
    let offer = Offer {
        hello,
        epoch,
        ephemeral: MontgomeryPoint::mul_base_clamped(*ephemeral).to_bytes(),
        ek: Box::new(*kem.encapsulation_key()),
        static_ct,
    };
    let body = offer.emit();
    let th0 = schedule::th0(&party.network, &party.node_id, peer);
    let offered = Offered {
        hello: offer.hello,
        epoch,
        th1: schedule::absorb(&th0, &body),
        ephemeral,
        kem,
        static_b,
    };
    (offered, body)
}

impl Offered {
    /// The epoch of the key to come.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What we said of ourselves.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Checks a REPLY: what both agree on then, and the body of FIN. Costs about 0.25 ms.
    ///
    /// `reply_bytes` is what `reply` was parsed from. The caller has compared the chosen suite with
    /// what both lists give.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]; a good REPLY can still come.
    pub fn accept_reply(
        &self,
        party: &Party<'_>,
        peer: &NodeId,
        reply: &Reply,
        reply_bytes: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Agreement, Vec<u8>), ExchangeError> {
        let level = level_of(reply.chosen)?;
        let th2 = schedule::absorb(&self.th1, Reply::signed_part(reply_bytes));
        verify(peer, CONTEXT_B, &th2, &reply.signature)
            .map_err(|_| ExchangeError::InvalidSignature)?;
        let (static_a, static_b) = match level {
            Level::PostQuantumAuthenticated => {
                let (kem, ct) = party
                    .static_kem
                    .zip(reply.static_ct.as_ref())
                    .ok_or(ExchangeError::MissingStatic)?;
                let static_b = self.static_b.clone().ok_or(ExchangeError::MissingStatic)?;
                (Some(kem.decapsulate(ct)), Some(static_b))
            }
            _ => (None, None),
        };
        let shared = Shared {
            ephemeral_kem: self.kem.decapsulate(&reply.ct),
            ephemeral_dh: x25519(&self.ephemeral, &reply.ephemeral)?,
            static_a,
            static_b,
        };
        let keys = Keys::expand(&shared.extract(&th2), reply.chosen, self.epoch);
        confirm(&keys.confirm_b, &th2, &reply.signature, &reply.confirmation)?;
        let th3 = schedule::absorb_proof(&th2, &reply.signature, &reply.confirmation);
        let fin = prove(party, CONTEXT_A, &th3, &keys.confirm_a, random);
        let agreement = Agreement::new(reply.chosen, self.epoch, &keys, &th3, &fin);
        Ok((agreement, fin.emit()))
    }
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// B has sent a REPLY. Wiped on drop.
pub struct Replied {
    peer_hello: Hello,
    suite: SuiteId,
    epoch: u32,
    th3: [u8; 32],
    keys: Keys,
}

/// Makes the REPLY of B: what waits for FIN, and the body to send. Costs about 0.2 ms.
///
/// `offer_bytes` is what `offer` was parsed from; `chosen` is what both lists give; `peer_static`
/// is A's static ML-KEM key, already compared with its record, which suite 3 needs.
///
/// # Errors
///
/// [`ExchangeError`].
#[expect(
    clippy::too_many_arguments,
    reason = "all eight are given by the protocol, and there is one caller"
)]
pub fn reply(
    party: &Party<'_>,
    hello: Hello,
    chosen: SuiteId,
    peer: &NodeId,
    offer: &Offer,
    offer_bytes: &[u8],
    peer_static: Option<&[u8; EK_LEN]>,
    random: &mut dyn Random,
) -> Result<(Replied, Vec<u8>), ExchangeError> {
    if Role::of(&party.node_id, peer) != Role::B {
        return Err(ExchangeError::WrongRole);
    }
    let ephemeral = secret(random);
    let (ct, ephemeral_kem) = seal(&offer.ek, random)?;
    let (static_ct, static_a, static_b) = match level_of(chosen)? {
        Level::PostQuantumAuthenticated => {
            let (kem, theirs) = party
                .static_kem
                .zip(offer.static_ct.as_ref())
                .ok_or(ExchangeError::MissingStatic)?;
            let ek = peer_static.ok_or(ExchangeError::MissingStatic)?;
            let (ct, static_a) = seal(ek, random)?;
            (Some(ct), Some(static_a), Some(kem.decapsulate(theirs)))
        }
        _ => (None, None, None),
    };
    let shared = Shared {
        ephemeral_kem,
        ephemeral_dh: x25519(&ephemeral, &offer.ephemeral)?,
        static_a,
        static_b,
    };
    let reply = Reply {
        hello,
        chosen,
        ephemeral: MontgomeryPoint::mul_base_clamped(*ephemeral).to_bytes(),
        ct,
        static_ct,
        signature: [0; SIGNATURE_LEN],
        confirmation: [0; CONFIRMATION_LEN],
    };
    let mut body = reply.emit();
    body.truncate(Reply::signed_part(&body).len());
    let th0 = schedule::th0(&party.network, peer, &party.node_id);
    let th2 = schedule::absorb(&schedule::absorb(&th0, offer_bytes), &body);
    let keys = Keys::expand(&shared.extract(&th2), chosen, offer.epoch);
    let proof = prove(party, CONTEXT_B, &th2, &keys.confirm_b, random);
    body.extend_from_slice(&proof.emit());
    let replied = Replied {
        peer_hello: offer.hello.clone(),
        suite: chosen,
        epoch: offer.epoch,
        th3: schedule::absorb_proof(&th2, &proof.signature, &proof.confirmation),
        keys,
    };
    Ok((replied, body))
}

impl Replied {
    /// The epoch of the key to come.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The chosen suite.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        self.suite
    }

    /// What A said of itself; not proven before FIN.
    #[must_use]
    pub fn peer_hello(&self) -> &Hello {
        &self.peer_hello
    }

    /// Checks the body of a FIN: what both agree on then. Costs about 50 us.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]; a good FIN can still come.
    pub fn accept_fin(&self, peer: &NodeId, fin: &[u8]) -> Result<Agreement, ExchangeError> {
        let fin = Fin::parse(fin).map_err(|_| ExchangeError::Malformed)?;
        verify(peer, CONTEXT_A, &self.th3, &fin.signature)
            .map_err(|_| ExchangeError::InvalidSignature)?;
        let key = &self.keys.confirm_a;
        confirm(key, &self.th3, &fin.signature, &fin.confirmation)?;
        let (suite, epoch) = (self.suite, self.epoch);
        Ok(Agreement::new(suite, epoch, &self.keys, &self.th3, &fin))
    }
}

impl fmt::Debug for Replied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replied")
            .field("suite", &self.suite)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What both have agreed on. Holds no key but PSK_e and the one of LIVE and ABORT; wiped on drop.
pub struct Agreement {
    suite: SuiteId,
    epoch: u32,
    psk: PresharedKey,
    done: Secret,
    live: Secret,
}

impl Agreement {
    fn new(suite: SuiteId, epoch: u32, keys: &Keys, th3: &[u8; 32], fin: &Fin) -> Self {
        let end = schedule::absorb_proof(th3, &fin.signature, &fin.confirmation);
        Self {
            suite,
            epoch,
            psk: keys.psk.clone(),
            done: schedule::hmac(&keys.done, &[&end]),
            live: keys.live.clone(),
        }
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        self.suite
    }

    /// The epoch of the key, chosen by A; never 0.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// PSK_e.
    #[must_use]
    pub fn psk(&self) -> &PresharedKey {
        &self.psk
    }

    /// The body of DONE, which only B sends.
    #[must_use]
    pub fn done(&self) -> [u8; CONFIRMATION_LEN] {
        *self.done
    }

    /// Whether this is the body of B's DONE.
    #[must_use]
    pub fn verify_done(&self, body: &[u8]) -> bool {
        body.ct_eq(&*self.done).into()
    }

    /// The body of the LIVE that `sender` sends.
    #[must_use]
    pub fn live(&self, sender: Role) -> Vec<u8> {
        let epoch = self.epoch;
        let mac = *self.live_mac(sender);
        Live { epoch, mac }.emit()
    }

    /// Whether this is the body of a LIVE that `sender` sent.
    #[must_use]
    pub fn verify_live(&self, sender: Role, body: &[u8]) -> bool {
        Live::parse(body).is_ok_and(|live| {
            live.epoch == self.epoch && live.mac.ct_eq(&*self.live_mac(sender)).into()
        })
    }

    fn live_mac(&self, sender: Role) -> Secret {
        let epoch = self.epoch.to_be_bytes();
        schedule::hmac(&self.live, &[b"live", &[sender.letter()], &epoch])
    }

    /// The MAC of the ABORT that `sender` sends.
    #[must_use]
    pub fn abort_mac(&self, sender: Role, code: u16, highest: SuiteId) -> [u8; CONFIRMATION_LEN] {
        let (code, highest) = (code.to_be_bytes(), highest.0.to_be_bytes());
        *schedule::hmac(&self.live, &[b"abort", &[sender.letter()], &code, &highest])
    }

    /// Whether this is the MAC of an ABORT that `sender` sent.
    #[must_use]
    pub fn verify_abort(
        &self,
        sender: Role,
        code: u16,
        highest: SuiteId,
        mac: &[u8; CONFIRMATION_LEN],
    ) -> bool {
        mac.ct_eq(&self.abort_mac(sender, code, highest)).into()
    }
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreement")
            .field("suite", &self.suite)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

fn level_of(suite: SuiteId) -> Result<Level, ExchangeError> {
    suite.level().ok_or(ExchangeError::UnknownSuite)
}

fn secret(random: &mut dyn Random) -> Secret {
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(&mut *secret);
    secret
}

/// Makes a secret for the holder of an ML-KEM key.
fn seal(
    ek: &[u8; EK_LEN],
    random: &mut dyn Random,
) -> Result<(Box<[u8; CT_LEN]>, Secret), ExchangeError> {
    let (ct, shared) =
        encapsulate(ek, &secret(random)).map_err(|_| ExchangeError::InvalidKemKey)?;
    Ok((Box::new(ct), shared))
}

/// X25519; refuses a share of small order, whose product everybody knows (RFC 7748, section 6.1).
fn x25519(secret: &Secret, share: &[u8; 32]) -> Result<Secret, ExchangeError> {
    let mut point = MontgomeryPoint(*share).mul_clamped(**secret);
    let product = Zeroizing::new(point.to_bytes());
    point.zeroize();
    match bool::from(product.ct_eq(&[0; 32])) {
        true => Err(ExchangeError::ZeroShare),
        false => Ok(product),
    }
}

/// Signs a transcript, and confirms transcript and signature under `key`.
fn prove(
    party: &Party<'_>,
    context: &[u8],
    th: &[u8; 32],
    key: &Secret,
    random: &mut dyn Random,
) -> Fin {
    let mut nonce = Zeroizing::new([0; 32]);
    random.fill(&mut *nonce);
    let signature = sign(party.secret, context, th, &nonce);
    Fin {
        signature,
        confirmation: *schedule::hmac(key, &[th, &signature]),
    }
}

fn confirm(
    key: &Secret,
    th: &[u8; 32],
    signature: &[u8; SIGNATURE_LEN],
    confirmation: &[u8; CONFIRMATION_LEN],
) -> Result<(), ExchangeError> {
    let expected = schedule::hmac(key, &[th, signature]);
    match bool::from(expected.ct_eq(confirmation)) {
        true => Ok(()),
        false => Err(ExchangeError::InvalidConfirmation),
    }
}
