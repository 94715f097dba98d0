//! What was published, and who has it when.
//!
//! Owns the facts that reports are made of. Never decides anything.

use crate::net::{BULK, Class, URGENT};
use crate::time::Nanos;

/// At the head of each object: its class and its number.
const HEAD_BYTES: usize = 9;

/// An object that was measured.
pub struct Object {
    published: Nanos,
    delays: Vec<Option<Nanos>>,
    reached: usize,
}

impl Object {
    /// How many nodes have it.
    pub fn reached(&self) -> usize {
        self.reached
    }

    /// When `part` of all nodes had it, after it was published; `None` when they never did.
    pub fn time_to(&self, part: f64) -> Option<Nanos> {
        let place = (self.delays.len() as f64 * part).ceil() as usize;
        let mut all: Vec<Nanos> = self.delays.iter().filter_map(|delay| *delay).collect();
        all.sort_unstable();
        all.get(place.checked_sub(1)?).copied()
    }
}

/// The record of a run.
pub struct Journal {
    nodes: usize,
    /// Urgent objects, in the order of their publication.
    pub objects: Vec<Object>,
    /// Deliveries of an object to a node that had it.
    pub repeated: u64,
    /// Bytes of bulk objects delivered.
    pub bulk_bytes: u64,
    bulk_objects: u64,
}

impl Journal {
    /// An empty one.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            objects: Vec::new(),
            repeated: 0,
            bulk_bytes: 0,
            bulk_objects: 0,
        }
    }

    /// Notes that a node publishes an urgent object of `len` bytes, and makes it.
    pub fn publish(&mut self, now: Nanos, sender: usize, len: usize) -> Vec<u8> {
        let mut delays = vec![None; self.nodes];
        delays[sender] = Some(0);
        self.objects.push(Object {
            published: now,
            delays,
            reached: 1,
        });
        content(URGENT, self.objects.len() as u64 - 1, len)
    }

    /// Makes a bulk object.
    pub fn publish_bulk(&mut self, len: usize) -> Vec<u8> {
        self.bulk_objects += 1;
        content(BULK, self.bulk_objects, len)
    }

    /// Notes that a node has an object.
    pub fn deliver(&mut self, now: Nanos, node: usize, content: &[u8]) {
        let Some((head, _)) = content.split_at_checked(HEAD_BYTES) else {
            return;
        };
        let number = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
        if usize::from(head[0]) != URGENT {
            self.bulk_bytes += content.len() as u64;
            return;
        }
        let object = &mut self.objects[number as usize];
        if object.delays[node].is_some() {
            self.repeated += 1;
            return;
        }
        object.delays[node] = Some(now - object.published);
        object.reached += 1;
    }
}

/// Bytes that no two objects share.
fn content(class: Class, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len.max(HEAD_BYTES)];
    bytes[0] = class as u8;
    bytes[1..HEAD_BYTES].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_reach_a_part_counts_the_publisher_and_no_repetition() {
        let mut journal = Journal::new(4);
        let object = journal.publish(100, 2, 64);
        for (node, now) in [(0, 110), (0, 111), (1, 130)] {
            journal.deliver(now, node, &object);
        }
        assert_eq!(journal.repeated, 1);
        let object = &journal.objects[0];
        assert_eq!(object.reached(), 3);
        assert_eq!(object.time_to(0.5), Some(10));
        assert_eq!(object.time_to(0.75), Some(30));
        assert_eq!(object.time_to(0.99), None);
    }
}
