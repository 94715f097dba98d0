//! What a node tells its owner.
//!
//! Owns the event type only. Events are facts that happened, never requests for the same call.

use crate::config::Path;
use crate::peer::PeerKey;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_control::exchange::Role;
use wiremesh_control::{Phase, Pin};
use wiremesh_wire::{NodeId, Tai64n};

/// Why a handshake attempt was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// No valid answer within `REKEY_ATTEMPT_TIME`: the peer is off, elsewhere, or refuses us.
    NoAnswer,
    /// The peer has no endpoint.
    NoEndpoint,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Save this value durably before sending what comes next: every timestamp in use is smaller.
    ReserveTimestamps(Tai64n),
    /// Sealing for this peer works from now on: there is a session at the level it needs.
    SessionEstablished {
        /// The peer.
        peer: PeerKey,
        /// Whether we sent the initiation; not known, and `false`, in kernel mode.
        initiator: bool,
        /// Initiation to response; known to the initiator, and not in kernel mode.
        handshake_time: Option<Duration>,
    },
    /// The last session of the peer is gone that is at the level it needs.
    SessionLost {
        /// The peer.
        peer: PeerKey,
    },
    /// A handshake attempt is over without a session.
    HandshakeFailed {
        /// The peer.
        peer: PeerKey,
        /// Why.
        failure: HandshakeFailure,
    },
    /// Authenticated data came from another address: answers go there now.
    EndpointChanged {
        /// The peer.
        peer: PeerKey,
        /// The new path.
        path: Path,
    },
    /// A stranger was let in under [`crate::Admission::AllowAll`].
    PeerAdmitted {
        /// The new provisional peer.
        peer: PeerKey,
        /// Its key.
        node_id: NodeId,
    },
    /// A provisional peer is gone with its last session.
    PeerForgotten {
        /// Its handle, no longer valid.
        peer: PeerKey,
        /// Its key.
        node_id: NodeId,
    },
    /// A stranger asks to come in: answer with [`crate::Node::admit`] or [`crate::Node::refuse`]
    /// within 10 s.
    AdmissionRequested {
        /// Its key, authenticated.
        node_id: NodeId,
        /// Where it asks from; not proven beyond the handshake message.
        path: Path,
        /// What it shows, at most 4,096 bytes; only under [`crate::Admission::Proof`].
        proof: Option<Vec<u8>>,
        /// Whether more handshakes come in than the node is to answer without a cookie.
        under_load: bool,
    },
    /// A stranger was turned away; it got no answer.
    Refused {
        /// Its claimed key (not fully authenticated).
        node_id: NodeId,
        /// Where it asked from.
        path: Path,
    },
    /// Save what is known of this peer for good durably before sending what comes next.
    SavePin {
        /// Whose.
        node_id: NodeId,
        /// What replaces the pin before.
        pin: Pin,
    },
    /// Save this number durably before sending what comes next: the number of our own record.
    SaveRecordSeq(u64),
    /// What protects a peer's traffic has changed, or why it has to wait.
    SecurityChanged {
        /// The peer.
        peer: PeerKey,
    },
    /// A transition of the control protocol, where [`crate::ControlConfig::trace`] asks for it; never
    /// in kernel mode.
    ControlMoved {
        /// The peer.
        peer: PeerKey,
        /// Our role.
        role: Role,
        /// Where the protocol stood.
        from: Phase,
        /// What happened.
        event: &'static str,
        /// Where it stands.
        to: Phase,
    },
    /// The wall clock went forward against the monotonic one: perhaps a restored snapshot. All
    /// sessions were ended, so that no nonce can be used twice. Give fresh randomness to
    /// [`crate::Node::reseed`].
    ClockStepped,
}
