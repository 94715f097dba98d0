//! What was dropped, and why.
//!
//! Owns the counters. Never logs: a dropped datagram is not an error.

/// Why a datagram or packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// Not a WireGuard message: unknown type, reserved bytes, or a wrong length.
    Malformed,
    /// `mac1` does not belong to our key.
    Mac1,
    /// A handshake message without a valid `mac2` while cookies are demanded; a cookie was sent.
    CookieDemanded,
    /// More handshakes from one address than allowed while cookies are demanded.
    RateLimited,
    /// A handshake message that does not authenticate.
    HandshakeInvalid,
    /// An initiation with a timestamp that was seen already.
    HandshakeReplayed,
    /// An initiation within 20 ms of the last one of this peer.
    HandshakeFlood,
    /// An initiation of a key that admission refuses.
    NotAdmitted,
    /// No room: peers, provisional peers, questions, or the transmit queue.
    LimitReached,
    /// A receiver index that names no session or handshake of ours.
    UnknownIndex,
    /// Transport data that does not authenticate.
    Unauthenticated,
    /// Transport data with a counter that was received already, or behind the window.
    Replayed,
    /// Transport data on a session older than `REJECT_AFTER_TIME`.
    SessionExpired,
    /// A decrypted packet that is not IP, or shorter than its header says.
    NotIp,
    /// A decrypted packet whose source is outside the peer's allowed IPs.
    SourceNotAllowed,
    /// A packet from or to a control address that is not of the control protocol, either way.
    ControlOnly,
    /// A control packet that nothing is waiting for.
    ControlUnexpected,
    /// A message of the control protocol that is not valid, or not now.
    ControlRefused,
    /// A packet on a session below the level that the peer needs, or one that waited in vain for a
    /// session at that level.
    BelowLevel,
    /// A bare stream packet of a peer with which that was not agreed.
    BareNotAgreed,
    /// A stream packet of ours without QUIC's fixed bit, which has no bare form.
    NoFixedBit,
    /// A cookie reply that does not belong to a message of ours.
    CookieInvalid,
    /// A packet that was staged for `REKEY_ATTEMPT_TIME` or longer while no handshake was answered.
    NoAnswer,
    /// An event that found the queue full.
    EventsFull,
    /// A packet of ours without a session, of whose peer, or of all peers, enough wait already.
    StagedFull,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; 25] = [
        DropReason::Malformed,
        DropReason::Mac1,
        DropReason::CookieDemanded,
        DropReason::RateLimited,
        DropReason::HandshakeInvalid,
        DropReason::HandshakeReplayed,
        DropReason::HandshakeFlood,
        DropReason::NotAdmitted,
        DropReason::LimitReached,
        DropReason::UnknownIndex,
        DropReason::Unauthenticated,
        DropReason::Replayed,
        DropReason::SessionExpired,
        DropReason::NotIp,
        DropReason::SourceNotAllowed,
        DropReason::ControlOnly,
        DropReason::ControlUnexpected,
        DropReason::ControlRefused,
        DropReason::BelowLevel,
        DropReason::BareNotAgreed,
        DropReason::NoFixedBit,
        DropReason::CookieInvalid,
        DropReason::NoAnswer,
        DropReason::EventsFull,
        DropReason::StagedFull,
    ];

    /// A name for status and logs: lower case, words joined by `-`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::Mac1 => "mac1",
            DropReason::CookieDemanded => "cookie-demanded",
            DropReason::RateLimited => "rate-limited",
            DropReason::HandshakeInvalid => "handshake-invalid",
            DropReason::HandshakeReplayed => "handshake-replayed",
            DropReason::HandshakeFlood => "handshake-flood",
            DropReason::NotAdmitted => "not-admitted",
            DropReason::LimitReached => "limit-reached",
            DropReason::UnknownIndex => "unknown-index",
            DropReason::Unauthenticated => "unauthenticated",
            DropReason::Replayed => "replayed",
            DropReason::SessionExpired => "session-expired",
            DropReason::NotIp => "not-ip",
            DropReason::SourceNotAllowed => "source-not-allowed",
            DropReason::ControlOnly => "control-only",
            DropReason::ControlUnexpected => "control-unexpected",
            DropReason::ControlRefused => "control-refused",
            DropReason::BelowLevel => "below-level",
            DropReason::BareNotAgreed => "bare-not-agreed",
            DropReason::NoFixedBit => "no-fixed-bit",
            DropReason::CookieInvalid => "cookie-invalid",
            DropReason::NoAnswer => "no-answer",
            DropReason::EventsFull => "events-full",
            DropReason::StagedFull => "staged-full",
        }
    }
}

/// Totals of a node since it was made.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    dropped: [u64; DropReason::ALL.len()],
    /// Handshakes completed, in either role.
    pub handshakes: u64,
    /// Cookie replies sent.
    pub cookies_sent: u64,
    /// Stream packets sealed without IP and UDP headers.
    pub bare_sent: u64,
    /// Stream packets taken without IP and UDP headers.
    pub bare_received: u64,
}

impl Counters {
    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Counts one drop.
    pub(crate) fn drop_for(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }
}
