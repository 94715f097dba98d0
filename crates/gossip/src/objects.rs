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
    /// Waits for the owner's verdict.
    pub pending: bool,
    /// Where it came from; ourselves if we published it.
    pub from: NodeId,
    /// Nodes, by slot, that have it.
    pub has: u64,
    /// Nodes, by slot, to which it was sent or for which it waits in a queue.
    pub sent: u64,
    /// Nodes, by slot, that asked for it.
    pub asked: u64,
    /// Its place in the order of arrival.
    age: u64,
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
        self.held.entry(id).or_insert(Held {
            header,
            body,
            pending: false,
            from,
            has: 0,
            sent: 0,
            asked: 0,
            age,
        })
    }

    /// Lets the content go; the id stays.
    pub(crate) fn release(&mut self, id: &ObjectId) -> Option<Held> {
        let held = self.held.remove(id)?;
        self.by_age.remove(&held.age);
        self.bytes -= held.body.len();
        Some(held)
    }

    /// Lets the oldest contents go until there is room for `more` bytes.
    pub(crate) fn make_room(&mut self, more: usize, max: usize) {
        while self.bytes + more > max {
            let Some((_, id)) = self.by_age.first_key_value() else {
                return;
            };
            let id = *id;
            self.release(&id);
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
        }
    }
}
