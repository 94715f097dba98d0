//! A topic that this node has joined: the machine of `wiremesh-gossip` behind a lock, and what
//! its outputs mean here.
//!
//! Owns the lock, the deadline, the contacts to join by, and the way to the subscribers. Everyone
//! who feeds the machine drains it under the same lock. Lock order: the service's, this one, then
//! a link's or a buffer's.

use super::buffer::Buffer;
use super::contact;
use super::link::Link;
use super::service::Service;
use super::{Handle, Object, TopicStatus};
use crate::port::lock;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::Instant as Deadline;
use wiremesh_gossip::{
    Config, Contact, ObjectId, Output, PublishError as Refusal, Topic as Machine, TopicId, Verdict,
};
use wiremesh_wire::{Instant, NodeId, Now, Priority};

/// The longest sleep: the runtime's timer may stop while the host sleeps, the machine's does not.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// Least time between two looks for nodes to join by.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the own addresses are looked up, and other contacts tried.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Contacts to join by that are given at a time.
const CONTACTS: usize = 16;
/// How long the last words may take to leave.
const GOODBYE: Duration = Duration::from_millis(300);

/// The application's say about an object.
pub(super) type Validator = Arc<dyn Fn(&Object) -> Verdict + Send + Sync>;

/// See the module.
pub(crate) struct Running {
    pub(super) id: TopicId,
    pub(super) name: String,
    pub(super) service: Arc<Service>,
    state: Mutex<State>,
    /// The deadline came nearer, or the topic is being left.
    wake: Notify,
    /// Nobody holds a handle any more.
    unheld: Notify,
    /// There is room to publish.
    pub(super) room: Notify,
    /// Objects wait for the application's say, by class.
    asked: [Notify; 3],
}

pub(super) struct State {
    machine: Machine,
    /// The links to each node; the first one is written to.
    links: BTreeMap<NodeId, Vec<Arc<Link>>>,
    subscribers: Vec<Weak<Buffer>>,
    /// Objects that nobody reads any more missed.
    missed_before: u64,
    validator: Option<Validator>,
    unjudged: [VecDeque<Object>; 3],
    handle: Weak<Handle>,
    /// Since when nobody holds a handle.
    left: Option<Deadline>,
    ended: bool,
    armed: Instant,
    looked: Option<Instant>,
    refreshed: Option<Instant>,
    /// Whom it was told to join by last.
    contacts: Option<Vec<NodeId>>,
}

impl Running {
    pub(super) fn new(
        service: &Arc<Service>,
        name: &str,
        id: TopicId,
        config: Config,
        seed: [u8; 32],
    ) -> Self {
        let machine = Machine::new(id, service.tunnel.node_id, config, seed);
        Self {
            id,
            name: name.to_owned(),
            service: Arc::clone(service),
            state: Mutex::new(State {
                machine,
                links: BTreeMap::new(),
                subscribers: Vec::new(),
                missed_before: 0,
                validator: None,
                unjudged: Default::default(),
                handle: Weak::new(),
                left: None,
                ended: false,
                armed: Instant::MAX,
                looked: None,
                refreshed: None,
                contacts: None,
            }),
            wake: Notify::new(),
            unheld: Notify::new(),
            room: Notify::new(),
            asked: Default::default(),
        }
    }

    /// Runs `f` on the machine and drains it.
    fn with<T>(self: &Arc<Self>, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let now = self.service.tunnel.host.now();
        let mut state = lock(&self.state);
        let result = f(&mut state, now);
        while let Some(output) = state.machine.poll_output(now) {
            self.on_output(&mut state, output);
        }
        let due = state.machine.poll_timeout().unwrap_or(Instant::MAX);
        if due < state.armed {
            self.wake.notify_one();
        }
        result
    }

    fn on_output(self: &Arc<Self>, state: &mut State, output: Output) {
        match output {
            Output::Connect(contact) => {
                let running = Arc::clone(self);
                let service = Arc::clone(&self.service);
                self.service
                    .tunnel
                    .runtime
                    .spawn(async move { service.link_for(&running, contact).await });
            }
            Output::Disconnect(node) => {
                for link in state.links.remove(&node).unwrap_or_default() {
                    self.service.detach(&link, self.id);
                }
            }
            Output::Ready(node, class) => {
                if let Some(link) = state.links.get(&node).and_then(|links| links.first()) {
                    link.ready(self, class);
                }
            }
            Output::Validate {
                id,
                priority,
                from,
                expiry_ms,
                content,
            } => {
                let object = object(id, priority, from, expiry_ms, content);
                state.unjudged[priority.index()].push_back(object);
                self.asked[priority.index()].notify_one();
            }
            Output::Deliver {
                id,
                priority,
                from,
                expiry_ms,
                content,
            } => {
                let object = object(id, priority, from, expiry_ms, content);
                state.give_out(&object);
            }
            Output::Room => self.room.notify_waiters(),
        }
    }

