//! Many topics in one thread: virtual time, links with latency, rate and loss, all from a seed.
//!
//! A link is three reliable ordered streams, one per class; a loss delays what follows it by a
//! round trip. The sender takes a message from the topic when its link is free, the most urgent
//! class first.
#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use wiremesh_gossip::{Config, Contact, ObjectId, Output, PublishError, Topic, TopicId, Verdict};
use wiremesh_wire::{Instant, NodeId, Now, Priority, UnixTime, network_id};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c909)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }
}

/// A valid node id, by number.
pub fn node_id(number: u64) -> NodeId {
    let mut random = Random::new(number);
    loop {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&random.word().to_le_bytes());
        }
        bytes[31] &= 0x7f;
        if let Ok(node) = NodeId::from_bytes(&bytes) {
            return node;
        }
    }
}

/// What a world is made of.
#[derive(Clone)]
pub struct Settings {
    pub seed: u64,
    pub nodes: usize,
    pub config: Config,
    /// One way, from and up to.
    pub latency_ms: (u64, u64),
    /// How far apart two nodes are, one way; otherwise every pair draws its own latency.
    pub distance: Option<Arc<dyn Fn(usize, usize) -> Duration>>,
    /// Of a thousand messages, so many are lost once.
    pub loss_permille: u64,
    /// Bytes a second of each node's uplink; none: without limit.
    pub rate: Option<u64>,
}

