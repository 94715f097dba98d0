//! Objects that were announced and have not come: when to ask for them, and whom.
//!
//! Owns the table of announced ids and the number of objects that each neighbour is asked for at
//! once, which grows as they come and halves when one does not. Never does: judge who sends to us
//! unasked. docs/spec.md section 8.5.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId, Priority};

use crate::header::Header;
use crate::id::ObjectId;
use crate::message::{IDS_MAX, Message};
use crate::score::Misdeed;
use crate::topic::Topic;

/// Shortest and longest wait for a payload after its announcement. What is urgent is asked for
/// after the shortest; for the others a copy too many costs more than time.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Objects asked for at one neighbour at a time: least, at first, and most.
pub(crate) const WINDOW: (usize, usize, usize) = (4, 32, 128);
/// Until a neighbour whose window is full is looked at again.
const BUSY: Duration = Duration::from_millis(50);
/// A neighbour that was asked and had no room in its queue is asked again after this.
const NO_ROOM: Duration = Duration::from_secs(1);
/// It may say so this often for one object.
const ANNOUNCED_MAX: u8 = 60;
/// Who was asked for an object has so long to send it; its queues may be full.
const PROMISE: Duration = Duration::from_secs(60);
/// Until room for a large object is looked for again.
const POSTPONED: Duration = Duration::from_millis(500);
/// What was announced so long ago and had no room is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// A neighbour that has a missing object.
struct Source {
    node: NodeId,
    asked: bool,
    /// How often it announced it.
    announced: u8,
}

/// An object that was announced and has not come.
struct Announced {
    class: Priority,
    /// When it was announced first, and by whom.
    first: Instant,
    first_from: NodeId,
    sources: Vec<Source>,
    /// Who is being asked.
    asked: Option<NodeId>,
    /// When somebody was asked last.
    asked_at: Instant,
    due: Instant,
    /// It came, is large, and there was no room for it.
    large: Option<Header>,
}

/// How long after the first announcement payloads come.
#[derive(Clone, Copy)]
struct Lag {
    mean: Duration,
    deviation: Duration,
}

/// See the module.
pub(crate) struct Missing {
    objects: BTreeMap<ObjectId, Announced>,
    due: BTreeSet<(Instant, ObjectId)>,
    lag: [Lag; 3],
}

/// What is left of an announced object that has come.
pub(crate) struct Came {
    pub first: Instant,
    pub first_from: NodeId,
    pub asked: Option<NodeId>,
}

