//! The egress scheduler: what is sent next, decided before anything is sealed.
//!
//! Owns the queues in front of sealing, their order (class, then peer, then age), the pace of the
//! uplink and of each peer's path, and the queueing delay per class. Never sees a nonce, so nothing
//! is reordered after one was assigned; never looks into what waits. docs/priority.md.
//!
//! Two kinds of things wait here. A *packet* of a source that cannot be held back waits itself. A
//! *turn* of a source that can be (a QUIC connection) stands for a packet that is not here: its
//! owner keeps the packet until the turn comes, so data waits in streams and not in packets.

mod config;
mod delays;
mod ledger;
mod pace;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_wire::{Instant, Priority};

use crate::peer::PeerKey;
pub use config::{EgressConfig, InvalidEgress, RATE_MAX, RATE_MIN};
pub use delays::{ClassDelays, Delays};
pub use ledger::Ledger;
use pace::{ADVANCE, Pace};

/// Bytes that a peer may send in its turn of a round.
const QUANTUM: usize = 1_500;
/// How long packets of one peer and class may have to wait at the pace before more are dropped.
const WAIT_MAX: Duration = Duration::from_millis(25);
/// The same where the source can be held back.
const HELD_BACK_WAIT: Duration = Duration::from_millis(2);
/// How late a class may be served in its minimum share and still count from when it was due: a packet
/// of another class is on the link, a timer is late, or a turn is being answered. What urgent packets
/// took in advance comes on top.
const LATE_MAX: Duration = Duration::from_millis(3);
/// Packets of the largest usual size that may wait, however slow the pace.
const PACKETS_MIN: usize = 10;
const HELD_BACK_PACKETS: usize = 2;
const CLASSES: usize = Priority::ALL.len();

/// What is to be sent, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The peer that it goes to.
    pub peer: PeerKey,
    /// Whose turn it is to be; 0 for a packet.
    pub flow: u64,
    /// Its class.
    pub class: Priority,
    /// Bytes on the wire, with all headers.
    pub len: usize,
    /// When it is worth nothing any more.
    pub expiry: Option<Instant>,
}

/// Something whose turn has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Departure<T> {
    /// The peer that it goes to.
    pub peer: PeerKey,
    /// The class in which it waited.
    pub class: Priority,
    /// What was offered.
    pub item: T,
}

struct Waiting<T> {
    flow: u64,
    len: usize,
    since: Instant,
    expiry: Option<Instant>,
    item: T,
}

struct Queue<T> {
    items: VecDeque<Waiting<T>>,
    bytes: usize,
    deficit: usize,
    in_ring: bool,
}

struct Lane<T> {
    pace: Option<Pace>,
    parked: Option<Instant>,
    queues: [Queue<T>; CLASSES],
}

/// The scheduler. Costs nothing per peer that neither waits nor has a pace of its own.
pub struct Egress<T> {
    uplink: Option<Pace>,
    shares: [u8; CLASSES],
    lanes: BTreeMap<PeerKey, Lane<T>>,
    /// Peers with something of the class that may go as soon as the uplink is free.
    rings: [VecDeque<PeerKey>; CLASSES],
    /// When a class may go before better ones, for its minimum share.
    due: [Instant; CLASSES],
    /// Peers whose own pace holds them back.
    parked: BTreeSet<(Instant, PeerKey)>,
    /// What is next is not urgent, but a class that has waited for its share.
    none_in_advance: bool,
    waiting: usize,
    delays: Delays,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            deficit: 0,
            in_ring: false,
        }
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self {
            pace: None,
            parked: None,
            queues: [Queue::new(), Queue::new(), Queue::new()],
        }
    }

    fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.items.is_empty())
    }
}

impl<T> Egress<T> {
    /// A scheduler without anything in it.
    #[must_use]
    pub fn new(config: &EgressConfig) -> Self {
        Self {
            uplink: config.rate_bits.map(Pace::new),
            shares: config.shares_percent,
            lanes: BTreeMap::new(),
            rings: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            due: [Instant::ZERO; CLASSES],
            parked: BTreeSet::new(),
            none_in_advance: false,
            waiting: 0,
            delays: Delays::default(),
        }
    }

    /// Sets the pace of all that leaves, in bits per second of datagrams with their IP headers;
    /// `None` for none.
    pub fn set_rate(&mut self, rate_bits: Option<u64>) {
        self.uplink = match (self.uplink.take(), rate_bits) {
            (Some(pace), Some(rate)) => Some(pace.at(rate)),
            (None, rate) => rate.map(Pace::new),
            (Some(_), None) => None,
        };
    }