impl Settings {
    pub fn new(nodes: usize, seed: u64) -> Self {
        Self {
            seed,
            nodes,
            config: Config::default(),
            latency_ms: (20, 80),
            distance: None,
            loss_permille: 10,
            rate: None,
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Up(usize, usize),
    Down(usize, usize),
    Message(usize, usize, u64, Vec<u8>),
    Timeout(usize),
    Free(usize),
    /// A node that does not exist cannot be reached.
    Failed(usize, NodeId),
}

pub struct Node {
    pub topic: Topic,
    pub alive: bool,
    /// Never takes a message of its queues.
    pub mute: bool,
    /// Never reads, so that nobody can send it anything.
    pub deaf: bool,
    /// Damages the chunks that it sends.
    pub damages: bool,
    /// Does not count when the time to reach all is measured.
    pub hostile: bool,
    /// Counts restarts; what was on its way to an earlier life is lost.
    life: u64,
    /// Its deadline that is in the heap.
    due: Option<Instant>,
    links: BTreeSet<usize>,
    /// Links with something to send, by class.
    ready: BTreeSet<(Priority, usize)>,
    /// Of those, the last that was served, per class.
    turn: usize,
    busy_until: Instant,
    pub delivered: BTreeMap<ObjectId, Instant>,
    /// How often something was delivered twice; must stay zero.
    pub twice: u64,
    /// How often something was delivered that had expired; must stay zero.
    pub late: u64,
    /// When this life began.
    pub since: Instant,
    /// In the order of arrival.
    pub contents: Vec<(ObjectId, Arc<[u8]>)>,
    pub rooms: u64,
    pub validate: fn(&[u8]) -> Verdict,
}

pub struct Net {
    pub settings: Settings,
    pub now: Now,
    pub nodes: Vec<Node>,
    /// By number.
    pub ids: Vec<NodeId>,
    pub numbers: BTreeMap<NodeId, usize>,
    heap: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    next: u64,
    random: Random,
    /// When the last message of a stream arrives.
    streams: BTreeMap<(usize, usize, Priority), Instant>,
    /// Nodes on either side cannot reach each other.
    pub split: Option<usize>,
    pub keep_contents: bool,
    /// Bytes of all messages that were sent.
    pub sent_bytes: u64,
    pub sent_messages: u64,
    /// Of everything that happened.
    pub trace: u64,
    /// Links to nodes that do not exist.
    pub failed_links: u64,
    /// When objects expire.
    expiries: BTreeMap<ObjectId, UnixTime>,
}

impl Net {
    pub fn new(settings: Settings) -> Self {
        let mut net = Self {
            now: Now::new(
                Instant::from_nanos(1_000_000_000),
                UnixTime::from_secs_nanos(1_700_000_000, 0),
            ),
            nodes: Vec::new(),
            ids: Vec::new(),
            numbers: BTreeMap::new(),
            heap: BinaryHeap::new(),
            next: 0,
            random: Random::new(settings.seed),
            streams: BTreeMap::new(),
            split: None,
            keep_contents: false,
            sent_bytes: 0,
            sent_messages: 0,
            trace: 0,
            failed_links: 0,
            expiries: BTreeMap::new(),
            settings,
        };
        for number in 0..net.settings.nodes {
            net.add_node(number);
        }
        net
    }

    fn add_node(&mut self, number: usize) {
        let me = node_id(number as u64);
        self.numbers.insert(me, number);
        self.ids.push(me);
        let topic = self.new_topic(number, 0);
        self.nodes.push(Node {
            topic,
            alive: true,
            mute: false,
            deaf: false,
            damages: false,
            hostile: false,
            life: 0,
            due: None,
            links: BTreeSet::new(),
            ready: BTreeSet::new(),
            turn: 0,
            busy_until: Instant::ZERO,
            delivered: BTreeMap::new(),
            twice: 0,
            late: 0,
            since: self.now.instant,
            contents: Vec::new(),
            rooms: 0,
            validate: |_| Verdict::Accept,
        });
    }

    fn new_topic(&self, number: usize, life: u64) -> Topic {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.settings.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        seed[16..24].copy_from_slice(&life.to_le_bytes());
        let topic = TopicId::new(&network_id(""), "test");
        let me = self.ids[number];
        let mut topic = Topic::new(topic, me, self.settings.config.clone(), seed);
        topic.set_addresses((number as u32).to_be_bytes().to_vec());
        topic
    }

    /// All nodes join through node 0, one after the other.
    pub fn join_all(&mut self, gap: Duration) {
        self.join(0);
        for number in 1..self.nodes.len() {
            self.join(number);
            self.run(gap);
        }
    }

    pub fn join(&mut self, number: usize) {
        let seed_node = usize::from(number == 0);
        let contacts = self.contact(seed_node);
        self.nodes[number].topic.join(self.now, &[contacts]);
        self.drain(number);
    }

    pub fn contact(&self, number: usize) -> Contact {
        Contact {
            node: self.ids[number],
            addresses: (number as u32).to_be_bytes().to_vec(),
        }
    }

    pub fn latency(&self, a: usize, b: usize) -> Duration {
        let (low, high) = self.settings.latency_ms;
        if let Some(distance) = &self.settings.distance {
            return distance(a, b);
        }
        let mut random = Random::new(self.settings.seed ^ ((a.min(b) << 20) + a.max(b)) as u64);
        let micros = low * 1_000 + random.below((high - low) * 1_000);
        Duration::from_micros(micros)
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.next += 1;
        self.heap.push(Reverse((at, self.next, event)));
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(Reverse((at, ..))) = self.heap.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.heap.pop() else {
                break;
            };
            self.set_time(at);
            self.step(event);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, at: Instant) {
        self.now = self.now + at.saturating_since(self.now.instant);
    }

    fn step(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Up(at, peer) => {
                if !self.reachable(at, peer) {
                    self.nodes[at].topic.peer_down(now, self.ids[peer]);
                } else if self.nodes[at].alive && self.nodes[at].links.insert(peer) {
                    self.nodes[at].topic.peer_up(now, self.ids[peer]);
                }
                self.drain(at);
            }
            Event::Down(at, peer) => {
                self.nodes[at].ready.retain(|(_, to)| *to != peer);
                if self.nodes[at].links.remove(&peer) && self.nodes[at].alive {
                    self.nodes[at].topic.peer_down(now, self.ids[peer]);
                    self.drain(at);
                }
            }
            Event::Message(from, to, life, bytes) => {
                if !self.nodes[to].alive || self.nodes[to].life != life {
                    return;
                }
                if !self.nodes[to].links.contains(&from) {
                    return;
                }
                self.trace = self.trace.wrapping_mul(31).wrapping_add(
                    now.instant.as_nanos() ^ bytes.len() as u64 ^ ((from as u64) << 32),
                );
                let topic = &mut self.nodes[to].topic;
                topic.handle_message(now, self.ids[from], &bytes);
                self.drain(to);
            }
            Event::Timeout(at) => {
                if self.nodes[at].due != Some(now.instant) {
                    return;
                }
                self.nodes[at].due = None;
                if self.nodes[at].alive {
                    self.nodes[at].topic.handle_timeout(now);
                    self.drain(at);
                }
            }
            Event::Free(at) => self.transmit(at),
            Event::Failed(at, node) => {
                self.nodes[at].topic.peer_down(now, node);
                self.drain(at);
            }
        }
    }

    pub fn reachable(&self, a: usize, b: usize) -> bool {
        let apart = self.split.is_some_and(|split| (a < split) != (b < split));
        self.nodes[a].alive && self.nodes[b].alive && !apart
    }

    /// Carries out what a topic wants.
    pub fn drain(&mut self, at: usize) {
        let now = self.now;
        while let Some(output) = self.nodes[at].topic.poll_output(now) {
            match output {
                Output::Connect(contact) => {
                    let Some(&peer) = self.numbers.get(&contact.node) else {
                        self.failed_links += 1;
                        let event = Event::Failed(at, contact.node);
                        self.schedule(now.instant + Duration::from_secs(3), event);
                        continue;
                    };
                    let trip = self.latency(at, peer);
                    self.schedule(now.instant + trip, Event::Up(peer, at));
                    self.schedule(now.instant + trip * 2, Event::Up(at, peer));
                }
                Output::Disconnect(node) => {
                    let Some(&peer) = self.numbers.get(&node) else {
                        continue;
                    };
                    self.nodes[at].links.remove(&peer);
                    self.nodes[at].ready.retain(|(_, to)| *to != peer);
                    let trip = self.latency(at, peer);
                    self.schedule(now.instant + trip, Event::Down(peer, at));
                }
                Output::Ready(node, class) => {
                    let peer = self.numbers[&node];
                    if !self.nodes[peer].deaf {
                        self.nodes[at].ready.insert((class, peer));
                    }
                }
                Output::Validate { id, content, .. } => {
                    let verdict = (self.nodes[at].validate)(&content);
                    self.nodes[at].topic.verdict(now, id, verdict);
                }
                Output::Deliver { id, content, .. } => {
                    let node = &mut self.nodes[at];
                    if node.delivered.insert(id, now.instant).is_some() {
                        node.twice += 1;
                    }
                    let expiry = self.expiries.get(&id);
                    node.late += u64::from(expiry.is_some_and(|expiry| *expiry <= now.unix));
                    if self.keep_contents {
                        node.contents.push((id, content));
                    }
                }
                Output::Room => self.nodes[at].rooms += 1,
            }
        }
        self.transmit(at);
        let due = self.nodes[at].topic.poll_timeout();
        let due = due.map(|due| due.max(now.instant));
        let known = self.nodes[at].due;
        if let Some(due) = due.filter(|due| known.is_none_or(|known| *due < known)) {
            self.nodes[at].due = Some(due);
            self.schedule(due, Event::Timeout(at));
        }
    }

    /// Sends while the uplink is free: urgent first, then in turn over the links.
    fn transmit(&mut self, at: usize) {
        let now = self.now;
        while self.nodes[at].alive
            && !self.nodes[at].mute
            && self.nodes[at].busy_until <= now.instant
        {
            let node = &mut self.nodes[at];
            let Some(class) = node.ready.first().map(|(class, _)| *class) else {
                return;
            };
            let after = (class, node.turn + 1);
            let next = node.ready.range(after..=(class, usize::MAX)).next();
            let Some((_, peer)) = next.or(node.ready.first()).copied() else {
                return;
            };
            node.turn = peer;
            let Some(bytes) = node.topic.poll_send(now, self.ids[peer], class) else {
                node.ready.remove(&(class, peer));
                continue;
            };
            self.put(at, peer, class, bytes);
            // `Room`, after a message was taken.
            if let Some(Output::Room) = self.nodes[at].topic.poll_output(now) {
                self.nodes[at].rooms += 1;
            }
        }
    }

    fn put(&mut self, at: usize, peer: usize, class: Priority, mut bytes: Vec<u8>) {
        if self.nodes[at].damages && bytes[0] == 17 {
            bytes[40] ^= 1;
        }
        self.sent_bytes += bytes.len() as u64;
        self.sent_messages += 1;
        let mut leaves = self.now.instant;
        if let Some(rate) = self.settings.rate {
            let nanos = bytes.len() as u64 * 1_000_000_000 / rate;
            leaves += Duration::from_nanos(nanos);
            self.nodes[at].busy_until = leaves;
            self.schedule(leaves, Event::Free(at));
        }
        let trip = self.latency(at, peer);
        let mut arrives = leaves + trip;
        if self.random.below(1_000) < self.settings.loss_permille {
            arrives += trip * 9 / 4 + Duration::from_millis(25);
        }
        let last = self.streams.entry((at, peer, class)).or_default();
        arrives = arrives.max(*last);
        *last = arrives;
        if self.reachable(at, peer) {
            let life = self.nodes[peer].life;
            self.schedule(arrives, Event::Message(at, peer, life, bytes));
        }
    }

    pub fn publish(
        &mut self,
        at: usize,
        content: Vec<u8>,
        priority: Priority,
        lifetime: Duration,
    ) -> Result<ObjectId, PublishError> {
        let topic = &mut self.nodes[at].topic;
        let result = topic.publish(self.now, content.into(), priority, lifetime);
        if let Ok(id) = &result {
            self.expiries.insert(*id, self.now.unix + lifetime);
        }
        self.drain(at);
        result
    }

    /// How long each object took to reach a part of the other nodes, in milliseconds, ascending.
    pub fn reach_ms(
        &self,
        objects: impl Iterator<Item = (ObjectId, Instant)>,
        part: f64,
    ) -> Vec<f64> {
        let honest = || self.nodes.iter().filter(|node| !node.hostile);
        let want = ((honest().count() - 1) as f64 * part).ceil() as usize;
        let mut times: Vec<f64> = objects
            .map(|(id, when)| {
                let arrivals = honest().filter_map(|node| node.delivered.get(&id));
                let mut arrivals: Vec<_> = arrivals.collect();
                arrivals.sort_unstable();
                let at = arrivals.get(want - 1);
                at.map_or(f64::INFINITY, |at| {
                    at.saturating_since(when).as_secs_f64() * 1e3
                })
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// Nobody can send a node anything any more.
    pub fn deafen(&mut self, at: usize) {
        self.nodes[at].deaf = true;
        for node in &mut self.nodes {
            node.ready.retain(|(_, to)| *to != at);
        }
    }

    /// Nodes that have a link to node `at`.
    pub fn linked(&self, at: usize) -> Vec<usize> {
        self.nodes[at].links.iter().copied().collect()
    }

    /// Somebody who does not follow the rules sends `bytes` as node `at`.
    pub fn inject(&mut self, at: usize, peer: usize, bytes: Vec<u8>) {
        let trip = self.latency(at, peer);
        let life = self.nodes[peer].life;
        self.schedule(
            self.now.instant + trip,
            Event::Message(at, peer, life, bytes),
        );
    }

    /// A node vanishes; its neighbours notice after `notice`.
    pub fn crash(&mut self, at: usize, notice: Duration) {
        self.nodes[at].alive = false;
        self.nodes[at].life += 1;
        let links = std::mem::take(&mut self.nodes[at].links);
        self.nodes[at].ready.clear();
        for peer in links {
            self.schedule(self.now.instant + notice, Event::Down(peer, at));
        }
    }

    /// A crashed node starts again and knows nothing.
    pub fn restart(&mut self, at: usize) {
        let life = self.nodes[at].life;
        self.nodes[at].topic = self.new_topic(at, life);
        self.nodes[at].alive = true;
        self.nodes[at].since = self.now.instant;
        self.nodes[at].delivered.clear();
        self.nodes[at].contents.clear();
        self.nodes[at].due = None;
        self.nodes[at].busy_until = self.now.instant;
        self.join(at);
    }

    /// No node below `split` reaches one from there on; links across break after `notice`.
    pub fn partition(&mut self, split: usize, notice: Duration) {
        self.split = Some(split);
        for at in 0..self.nodes.len() {
            for peer in self.nodes[at].links.clone() {
                if (at < split) != (peer < split) {
                    self.schedule(self.now.instant + notice, Event::Down(at, peer));
                }
            }
        }
    }
}