impl Missing {
    pub(crate) fn new() -> Self {
        let lag = Lag {
            mean: Duration::from_millis(40),
            deviation: Duration::from_millis(10),
        };
        Self {
            objects: BTreeMap::new(),
            due: BTreeSet::new(),
            lag: [lag; 3],
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    fn wait(&self, class: Priority) -> Duration {
        if class == Priority::Urgent {
            return WAIT.0;
        }
        let lag = self.lag[class.index()];
        (lag.mean + lag.deviation * 4).clamp(WAIT.0, WAIT.1)
    }

    pub(crate) fn on_lag(&mut self, class: Priority, sample: Duration) {
        let lag = &mut self.lag[class.index()];
        let sample = sample.min(WAIT.1);
        let off = sample.abs_diff(lag.mean);
        lag.deviation = lag.deviation - lag.deviation / 8 + off / 8;
        lag.mean = lag.mean - lag.mean / 8 + sample / 8;
    }

    fn set_due(&mut self, id: &ObjectId, due: Instant) {
        if let Some(object) = self.objects.get_mut(id) {
            self.due.remove(&(object.due, *id));
            object.due = due;
            self.due.insert((due, *id));
        }
    }

    fn remove(&mut self, id: &ObjectId) -> Option<Announced> {
        let object = self.objects.remove(id)?;
        self.due.remove(&(object.due, *id));
        Some(object)
    }
}

/// How long an object may take that was asked for, beyond the round trips, before another
/// neighbour is asked too.
fn patience(class: Priority) -> Duration {
    Duration::from_millis([100, 1_000, 10_000][class.index()])
}

impl Topic {
    pub(crate) fn on_ihave(
        &mut self,
        now: Instant,
        from: NodeId,
        class: Priority,
        ids: &[ObjectId],
    ) {
        for id in ids {
            let Some(peer) = self.peers.get(&from) else {
                return;
            };
            if let Some(held) = self.objects.held(id) {
                held.has |= peer.bit();
            }
            if self.objects.is_seen(id) {
                self.on_source(now, &from, id);
            } else {
                self.add_source(now, from, class, id);
            }
        }
    }

    fn add_source(&mut self, now: Instant, from: NodeId, class: Priority, id: &ObjectId) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if peer.missing >= self.config.missing_max {
            self.counters.missing_dropped += 1;
            return;
        }
        let due = now + self.missing.wait(class);
        let objects = &mut self.missing.objects;
        let object = objects.entry(*id).or_insert_with(|| Announced {
            class,
            first: now,
            first_from: from,
            sources: Vec::new(),
            asked: None,
            asked_at: now,
            due,
            large: None,
        });
        let due = object.due;
        let known = object.sources.iter_mut().find(|source| source.node == from);
        let Some(source) = known else {
            peer.missing += 1;
            object.sources.push(Source {
                node: from,
                asked: false,
                announced: 1,
            });
            self.missing.due.insert((due, *id));
            return;
        };
        if core::mem::take(&mut source.asked) {
            // It had no room in its queue when it was asked, and says so by this.
            source.announced = source.announced.saturating_add(1);
            peer.window = (peer.window / 2).max(WINDOW.0);
            if source.announced > ANNOUNCED_MAX {
                self.blame(now, &from, Misdeed::BrokenPromise);
            }
            self.missing.set_due(id, due.max(now + NO_ROOM));
        }
    }

    /// A large object has to wait until others are here.
    pub(crate) fn postpone(&mut self, now: Instant, from: NodeId, id: ObjectId, header: Header) {
        self.add_source(now, from, header.priority, &id);
        if let Some(object) = self.missing.objects.get_mut(&id) {
            object.large = Some(header);
        }
        self.missing.set_due(&id, now + POSTPONED);
    }

    /// An object has come, whoever sent it.
    pub(crate) fn take_missing(&mut self, id: &ObjectId) -> Option<Came> {
        let object = self.missing.remove(id)?;
        for source in &object.sources {
            if let Some(peer) = self.peers.get_mut(&source.node) {
                peer.missing -= 1;
            }
        }
        if let Some(peer) = object.asked.and_then(|node| self.peers.get_mut(&node)) {
            peer.asked -= 1;
            peer.window = (peer.window + 1).min(WINDOW.2);
        }
        Some(Came {
            first: object.first,
            first_from: object.first_from,
            asked: object.asked,
        })
    }

    /// Asks for what has not come in time.
    pub(crate) fn run_missing(&mut self, now: Instant) {
        let mut grafts: BTreeMap<(NodeId, Priority), Vec<ObjectId>> = BTreeMap::new();
        while let Some((due, id)) = self.missing.due.first().copied() {
            if due > now {
                break;
            }
            if let Some((node, class)) = self.ask_next(now, &id) {
                grafts.entry((node, class)).or_default().push(id);
            }
        }
        for ((node, priority), ids) in grafts {
            self.counters.grafted += ids.len() as u64;
            let mut active = self.peers.values().filter(|peer| peer.is_active());
            // Somebody has to send unasked.
            let push = !active.any(|peer| peer.lanes[priority.index()].fed);
            if let Some(peer) = self.peers.get_mut(&node) {
                let lane = peer.lane(priority);
                lane.fed |= push;
                lane.pruned = now;
            }
            for ids in ids.chunks(IDS_MAX) {
                let ids = ids.to_vec();
                let graft = Message::Graft {
                    priority,
                    push,
                    ids,
                };
                self.send(now, &node, &graft);
            }
        }
    }

    /// Who is to be asked for an object now. The deadline of the object is later afterwards.
    fn ask_next(&mut self, now: Instant, id: &ObjectId) -> Option<(NodeId, Priority)> {
        if self.is_postponed(now, id) {
            return None;
        }
        let object = self.missing.objects.get_mut(id)?;
        let class = object.class;
        if let Some(peer) = object
            .asked
            .take()
            .and_then(|node| self.peers.get_mut(&node))
        {
            peer.asked -= 1;
            peer.window = (peer.window / 2).max(WINDOW.0);
        }
        let load = |node: &NodeId| {
            let peer = self.peers.get(node);
            peer.map(|peer| (peer.asked >= peer.window, peer.rtt()))
        };
        let free = object.sources.iter_mut().filter(|source| !source.asked);
        let free = free.filter_map(|source| Some((load(&source.node)?, source)));
        let Some(((busy, rtt), source)) = free.min_by_key(|(load, _)| *load) else {
            let end = object.asked_at + PROMISE;
            if now >= end {
                self.give_up(now, id);
            } else {
                self.missing.set_due(id, end);
            }
            return None;
        };
        if busy {
            self.missing.set_due(id, now + BUSY);
            return None;
        }
        source.asked = true;
        let node = source.node;
        object.asked = Some(node);
        object.asked_at = now;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.asked += 1;
        }
        self.missing.set_due(id, now + rtt * 2 + patience(class));
        Some((node, class))
    }