    /// A link to a node may be used for the topic.
    pub(super) fn attach(self: &Arc<Self>, link: &Arc<Link>) {
        self.with(|state, now| {
            if state.ended || state.is_on(link) || !link.is_good_for(&self.id) {
                return;
            }
            let links = state.links.entry(link.peer).or_default();
            links.push(Arc::clone(link));
            if links.len() == 1 {
                state.machine.peer_up(now, link.peer);
            }
        });
    }

    /// There is no link to a node that the machine wanted.
    pub(super) fn no_link(self: &Arc<Self>, node: NodeId) {
        self.with(|state, now| {
            if !state.links.contains_key(&node) {
                state.machine.peer_down(now, node);
            }
        });
    }

    /// A link is gone, or of no use for the topic; another one to the same node may be there.
    pub(super) fn lose(self: &Arc<Self>, link: &Link, other: Option<&Arc<Link>>) {
        self.with(|state, now| {
            let Some(links) = state.links.get_mut(&link.peer) else {
                return;
            };
            let Some(place) = links.iter().position(|known| known.id == link.id) else {
                return;
            };
            links.remove(place);
            if let (Some(other), true) = (other, links.is_empty()) {
                links.extend(
                    Some(other)
                        .filter(|other| other.is_good_for(&self.id))
                        .cloned(),
                );
            }
            let left = !links.is_empty();
            if !left {
                state.links.remove(&link.peer);
            }
            if place == 0 {
                // What was on its way is lost.
                state.machine.peer_down(now, link.peer);
                if left {
                    state.machine.peer_up(now, link.peer);
                }
            }
        });
    }

    pub(super) fn is_on(&self, link: &Link) -> bool {
        lock(&self.state).is_on(link)
    }

    /// A message came; false if the topic has no use for its sender any more.
    pub(super) fn handle_message(self: &Arc<Self>, from: &NodeId, message: &[u8]) -> bool {
        self.with(|state, now| {
            let welcome = state.links.contains_key(from);
            if welcome {
                state.machine.handle_message(now, *from, message);
            }
            welcome
        })
    }

    pub(super) fn poll_send(self: &Arc<Self>, to: NodeId, class: Priority) -> Option<Vec<u8>> {
        self.with(|state, now| state.machine.poll_send(now, to, class))
    }

    /// `None` once the node is closed.
    pub(super) fn publish(
        self: &Arc<Self>,
        content: Arc<[u8]>,
        priority: Priority,
        lifetime: Duration,
    ) -> Option<Result<ObjectId, Refusal>> {
        self.with(|state, now| {
            let open = !state.ended;
            open.then(|| state.machine.publish(now, content, priority, lifetime))
        })
    }

    pub(super) fn subscribe(&self, buffer: &Arc<Buffer>) {
        let mut state = lock(&self.state);
        if state.ended {
            buffer.close();
        }
        state.subscribers.push(Arc::downgrade(buffer));
    }

    /// A subscription is dropped.
    pub(super) fn unsubscribe(&self, buffer: &Arc<Buffer>) {
        let mut state = lock(&self.state);
        state.missed_before += buffer.missed();
        let gone = Arc::as_ptr(buffer);
        state.subscribers.retain(|known| known.as_ptr() != gone);
    }

    /// Gives the handle of those who use the topic now; `fresh` becomes it if there is none.
    pub(super) fn handle(self: &Arc<Self>, fresh: impl FnOnce() -> Handle) -> Option<Arc<Handle>> {
        let mut state = lock(&self.state);
        if state.ended {
            return None;
        }
        if let Some(handle) = state.handle.upgrade() {
            return Some(handle);
        }
        let handle = Arc::new(fresh());
        state.handle = Arc::downgrade(&handle);
        state.left = None;
        state.looked = None;
        state.contacts = None;
        self.wake.notify_one();
        Some(handle)
    }

    /// Whether anybody uses it.
    pub(super) fn is_held(&self) -> bool {
        lock(&self.state).handle.strong_count() > 0
    }

    /// Ready when nobody uses it any more.
    pub(super) async fn unheld(&self) {
        loop {
            let changed = self.unheld.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.is_held() {
                return;
            }
            changed.await;
        }
    }

    /// Those who use it, if it is used.
    pub(super) fn held(&self) -> Option<Arc<Handle>> {
        lock(&self.state).handle.upgrade()
    }

    /// The last handle is gone.
    pub(super) fn leave(self: &Arc<Self>) {
        self.with(|state, now| {
            if state.handle.strong_count() == 0 && state.left.is_none() {
                state.left = Some(Deadline::now());
                state.machine.leave(now);
            }
        });
        self.wake.notify_one();
        self.unheld.notify_waiters();
    }

