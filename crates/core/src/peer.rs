//! One peer: who it is, where it is, and (only while there is something to keep) its link.
//!
//! Owns the state; the moves are in `node/`. A configured peer without handshake or session is
//! one small allocation: everything bigger hangs below [`Link`].

use crate::config::Path;
use crate::psk_slots::PskSlots;
use crate::remote::Remote;
use crate::sessions::Sessions;
use crate::staged::Staged;
use crate::timers::Timers;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;
use wiremesh_control::PeerSettings;
use wiremesh_control::machine::{ADMISSION_TIME, Machine};
use wiremesh_noise::constants::{REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME};
use wiremesh_noise::{CookieState, InitiatorHandshake};
use wiremesh_wire::{Instant, IpNet, Tai64n, UnixTime};

/// A handle of a peer. It stays unique: a removed peer's handle never names another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    index: u32,
    generation: u32,
}

impl PeerKey {
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// Makes a handle that no node gave, for an [`Egress`](crate::Egress) without a node.
    #[must_use]
    pub const fn detached(index: u32) -> Self {
        Self {
            index,
            generation: u32::MAX,
        }
    }

    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    pub(crate) fn generation(self) -> u32 {
        self.generation
    }

    #[cfg(test)]
    pub(crate) fn for_test(index: u32) -> Self {
        Self {
            index,
            generation: 0,
        }
    }
}

/// Our own initiation that waits for its response.
pub(crate) struct PendingHandshake {
    pub(crate) state: InitiatorHandshake,
    pub(crate) local_index: u32,
    pub(crate) sent_at: Instant,
    pub(crate) retry_at: Instant,
}

/// What exists only while a handshake runs, a session lives, or a packet waits.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) pending: Option<Box<PendingHandshake>>,
    /// When the run of initiations began that is not answered yet.
    pub(crate) attempt_began: Option<Instant>,
    /// When the run began that has had its quick retry.
    pub(crate) quick_retry_of: Option<Instant>,
    pub(crate) sessions: Sessions,
    pub(crate) cookie: CookieState,
    pub(crate) timers: Timers,
    /// Packets that wait for a session, each with the time since when.
    pub(crate) staged: VecDeque<(Instant, Staged)>,
}

impl Link {
    fn is_idle(&self) -> bool {
        self.pending.is_none()
            && self.attempt_began.is_none()
            && self.sessions.is_empty()
            && self.staged.is_empty()
    }

    /// When the first staged packet has waited long enough, where no attempt to get a session
    /// decides that: there is one, but below the gate.
    pub(crate) fn staged_until(&self) -> Option<Instant> {
        if self.attempt_began.is_some() || self.sessions.peek_current().is_some() {
            return None;
        }
        let (since, _) = self.staged.front()?;
        Some(*since + REKEY_ATTEMPT_TIME)
    }
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) remote: Remote,
    pub(crate) psks: PskSlots,
    /// The level that a session needs to carry more than control packets.
    pub(crate) gate: u8,
    /// The operator named it as stock WireGuard: no control protocol.
    pub(crate) stock: bool,
    /// What the operator or the application says of its security, where that is anything.
    pub(crate) settings: Option<Box<PeerSettings>>,
    /// The control protocol with it, from the first session on.
    pub(crate) machine: Option<Box<Machine>>,
    /// Both ends take stream packets without IP and UDP headers.
    pub(crate) bare_streams: bool,
    /// It has spoken the control protocol: it is no stock WireGuard.
    pub(crate) speaks_control: bool,
    /// One initiation may come right behind the last one: the peer has just been given a key.
    pub(crate) expects_initiation: bool,
    pub(crate) path: Option<Path>,
    /// Further places where it may be; initiations go to all of them until one answers.
    pub(crate) candidates: Box<[SocketAddr]>,
    pub(crate) overlay: Ipv6Addr,
    pub(crate) control: Ipv6Addr,
    pub(crate) allowed_ips: Box<[IpNet]>,
    pub(crate) persistent_keepalive: Option<Duration>,
    /// When a persistent keepalive is due; moves with every authenticated message.
    pub(crate) persistent_due: Option<Instant>,
    /// The greatest timestamp of a valid initiation.
    pub(crate) greatest_timestamp: Option<Tai64n>,
    pub(crate) last_initiation_received: Option<Instant>,
    pub(crate) last_initiation_sent: Option<Instant>,
    /// A provisional peer goes with its last session; until it confirmed, at this time.
    pub(crate) provisional: Option<Provisional>,
    pub(crate) link: Option<Box<Link>>,
    /// The wheel's tick of the entry that counts; others of this peer are out of date.
    pub(crate) scheduled: Option<u64>,
    pub(crate) stats: PeerStats,
}

/// State of a stranger that was let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provisional {
    /// It has not shown that it received our response.
    UnconfirmedUntil(Instant),
    /// It has not shown a proof that the application accepts.
    Unproven(Instant),
    /// It has.
    Confirmed,
}

/// What status shows of a peer.
#[derive(Clone, Copy, Default)]
pub(crate) struct PeerStats {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) last_handshake: Option<UnixTime>,
    pub(crate) last_handshake_time: Option<Duration>,
    pub(crate) last_received: Option<Instant>,
    pub(crate) gave_up: bool,
}

impl Peer {
    pub(crate) fn link(&mut self) -> &mut Link {
        self.link.get_or_insert_with(Box::default)
    }

    /// Lets go of the link when nothing in it is needed any more.
    pub(crate) fn trim(&mut self) {
        if self.link.as_ref().is_some_and(|link| link.is_idle()) {
            self.link = None;
        }
    }

    /// A stranger has shown that it received our response. One that needs a proof has until then.
    pub(crate) fn confirm_stranger(&mut self, now: Instant) {
        let unproven = |peer: &Self| peer.settings.as_ref().is_some_and(|s| s.needs_admission);
        self.provisional = match self.provisional {
            Some(Provisional::UnconfirmedUntil(_)) if unproven(self) => {
                Some(Provisional::Unproven(now + ADMISSION_TIME))
            }
            Some(Provisional::UnconfirmedUntil(_)) => Some(Provisional::Confirmed),
            other => other,
        };
    }

    /// Anything authenticated went either way: the persistent keepalive starts over.
    pub(crate) fn on_traversal(&mut self, now: Instant) {
        self.persistent_due = self.persistent_keepalive.map(|every| now + every);
    }

    /// The earliest time at which something is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut next = self.persistent_due;
        let mut add = |at: Option<Instant>| {
            if let Some(at) = at {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        };
        if let Some(link) = &self.link {
            add(link.pending.as_ref().map(|pending| pending.retry_at));
            add(link.sessions.next_expiry());
            add(link.timers.next());
            add(link.staged_until());
            // Packets staged with nothing under way must not stay for ever.
            if link.pending.is_none() && link.sessions.is_empty() {
                add(link.attempt_began.map(|began| began + REJECT_AFTER_TIME));
            }
        }
        if let Some(Provisional::UnconfirmedUntil(at) | Provisional::Unproven(at)) =
            self.provisional
        {
            add(Some(at));
        }
        add(self.machine.as_deref().and_then(Machine::next_deadline));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node may have a hundred thousand peers, of which few have a link.
    #[test]
    fn an_idle_peer_is_small() {
        assert!(size_of::<Peer>() <= 448, "{}", size_of::<Peer>());
    }
}