    /// The pace of all that leaves.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.uplink.as_ref().map(Pace::rate_bits)
    }

    /// Sets the pace of what goes to one peer.
    pub fn set_peer_rate(&mut self, peer: PeerKey, rate_bits: Option<u64>) {
        if rate_bits.is_none() && !self.lanes.contains_key(&peer) {
            return;
        }
        let lane = self.lanes.entry(peer).or_insert_with(Lane::new);
        lane.pace = match (lane.pace.take(), rate_bits) {
            (Some(pace), Some(rate)) => Some(pace.at(rate)),
            (None, rate) => rate.map(Pace::new),
            (Some(_), None) => None,
        };
        if let Some(at) = lane.parked.take() {
            self.parked.remove(&(at, peer));
            lane.parked = lane.pace.as_ref().map(Pace::free_at);
            match lane.parked {
                Some(at) => self.parked.extend([(at, peer)]),
                None => self.enter_rings(peer),
            }
        }
        self.forget_if_idle(peer);
    }

    /// The pace of what goes to one peer, if it has one of its own.
    #[must_use]
    pub fn peer_rate(&self, peer: PeerKey) -> Option<u64> {
        let lane = self.lanes.get(&peer)?;
        lane.pace.as_ref().map(Pace::rate_bits)
    }

    /// The pace that what goes to one peer has: the slower of its own and the uplink's.
    #[must_use]
    pub fn rate_to(&self, peer: PeerKey) -> Option<u64> {
        self.peer_rate(peer).into_iter().chain(self.rate()).min()
    }

    /// The slowest pace that there is: what is cut for it fits all.
    #[must_use]
    pub fn slowest_rate(&self) -> Option<u64> {
        let peers = self.lanes.values().filter_map(|lane| lane.pace.as_ref());
        peers.chain(&self.uplink).map(Pace::rate_bits).min()
    }

    /// Whether what goes to this peer has a pace at all. If not, nothing has to wait here.
    #[must_use]
    pub fn is_paced(&self, peer: PeerKey) -> bool {
        self.uplink.is_some() || (!self.lanes.is_empty() && self.lanes.contains_key(&peer))
    }

    /// Lets something leave at once, if nothing has to go before it (`true`; it is charged).
    pub fn admit(&mut self, now: Instant, demand: &Demand) -> bool {
        self.unpark(now);
        let class = demand.class.index();
        let before = &self.rings[..=class];
        if before.iter().any(|ring| !ring.is_empty()) || !self.is_free(now, demand) {
            return false;
        }
        if (class + 1..CLASSES).any(|class| self.is_owed(class, now)) {
            return false;
        }
        self.charge(now, demand.peer, demand.class, demand.len);
        self.delays.left(demand.class, demand.len, Duration::ZERO);
        true
    }

    /// Accounts for bytes that leave without waiting, such as a handshake.
    pub fn charge_uplink(&mut self, now: Instant, len: usize) {
        if let Some(uplink) = &mut self.uplink {
            uplink.charge(now, len);
        }
    }

    /// Whether a source that can be held back may offer another packet.
    #[must_use]
    pub fn has_room(&self, peer: PeerKey, class: Priority) -> bool {
        self.fits(peer, class, 0, HELD_BACK_WAIT, HELD_BACK_PACKETS)
    }

    fn fits(&self, peer: PeerKey, class: Priority, len: usize, wait: Duration, min: usize) -> bool {
        let Some(lane) = self.lanes.get(&peer) else {
            return true;
        };
        let pace = [&lane.pace, &self.uplink].into_iter().flatten();
        let limit = pace.map(|pace| pace.bytes_in(wait)).min();
        let limit = limit.unwrap_or(usize::MAX).max(min * QUANTUM);
        lane.queues[class.index()].bytes + len <= limit
    }

    /// Puts a packet into its queue, or a turn of a flow that has none waiting.
    ///
    /// # Errors
    ///
    /// The packet, when more waits already than leaves within 25 ms; it is counted as dropped. A
    /// turn always finds room.
    pub fn offer(&mut self, now: Instant, demand: Demand, item: T) -> Result<(), T> {
        let Demand {
            peer, class, len, ..
        } = demand;
        if demand.flow == 0 && !self.fits(peer, class, len, WAIT_MAX, PACKETS_MIN) {
            self.delays.dropped(class);
            return Err(item);
        }
        let waiting = Waiting {
            flow: demand.flow,
            len,
            since: now,
            expiry: demand.expiry,
            item,
        };
        self.put(now, peer, class, waiting);
        Ok(())
    }

    fn put(&mut self, now: Instant, peer: PeerKey, class: Priority, waiting: Waiting<T>) {
        let share = self.share_interval(peer, class, QUANTUM);
        let class = class.index();
        if self.rings[class].is_empty() && self.due[class] + self.late_max(peer) < now {
            // It had nothing to send and missed nothing: its share begins now.
            self.due[class] = share.map_or(now, |share| now + share);
        }
        let lane = self.lanes.entry(peer).or_insert_with(Lane::new);
        let queue = &mut lane.queues[class];
        if waiting.flow == 0 {
            queue.bytes += waiting.len;
        }
        queue.items.push_back(waiting);
        self.waiting += 1;
        self.none_in_advance = false;
        self.enter_rings(peer);
    }

    /// Lets what waits of a flow go in a better class, if it waits in a worse one.
    pub fn promote(&mut self, now: Instant, peer: PeerKey, flow: u64, class: Priority) {
        for worse in class.index() + 1..CLASSES {
            let Some(item) = self.take(peer, worse, flow) else {
                continue;
            };
            self.put(now, peer, class, item);
            return;
        }
    }

    /// Takes back what waits of a flow.
    pub fn cancel(&mut self, peer: PeerKey, flow: u64) -> Option<T> {
        let item = (0..CLASSES).find_map(|class| self.take(peer, class, flow))?;
        self.forget_if_idle(peer);
        Some(item.item)
    }

    fn take(&mut self, peer: PeerKey, class: usize, flow: u64) -> Option<Waiting<T>> {
        let queue = &mut self.lanes.get_mut(&peer)?.queues[class];
        let at = queue.items.iter().position(|item| item.flow == flow)?;
        let item = queue.items.remove(at)?;
        self.waiting -= 1;
        if item.flow == 0 {
            queue.bytes -= item.len;
        }
        Some(item)
    }

    /// Takes back all that waits for a peer and forgets its pace.
    pub fn remove_peer(&mut self, peer: PeerKey) -> Vec<T> {
        let Some(lane) = self.lanes.remove(&peer) else {
            return Vec::new();
        };
        if let Some(at) = lane.parked {
            self.parked.remove(&(at, peer));
        }
        for (queue, ring) in lane.queues.iter().zip(&mut self.rings) {
            if queue.in_ring {
                ring.retain(|other| *other != peer);
            }
        }
        let items = lane.queues.into_iter().flat_map(|queue| queue.items);
        let items: Vec<T> = items.map(|waiting| waiting.item).collect();
        self.waiting -= items.len();
        items
    }

    /// What may leave now, the best first; `None`: come back at [`Egress::poll_timeout`].
    pub fn poll(&mut self, now: Instant) -> Option<Departure<T>> {
        if self.waiting == 0 {
            return None;
        }
        self.unpark(now);
        self.none_in_advance = false;
        let uplink = self.uplink.as_ref();
        if uplink.is_some_and(|uplink| !uplink.is_free_for(now, Priority::Urgent)) {
            return None;
        }
        loop {
            let class = self.next_class(now)?;
            let uplink = self.uplink.as_ref();
            if uplink.is_some_and(|uplink| !uplink.is_free_for(now, Priority::ALL[class])) {
                self.none_in_advance = true;
                return None;
            }
            if let Some(departure) = self.serve(now, class) {
                return Some(departure);
            }
        }
    }

    /// When [`Egress::poll`] may have something; `None` if nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let best = match self.none_in_advance || self.rings[0].is_empty() {
            true => Priority::Normal,
            false => Priority::Urgent,
        };
        let uplink = self.uplink.as_ref();
        let uplink = uplink.map_or(Instant::ZERO, |uplink| uplink.free_at_for(best));
        let lane = match self.rings.iter().all(VecDeque::is_empty) {
            true => self.parked.first().map_or(Instant::ZERO, |(at, _)| *at),
            false => Instant::ZERO,
        };
        Some(uplink.max(lane))
    }

    /// How long what left had waited, by class.
    #[must_use]
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// The best class, or a worse one that has waited for its minimum share.
    fn next_class(&mut self, now: Instant) -> Option<usize> {
        let lanes = &mut self.lanes;
        for (class, ring) in self.rings.iter_mut().enumerate() {
            // Those that left meanwhile, or are held back by their own pace.
            while let Some(peer) = ring.front() {
                let Some(lane) = lanes.get_mut(peer) else {
                    ring.pop_front();
                    continue;
                };
                let queue = &mut lane.queues[class];
                let pace = lane.pace.as_ref();
                let is_free = lane.parked.is_none()
                    || pace.is_none_or(|pace| pace.is_free_for(now, Priority::ALL[class]));
                if is_free && !queue.items.is_empty() {
                    break;
                }
                queue.in_ring = false;
                ring.pop_front();
            }
        }
        let ready = |class: &usize| !self.rings[*class].is_empty();
        let best = (0..CLASSES).find(ready)?;
        let owed = (best + 1..CLASSES).filter(|class| self.is_owed(*class, now));
        Some(owed.min_by_key(|class| self.due[*class]).unwrap_or(best))
    }

    /// Whether something of the class waits and has waited for its minimum share.
    fn is_owed(&self, class: usize, now: Instant) -> bool {
        self.shares[class] > 0 && self.due[class] <= now && !self.rings[class].is_empty()
    }

    /// One step of deficit round robin (Shreedhar and Varghese, 1995) among the peers of a class.
    fn serve(&mut self, now: Instant, class: usize) -> Option<Departure<T>> {
        let peer = *self.rings[class].front()?;
        let queue = &mut self.lanes.get_mut(&peer)?.queues[class];
        let priority = Priority::ALL[class];
        let head = queue.items.front()?;
        let (len, expired) = (head.len, head.expiry.is_some_and(|expiry| expiry <= now));
        if !expired && queue.deficit < len {
            queue.deficit += QUANTUM;
            self.rings[class].rotate_left(1);
            return None;
        }
        let waiting = queue.items.pop_front()?;
        self.waiting -= 1;
        if waiting.flow == 0 {
            queue.bytes -= len;
        }
        queue.deficit = queue.deficit.saturating_sub(len);
        if queue.items.is_empty() {
            queue.deficit = 0;
            queue.in_ring = false;
            self.rings[class].pop_front();
        }
        if expired {
            self.delays.expired(priority);
            self.forget_if_idle(peer);
            return None;
        }
        self.charge(now, peer, priority, len);
        let waited = now.saturating_since(waiting.since);
        self.delays.left(priority, len, waited);
        self.forget_if_idle(peer);
        Some(Departure {
            peer,
            class: priority,
            item: waiting.item,
        })
    }

    fn is_free(&self, now: Instant, demand: &Demand) -> bool {
        let lane = self.lanes.get(&demand.peer);
        let lane = lane.and_then(|lane| lane.pace.as_ref());
        let mut paces = lane.into_iter().chain(&self.uplink);
        paces.all(|pace| pace.is_free_for(now, demand.class))
    }

    /// Pays for what leaves, out of the uplink's pace, the peer's, and the class's share.
    fn charge(&mut self, now: Instant, peer: PeerKey, class: Priority, len: usize) {
        let share = self.share_interval(peer, class, len);
        let late_max = self.late_max(peer);
        let due = &mut self.due[class.index()];
        // What another packet on the link kept it waiting is made up for, and no more.
        let since = now.min(*due).max(now.saturating_sub(late_max));
        *due = share.map_or(now, |share| since + share);
        self.charge_uplink(now, len);
        let Some(lane) = self.lanes.get_mut(&peer) else {
            return;
        };
        let Some(pace) = &mut lane.pace else {
            return;
        };
        pace.charge(now, len);
        if !pace.is_free(now) && lane.parked.is_none() {
            lane.parked = Some(pace.free_at());
            self.parked.insert((pace.free_at(), peer));
        }
    }

    /// The pace of which a class has its share.
    fn shared_pace(&self, peer: PeerKey) -> Option<&Pace> {
        let lane = self.lanes.get(&peer).and_then(|lane| lane.pace.as_ref());
        self.uplink.as_ref().or(lane)
    }

    fn late_max(&self, peer: PeerKey) -> Duration {
        let advance = self.shared_pace(peer).map(|pace| pace.time_of(ADVANCE));
        LATE_MAX + advance.unwrap_or_default()
    }

    /// How long `len` bytes take in the class's minimum share alone.
    fn share_interval(&self, peer: PeerKey, class: Priority, len: usize) -> Option<Duration> {
        let pace = self.shared_pace(peer)?;
        let share = u64::from(self.shares[class.index()]);
        (share > 0).then(|| pace.time_of(len) * 100 / u32::try_from(share).unwrap_or(100))
    }

    fn unpark(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.parked.first().filter(|(at, _)| *at <= now) {
            self.parked.remove(&(at, peer));
            if let Some(lane) = self.lanes.get_mut(&peer) {
                lane.parked = None;
                self.enter_rings(peer);
            }
        }
    }

    /// Puts a peer into the rings of the classes in which it waits, unless its pace holds it back;
    /// what is urgent may be let go in advance, and is looked at there.
    fn enter_rings(&mut self, peer: PeerKey) {
        let Some(lane) = self.lanes.get_mut(&peer) else {
            return;
        };
        let may = match lane.parked {
            Some(_) => 1,
            None => CLASSES,
        };
        let queues = lane.queues.iter_mut().take(may);
        for (queue, ring) in queues.zip(&mut self.rings) {
            if !queue.in_ring && !queue.items.is_empty() {
                queue.in_ring = true;
                queue.deficit = queue.deficit.max(QUANTUM);
                ring.push_back(peer);
            }
        }
    }

    fn forget_if_idle(&mut self, peer: PeerKey) {
        let lane = self.lanes.get(&peer);
        if lane.is_some_and(|lane| lane.pace.is_none() && lane.is_idle()) {
            self.remove_peer(peer);
        }
    }
}
