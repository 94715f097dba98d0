//! Large objects: their chunks are pulled from whichever neighbours have them.
//!
//! Owns what is being fetched and from whom, and serving others. A header goes on to other nodes
//! only when a chunk of the object has come, so that a header without an object goes nowhere.
//! Never does: decide when an object is delivered. docs/spec.md section 8.6.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId, Now, Priority};

use crate::bits::{Bits, ranges_of};
use crate::header::{CHUNK_LEN, Header};
use crate::id::{ObjectId, chunk_hash};
use crate::message::{Message, RANGES_MAX, Range, emit_chunk};
use crate::peer::Item;
use crate::score::Misdeed;
use crate::status::Output;
use crate::topic::Topic;

/// Chunks asked for at one node at a time, of all objects.
const WANTED_MAX: usize = 64;
/// Of one object: at first, and at most.
const WINDOW: (usize, usize) = (4, 32);
/// Chunks that wait for one node; it asks for less at a time if it is honest.
pub(crate) const SERVING_MAX: usize = 2 * WANTED_MAX;
/// A node that gives no chunk for so long is asked less, and others in its place.
const SLOW: Duration = Duration::from_secs(5);
/// Somebody who announces an object has a chunk of it within this time.
const FIRST_CHUNK: Duration = Duration::from_secs(15);
/// An object of which no chunk comes for so long is given up.
const NO_PROGRESS: Duration = Duration::from_secs(45);

/// A node that has chunks of an object.
struct Source {
    has: Bits,
    /// Chunks it was asked for.
    asked: Vec<u16>,
    window: usize,
    /// When it last gave a chunk, or was asked after a pause.
    moved: Instant,
    /// It was too slow, and is not asked before.
    rests_until: Instant,
}

impl Source {
    fn new(chunks: usize, now: Instant) -> Self {
        Self {
            has: Bits::none(chunks),
            asked: Vec::new(),
            window: WINDOW.0,
            moved: now,
            rests_until: Instant::ZERO,
        }
    }
}

/// A large object that is being fetched.
pub(crate) struct Pull {
    header: Header,
    /// Who announced it.
    from: NodeId,
    chunks: Vec<Option<Arc<[u8]>>>,
    /// Neither here nor asked for.
    free: Bits,
    /// How many are here.
    count: usize,
    /// Here, and not told to the neighbours yet.
    fresh: Vec<usize>,
    sources: BTreeMap<NodeId, Source>,
    moved: Instant,
    forwarded: bool,
}

impl Pull {
    /// Whatever a node was asked for may be asked for elsewhere.
    fn put_back(&mut self, node: &NodeId) -> usize {
        let Some(source) = self.sources.get_mut(node) else {
            return 0;
        };
        let asked = core::mem::take(&mut source.asked);
        for index in &asked {
            self.free.set(usize::from(*index), true);
        }
        asked.len()
    }