    /// Ends it at once: links are let go, subscribers and publishers told.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        for link in std::mem::take(&mut state.links).into_values().flatten() {
            self.service.detach(&link, self.id);
        }
        for buffer in state.subscribers.iter().filter_map(Weak::upgrade) {
            buffer.close();
        }
        drop(state);
        self.room.notify_waiters();
        self.wake.notify_one();
        self.asked.iter().for_each(Notify::notify_one);
    }

    pub(crate) fn status(&self) -> TopicStatus {
        let state = lock(&self.state);
        let counters = *state.machine.counters();
        let memory = state.machine.memory();
        let buffers = state.subscribers.iter().filter_map(Weak::upgrade);
        TopicStatus {
            name: self.name.clone(),
            id: self.id,
            neighbours: state.machine.neighbours().copied().collect(),
            links: state.links.len(),
            missed: state.missed_before + buffers.map(|buffer| buffer.missed()).sum::<u64>(),
            counters,
            memory,
        }
    }

    /// The one task of a topic: deadlines, contacts, the end.
    pub(super) async fn drive(self: Arc<Self>) {
        loop {
            let (due, left, ended) = self.arm();
            if ended {
                return;
            }
            if left.is_some_and(|left| left.elapsed() >= GOODBYE) {
                if self.service.end_topic(&self) {
                    return;
                }
                continue;
            }
            let due = left.map_or(due, |left| due.min(left + GOODBYE));
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.wake.notified() => {}
            }
            self.with(|state, now| {
                state.machine.handle_timeout(now);
                self.look_for_contacts(state, now);
            });
        }
    }

    fn arm(&self) -> (Deadline, Option<Deadline>, bool) {
        let now = self.service.tunnel.host.now().instant;
        let mut state = lock(&self.state);
        let due = state.machine.poll_timeout().unwrap_or(Instant::MAX);
        state.armed = due;
        let sleep = due.saturating_since(now).min(SLEEP_MAX);
        (Deadline::now() + sleep, state.left, state.ended)
    }

    /// Tells the machine whom to join by, while it has no neighbour.
    fn look_for_contacts(&self, state: &mut State, now: Now) {
        let since = |at: Option<Instant>| at.map(|at| now.instant.saturating_since(at));
        if since(state.refreshed).is_none_or(|age| age >= REFRESH_EVERY) {
            state.refreshed = Some(now.instant);
            let addresses = contact::emit(&self.service.own_addresses());
            state.machine.set_addresses(addresses);
            state.contacts = None;
        }
        let lonely = state.left.is_none() && state.machine.neighbours().next().is_none();
        if !lonely || since(state.looked).is_some_and(|age| age < LOOK_EVERY) {
            return;
        }
        state.looked = Some(now.instant);
        let contacts = self.service.peers_to_join_by(CONTACTS);
        if state.contacts.as_ref() == Some(&contacts) {
            return;
        }
        let named = contacts.iter().map(|node| Contact {
            node: *node,
            addresses: Vec::new(),
        });
        let named: Vec<Contact> = named.collect();
        state.machine.join(now, &named);
        state.contacts = Some(contacts);
    }

    /// Asks `validator` about each object from now on.
    pub(super) fn validate(self: &Arc<Self>, validator: Validator) {
        let first = self.with(|state, _| {
            state.machine.set_validate(true);
            state.validator.replace(validator).is_none()
        });
        if first {
            for class in Priority::ALL {
                let running = Arc::clone(self);
                self.service
                    .tunnel
                    .runtime
                    .spawn(async move { running.judge_all(class).await });
            }
        }
    }

    /// Asks about the objects of one class, one at a time, each in a thread where it may block and
    /// may panic.
    async fn judge_all(self: Arc<Self>, class: Priority) {
        loop {
            let next = {
                let mut state = lock(&self.state);
                if state.ended {
                    return;
                }
                let object = state.unjudged[class.index()].pop_front();
                object.zip(state.validator.clone())
            };
            let Some((object, validator)) = next else {
                self.asked[class.index()].notified().await;
                continue;
            };
            let id = object.id;
            let asked = tokio::task::spawn_blocking(move || validator(&object)).await;
            let verdict = asked.unwrap_or_else(|error| {
                tracing::warn!(%error, "the validation of an object failed: it is ignored");
                Verdict::Ignore
            });
            self.with(|state, now| state.machine.verdict(now, id, verdict));
        }
    }
}

impl State {
    fn is_on(&self, link: &Link) -> bool {
        let links = self.links.get(&link.peer).into_iter().flatten();
        links.into_iter().any(|known| known.id == link.id)
    }

    fn give_out(&mut self, object: &Object) {
        for buffer in self.subscribers.iter().filter_map(Weak::upgrade) {
            buffer.push(object.clone());
        }
    }
}

fn object(
    id: ObjectId,
    priority: Priority,
    from: NodeId,
    expiry_ms: u64,
    content: Arc<[u8]>,
) -> Object {
    Object {
        id,
        priority,
        from,
        expires: UNIX_EPOCH + Duration::from_millis(expiry_ms),
        content: Bytes::from_owner(content),
    }
}

/// The date on the node's clock.
pub(super) fn date(now: Now) -> SystemTime {
    UNIX_EPOCH + now.unix.as_duration()
}
