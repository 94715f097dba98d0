//! Plumtree: who is sent objects, who only hears of them, and what is missing.
//!
//! Owns the lanes of neighbours: one tree per class, so that a link full of bulk says nothing about
//! urgent objects. Never does: choose neighbours, look for what is missing. J. Leitao, J. Pereira, L. Rodrigues, "Epidemic Broadcast Trees", SRDS 2007;
//! docs/spec.md section 8.5 says where we differ: a node decides who sends to it, each direction
//! of a link for itself, by who was first for recent objects.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId, Now, Priority};

use crate::header::{Header, millis};
use crate::id::ObjectId;
use crate::message::{IDS_MAX, Message, Range};
use crate::peer::{Item, Lane};
use crate::score::Misdeed;
use crate::status::Output;
use crate::topic::Topic;

/// One object changes a share by a thirty-second.
const SHARE_SHIFT: u32 = 5;
/// A neighbour with a smaller share stops sending to us when it sends a duplicate.
const PRUNE_BELOW: u32 = Lane::ONE * 12 / 100;
/// A neighbour with a greater share shall send to us.
const GRAFT_ABOVE: u32 = Lane::ONE * 20 / 100;
/// A payload that comes so soon after the first announcement was not late.
const MARGIN: Duration = Duration::from_millis(10);

/// How long after PRUNE payloads may still be on their way.
fn grace(class: Priority) -> Duration {
    Duration::from_secs([5, 10, 60][class.index()])
}

impl Topic {
    /// GOSSIP of Plumtree.
    pub(crate) fn on_object(&mut self, now: Now, from: NodeId, header: Header, body: &[u8]) {
        let id = ObjectId::new(&self.topic, &header, body);
        let bit = self.peers.get(&from).map_or(0, |peer| peer.bit());
        if let Some(held) = self.objects.held(&id) {
            held.has |= bit;
        }
        if self.objects.is_seen(&id) {
            return self.on_duplicate(now.instant, from, header.priority, body.len());
        }
        if !self.is_welcome(now, &from, &header) {
            return;
        }
        let large = header.is_large();
        if large && !self.may_pull(&from, &header) {
            return self.postpone(now.instant, from, id, header);
        }
        let first = match self.take_missing(&id) {
            Some(missing) => {
                let lag = now.instant.saturating_since(missing.first);
                if missing.asked != Some(from) {
                    self.missing.on_lag(header.priority, lag);
                }
                if lag > MARGIN {
                    missing.first_from
                } else {
                    from
                }
            }
            None => from,
        };
        self.credit(now.instant, header.priority, first);
        let validate = self.config.validate;
        let room = self.config.store_bytes_max;
        self.objects.make_room(body.len(), room);
        let held = self.objects.insert(id, header, Arc::from(body), from);
        held.has |= bit;
        if large {
            return self.start_pull(now.instant, id, header, from);
        }
        held.pending = validate;
        let content = held.body.clone();
        if validate {
            self.pending += 1;
            self.outputs.push_back(Output::Validate {
                id,
                priority: header.priority,
                from,
                expiry_ms: header.expiry_ms,
                content,
            });
        } else {
            self.deliver(now, &id);
        }
    }

    /// Whether an object that is not known may come in.
    fn is_welcome(&mut self, now: Now, from: &NodeId, header: &Header) -> bool {
        let unix = millis(now.unix);
        let skew = self.config.clock_skew;
        if header.is_expired(now.unix) {
            self.counters.expired += 1;
            let long_ago = millis(now.unix).saturating_sub(header.expiry_ms);
            if u128::from(long_ago) > skew.as_millis() * 4 {
                self.blame(now.instant, from, Misdeed::WrongExpiry);
            }
            return false;
        }
        let ahead = self.config.lifetime_max + skew;
        if u128::from(header.expiry_ms - unix) > ahead.as_millis() {
            self.counters.refused += 1;
            self.blame(now.instant, from, Misdeed::WrongExpiry);
            return false;
        }
        let full = self.objects.seen_len() >= self.config.seen_max
            || (self.config.validate && self.pending >= self.config.pending_max);
        self.counters.refused += u64::from(full);
        !full
    }

    /// Delivers an object that is complete, and forwards it or tells that it is complete.
    pub(crate) fn deliver(&mut self, now: Now, id: &ObjectId) {
        let validate = self.config.validate;
        let Some(held) = self.objects.held(id) else {
            return;
        };
        if held.header.is_expired(now.unix) {
            self.counters.expired += 1;
            return;
        }
        let Some(content) = held.content.clone() else {
            return;
        };
        let header = held.header;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += content.len() as u64;
        self.outputs.push_back(Output::Deliver {
            id: *id,
            priority: header.priority,
            from: held.from,
            expiry_ms: held.header.expiry_ms,
            content,
        });
        if header.is_large() {
            let all = Range {
                start: 0,
                count: header.chunks() as u16,
            };
            self.tell_chunks(now.instant, id, &[all], true);
        }
        if validate || !header.is_large() {
            self.forward(now.instant, id);
        }
    }

    /// Sends or announces an object to all neighbours that are not known to have it.
    pub(crate) fn forward(&mut self, now: Instant, id: &ObjectId) {
        let Some(held) = self.objects.held(id) else {
            return;
        };
        let known = held.has | held.sent;
        let class = held.header.priority;
        for node in self.active() {
            let Some(peer) = self.peers.get_mut(&node) else {
                continue;
            };
            if known & peer.bit() != 0 {
                continue;
            }
            if peer.lane(class).push {
                self.push(now, &node, id, false);
            } else {
                self.announce(now, &node, id, class);
            }
        }
    }