    /// Whether an object is large and there is still no room for it.
    fn is_postponed(&mut self, now: Instant, id: &ObjectId) -> bool {
        let Some(object) = self.missing.objects.get(id) else {
            return false;
        };
        let large = object.large.as_ref();
        if large.is_none_or(|header| self.may_pull(&object.first_from, header)) {
            return false;
        }
        if now.saturating_since(object.first) > FORGOTTEN {
            self.take_missing(id);
        } else {
            self.missing.set_due(id, now + POSTPONED);
        }
        true
    }

    /// Nobody gave an object who said to have it.
    fn give_up(&mut self, now: Instant, id: &ObjectId) {
        let Some(object) = self.missing.objects.get(id) else {
            return;
        };
        let sources = object.sources.iter().map(|source| source.node);
        let sources: Vec<NodeId> = sources.collect();
        self.take_missing(id);
        for node in sources {
            self.counters.broken_promises += 1;
            self.blame(now, &node, Misdeed::BrokenPromise);
        }
    }

    pub(crate) fn on_lack(&mut self, now: Instant, from: NodeId, ids: &[ObjectId]) {
        for id in ids {
            self.lack_chunks(now, &from, id);
            let Some(object) = self.missing.objects.get_mut(id) else {
                continue;
            };
            let sources = &mut object.sources;
            let Some(place) = sources.iter().position(|source| source.node == from) else {
                continue;
            };
            sources.swap_remove(place);
            let empty = sources.is_empty();
            let asked = object.asked.take_if(|node| *node == from).is_some();
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.missing -= 1;
                peer.asked -= usize::from(asked);
            }
            if empty {
                self.missing.remove(id);
            } else if asked {
                self.missing.set_due(id, now);
            }
        }
    }

    /// A node is no source of anything any more.
    pub(crate) fn forget_source(&mut self, now: Instant, node: &NodeId) {
        self.forget_chunks(now, node);
        let has = |object: &Announced| object.sources.iter().any(|source| source.node == *node);
        let objects = self.missing.objects.iter();
        let ids: Vec<ObjectId> = objects
            .filter(|(_, object)| has(object))
            .map(|(id, _)| *id)
            .collect();
        self.on_lack(now, *node, &ids);
    }
}
