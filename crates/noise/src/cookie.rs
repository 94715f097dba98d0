//! mac1, mac2 and cookies: the cheap checks in front of the handshake.
//!
//! Owns: the two macs of handshake messages, the responder's cookie secret and the initiator's
//! last cookie. Never does: decide when a node is under load, draw secrets or nonces, read a
//! clock. Specification: the WireGuard paper, sections 5.3, 5.4.4 and 5.4.7.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;
use wiremesh_wire::CookieReply;
use wiremesh_wire::Instant;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::constants::{
    COOKIE_LEN, COOKIE_NONCE_LEN, COOKIE_SECRET_MAX_AGE, KEY_LEN, MAC_LEN, TAG_LEN,
};
use crate::crypto::{mac, xaead_open, xaead_seal};
use crate::identity::{LocalIdentity, RemoteIdentity, cookie_key};

/// Says whether mac1 of a whole handshake message (initiation or response) to us is right.
///
/// Costs one hash, in constant time. It shows only that the sender knows our node id. A slice too
/// short to hold both macs is never right.
#[must_use]
pub fn verify_mac1(local: &LocalIdentity, message: &[u8]) -> bool {
    let Some((rest, _mac2)) = message.split_last_chunk::<MAC_LEN>() else {
        return false;
    };
    let Some((covered, mac1)) = rest.split_last_chunk::<MAC_LEN>() else {
        return false;
    };
    mac(local.mac1_key(), covered).ct_eq(mac1).into()
}

/// Sets mac2 of a whole handshake message, whose mac1 is already set, from a cookie.
///
/// # Panics
///
/// If the message is too short to hold mac2.
pub fn set_mac2(message: &mut [u8], cookie: &[u8; COOKIE_LEN]) {
    let (covered, mac2) = message
        .split_last_chunk_mut::<MAC_LEN>()
        .expect("a handshake message ends with mac2");
    *mac2 = mac(cookie, covered);
}

/// mac1 of a message that is laid out with both macs still to be set.
pub(crate) fn mac1_of(key: &[u8; KEY_LEN], message: &[u8]) -> [u8; MAC_LEN] {
    mac(key, &message[..message.len() - 2 * MAC_LEN])
}

/// A responder's side of cookies: proves that a sender receives at its source address.
///
/// The cookie is a mac of the source address under a secret that changes every 120 s. The secret
/// before it stays good for as long again, so that a cookie just given out is not void at once;
/// no secret verifies anything 240 s after it was set.
pub struct CookieChecker {
    cookie_key: [u8; KEY_LEN],
    current: CookieSecret,
    previous: Option<CookieSecret>,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct CookieSecret {
    key: [u8; KEY_LEN],
    #[zeroize(skip)]
    since: Instant,
}

impl CookieChecker {
    /// Starts with the given 32 random bytes as secret.
    #[must_use]
    pub fn new(local: &LocalIdentity, secret: [u8; KEY_LEN], now: Instant) -> CookieChecker {
        CookieChecker {
            cookie_key: *local.cookie_key(),
            current: CookieSecret {
                key: secret,
                since: now,
            },
            previous: None,
        }
    }

    /// Says whether the secret is 120 s old and [`CookieChecker::renew_secret`] is due. To be
    /// asked before a reply is made.
    #[must_use]
    pub fn needs_secret(&self, now: Instant) -> bool {
        now.saturating_since(self.current.since) >= COOKIE_SECRET_MAX_AGE
    }

    /// Puts 32 fresh random bytes in the place of the secret.
    pub fn renew_secret(&mut self, secret: [u8; KEY_LEN], now: Instant) {
        let current = CookieSecret {
            key: secret,
            since: now,
        };
        self.previous = Some(core::mem::replace(&mut self.current, current));
    }

    /// The cookie for a source address, under the current secret.
    #[must_use]
    pub fn cookie_for(&self, source: SocketAddr) -> [u8; COOKIE_LEN] {
        self.current.cookie_for(source)
    }

    /// Says whether mac2 of a whole handshake message proves that its sender got a cookie at this
    /// source address. Constant time; a message without mac2 is never right.
    #[must_use]
    pub fn verify_mac2(&self, message: &[u8], source: SocketAddr, now: Instant) -> bool {
        let Some((covered, mac2)) = message.split_last_chunk::<MAC_LEN>() else {
            return false;
        };
        let secrets = [Some(&self.current), self.previous.as_ref()];
        secrets
            .into_iter()
            .flatten()
            .filter(|secret| now.saturating_since(secret.since) < 2 * COOKIE_SECRET_MAX_AGE)
            .any(|secret| mac(&secret.cookie_for(source), covered).ct_eq(mac2).into())
    }

