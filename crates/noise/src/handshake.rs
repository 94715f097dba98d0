//! The handshake: one message each way, then session keys.
//!
//! Owns: the transcript and the steps of both roles. Never does: keep peers, compare timestamps,
//! check cookies or mac1 of received messages (see [`crate::cookie`]), or retry. Specification:
//! the WireGuard paper, sections 5.4.2 to 5.4.5.
//!
//! A failed step takes nothing from its caller but the message: the pending handshake, the
//! identities and the keys stay what they were.

mod initiator;
mod responder;
mod transcript;

pub use initiator::{InitiatorHandshake, create_initiation};
pub use responder::{
    AuthenticatedInitiation, OpenedInitiation, open_initiation, open_initiation_from,
};

use core::fmt;
use wiremesh_wire::InvalidNodeId;

use crate::crypto::{AuthenticationFailed, ZeroProduct};

/// Why a handshake message was refused. The sender of the message is at fault in every case but
/// [`HandshakeError::WrongPeer`], which is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// A key agreement gave zero: the message carries a point of small order.
    ZeroProduct,
    /// A field did not authenticate: damaged, forged, for another node or under another PSK.
    Authentication,
    /// The initiator's static key decrypts well but is not a valid node id.
    InvalidNodeId(InvalidNodeId),
    /// The response names another receiver index than the one of this handshake.
    WrongReceiver,
    /// The initiation comes from another node than the identity given to authenticate it.
    WrongPeer,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::ZeroProduct => "a key agreement gave zero",
            HandshakeError::Authentication => "a field did not authenticate",
            HandshakeError::InvalidNodeId(_) => "the static key is not a valid node id",
            HandshakeError::WrongReceiver => "the response is for another handshake",
            HandshakeError::WrongPeer => "the initiation is from another peer",
        })
    }
}

impl core::error::Error for HandshakeError {}

impl From<ZeroProduct> for HandshakeError {
    fn from(_: ZeroProduct) -> HandshakeError {
        HandshakeError::ZeroProduct
    }
}

impl From<AuthenticationFailed> for HandshakeError {
    fn from(_: AuthenticationFailed) -> HandshakeError {
        HandshakeError::Authentication
    }
}

impl From<InvalidNodeId> for HandshakeError {
    fn from(error: InvalidNodeId) -> HandshakeError {
        HandshakeError::InvalidNodeId(error)
    }
}
