//! One topic of one node: takes messages in, and gives messages and outputs.
//!
//! Owns the peers, the queues' limits, the bans, and the order in which the parts are called. Never
//! does: I/O, clocks, randomness of its own.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId, Now, Priority};

use crate::chunks::Pulls;
use crate::config::{CONTROL_BYTES_MAX, Config, PEERS_MAX, TICK};
use crate::header::{CHUNK_LEN, Header, OBJECT_MAX, duration_millis, millis};
use crate::id::{ObjectId, TopicId, chunk_hash};
use crate::membership::Membership;
use crate::message::{ADDRESSES_MAX, Contact, Message, emit_object};
use crate::missing::Missing;
use crate::near::Near;
use crate::objects::Objects;
use crate::peer::{Item, Link, Peer, Role};
use crate::random::Random;
use crate::score::{Misdeed, Scores};
use crate::status::{Counters, Memory, Output, PublishError, Verdict};

/// Own large objects stay in the store for at most so long when neighbours do not take them.
const PIN_TIME: Duration = Duration::from_secs(60);

/// The machine. See the crate for how to drive it.
pub struct Topic {
    pub(crate) topic: TopicId,
    pub(crate) me: NodeId,
    pub(crate) config: Config,
    pub(crate) addresses: Vec<u8>,
    pub(crate) random: Random,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) membership: Membership,
    pub(crate) near: Near,
    pub(crate) missing: Missing,
    pub(crate) objects: Objects,
    pub(crate) scores: Scores,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) counters: Counters,
    /// Objects that wait for a verdict.
    pub(crate) pending: usize,
    /// Bytes of the large ones among them.
    pub(crate) pending_bytes: usize,
    /// The earliest deadline of announcements.
    pub(crate) flush_due: Instant,
    tick_due: Instant,
    /// `publish` was refused for want of room in this class for so many bytes.
    full: Option<(Priority, usize)>,
    pub(crate) pulls: Pulls,
    /// Own large objects that stay until the neighbours have them: since when, and their sizes.
    pinned: VecDeque<(Instant, ObjectId, usize)>,
    pub(crate) pinned_bytes: usize,
}

impl Topic {
    /// A node without neighbours. `seed` decides all chance and is secret.
    #[must_use]
    pub fn new(topic: TopicId, me: NodeId, config: Config, seed: [u8; 32]) -> Self {
        let mut config = config;
        config.far = (config.far.0.clamp(1, 16), config.far.1.clamp(2, 16));
        config.near = (config.near.0.min(16), config.near.1.min(16));
        config.passive_max = config.passive_max.min(256);
        Self {
            topic,
            me,
            config,
            addresses: Vec::new(),
            random: Random::new(seed),
            peers: BTreeMap::new(),
            membership: Membership::default(),
            near: Near::default(),
            missing: Missing::new(),
            objects: Objects::default(),
            scores: Scores::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            pending: 0,
            pending_bytes: 0,
            flush_due: Instant::MAX,
            tick_due: Instant::ZERO,
            full: None,
            pulls: Pulls::default(),
            pinned: VecDeque::new(),
            pinned_bytes: 0,
        }
    }

    /// Says where this node is; other nodes learn it from then on. More than [`ADDRESSES_MAX`]
    /// bytes are cut.
    pub fn set_addresses(&mut self, mut addresses: Vec<u8>) {
        addresses.truncate(ADDRESSES_MAX);
        self.addresses = addresses;
    }

    /// Whether objects that come from now on wait for [`Topic::verdict`]: `Config::validate`.
    pub fn set_validate(&mut self, validate: bool) {
        self.config.validate = validate;
    }

    /// Sends an object to all nodes of the topic but this one.
    ///
    /// # Errors
    ///
    /// Why not; [`PublishError::Full`] is over when [`Output::Room`] comes.
    pub fn publish(
        &mut self,
        now: Now,
        content: Arc<[u8]>,
        priority: Priority,
        lifetime: Duration,
    ) -> Result<ObjectId, PublishError> {
        if content.is_empty() {
            return Err(PublishError::Empty);
        }
        if content.len() > OBJECT_MAX {
            return Err(PublishError::TooLarge);
        }
        if lifetime < Duration::from_millis(1) || lifetime > self.config.lifetime_max {
            return Err(PublishError::Lifetime);
        }
        self.unpin(now.instant);
        if !self.has_room(priority, content.len()) {
            self.full = Some((priority, content.len()));
            return Err(PublishError::Full);
        }
        let header = Header {
            priority,
            expiry_ms: millis(now.unix).saturating_add(duration_millis(lifetime)),
            size_bytes: content.len() as u32,
            salt: self.random.word(),
        };
        let body = if header.is_large() {
            let hashes = content.chunks(CHUNK_LEN).flat_map(chunk_hash);
            hashes.collect()
        } else {
            content.clone()
        };
        let id = ObjectId::new(&self.topic, &header, &body);
        let room = self.config.store_bytes_max;
        self.objects.make_room(content.len() + body.len(), room);
        let held = self.objects.insert(id, header, body, self.me);
        if header.is_large() {
            held.pinned = true;
            held.content = Some(content.clone());
            self.objects.grow(&id, content.len());
            self.pinned_bytes += content.len();
            self.pinned.push_back((now.instant, id, content.len()));
        }
        self.counters.published += 1;
        self.forward(now.instant, &id);
        Ok(id)
    }

