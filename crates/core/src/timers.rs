//! The timers of one peer, as deadlines.
//!
//! Owns when; what happens is decided in `node/timeout.rs`. Source: WireGuard paper sections 6.1,
//! 6.2, 6.4 and 6.5, with the jitter of the Linux implementation.

use crate::drbg::Jitter;
use core::time::Duration;
use wiremesh_noise::constants::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};
use wiremesh_wire::Instant;

/// Spread of timers that could fire on many nodes at once.
pub(crate) const JITTER_MAX: Duration = Duration::from_millis(333);

/// Deadlines that run while a peer has a handshake or a session.
#[derive(Default)]
pub(crate) struct Timers {
    /// Data came in and nothing went out: send a keepalive.
    pub(crate) passive_keepalive: Option<Instant>,
    /// More data came in while that timer ran.
    another_keepalive: bool,
    /// Data went out and nothing came back: handshake anew.
    pub(crate) no_answer: Option<Instant>,
    /// When the data was sent that nothing has answered since; unlike `no_answer` it stays when
    /// the handshake that this calls for gets no answer either.
    pub(crate) unanswered_since: Option<Instant>,
    /// An initiation that had to wait for its distance to the last one.
    pub(crate) deferred_initiation: Option<Instant>,
}

impl Timers {
    /// Data (not a keepalive) was sent.
    pub(crate) fn on_data_sent(&mut self, now: Instant, jitter: &mut Jitter) {
        self.unanswered_since.get_or_insert(now);
        if self.no_answer.is_none() {
            let after = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter.up_to(JITTER_MAX);
            self.no_answer = Some(now + after);
        }
    }

    /// Anything authenticated was sent.
    pub(crate) fn on_sent(&mut self) {
        self.passive_keepalive = None;
        self.another_keepalive = false;
    }

    /// Data (not a keepalive) was received.
    pub(crate) fn on_data_received(&mut self, now: Instant) {
        if self.passive_keepalive.is_none() {
            self.passive_keepalive = Some(now + KEEPALIVE_TIMEOUT);
        } else {
            self.another_keepalive = true;
        }
    }

    /// Anything authenticated was received.
    pub(crate) fn on_received(&mut self) {
        self.no_answer = None;
        self.unanswered_since = None;
    }

    /// Takes the passive keepalive if it is due, and arms the next one if more data came.
    pub(crate) fn take_passive_keepalive(&mut self, now: Instant) -> bool {
        let due = self.passive_keepalive.is_some_and(|at| now >= at);
        if due {
            self.passive_keepalive =
                core::mem::take(&mut self.another_keepalive).then(|| now + KEEPALIVE_TIMEOUT);
        }
        due
    }

    /// Takes the no-answer deadline if it is due.
    pub(crate) fn take_no_answer(&mut self, now: Instant) -> bool {
        let due = self.no_answer.is_some_and(|at| now >= at);
        if due {
            self.no_answer = None;
        }
        due
    }

    /// Takes the deferred initiation if it is due.
    pub(crate) fn take_deferred_initiation(&mut self, now: Instant) -> bool {
        let due = self.deferred_initiation.is_some_and(|at| now >= at);
        if due {
            self.deferred_initiation = None;
        }
        due
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        [
            self.passive_keepalive,
            self.no_answer,
            self.deferred_initiation,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
