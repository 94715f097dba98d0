//! What all peers of a node share: identity, randomness, indices, queues, the wheel.
//!
//! Owns the ways to draw an index or a timestamp, to queue a datagram or an event, and to schedule
//! a peer. Everything here has a limit; what does not fit is dropped and counted.

use super::Transmit;
use super::agreement::Verdict;
use crate::agreeing::Agreeing;
use crate::clock::WallClock;
use crate::config::{Admission, Limits, NewNodeError, NodeConfig, Path};
use crate::counters::{Counters, DropReason};
use crate::drbg::{Drbg, Jitter};
use crate::event::Event;
use crate::load::Load;
use crate::peer::{Peer, PeerKey};
use crate::prefixes::Prefixes;
use crate::staged::StagingPool;
use crate::wheel::Wheel;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};
use core::net::Ipv6Addr;
use core::time::Duration;
use hashbrown::HashMap;
use wiremesh_control::Plane;
use wiremesh_noise::{CookieChecker, LocalIdentity};
use wiremesh_wire::{Instant, Now, Tai64n, UnixTime, address};

/// Our indices are random already, so one multiplication spreads them.
#[derive(Default)]
pub(super) struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, index: u32) {
        self.0 = (self.0 ^ u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Everything of a node that is not a peer.
pub(super) struct Shared {
    pub(super) local: LocalIdentity,
    /// Our own control address.
    pub(super) control_address: Ipv6Addr,
    /// The control protocol, if the node takes part in it.
    pub(super) suites: Option<Box<Agreeing>>,
    /// Strangers about whom it has decided.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) admission: Admission,
    pub(super) limits: Limits,
    pub(super) mtu_bytes: usize,
    pub(super) drbg: Drbg,
    pub(super) jitter: Jitter,
    pub(super) prefixes: Prefixes,
    pub(super) indices: HashMap<u32, PeerKey, BuildHasherDefault<IndexHasher>>,
    pub(super) wheel: Wheel,
    pub(super) load: Load,
    pub(super) cookies: CookieChecker,
    pub(super) staging: StagingPool,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
    last_timestamp: Option<Tai64n>,
    reserved: Option<Tai64n>,
    pub(super) clock: WallClock,
}

/// How far ahead timestamps are reserved on disk, so that it is written rarely.
const RESERVE: Duration = Duration::from_secs(60);

impl Shared {
    pub(super) fn new(config: NodeConfig, seed: [u8; 32], now: Now) -> Result<Self, NewNodeError> {
        let mut drbg = Drbg::new(seed);
        let jitter_seed = u64::from(drbg.draw_u32(now));
        let cookie_secret = *drbg.draw32(now);
        let local = LocalIdentity::new(config.secret_key).map_err(NewNodeError::Key)?;
        let suites = config
            .control
            .map(|control| Agreeing::new(control, Plane::Engine, &local, &mut drbg, now))
            .transpose()
            .map_err(NewNodeError::Policy)?
            .map(Box::new);
        let mut events = VecDeque::new();
        events.extend(suites.as_deref().map(Agreeing::save_record_seq));
        Ok(Self {
            cookies: CookieChecker::new(&local, cookie_secret, now.instant),
            control_address: address::control_address(&local.node_id()),
            suites,
            verdicts: Vec::new(),
            local,
            admission: config.admission,
            limits: config.limits,
            mtu_bytes: usize::from(config.mtu_bytes),
            drbg,
            jitter: Jitter::new(jitter_seed),
            prefixes: Prefixes::new(config.routing),
            indices: HashMap::default(),
            wheel: Wheel::new(now.instant),
            load: Load::new(config.limits.handshakes_per_second_max, now.instant),
            staging: StagingPool::new(config.limits.staged_bytes_max),
            transmits: VecDeque::new(),
            events,
            counters: Counters::default(),
            last_timestamp: config.timestamp_floor,
            reserved: config.timestamp_floor,
            clock: WallClock::new(now),
        })
    }

    /// Draws an index that nothing of ours uses, and binds it to the peer.
    pub(super) fn bind_index(&mut self, now: Now, peer: PeerKey) -> u32 {
        loop {
            let index = self.drbg.draw_u32(now);
            if !self.indices.contains_key(&index) {
                self.indices.insert(index, peer);
                return index;
            }
        }
    }

    /// The timestamp of our next initiation: the clock, or just above the last one if the clock
    /// went back. Rounded to 2^24 ns, as the Linux implementation does, to tell less of the clock.
    pub(super) fn next_timestamp(&mut self, now: Now) -> Tai64n {
        let since = now.unix.as_duration();
        let nanos = since.subsec_nanos() & !0x00ff_ffff;
        let clock = Tai64n::from_unix(UnixTime::from_secs_nanos(since.as_secs(), nanos));
        let ahead = self.last_timestamp.is_some_and(|last| clock <= last);
        let timestamp = match self.last_timestamp {
            Some(last) if ahead => last.next(),
            _ => clock,
        };
        self.last_timestamp = Some(timestamp);
        if self.reserved.is_none_or(|reserved| timestamp >= reserved) {
            // Ahead of the clock a small step does, so that restarts do not run away from it.
            let step = if ahead {
                Duration::from_secs(1)
            } else {
                RESERVE
            };
            let reserved = plus(timestamp, step);
            // Without room for the event nothing is reserved, and the next timestamp asks again.
            if self.push_event(Event::ReserveTimestamps(reserved)) {
                self.reserved = Some(reserved);
            }
        }
        timestamp
    }

    /// Queues an event; `false` if there is no room.
    pub(super) fn push_event(&mut self, event: Event) -> bool {
        let room = self.events.len() < self.limits.events_max;
        if room {
            self.events.push_back(event);
        } else {
            self.counters.drop_for(DropReason::EventsFull);
        }
        room
    }

    /// Queues an event that must not be lost, whatever the limit: it is to be on disk before what
    /// is sent next.
    pub(super) fn push_vital_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Queues a datagram; `false` if there is no room.
    pub(super) fn push_transmit(&mut self, path: Path, datagram: Vec<u8>) -> bool {
        self.push_marked(path, datagram, 0)
    }

    /// Queues a datagram with an ECN codepoint outside; `false` if there is no room.
    pub(super) fn push_marked(&mut self, path: Path, datagram: Vec<u8>, ecn: u8) -> bool {
        if self.transmits.len() >= self.limits.transmits_max {
            self.counters.drop_for(DropReason::LimitReached);
            return false;
        }
        let transmit = Transmit {
            path,
            datagram,
            ecn,
        };
        self.transmits.push_back(transmit);
        true
    }

    /// Makes sure that the wheel looks at the peer by its next deadline.
    pub(super) fn schedule(&mut self, peer: &mut Peer) {
        let Some(deadline) = peer.next_deadline() else {
            return;
        };
        let tick = self.wheel.tick_for(deadline);
        if peer.scheduled.is_none_or(|at| tick < at) {
            peer.scheduled = Some(tick);
            self.wheel.insert(tick, peer.key);
        }
    }

    /// Frees what the node holds for a peer that is being removed.
    pub(super) fn forget(&mut self, peer: &mut Peer) {
        let own = self.prefixes.own(peer.overlay, peer.control);
        let nets = own.iter().chain(peer.allowed_ips.iter());
        self.prefixes.take(peer.key, nets);
        self.drop_link(peer);
    }

    /// Ends all sessions and the handshake of a peer.
    pub(super) fn drop_link(&mut self, peer: &mut Peer) {
        if let Some(mut link) = peer.link.take() {
            if let Some(pending) = &link.pending {
                self.indices.remove(&pending.local_index);
            }
            link.sessions.expire(Instant::ZERO, true, |index| {
                self.indices.remove(&index);
            });
        }
    }
}

/// The timestamp whole seconds later.
fn plus(timestamp: Tai64n, step: Duration) -> Tai64n {
    let mut bytes = *timestamp.as_bytes();
    let (seconds, _) = bytes
        .split_first_chunk_mut::<8>()
        .expect("a timestamp has 12 bytes");
    *seconds = u64::from_be_bytes(*seconds)
        .saturating_add(step.as_secs())
        .to_be_bytes();
    Tai64n::from_bytes(bytes)
}