    /// Whether half of the neighbours can take more of a class, and the store `size` more bytes.
    fn has_room(&self, class: Priority, size: usize) -> bool {
        let queue =
            |peer: &&Peer| peer.queues[class.index()].bytes * 2 < self.config.queue_bytes_max;
        let active = self.peers.values().filter(|peer| peer.is_active());
        let free = active.clone().filter(queue).count();
        let large = size > CHUNK_LEN && self.pinned_bytes > 0;
        let pinned = self.pinned_bytes + size;
        free * 2 >= active.count()
            && self.objects.seen_len() < self.config.seen_max
            && !(large && pinned * 2 > self.config.store_bytes_max)
            && !(large && pinned + self.pulls.reserved() > self.config.store_bytes_max)
    }

    /// Own large objects that all neighbours have, or that are old, may go.
    fn unpin(&mut self, now: Instant) {
        let active = self.peers.values().filter(|peer| peer.is_active());
        let active = active.fold(0, |bits, peer| bits | peer.bit());
        let objects = &mut self.objects;
        let bytes = &mut self.pinned_bytes;
        self.pinned.retain(|(since, id, size)| {
            let Some(held) = objects.held(id) else {
                *bytes -= size;
                return false;
            };
            let everywhere = active != 0 && active & !held.complete == 0;
            held.pinned = !everywhere && now.saturating_since(*since) < PIN_TIME;
            *bytes -= if held.pinned { 0 } else { *size };
            held.pinned
        });
    }

