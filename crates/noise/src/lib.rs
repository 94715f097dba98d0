//! The WireGuard v1 handshake and session cryptography, without input or output.
//!
//! Owns: identities, the handshake (Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s), session keys, the
//! replay window and cookies. Never does: read a clock, draw randomness, keep peers or timers,
//! touch a socket. Randomness and time are arguments, so every byte it makes can be replayed.
//! Specification: "WireGuard: Next Generation Kernel Network Tunnel" (the WireGuard paper),
//! section 5; RFC 7693, RFC 7748, RFC 8439 for the primitives.
//!
//! The order of a handshake: [`create_initiation`] on one side; [`verify_mac1`],
//! [`open_initiation`], [`OpenedInitiation::authenticate`] and
//! [`AuthenticatedInitiation::respond`] on the other; [`verify_mac1`] and
//! [`InitiatorHandshake::consume_response`] back on the first. Each step is a value that cannot
//! exist unless the step before it succeeded, and a failed step changes nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod constants;
pub mod cookie;
pub mod crypto;
pub mod handshake;
pub mod identity;
pub mod replay;
pub mod session;

pub use cookie::{CookieChecker, CookieError, CookieState, set_mac2, verify_mac1};
pub use handshake::{
    AuthenticatedInitiation, HandshakeError, InitiatorHandshake, OpenedInitiation,
    create_initiation, open_initiation, open_initiation_from,
};
pub use identity::{LocalIdentity, RemoteIdentity};
pub use replay::ReplayWindow;
pub use session::{
    OpenError, Opener, OpeningKey, Role, SealError, Sealer, SealingKey, SessionKeys,
};
