//! The sessions of one peer: current, previous, and next.
//!
//! Owns the rotation rules; knows no timers and no bytes. Source: WireGuard paper section 6.3,
//! and for the case that both sides initiate at once, our own rule (see [`Sessions::add`]).

use alloc::boxed::Box;
use core::time::Duration;
use wiremesh_noise::constants::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_TIMEOUT,
};
use wiremesh_noise::{Opener, Role, Sealer, SessionKeys};
use wiremesh_wire::Instant;

/// One set of transport keys.
pub(crate) struct Session {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) local_index: u32,
    pub(crate) role: Role,
    pub(crate) birth: Instant,
    /// Which preshared key made it: the epoch that was in the slot at the handshake.
    pub(crate) psk_epoch: u32,
    /// The greatest counter that authenticated: only newer data moves the endpoint.
    pub(crate) newest_counter: Option<u64>,
    /// Of two handshakes that crossed the other one won: this one only opens what is on its way.
    pub(crate) superseded: bool,
    /// The rekey on receipt just before expiry happens once.
    pub(crate) last_minute_rekey_done: bool,
}

impl Session {
    pub(crate) fn new(keys: SessionKeys, birth: Instant, psk_epoch: u32) -> Box<Self> {
        Box::new(Self {
            local_index: keys.local_index,
            role: keys.role,
            sealer: Sealer::new(keys.sealing, keys.remote_index),
            opener: Opener::new(keys.opening),
            birth,
            psk_epoch,
            newest_counter: None,
            superseded: false,
            last_minute_rekey_done: false,
        })
    }

    pub(crate) fn expires_at(&self) -> Instant {
        self.birth + REJECT_AFTER_TIME
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires_at()
    }

    fn is_initiator(&self) -> bool {
        self.role == Role::Initiator
    }

    /// Whether sending on it asks for a rekey: by time only for the initiator.
    pub(crate) fn wants_rekey_on_send(&self, now: Instant) -> bool {
        self.sealer.next_counter() > REKEY_AFTER_MESSAGES
            || (self.is_initiator() && now >= self.birth + REKEY_AFTER_TIME)
    }

    /// Whether receiving on it asks for a rekey: the initiator's last chance before expiry.
    pub(crate) fn wants_rekey_on_receive(&mut self, now: Instant) -> bool {
        const LAST_MINUTE: Duration = Duration::from_secs(
            REJECT_AFTER_TIME.as_secs() - KEEPALIVE_TIMEOUT.as_secs() - REKEY_TIMEOUT.as_secs(),
        );
        let due =
            !self.last_minute_rekey_done && self.is_initiator() && now >= self.birth + LAST_MINUTE;
        self.last_minute_rekey_done |= due;
        due
    }

    /// Notes an authenticated counter and tells whether it is the newest of this session.
    pub(crate) fn is_newest(&mut self, counter: u64) -> bool {
        let newest = self.newest_counter.is_none_or(|seen| counter > seen);
        if newest {
            self.newest_counter = Some(counter);
        }
        newest
    }
}

/// Which place a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Current,
    Previous,
    Next,
}

/// At most three sessions. We seal with `current` only; we open with all.
///
/// `next` was made as responder and is not used to seal until the initiator has confirmed it by
/// the first authenticated data.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Option<Box<Session>>,
    previous: Option<Box<Session>>,
    next: Option<Box<Session>>,
}

impl Sessions {
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.previous.is_none() && self.next.is_none()
    }

    pub(crate) fn current(&mut self) -> Option<&mut Session> {
        self.current.as_deref_mut()
    }

    pub(crate) fn peek_current(&self) -> Option<&Session> {
        self.current.as_deref()
    }

    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    pub(crate) fn by_index(&mut self, index: u32) -> Option<(Slot, &mut Session)> {
        let slots = [
            (Slot::Current, &mut self.current),
            (Slot::Next, &mut self.next),
            (Slot::Previous, &mut self.previous),
        ];
        slots
            .into_iter()
            .find_map(|(slot, session)| match session.as_deref_mut() {
                Some(session) if session.local_index == index => {
                    let slot = if session.superseded {
                        Slot::Previous
                    } else {
                        slot
                    };
                    Some((slot, session))
                }
                _ => None,
            })
    }

    pub(crate) fn slot_of(&self, index: u32) -> Option<Slot> {
        [
            (Slot::Current, &self.current),
            (Slot::Next, &self.next),
            (Slot::Previous, &self.previous),
        ]
        .into_iter()
        .find(|(_, session)| session.as_ref().is_some_and(|s| s.local_index == index))
        .map(|(slot, _)| slot)
    }

    /// Takes a new session in and calls `gone` with the index of each that leaves.
    ///
    /// When both sides initiated at once there are two fresh sessions. `peers_wins` says that the
    /// peer's (in `next`) is to win: it takes over with its first data. Else it is superseded and
    /// never takes over, so that both sides settle on the same one. In both cases it goes on
    /// opening, as does the session before, since the peer seals with them until it has settled.
    pub(crate) fn add(&mut self, session: Box<Session>, peers_wins: bool, gone: impl FnMut(u32)) {
        let mut gone = gone;
        let mut leave = |old: Option<Box<Session>>| {
            if let Some(old) = old {
                gone(old.local_index);
            }
        };
        match session.role {
            Role::Initiator => {
                if let Some(next) = &mut self.next {
                    next.superseded |= !peers_wins;
                }
                leave(core::mem::replace(&mut self.previous, self.current.take()));
                self.current = Some(session);
            }
            Role::Responder => {
                leave(self.next.replace(session));
            }
        }
    }

    /// The initiator has shown that it holds the keys of `next`: seal with it from now on.
    pub(crate) fn confirm_next(&mut self, mut gone: impl FnMut(u32)) {
        if let Some(next) = self.next.take() {
            let old = core::mem::replace(&mut self.previous, self.current.replace(next));
            if let Some(old) = old {
                gone(old.local_index);
            }
        }
    }

    /// Drops what has expired, or with `all`, everything.
    pub(crate) fn expire(&mut self, now: Instant, all: bool, mut gone: impl FnMut(u32)) {
        for slot in [&mut self.current, &mut self.previous, &mut self.next] {
            if slot
                .as_ref()
                .is_some_and(|session| all || session.is_expired(now))
                && let Some(session) = slot.take()
            {
                gone(session.local_index);
            }
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        [&self.current, &self.previous, &self.next]
            .into_iter()
            .filter_map(|slot| slot.as_ref().map(|session| session.expires_at()))
            .min()
    }
}