    /// A link to a node is usable, whoever made it.
    pub fn peer_up(&mut self, now: Now, node: NodeId) {
        if self.scores.is_banned(&node) || node == self.me {
            return self.outputs.push_back(Output::Disconnect(node));
        }
        if !self.peers.contains_key(&node) && !self.add_peer(node, Link::Up, now.instant) {
            return self.outputs.push_back(Output::Disconnect(node));
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.link = Link::Up;
        if let Role::Guest(since) = &mut peer.role {
            *since = now.instant;
        }
        for (class, queue) in Priority::ALL.into_iter().zip(&mut peer.queues) {
            queue.moved = now.instant;
            if !queue.items.is_empty() && !queue.told {
                queue.told = true;
                self.outputs.push_back(Output::Ready(node, class));
            }
        }
        if matches!(peer.role, Role::Probed(_)) {
            self.send_ping(now.instant, &node);
        }
    }

    /// A link is gone, or could not be made.
    pub fn peer_down(&mut self, now: Now, node: NodeId) {
        self.lose(&node);
        self.remove_peer(now.instant, &node);
        self.on_link_gone(now.instant, &node);
        self.tell_room();
    }

    /// A whole message came from a node, in the order in which it was sent in its class.
    pub fn handle_message(&mut self, now: Now, from: NodeId, message: &[u8]) {
        if !self.peers.contains_key(&from) {
            self.peer_up(now, from);
        }
        if !self.peers.contains_key(&from) {
            return;
        }
        let Ok(message) = Message::parse(message) else {
            self.counters.malformed += 1;
            return self.blame(now.instant, &from, Misdeed::Malformed);
        };
        let instant = now.instant;
        match message {
            Message::Ping { token } => self.send(instant, &from, &Message::Pong { token }),
            Message::Pong { token } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.on_pong(instant, token);
                }
                self.on_probed(instant, &from);
            }
            Message::Object { .. }
            | Message::IHave { .. }
            | Message::Graft { .. }
            | Message::Prune { .. }
            | Message::Lack { .. }
            | Message::Have { .. }
            | Message::Want { .. }
            | Message::Chunk { .. } => self.handle_broadcast(now, from, message),
            _ => self.handle_membership(instant, from, message),
        }
    }

    fn handle_broadcast(&mut self, now: Now, from: NodeId, message: Message<'_>) {
        if !self.is_active(&from) && !self.is_accepted_by(now.instant, &from) {
            // It does not know yet, or does not care; either way it hears it once per message.
            return self.send(now.instant, &from, &Message::Disconnect);
        }
        match message {
            Message::Object { header, body } => self.on_object(now, from, header, body),
            Message::IHave { priority, ids } => self.on_ihave(now.instant, from, priority, &ids),
            Message::Graft {
                priority,
                push,
                ids,
            } => self.on_graft(now.instant, from, priority, push, ids),
            Message::Prune { priority } => self.on_prune(from, priority),
            Message::Lack { ids } => self.on_lack(now.instant, from, &ids),
            Message::Have { id, ranges } => self.on_have(now.instant, from, id, &ranges),
            Message::Want { id, ranges } => self.on_want(now.instant, from, id, &ranges),
            Message::Chunk { id, index, bytes } => self.on_chunk(now, from, id, index, bytes),
            _ => {}
        }
    }

    /// The owner's answer to [`Output::Validate`].
    pub fn verdict(&mut self, now: Now, id: ObjectId, verdict: Verdict) {
        let Some(held) = self.objects.held(&id).filter(|held| held.pending) else {
            return;
        };
        held.pending = false;
        let from = held.from;
        let large = held.header.is_large();
        self.pending_bytes -= if large { held.header.size() } else { 0 };
        self.pending = self.pending.saturating_sub(1);
        if verdict == Verdict::Accept {
            return self.deliver(now, &id);
        }
        self.counters.rejected += 1;
        self.objects.release(&id);
        if verdict == Verdict::Reject {
            self.blame(now.instant, &from, Misdeed::Rejected);
        }
    }

    /// The next message for a node in a class, when its stream can take one.
    pub fn poll_send(&mut self, now: Now, node: NodeId, class: Priority) -> Option<Vec<u8>> {
        let message = self.next_message(now, &node, class);
        if let Some(message) = &message {
            self.counters.sent_messages += 1;
            self.counters.sent_bytes += message.len() as u64;
        }
        self.tell_room();
        message
    }

    fn next_message(&mut self, now: Now, node: &NodeId, class: Priority) -> Option<Vec<u8>> {
        loop {
            let peer = self
                .peers
                .get_mut(node)
                .filter(|peer| peer.link == Link::Up)?;
            let bit = peer.bit();
            let queue = &mut peer.queues[class.index()];
            let Some(item) = queue.pop(now.instant) else {
                queue.told = false;
                return None;
            };
            match item {
                Item::Control(bytes) => return Some(bytes),
                Item::Object {
                    id,
                    header,
                    body,
                    asked,
                } => {
                    let held = self.objects.held(&id);
                    let has = held.is_some_and(|held| held.has & bit != 0);
                    if header.is_expired(now.unix) {
                        self.counters.expired += 1;
                    } else if asked || !has {
                        return Some(emit_object(&header, &body));
                    }
                }
                Item::Chunk { id, index } => {
                    peer.serving = peer.serving.saturating_sub(1);
                    if let Some(message) = self.chunk_message(now, &id, index) {
                        return Some(message);
                    }
                }
            }
        }
    }

    /// The next thing to do for the owner. Drain it after each call of anything else.
    pub fn poll_output(&mut self, _now: Now) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.tick_due.min(self.flush_due);
        Some(self.missing.next_due().map_or(due, |next| next.min(due)))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.tick_due <= now.instant {
            self.tick(now);
        }
        self.run_missing(now.instant);
        self.flush(now.instant);
    }

    /// What is looked at once a second.
    fn tick(&mut self, now: Now) {
        let instant = now.instant;
        self.tick_due = instant + TICK;
        self.scores.tick(instant);
        let grace = duration_millis(self.config.clock_skew);
        self.objects.expire(now.unix, grace);
        self.tick_chunks(now);
        self.unpin(instant);
        self.drop_stuck(instant);
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.send_ping(instant, &node);
        }
        self.tick_membership(instant);
        self.tell_room();
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much there is of what; [`Config::memory_max`] bounds [`Memory::bytes`].
    #[must_use]
    pub fn memory(&self) -> Memory {
        let queues = self.peers.values().flat_map(|peer| &peer.queues);
        let announced = self.peers.values().flat_map(|peer| &peer.announce);
        Memory {
            peers: self.peers.len(),
            passive: self.membership.passive_len(),
            seen: self.objects.seen_len(),
            held: self.objects.held_len(),
            store_bytes: self.objects.bytes(),
            pinned_bytes: self.pinned_bytes,
            queue_bytes: queues.map(|queue| queue.bytes).sum(),
            announced: announced.map(Vec::len).sum(),
            missing: self.missing.len(),
            pulls: self.pulls.len(),
            pending: self.pending,
            scores: self.scores.len(),
        }
    }

    /// The neighbours, in the order of their ids.
    pub fn neighbours(&self) -> impl Iterator<Item = &NodeId> {
        let active = self.peers.iter().filter(|(_, peer)| peer.is_active());
        active.map(|(node, _)| node)
    }

    pub(crate) fn is_active(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(Peer::is_active)
    }

    /// Queues a control message.
    pub(crate) fn send(&mut self, now: Instant, to: &NodeId, message: &Message<'_>) {
        self.enqueue(now, to, Priority::Urgent, Item::Control(message.emit()));
    }

    pub(crate) fn enqueue(&mut self, now: Instant, to: &NodeId, class: Priority, item: Item) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        let queue = &mut peer.queues[class.index()];
        let max = self.config.queue_bytes_max + CONTROL_BYTES_MAX;
        if queue.bytes + item.len() > max {
            // It reads nothing; the next tick drops it.
            return;
        }
        queue.push(now, item);
        if peer.link == Link::Up && !queue.told {
            queue.told = true;
            self.outputs.push_back(Output::Ready(*to, class));
        }
    }

    pub(crate) fn send_ping(&mut self, now: Instant, node: &NodeId) {
        let token = self.random.word();
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let wanted = peer.is_active() || matches!(peer.role, Role::Probed(_));
        if !wanted || peer.ping_due > now {
            return;
        }
        peer.ping_due = now + self.config.ping_interval;
        peer.ping = Some((token, now));
        self.send(now, node, &Message::Ping { token });
    }

    /// Has a link to `contact` made if there is none; false if there is no room for it.
    pub(crate) fn link_to(&mut self, now: Instant, contact: Contact, role: Role) -> bool {
        let node = contact.node;
        if node == self.me {
            return false;
        }
        if !self.peers.contains_key(&node) {
            if !self.add_peer(node, Link::Connecting(now), now) {
                return false;
            }
            self.outputs.push_back(Output::Connect(contact.clone()));
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.role = role;
            peer.addresses = contact.addresses;
        }
        true
    }

    /// Nodes with a link, for whatever.
    pub(crate) fn has_link(&self, node: &NodeId) -> bool {
        self.peers.contains_key(node)
    }

    fn add_peer(&mut self, node: NodeId, link: Link, now: Instant) -> bool {
        if self.peers.len() >= PEERS_MAX {
            let guests = self
                .peers
                .iter()
                .filter_map(|(node, peer)| match peer.role {
                    Role::Guest(since) => Some((since, *node)),
                    _ => None,
                });
            let Some((_, oldest)) = guests.min() else {
                return false;
            };
            self.drop_link(now, &oldest);
        }
        let used = self.peers.values().fold(0, |used, peer| used | peer.bit());
        let slot = (!used).trailing_zeros();
        let peer = Peer::new(slot as u8, link, Role::Guest(now), Vec::new());
        self.peers.insert(node, peer);
        true
    }

    fn remove_peer(&mut self, now: Instant, node: &NodeId) {
        self.forget_source(now, node);
        if let Some(peer) = self.peers.remove(node) {
            self.objects.clear_slot(peer.bit());
        }
    }

    /// Forgets a node and its link.
    pub(crate) fn drop_link(&mut self, now: Instant, node: &NodeId) {
        self.remove_peer(now, node);
        self.outputs.push_back(Output::Disconnect(*node));
    }

    fn drop_stuck(&mut self, now: Instant) {
        let limits = [20, 30, 60].map(Duration::from_secs);
        let stuck = self.peers.iter().filter(|(_, peer)| {
            let waits = peer.queues.iter().zip(limits);
            let mut late = waits.filter(|(queue, limit)| {
                !queue.items.is_empty() && now.saturating_since(queue.moved) > *limit
            });
            peer.link == Link::Up && late.next().is_some()
        });
        let stuck: Vec<NodeId> = stuck.map(|(node, _)| *node).collect();
        for node in stuck {
            self.counters.stuck += 1;
            self.drop_link(now, &node);
            self.on_link_gone(now, &node);
        }
    }

    /// Writes a misdeed down, and drops the node if it is one too many.
    pub(crate) fn blame(&mut self, now: Instant, node: &NodeId, misdeed: Misdeed) {
        if self.scores.blame(now, node, misdeed) {
            self.counters.banned += 1;
            self.drop_link(now, node);
            self.on_link_gone(now, node);
        }
    }

    fn tell_room(&mut self) {
        if self
            .full
            .is_some_and(|(class, size)| self.has_room(class, size))
        {
            self.full = None;
            self.outputs.push_back(Output::Room);
        }
    }
}