    fn here(&self) -> Bits {
        let mut here = Bits::none(self.chunks.len());
        for (index, chunk) in self.chunks.iter().enumerate() {
            here.set(index, chunk.is_some());
        }
        here
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pulls(BTreeMap<ObjectId, Pull>);

impl Pulls {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many objects that a node announced are being fetched, and the bytes of all of them.
    fn load(&self, from: Option<&NodeId>) -> (usize, usize) {
        let pulls = self.0.values();
        let of = pulls.filter(|pull| from.is_none_or(|from| pull.from == *from));
        of.fold((0, 0), |(count, bytes), pull| {
            (count + 1, bytes + pull.header.size())
        })
    }

    /// Bytes of objects that are being fetched, once they are here.
    pub(crate) fn reserved(&self) -> usize {
        self.load(None).1
    }
}

impl Topic {
    /// Whether another large object may be fetched now. One neighbour's take up half at most.
    pub(crate) fn may_pull(&self, from: &NodeId, header: &Header) -> bool {
        let (count, bytes) = self.pulls.load(None);
        let (own_count, own_bytes) = self.pulls.load(Some(from));
        let max = self.config.store_bytes_max;
        let share = own_count == 0
            || (own_count * 2 < self.config.incomplete_max
                && (own_bytes + header.size()) * 2 <= max);
        count < self.config.incomplete_max
            && share
            && bytes + self.pinned_bytes + self.pending_bytes + header.size() + header.body_len()
                <= max
    }

    /// A header is here; its chunks are still to come.
    pub(crate) fn start_pull(&mut self, now: Instant, id: ObjectId, header: Header, from: NodeId) {
        let chunks = header.chunks();
        let pull = Pull {
            header,
            from,
            chunks: vec![None; chunks],
            free: Bits::all(chunks),
            count: 0,
            fresh: Vec::new(),
            sources: BTreeMap::new(),
            moved: now,
            forwarded: false,
        };
        self.pulls.0.insert(id, pull);
    }

    pub(crate) fn on_have(&mut self, now: Instant, from: NodeId, id: ObjectId, ranges: &[Range]) {
        let bit = self.peers.get(&from).map_or(0, |peer| peer.bit());
        let Some(held) = self.objects.held(&id).filter(|held| held.header.is_large()) else {
            return;
        };
        let chunks = held.header.chunks();
        held.has |= bit;
        let end = |range: &Range| usize::from(range.start) + usize::from(range.count);
        if ranges.iter().any(|range| end(range) > chunks) {
            self.counters.malformed += 1;
            return self.blame(now, &from, Misdeed::Malformed);
        }
        if ranges
            .iter()
            .any(|range| usize::from(range.count) == chunks)
        {
            held.complete |= bit;
        }
        let Some(pull) = self.pulls.0.get_mut(&id) else {
            return;
        };
        let source = pull.sources.entry(from);
        let source = source.or_insert_with(|| Source::new(chunks, now));
        for range in ranges {
            for index in usize::from(range.start)..end(range) {
                source.has.set(index, true);
            }
        }
        self.pull(now, &id);
    }

    /// Asks for chunks where there is something to ask for, in turn over the sources.
    fn pull(&mut self, now: Instant, id: &ObjectId) {
        let Some(pull) = self.pulls.0.get_mut(id) else {
            return;
        };
        let mut wants: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        loop {
            let before: usize = wants.values().map(Vec::len).sum();
            for (node, source) in &mut pull.sources {
                let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.is_active()) else {
                    continue;
                };
                let full = source.asked.len() >= source.window || peer.wanted >= WANTED_MAX;
                if full || source.rests_until > now {
                    continue;
                }
                let start = self.random.below(pull.chunks.len());
                let Some(index) = source.has.first_in_both(&pull.free, start) else {
                    continue;
                };
                if source.asked.is_empty() {
                    source.moved = now;
                }
                pull.free.set(index, false);
                source.asked.push(index as u16);
                peer.wanted += 1;
                wants.entry(*node).or_default().push(index);
            }
            if wants.values().map(Vec::len).sum::<usize>() == before {
                break;
            }
        }
        for (node, mut indices) in wants {
            indices.sort_unstable();
            for ranges in ranges_of(indices.into_iter()).chunks(RANGES_MAX) {
                let ranges = ranges.to_vec();
                self.send(now, &node, &Message::Want { id: *id, ranges });
            }
        }
    }

    pub(crate) fn on_want(&mut self, now: Instant, from: NodeId, id: ObjectId, ranges: &[Range]) {
        let Some(held) = self.objects.held(&id).filter(|held| held.header.is_large()) else {
            let ids = Vec::from([id]);
            return self.send(now, &from, &Message::Lack { ids });
        };
        let (header, complete) = (held.header, held.content.is_some());
        let Some(slot) = self.peers.get(&from).map(|peer| usize::from(peer.slot)) else {
            return;
        };
        for range in ranges {
            let end = usize::from(range.start) + usize::from(range.count);
            for index in usize::from(range.start)..end.min(header.chunks()) {
                let pull = self.pulls.0.get(&id);
                let chunk = pull.and_then(|pull| pull.chunks.get(index)?.as_ref());
                if !complete && chunk.is_none() {
                    continue;
                }
                let waiting = self.peers.get(&from).map_or(0, |peer| peer.serving);
                let served = self.objects.on_served(&id, slot);
                if waiting >= SERVING_MAX || served > header.chunks() as u32 * 2 + 64 {
                    return self.blame(now, &from, Misdeed::Greedy);
                }
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.serving += 1;
                }
                let index = index as u16;
                self.enqueue(now, &from, header.priority, Item::Chunk { id, index });
            }
        }
    }

    /// The message with a chunk that is still here.
    pub(crate) fn chunk_message(&mut self, now: Now, id: &ObjectId, index: u16) -> Option<Vec<u8>> {
        let held = self.objects.held(id)?;
        let header = held.header;
        if header.is_expired(now.unix) {
            self.counters.expired += 1;
            return None;
        }
        let place = usize::from(index);
        if let Some(content) = &held.content {
            let start = place * CHUNK_LEN;
            let bytes = content.get(start..start + header.chunk_len(place))?;
            return Some(emit_chunk(id, index, bytes));
        }
        let chunk = self.pulls.0.get(id)?.chunks.get(place)?.as_ref()?;
        Some(emit_chunk(id, index, chunk))
    }

