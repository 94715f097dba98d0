//! What can be told of a peer's sessions from the figures that the kernel shows.
//!
//! Owns the sums over all incarnations of the peer in the kernel, and since when something waits
//! for an answer. Decides nothing: the control protocol draws its own conclusions.

use crate::status::PeerState;
use core::time::Duration;
use wiremesh_control::kernel::{INITIATION_BYTES, KernelView};
use wiremesh_noise::constants::{REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME};
use wiremesh_wire::{Instant, Now, UnixTime};

/// As the engine's, and a second for the reading: an idle peer answers data after 10 s.
const SILENT_AFTER: Duration = Duration::from_secs(13);
/// The same for an initiation, which is answered at once: one was repeated.
const REKEY_SILENT_AFTER: Duration = Duration::from_secs(6);
/// The bytes of a response and of a keepalive, which nobody answers.
const UNANSWERED_BYTES: [u64; 3] = [92, 32, 92 + 32];
/// Most initiations that are taken for such when only their bytes are seen.
const INITIATIONS_MAX: u64 = 3;

/// See the module.
#[derive(Default)]
pub(super) struct Watch {
    view: KernelView,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) last_handshake: Option<UnixTime>,
    pub(super) last_received: Option<Instant>,
    /// When the newest session was seen first.
    session_since: Option<Instant>,
    unanswered_since: Option<Instant>,
    /// Since when initiations go out, or are wanted, without a response.
    attempt_since: Option<Instant>,
    gave_up: bool,
}

impl Watch {
    /// Takes what the kernel shows; tells whether there was a handshake since the last time.
    pub(super) fn take(&mut self, now: Now, view: KernelView) -> bool {
        let before = core::mem::replace(&mut self.view, view);
        let received = view.rx_bytes.saturating_sub(before.rx_bytes);
        let sent = view.tx_bytes.saturating_sub(before.tx_bytes);
        self.rx_bytes = self.rx_bytes.saturating_add(received);
        self.tx_bytes = self.tx_bytes.saturating_add(sent);
        if received > 0 {
            self.last_received = Some(now.instant);
        }
        let handshake = view
            .last_handshake
            .filter(|_| view.last_handshake != before.last_handshake);
        if let Some(at) = handshake {
            self.session_since = Some(now.instant);
            self.last_handshake = Some(at);
            self.gave_up = false;
            self.attempt_since = None;
        }
        if received > 0 && !is_initiations(received) {
            self.unanswered_since = None;
            self.attempt_since = None;
        } else if is_initiations(sent) {
            self.attempt_since.get_or_insert(now.instant);
        } else if sent > 0 && !UNANSWERED_BYTES.contains(&sent) {
            self.unanswered_since.get_or_insert(now.instant);
        }
        handshake.is_some()
    }

    /// The peer was removed and added anew: its next figures count from zero.
    pub(super) fn restart(&mut self) {
        self.view = KernelView::default();
        self.session_since = None;
        self.unanswered_since = None;
    }

    /// Somebody wants a session.
    pub(super) fn want(&mut self, now: Instant) {
        self.gave_up = false;
        self.attempt_since.get_or_insert(now);
    }

    /// Whether an attempt to get a session is over without one; told once.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let over = |since: &mut Instant| now.saturating_since(*since) >= REKEY_ATTEMPT_TIME;
        let given_up = !self.is_live(now) && self.attempt_since.take_if(over).is_some();
        self.gave_up |= given_up;
        given_up
    }

    /// How old the session in use is.
    pub(super) fn session_age(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_since(self.session_since?);
        (age < REJECT_AFTER_TIME).then_some(age)
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.session_age(now).is_some()
    }

    /// Whether the peer owes an answer for so long that it may be gone.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let waits = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_since(since) >= limit)
        };
        self.gave_up
            || waits(self.unanswered_since, SILENT_AFTER)
            || waits(self.attempt_since, REKEY_SILENT_AFTER)
    }

    pub(super) fn state(&self, now: Instant) -> PeerState {
        match () {
            () if self.is_live(now) && self.is_silent(now) => PeerState::Silent,
            () if self.is_live(now) => PeerState::Connected,
            () if self.attempt_since.is_some() => PeerState::Handshaking,
            () if self.gave_up => PeerState::NoAnswer,
            () => PeerState::Idle,
        }
    }
}

fn is_initiations(bytes: u64) -> bool {
    bytes > 0
        && bytes.is_multiple_of(INITIATION_BYTES)
        && bytes / INITIATION_BYTES <= INITIATIONS_MAX
}