    /// Puts an object into a neighbour's queue, or announces it if that is full.
    fn push(&mut self, now: Instant, node: &NodeId, id: &ObjectId, asked: bool) {
        let (Some(held), Some(peer)) = (self.objects.held(id), self.peers.get_mut(node)) else {
            return;
        };
        let class = held.header.priority;
        let item = Item::Object {
            id: *id,
            header: held.header,
            body: held.body.clone(),
            asked,
        };
        if peer.queues[class.index()].bytes + item.len() > self.config.queue_bytes_max {
            self.counters.demoted += 1;
            return self.announce(now, node, id, class);
        }
        held.sent |= peer.bit();
        let large = held.header.is_large();
        self.enqueue(now, node, class, item);
        if large {
            self.send_chunks(now, node, id);
        }
    }

    fn announce(&mut self, now: Instant, node: &NodeId, id: &ObjectId, class: Priority) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let ids = &mut peer.announce[class.index()];
        if ids.len() >= self.config.missing_max {
            self.counters.missing_dropped += 1;
            return;
        }
        ids.push(*id);
        let due = *peer.flush.get_or_insert(now + self.config.announce_delay);
        self.flush_due = self.flush_due.min(due);
    }

    /// A new neighbour hears of all that is held.
    pub(crate) fn announce_all(&mut self, now: Instant, node: &NodeId, bit: u64) {
        let unknown = self.objects.all_held();
        let unknown = unknown.filter(|(_, held)| held.is_open() && held.has & bit == 0);
        let unknown: Vec<_> = unknown
            .map(|(id, held)| (*id, held.header.priority))
            .collect();
        for (id, class) in unknown {
            self.announce(now, node, &id, class);
        }
    }

    /// Sends the announcements that are due.
    pub(crate) fn flush(&mut self, now: Instant) {
        if self.flush_due > now {
            return;
        }
        self.flush_chunks(now);
        self.flush_due = Instant::MAX;
        for node in self.active() {
            let Some(peer) = self.peers.get_mut(&node) else {
                continue;
            };
            match peer.flush {
                Some(due) if due <= now => peer.flush = None,
                Some(due) => {
                    self.flush_due = self.flush_due.min(due);
                    continue;
                }
                None => continue,
            }
            let bit = peer.bit();
            let announce = core::mem::take(&mut peer.announce);
            for (priority, mut ids) in Priority::ALL.into_iter().zip(announce) {
                ids.retain(|id| {
                    self.objects
                        .held(id)
                        .is_some_and(|held| held.has & bit == 0)
                });
                for ids in ids.chunks(IDS_MAX) {
                    let ids = ids.to_vec();
                    self.send(now, &node, &Message::IHave { priority, ids });
                }
            }
        }
    }

    fn on_duplicate(&mut self, now: Instant, from: NodeId, class: Priority, bytes: usize) {
        self.counters.duplicates += 1;
        self.counters.duplicate_bytes += bytes as u64;
        let others = self.peers.iter_mut().filter(|(node, _)| **node != from);
        let others = others.filter(|(_, peer)| peer.is_active());
        let fed = others
            .filter(|(_, peer)| peer.lanes[class.index()].fed)
            .count();
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let lane = peer.lane(class);
        if lane.fed {
            if lane.share < PRUNE_BELOW && fed > 0 {
                lane.fed = false;
                lane.pruned = now;
                self.counters.pruned += 1;
                self.send(now, &from, &Message::Prune { priority: class });
            }
        } else if now.saturating_since(lane.pruned) > grace(class) {
            self.blame(now, &from, Misdeed::Duplicate);
        }
    }

    /// A neighbour was the first with an object.
    fn credit(&mut self, now: Instant, class: Priority, first: NodeId) {
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_active()) {
            let lane = peer.lane(class);
            lane.share -= lane.share >> SHARE_SHIFT;
            if *node == first {
                lane.share += Lane::ONE >> SHARE_SHIFT;
            }
        }
        let Some(peer) = self.peers.get_mut(&first).filter(|peer| peer.is_active()) else {
            return;
        };
        let lane = peer.lane(class);
        if !lane.fed && lane.share > GRAFT_ABOVE {
            lane.fed = true;
            let graft = Message::Graft {
                priority: class,
                push: true,
                ids: Vec::new(),
            };
            self.send(now, &first, &graft);
        }
    }

    pub(crate) fn on_graft(
        &mut self,
        now: Instant,
        from: NodeId,
        class: Priority,
        push: bool,
        ids: Vec<ObjectId>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let bit = peer.bit();
        peer.lane(class).push |= push;
        let mut lack = Vec::new();
        for id in ids {
            match self.objects.held(&id) {
                // It was sent, and sent again when it was not known what became of that.
                Some(held) if held.sent & held.asked & bit != 0 => {
                    self.blame(now, &from, Misdeed::Greedy);
                }
                Some(held) if held.is_open() => {
                    held.asked |= held.sent & bit;
                    self.push(now, &from, &id, true);
                }
                _ => lack.push(id),
            }
        }
        if !lack.is_empty() {
            self.send(now, &from, &Message::Lack { ids: lack });
        }
    }

    pub(crate) fn on_prune(&mut self, from: NodeId, class: Priority) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.lane(class).push = false;
        }
    }
}