    pub(crate) fn on_chunk(
        &mut self,
        now: Now,
        from: NodeId,
        id: ObjectId,
        index: u16,
        bytes: &[u8],
    ) {
        let place = usize::from(index);
        let Some(pull) = self.pulls.0.get_mut(&id) else {
            return self.on_late_chunk(now.instant, from, bytes.len());
        };
        let source = pull.sources.get_mut(&from);
        let Some(source) = source.filter(|_| place < pull.chunks.len()) else {
            return self.on_late_chunk(now.instant, from, bytes.len());
        };
        let asked = source.asked.iter().position(|asked| *asked == index);
        if let Some(asked) = asked {
            source.asked.swap_remove(asked);
            source.window = (source.window + 1).min(WINDOW.1);
        }
        source.moved = now.instant;
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| asked.is_some()) {
            peer.wanted -= 1;
        }
        if pull.chunks[place].is_some() {
            return self.on_late_chunk(now.instant, from, bytes.len());
        }
        let hashes = self.objects.held(&id).map(|held| held.body.clone());
        let hashes = hashes.unwrap_or_default();
        let good = bytes.len() == pull.header.chunk_len(place)
            && hashes.get(place * 32..place * 32 + 32) == Some(&chunk_hash(bytes)[..]);
        if !good {
            if asked.is_some() {
                pull.free.set(place, true);
            }
            source.has.set(place, false);
            self.counters.wrong_chunks += 1;
            self.blame(now.instant, &from, Misdeed::Malformed);
            return self.pull(now.instant, &id);
        }
        pull.chunks[place] = Some(Arc::from(bytes));
        pull.free.set(place, false);
        pull.count += 1;
        pull.moved = now.instant;
        pull.fresh.push(place);
        let complete = pull.count == pull.chunks.len();
        let due = now.instant + self.config.announce_delay;
        self.flush_due = self.flush_due.min(due);
        self.objects.grow(&id, bytes.len());
        let room = self.config.store_bytes_max;
        self.objects.make_room(0, room);
        if complete {
            self.complete(now, &id);
        } else {
            self.pull(now.instant, &id);
        }
    }

    /// A chunk that nobody waits for: asked for twice because it was slow, or spam.
    fn on_late_chunk(&mut self, now: Instant, from: NodeId, bytes: usize) {
        self.counters.duplicates += 1;
        self.counters.duplicate_bytes += bytes as u64;
        if let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.owed > 0) {
            peer.owed -= 1;
            return;
        }
        self.blame(now, &from, Misdeed::Duplicate);
    }

    /// All chunks are here.
    fn complete(&mut self, now: Now, id: &ObjectId) {
        self.stop_asking(id);
        let Some(pull) = self.pulls.0.remove(id) else {
            return;
        };
        let mut content = Vec::with_capacity(pull.header.size());
        for chunk in pull.chunks.into_iter().flatten() {
            content.extend_from_slice(&chunk);
        }
        let validate = self.config.validate;
        let Some(held) = self.objects.held(id) else {
            return;
        };
        let content: Arc<[u8]> = Arc::from(content);
        held.content = Some(content.clone());
        if validate {
            held.pending = true;
            self.pending += 1;
            self.pending_bytes += content.len();
            self.outputs.push_back(Output::Validate {
                id: *id,
                priority: pull.header.priority,
                from: pull.from,
                expiry_ms: pull.header.expiry_ms,
                content,
            });
        } else {
            if !pull.forwarded {
                self.forward(now.instant, id);
            }
            self.deliver(now, id);
        }
    }

    /// The number of chunks that neighbours are asked for goes down by those of an object.
    fn stop_asking(&mut self, id: &ObjectId) {
        let Some(pull) = self.pulls.0.get_mut(id) else {
            return;
        };
        let nodes: Vec<NodeId> = pull.sources.keys().copied().collect();
        for node in nodes {
            let count = pull.put_back(&node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.wanted -= count;
                peer.owed += count;
            }
        }
    }

    /// Tells neighbours which chunks are new here, and of the object with the first of them.
    pub(crate) fn flush_chunks(&mut self, now: Instant) {
        let ids: Vec<ObjectId> = self.pulls.0.keys().copied().collect();
        for id in ids {
            let Some(pull) = self.pulls.0.get_mut(&id) else {
                continue;
            };
            let mut fresh = core::mem::take(&mut pull.fresh);
            if fresh.is_empty() || self.config.validate {
                continue;
            }
            fresh.sort_unstable();
            let first = !core::mem::replace(&mut pull.forwarded, true);
            self.tell_chunks(now, &id, &ranges_of(fresh.into_iter()), false);
            if first {
                self.forward(now, &id);
            }
        }
    }

    /// HAVE to all neighbours that know of the object; if `all`, to those that are complete too.
    pub(crate) fn tell_chunks(&mut self, now: Instant, id: &ObjectId, ranges: &[Range], all: bool) {
        let Some(held) = self.objects.held(id) else {
            return;
        };
        let done = if all { 0 } else { held.complete };
        let (know, class) = ((held.has | held.sent) & !done, held.header.priority);
        for node in self.active() {
            let bit = self.peers.get(&node).map_or(0, |peer| peer.bit());
            if know & bit != 0 {
                self.send_have(now, &node, id, class, ranges);
            }
        }
    }

    /// The chunks that are here, right behind the header in the same queue.
    pub(crate) fn send_chunks(&mut self, now: Instant, node: &NodeId, id: &ObjectId) {
        let Some(held) = self.objects.held(id) else {
            return;
        };
        let (class, header) = (held.header.priority, held.header);
        let here = match self.pulls.0.get(id) {
            Some(pull) => pull.here(),
            None => Bits::all(header.chunks()),
        };
        self.send_have(now, node, id, class, &here.ranges());
    }

    fn send_have(
        &mut self,
        now: Instant,
        to: &NodeId,
        id: &ObjectId,
        class: Priority,
        ranges: &[Range],
    ) {
        for ranges in ranges.chunks(RANGES_MAX) {
            let ranges = ranges.to_vec();
            let have = Message::Have { id: *id, ranges };
            self.enqueue(now, to, class, Item::Control(have.emit()));
        }
    }

    /// A neighbour has an object that is being fetched: its header comes again, and with it which
    /// chunks there are.
    pub(crate) fn on_source(&mut self, now: Instant, from: &NodeId, id: &ObjectId) {
        let Some(pull) = self.pulls.0.get_mut(id) else {
            return;
        };
        if pull.sources.contains_key(from) {
            return;
        }
        let graft = Message::Graft {
            priority: pull.header.priority,
            push: false,
            ids: Vec::from([*id]),
        };
        pull.sources
            .insert(*from, Source::new(pull.chunks.len(), now));
        self.send(now, from, &graft);
    }

    /// A node is no source of chunks any more.
    pub(crate) fn forget_chunks(&mut self, now: Instant, node: &NodeId) {
        let ids: Vec<ObjectId> = self.pulls.0.keys().copied().collect();
        for id in ids {
            self.lack_chunks(now, node, &id);
        }
    }

    /// A node has no chunk of an object.
    pub(crate) fn lack_chunks(&mut self, now: Instant, node: &NodeId, id: &ObjectId) {
        let Some(pull) = self.pulls.0.get_mut(id) else {
            return;
        };
        let count = pull.put_back(node);
        if pull.sources.remove(node).is_none() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(node) {
            peer.wanted -= count;
            peer.owed += count;
        }
        self.pull(now, id);
    }

    /// Slow sources rest, others are asked; what does not come at all is given up.
    pub(crate) fn tick_chunks(&mut self, now: Now) {
        let instant = now.instant;
        let ids: Vec<ObjectId> = self.pulls.0.keys().copied().collect();
        for id in ids {
            let Some(pull) = self.pulls.0.get_mut(&id) else {
                continue;
            };
            let since = instant.saturating_since(pull.moved);
            let limit = if pull.count == 0 {
                FIRST_CHUNK
            } else {
                NO_PROGRESS
            };
            if since > limit || pull.header.is_expired(now.unix) {
                self.abandon(now, &id);
                continue;
            }
            let late = |source: &Source| {
                let waits = instant.saturating_since(source.moved);
                !source.asked.is_empty() && waits > SLOW
            };
            let slow = pull.sources.iter().filter(|(_, source)| late(source));
            let slow: Vec<NodeId> = slow.map(|(node, _)| *node).collect();
            for node in slow {
                let count = pull.put_back(&node);
                if let Some(source) = pull.sources.get_mut(&node) {
                    source.window = 1;
                    source.rests_until = instant + SLOW;
                }
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.wanted -= count;
                    peer.owed += count;
                }
            }
            self.pull(instant, &id);
        }
    }

    /// Gives a large object up. It may be announced again.
    fn abandon(&mut self, now: Now, id: &ObjectId) {
        self.stop_asking(id);
        let Some(pull) = self.pulls.0.remove(id) else {
            return;
        };
        self.objects.forget(id);
        if pull.header.is_expired(now.unix) {
            self.counters.expired += 1;
            return;
        }
        self.counters.abandoned += 1;
        if pull.count == 0 {
            self.blame(now.instant, &pull.from, Misdeed::FalseHeader);
        }
    }
}