    /// Makes the cookie reply to a handshake message with a right mac1.
    ///
    /// `receiver` is the message's sender index, `mac1` its mac1, to which the reply is bound;
    /// `nonce` is 24 fresh random bytes.
    #[must_use]
    pub fn make_reply(
        &self,
        receiver: u32,
        nonce: [u8; COOKIE_NONCE_LEN],
        mac1: &[u8; MAC_LEN],
        source: SocketAddr,
    ) -> CookieReply {
        let mut encrypted_cookie = [0u8; COOKIE_LEN + TAG_LEN];
        encrypted_cookie[..COOKIE_LEN].copy_from_slice(&self.cookie_for(source));
        xaead_seal(&self.cookie_key, &nonce, mac1, &mut encrypted_cookie);
        CookieReply {
            receiver,
            nonce,
            encrypted_cookie,
        }
    }
}

impl CookieSecret {
    fn cookie_for(&self, source: SocketAddr) -> [u8; COOKIE_LEN] {
        // An IPv4 sender is the same one whether the socket shows it mapped into IPv6 or not.
        let mut bytes = [0u8; 18];
        let len = match source.ip().to_canonical() {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                bytes[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        bytes[len..len + 2].copy_from_slice(&source.port().to_be_bytes());
        mac(&self.key, &bytes[..len + 2])
    }
}

impl fmt::Debug for CookieChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieChecker")
            .field("since", &self.current.since)
            .finish_non_exhaustive()
    }
}

/// An initiator's side of cookies, one per peer: the last mac1 sent and the last cookie received.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct CookieState {
    sent_mac1: Option<[u8; MAC_LEN]>,
    cookie: Option<[u8; COOKIE_LEN]>,
    #[zeroize(skip)]
    received_at: Option<Instant>,
}

impl CookieState {
    /// Starts with no cookie.
    #[must_use]
    pub fn new() -> CookieState {
        CookieState::default()
    }

    /// Notes mac1 of the handshake message that was just sent; a reply is accepted only for it.
    pub fn on_sent(&mut self, mac1: &[u8; MAC_LEN]) {
        self.sent_mac1 = Some(*mac1);
    }

    /// Takes the cookie out of a reply from the peer. Each sent message buys one reply.
    ///
    /// The caller has found the peer by the reply's receiver index.
    ///
    /// # Errors
    ///
    /// The sender's fault; the state is then unchanged.
    pub fn consume_reply(
        &mut self,
        reply: &CookieReply,
        remote: &RemoteIdentity,
        now: Instant,
    ) -> Result<(), CookieError> {
        let mac1 = self.sent_mac1.ok_or(CookieError::Unexpected)?;
        let mut buffer = reply.encrypted_cookie;
        let opened = xaead_open(
            &cookie_key(&remote.node_id()),
            &reply.nonce,
            &mac1,
            &mut buffer,
        )
        .map_err(|_| CookieError::Authentication)?;
        let cookie = (&*opened)
            .try_into()
            .map_err(|_| CookieError::Authentication)?;
        self.cookie = Some(cookie);
        self.received_at = Some(now);
        self.sent_mac1 = None;
        Ok(())
    }

    /// The cookie to set mac2 with, if there is one that came less than 120 s ago.
    #[must_use]
    pub fn cookie(&self, now: Instant) -> Option<[u8; COOKIE_LEN]> {
        let age = now.saturating_since(self.received_at?);
        if age < COOKIE_SECRET_MAX_AGE {
            self.cookie
        } else {
            None
        }
    }
}

impl fmt::Debug for CookieState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieState")
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

/// Why a cookie reply was refused: its sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieError {
    /// No handshake message was sent that is still without a reply.
    Unexpected,
    /// The reply is not from the peer, or not to our last handshake message.
    Authentication,
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CookieError::Unexpected => "no handshake message waits for a cookie reply",
            CookieError::Authentication => "the cookie reply did not authenticate",
        })
    }
}

impl core::error::Error for CookieError {}
