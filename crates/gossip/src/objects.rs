//! Which objects are known, and the contents kept for neighbours that miss them.
//!
//! Owns the memory of ids until they expire, and the store, which is bounded by bytes: the oldest
//! contents go first. Never does: decide what is sent to whom.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use wiremesh_wire::{NodeId, UnixTime};

use crate::header::{Header, millis};
use crate::id::ObjectId;

/// A content that is here.
pub(crate) struct Held {
    pub header: Header,
    /// The content, or the hashes of the chunks.
    pub body: Arc<[u8]>,
    /// All of the content, once it is here.
    pub content: Option<Arc<[u8]>>,
    /// Waits for the owner's verdict.
    pub pending: bool,
    /// Where it came from; ourselves if we published it.
    pub from: NodeId,
    /// Nodes, by slot, that have it.
    pub has: u64,
    /// Nodes, by slot, to which it was sent or for which it waits in a queue.
    pub sent: u64,
    /// Nodes, by slot, that asked for it after it was sent.
    pub asked: u64,
    /// Nodes, by slot, that have all chunks.
    pub complete: u64,
    /// Ours, and not to be let go before the neighbours have it.
    pub pinned: bool,
    /// How many chunks each slot was given.
    served: BTreeMap<usize, u32>,
    /// Of header and content here.
    bytes: usize,
    /// Its place in the order of arrival.
    age: u64,
}

impl Held {
    /// Whether others may have it: accepted, and of a large one that it exists is certain.
    pub(crate) fn is_open(&self) -> bool {
        !self.pending && (self.content.is_some() || self.bytes > self.body.len())
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Objects {
    /// Expiry by id, of all that were ever accepted or refused.
    seen: BTreeMap<ObjectId, u64>,
    by_expiry: BTreeSet<(u64, ObjectId)>,
    held: BTreeMap<ObjectId, Held>,
    by_age: BTreeMap<u64, ObjectId>,
    next_age: u64,
    bytes: usize,
}

impl Objects {
    pub(crate) fn is_seen(&self, id: &ObjectId) -> bool {
        self.seen.contains_key(id)
    }

    pub(crate) fn seen_len(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Bytes of all that is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn held(&mut self, id: &ObjectId) -> Option<&mut Held> {
        self.held.get_mut(id)
    }

    /// Held ids with header, in the order of ids.
    pub(crate) fn all_held(&self) -> impl Iterator<Item = (&ObjectId, &Held)> {
        self.held.iter()
    }

    /// Remembers the id, and holds the content.
    pub(crate) fn insert(
        &mut self,
        id: ObjectId,
        header: Header,
        body: Arc<[u8]>,
        from: NodeId,
    ) -> &mut Held {
        self.seen.insert(id, header.expiry_ms);
        self.by_expiry.insert((header.expiry_ms, id));
        self.bytes += body.len();
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, id);
        let small = !header.is_large();
        self.held.entry(id).or_insert(Held {
            header,
            bytes: body.len(),
            content: small.then(|| body.clone()),
            body,
            pending: false,
            from,
            has: 0,
            sent: 0,
            asked: 0,
            complete: 0,
            pinned: false,
            served: BTreeMap::new(),
            age,
        })
    }

    /// Lets the content go; the id stays.
    pub(crate) fn release(&mut self, id: &ObjectId) -> Option<Held> {
        let held = self.held.remove(id)?;
        self.by_age.remove(&held.age);
        self.bytes -= held.bytes;
        Some(held)
    }

    /// Lets the oldest contents go until there is room for `more` bytes. What is being fetched,
    /// what waits for a verdict and what is pinned stays; together they have less than all of the room.
    pub(crate) fn make_room(&mut self, more: usize, max: usize) {
        while self.bytes + more > max {
            let free = |id: &&ObjectId| {
                let held = self.held.get(*id);
                held.is_some_and(|held| held.content.is_some() && !held.pinned && !held.pending)
            };
            let Some(id) = self.by_age.values().find(free).copied() else {
                return;
            };
            self.release(&id);
        }
    }

    /// More of an object is here.
    pub(crate) fn grow(&mut self, id: &ObjectId, bytes: usize) {
        if let Some(held) = self.held.get_mut(id) {
            held.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Counts a chunk that goes to a slot; returns how many it was given.
    pub(crate) fn on_served(&mut self, id: &ObjectId, slot: usize) -> u32 {
        let Some(held) = self.held.get_mut(id) else {
            return 0;
        };
        let served = held.served.entry(slot).or_default();
        *served = served.saturating_add(1);
        *served
    }

    /// Forgets an object as if it had never been seen.
    pub(crate) fn forget(&mut self, id: &ObjectId) {
        self.release(id);
        if let Some(expiry) = self.seen.remove(id) {
            self.by_expiry.remove(&(expiry, *id));
        }
    }

    /// Forgets what expired `grace_ms` ago, and lets the contents of all that expired go.
    pub(crate) fn expire(&mut self, unix: UnixTime, grace_ms: u64) {
        let now = millis(unix);
        while let Some((expiry, id)) = self.by_expiry.first().copied() {
            if expiry.saturating_add(grace_ms) > now {
                break;
            }
            self.by_expiry.pop_first();
            self.seen.remove(&id);
            self.release(&id);
        }
    }

    /// A slot has another owner from now on.
    pub(crate) fn clear_slot(&mut self, bit: u64) {
        for held in self.held.values_mut() {
            held.has &= !bit;
            held.sent &= !bit;
            held.asked &= !bit;
            held.complete &= !bit;
            held.served.remove(&(bit.trailing_zeros() as usize));
        }
    }
}
