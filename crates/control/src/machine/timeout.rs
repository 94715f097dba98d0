//! Deadlines: repetition, giving up, trying again, rotation.

use super::{
    ADMISSION_TIME, Admission, Context, EXCHANGE_TIME, Exchange, InSlot, Machine, Output,
    WaitReason,
};
use crate::exchange::Role;
use crate::local::Plane;
use crate::suite::{Level, SuiteId};
use wiremesh_wire::Instant;

/// Bytes under one preshared key after which it is replaced: 64 GiB.
pub const ROTATE_BYTES: u64 = 64 << 30;

impl Machine {
    /// When [`Machine::handle_timeout`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let exchange = match &self.exchange {
            Exchange::None => None,
            Exchange::Finished(_, message) if self.waits_for_handshake() => message.next_at(),
            Exchange::KeyWanted(message)
            | Exchange::Offered(_, message)
            | Exchange::Finished(_, message)
            | Exchange::Live(_, message) => {
                let end = self.began + EXCHANGE_TIME;
                Some(message.next_at().map_or(end, |at| at.min(end)))
            }
            Exchange::Switch(_) | Exchange::Set(_) if !self.urgent => None,
            Exchange::Held(..) | Exchange::Waiting(_) => Some(self.asked_at + ADMISSION_TIME),
            _ => Some(self.began + EXCHANGE_TIME),
        };
        let retry = self.retry_at.filter(|_| self.wanted && self.is_free());
        let incomplete = self.reassembly.as_ref().map(|_| self.reassembly_until);
        [exchange, retry, incomplete].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        if self.next_deadline().is_none_or(|at| now < at) {
            return;
        }
        self.reassembly.take_if(|_| now >= self.reassembly_until);
        self.repeat(cx);
        let over = match &self.exchange {
            Exchange::Held(..) | Exchange::Waiting(_) => now >= self.asked_at + ADMISSION_TIME,
            _ => now >= self.began + EXCHANGE_TIME,
        };
        let may_end = match &self.exchange {
            Exchange::None => false,
            Exchange::Switch(_) | Exchange::Set(_) => self.urgent,
            _ => !self.waits_for_handshake(),
        };
        if over && may_end {
            self.step(cx, "timeout", Self::on_exchange_over);
        }
        if self.wanted && self.is_free() && self.retry_at.is_some_and(|at| now >= at) {
            self.step(cx, "timeout", Self::advance);
        }
    }

    fn repeat(&mut self, cx: &mut Context<'_>) {
        let message = match &mut self.exchange {
            Exchange::KeyWanted(message)
            | Exchange::Offered(_, message)
            | Exchange::Finished(_, message)
            | Exchange::Live(_, message) => message,
            _ => return,
        };
        if message.next_at().is_some_and(|at| cx.now.instant >= at) {
            message.sent += 1;
            cx.send(message.kind, self.id, &message.body);
        }
    }

    /// 10 s are over. Silence never means "old peer".
    fn on_exchange_over(&mut self, cx: &mut Context<'_>) {
        match core::mem::replace(&mut self.exchange, Exchange::None) {
            // L3 cannot be had, but the peer may not list it anyway.
            Exchange::KeyWanted(_) => {
                self.began = cx.now.instant;
                self.send_offer(cx);
            }
            Exchange::Offered(..) => {
                self.wait_for_silence(cx);
                self.retry_later(cx);
            }
            // FIN may have arrived: the candidate stays.
            Exchange::Finished(..) => self.retry_later(cx),
            Exchange::Switch(agreement) if self.switch_tries < 3 => {
                // The peer has the key, so a handshake is all that is missing.
                self.switch_tries += 1;
                self.began = cx.now.instant;
                self.exchange = Exchange::Switch(agreement);
                cx.out.push(Output::Handshake);
            }
            Exchange::Held(..) | Exchange::Waiting(_) => {
                // The application did not answer: as if it had refused.
                self.turn_away(cx);
            }
            Exchange::Set(_) if self.legacy => {}
            // Both have the key. A session under it may come at any time, and settles it then.
            exchange @ (Exchange::Switch(_) | Exchange::Set(_)) => {
                self.exchange = exchange;
                self.urgent = false;
                self.retry_later(cx);
            }
            Exchange::Live(..) if self.confirmed || self.plane == Plane::Engine => {}
            // Nobody has proven to have sent that OFFER, and we lack nothing.
            Exchange::Replied(..) if self.is_reached(cx.local) && cx.open_session => {}
            Exchange::None => {}
            _ => self.retry_later(cx),
        }
    }

    /// A rotation without DONE: the next handshake shows which key the peer has, and no third key
    /// may come before. A peer that has lost all keys has nothing to show.
    pub(super) fn waits_for_handshake(&self) -> bool {
        match &self.exchange {
            Exchange::Finished(agreement, _) if agreement.suite() != SuiteId::WIREGUARD => {
                !self.urgent && !self.peer_lost_key
            }
            _ => false,
        }
    }

    pub(super) fn is_exchange_time_over(&self, cx: &Context<'_>) -> bool {
        cx.now.instant >= self.began + EXCHANGE_TIME
    }

    /// Whether both ends see by themselves which key made a session.
    pub(super) fn both_tell_sessions(&self) -> bool {
        self.peer_has_session_gate && self.plane == Plane::Engine
    }

    /// The peer's control protocol is silent; that alone opens nothing.
    pub(super) fn wait_for_silence(&mut self, cx: &mut Context<'_>) {
        let admitted = self.admission == Admission::Admitted;
        let l1_is_enough = self.required(cx.local) == Level::Classical;
        if admitted && l1_is_enough && self.record_allows_legacy(cx) {
            self.open_legacy(cx);
        }
        let told = matches!(
            self.waiting,
            Some((WaitReason::PeerRefused { .. } | WaitReason::Rejected(_), _))
        );
        if !self.legacy && !told {
            self.wait_for(cx, WaitReason::NoControlAnswer);
        }
    }

    pub(super) fn retry_later(&mut self, cx: &mut Context<'_>) {
        if self.legacy {
            return;
        }
        self.wanted = true;
        let pause = match self.role {
            Role::A => EXCHANGE_TIME,
            Role::B => EXCHANGE_TIME / 5,
        };
        self.retry_at = Some(cx.now.instant + pause);
    }

    /// A session under the key in the slot has begun: a good time for A to replace the key, since
    /// the session outlives the exchange by far.
    pub(super) fn rotate_if_due(&mut self, cx: &mut Context<'_>) {
        let Some(InSlot { since, bytes, .. }) = self.slot else {
            return;
        };
        let old = cx.now.instant.saturating_since(since) >= cx.local.rotate_after();
        if old || cx.traffic_bytes.saturating_sub(bytes) >= ROTATE_BYTES {
            self.wanted |= self.role == Role::A;
        }
    }
}
