//! The sessions of one peer: current, previous, and next; and the one below the gate.
//!
//! Owns the rotation rules; knows no timers and no bytes. Source: WireGuard paper section 6.3,
//! and for the case that both sides initiate at once, our own rule (see [`Sessions::add`]).

use crate::psk_slots::PskTag;
use alloc::boxed::Box;
use core::cmp::Ordering;
use core::time::Duration;
use wiremesh_noise::constants::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
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
    /// Which preshared key made it.
    pub(crate) psk: PskTag,
    /// The gate rose above it: what the peer has sent until it knows still passes until then.
    passes_until: Option<Instant>,
    /// The greatest counter that authenticated: only newer data moves the endpoint.
    pub(crate) newest_counter: Option<u64>,
    /// Of two handshakes that crossed the other one won: this one only opens what is on its way.
    pub(crate) superseded: bool,
    /// The rekey on receipt just before expiry happens once.
    pub(crate) last_minute_rekey_done: bool,
}

impl Session {
    pub(crate) fn new(keys: SessionKeys, birth: Instant, psk: PskTag) -> Box<Self> {
        Box::new(Self {
            local_index: keys.local_index,
            role: keys.role,
            sealer: Sealer::new(keys.sealing, keys.remote_index),
            opener: Opener::new(keys.opening),
            birth,
            psk,
            passes_until: None,
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
    Below,
}

/// How long data passes on a session above which the gate rose: the peer may not know it yet.
const GRACE: Duration = Duration::from_secs(5);

/// At most four sessions. Data is sealed with `current` only; we open with all.
///
/// `next` was made as responder and is not used to seal until the initiator has confirmed it by
/// the first authenticated data. `current` is at or above the gate; `below` is usable, but under
/// the gate when it came, so it carries control packets. `previous` only opens.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Option<Box<Session>>,
    previous: Option<Box<Session>>,
    next: Option<Box<Session>>,
    below: Option<Box<Session>>,
}

impl Sessions {
    fn all(&self) -> impl Iterator<Item = (Slot, &Session)> {
        [
            (Slot::Current, &self.current),
            (Slot::Next, &self.next),
            (Slot::Previous, &self.previous),
            (Slot::Below, &self.below),
        ]
        .into_iter()
        .filter_map(|(slot, session)| session.as_deref().map(|session| (slot, session)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Whether any session, confirmed or not, is at this level or above.
    pub(crate) fn reach(&self, level: u8) -> bool {
        self.all().any(|(_, session)| session.psk.level >= level)
    }

    /// The session that data goes out on.
    pub(crate) fn peek_current(&self) -> Option<&Session> {
        self.current.as_deref()
    }

    /// A session to seal with: one of the two places that have such.
    pub(crate) fn sealing(&mut self, slot: Slot) -> Option<&mut Session> {
        match slot {
            Slot::Current => self.current.as_deref_mut(),
            Slot::Below => self.below.as_deref_mut(),
            Slot::Previous | Slot::Next => None,
        }
    }

    /// Where the youngest live session is that we may seal with. The peer proved last that it
    /// holds that one, so what must reach it goes there: control packets and keepalives.
    pub(crate) fn youngest(&self, now: Instant) -> Option<Slot> {
        let birth = |session: &Option<Box<Session>>| {
            let live = session.as_ref().filter(|session| !session.is_expired(now));
            live.map(|session| session.birth)
        };
        match (birth(&self.current), birth(&self.below)) {
            (Some(current), Some(below)) if below > current => Some(Slot::Below),
            (Some(_), _) => Some(Slot::Current),
            (None, Some(_)) => Some(Slot::Below),
            (None, None) => None,
        }
    }

    /// The session in use: the live one for data, else the live one for control.
    pub(crate) fn in_use(&self, now: Instant) -> Option<&Session> {
        [&self.current, &self.below]
            .into_iter()
            .filter_map(|session| session.as_deref())
            .find(|session| !session.is_expired(now))
    }

    pub(crate) fn has_sealing(&self) -> bool {
        self.current.is_some() || self.below.is_some()
    }

    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// The key of our last response, while an initiator that could not use it may still try again.
    pub(crate) fn not_taken_up(&self, now: Instant) -> Option<PskTag> {
        self.next
            .as_ref()
            .filter(|next| !next.superseded && now < next.birth + REKEY_ATTEMPT_TIME)
            .map(|next| next.psk)
    }

    /// Where a session is, if nothing was sealed with it yet.
    pub(crate) fn unused(&self, index: u32) -> Option<Slot> {
        self.all()
            .find(|(_, session)| session.local_index == index)
            .filter(|(_, session)| session.sealer.next_counter() == 0)
            .map(|(slot, _)| slot)
    }

    pub(crate) fn by_index(&mut self, index: u32) -> Option<(Slot, &mut Session)> {
        let slots = [
            (Slot::Current, &mut self.current),
            (Slot::Next, &mut self.next),
            (Slot::Previous, &mut self.previous),
            (Slot::Below, &mut self.below),
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
        self.all()
            .find(|(_, session)| session.local_index == index)
            .map(|(slot, _)| slot)
    }

    /// Whether data of a session under the gate still passes, since it did until just now.
    pub(crate) fn is_in_grace(&self, index: u32, now: Instant) -> bool {
        self.all()
            .find(|(_, session)| session.local_index == index)
            .and_then(|(_, session)| session.passes_until)
            .is_some_and(|until| now < until)
    }

    /// Takes a new session in and calls `gone` with the index of each that leaves.
    ///
    /// When both sides initiated at once there are two fresh sessions, and the one of the higher
    /// level wins; of equal ones `peers_wins` says whether the peer's (in `next`) is to win. If so
    /// it takes over with its first data. Else it is superseded and never takes over, so that both
    /// sides settle on the same one. In both cases it goes on opening, as does the session before,
    /// since the peer seals with them until it has settled.
    pub(crate) fn add(
        &mut self,
        session: Box<Session>,
        peers_wins: bool,
        gate: u8,
        mut gone: impl FnMut(u32),
    ) {
        match session.role {
            Role::Initiator => {
                if let Some(next) = &mut self.next {
                    next.superseded |= match session.psk.level.cmp(&next.psk.level) {
                        Ordering::Greater => true,
                        Ordering::Equal => !peers_wins,
                        Ordering::Less => false,
                    };
                }
                self.use_from_now_on(session, gate, gone);
            }
            Role::Responder => {
                if let Some(old) = self.next.replace(session) {
                    gone(old.local_index);
                }
            }
        }
    }

    /// The initiator has shown that it holds the keys of `next`: seal with it from now on.
    pub(crate) fn confirm_next(&mut self, gate: u8, gone: impl FnMut(u32)) -> Option<PskTag> {
        let next = self.next.take()?;
        let made_with = next.psk;
        self.use_from_now_on(next, gate, gone);
        Some(made_with)
    }

    fn use_from_now_on(&mut self, session: Box<Session>, gate: u8, mut gone: impl FnMut(u32)) {
        if session.psk.level >= gate {
            let old = core::mem::replace(&mut self.previous, self.current.replace(session));
            old.iter().for_each(|old| gone(old.local_index));
        } else if let Some(old) = self.below.replace(session) {
            self.retire(old, gate, gone);
        }
    }

    /// Goes on opening with a session that was below the gate, unless that would displace a better
    /// one.
    fn retire(&mut self, session: Box<Session>, gate: u8, mut gone: impl FnMut(u32)) {
        let better = |previous: &Session| previous.psk.level >= gate;
        if self.previous.as_deref().is_some_and(better) {
            gone(session.local_index);
        } else if let Some(old) = self.previous.replace(session) {
            gone(old.local_index);
        }
    }

    /// The gate rises or falls from `old` to `gate`: `current` goes, or `below` takes its place.
    pub(crate) fn move_gate(&mut self, now: Instant, old: u8, gate: u8, mut gone: impl FnMut(u32)) {
        for session in [&mut self.current, &mut self.previous, &mut self.below]
            .into_iter()
            .filter_map(|session| session.as_deref_mut())
        {
            if session.psk.level >= old && session.psk.level < gate {
                session.passes_until = Some(now + GRACE);
            }
        }
        if let Some(low) = self.current.take_if(|current| current.psk.level < gate) {
            let (young, old) = match self.below.take() {
                Some(below) if below.birth > low.birth => (below, Some(low)),
                below => (low, below),
            };
            self.below = Some(young);
            if let Some(old) = old {
                self.retire(old, gate, &mut gone);
            }
        }
        self.promote(gate);
    }

    /// The peer was restarted: what was made before the session below the gate is dead there.
    pub(crate) fn abandon_older(&mut self, mut gone: impl FnMut(u32)) {
        let Some(since) = self.below.as_ref().map(|below| below.birth) else {
            return;
        };
        for slot in [&mut self.current, &mut self.previous] {
            if let Some(dead) = slot.take_if(|session| session.birth < since) {
                gone(dead.local_index);
            }
        }
    }

    /// With no session for data left, `below` serves, if the gate has fallen enough.
    pub(crate) fn promote(&mut self, gate: u8) {
        if self.current.is_none() {
            self.current = self.below.take_if(|below| below.psk.level >= gate);
        }
    }

    /// Drops what has expired, or with `all`, everything.
    pub(crate) fn expire(&mut self, now: Instant, all: bool, mut gone: impl FnMut(u32)) {
        for slot in [
            &mut self.current,
            &mut self.previous,
            &mut self.next,
            &mut self.below,
        ] {
            if let Some(session) = slot.take_if(|session| all || session.is_expired(now)) {
                gone(session.local_index);
            }
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.all().map(|(_, session)| session.expires_at()).min()
    }
}
