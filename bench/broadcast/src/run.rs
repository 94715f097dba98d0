//! One run: a network forms, objects are published, and what happened is measured.
//!
//! Owns the order of things and the load. Never knows one protocol from another.

use serde::{Deserialize, Serialize};

use crate::net::{BULK, Class, Happening, Links, Net, Traffic, URGENT};
use crate::protocols::{Fleet, Protocol, gossipsub::Gossipsub, iroh::Iroh, ours::Ours};
use crate::random::Random;
use crate::time::{MS, Nanos, SEC, millis};
use crate::transport::Transport;
use clap::ValueEnum;

/// Nodes join one after another.
const JOIN_EVERY: Nanos = 20 * MS;

/// Between the objects that do not count, with which the load begins, and those that do.
const PAUSE: Nanos = 6 * SEC;

/// Objects before those that count, so that trees and meshes have their shape.
const WARM_UP_OBJECTS: usize = 60;

/// After the last object.
const DRAIN: Nanos = 5 * SEC;

/// How often uplinks are looked at, and the load is kept up.
const LOOK_EVERY: Nanos = SEC;

/// An uplink that was busy for this part of the time since is saturated.
const SATURATED: f64 = 0.9;

/// What else the network carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Nothing
    Idle,
    /// Half of the nodes each send an endless bulk stream to some others, beside the broadcast
    Streams,
    /// Bulk objects broadcast by the protocol itself, more whenever less than half of the uplinks
    /// are saturated
    Objects,
}

impl Load {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Streams => "streams",
            Self::Objects => "objects",
        }
    }
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Senders {
    /// Always the same node
    One,
    /// Another one each time
    Random,
}

impl Senders {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Random => "random",
        }
    }
}

/// What is the same in all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// How many nodes.
    pub nodes: usize,
    /// Between the last node that joins and the first object, in seconds.
    pub settle_secs: u64,
    /// Each node's uplink, in bit/s.
    pub rate: u64,
    /// The part of packets that is lost.
    pub loss: f64,
    /// Urgent objects that count.
    pub objects: usize,
    /// The length of one.
    pub object_bytes: usize,
    /// The time between two.
    pub interval_ms: u64,
    /// The length of a bulk object.
    pub bulk_bytes: usize,
    /// Nodes that publish them.
    pub bulk_senders: usize,
    /// Streams of a loaded node.
    pub bulk_streams: usize,
}

/// What differs between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// What is measured.
    pub protocol: Protocol,
    /// Over what.
    pub transport: Transport,
    /// Who publishes.
    pub senders: Senders,
    /// Beside what.
    pub load: Load,
}

/// What came out of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The run.
    pub case: Case,
    /// Its seed.
    pub seed: u64,
    /// For each object the time to reach 99 % of the nodes; null when it did not.
    pub reach_ms: Vec<Option<f64>>,
    /// Part of the deliveries that happened.
    pub delivered: f64,
    /// Deliveries of what a node had.
    pub repeated: u64,
    /// Bytes of urgent messages sent per byte of an urgent object delivered.
    pub message_overhead: f64,
    /// The same on the wire, with headers, acknowledgements and repetitions.
    pub wire_overhead: f64,
    /// Part of the uplinks that were saturated.
    pub saturated: f64,
    /// Bytes of bulk objects that an average node got, in Mbit/s.
    pub bulk_mbit: f64,
    /// Bytes of bulk messages sent per byte of a bulk object delivered.
    pub bulk_overhead: f64,
}

/// Runs one case.
pub fn run(setting: &Setting, case: Case, seed: u64) -> Outcome {
    let classes: &[Class] = match case.load {
        Load::Objects => &[URGENT, BULK],
        Load::Idle | Load::Streams => &[URGENT],
    };
    match case.protocol {
        Protocol::Wiremesh => {
            let fleet = Ours::new(setting.nodes, seed);
            Run::new(setting, case, seed, fleet).run()
        }
        Protocol::Iroh => {
            let fleet = Iroh::new(setting.nodes, seed, classes);
            Run::new(setting, case, seed, fleet).run()
        }
        Protocol::Gossipsub => {
            let fleet = Gossipsub::new(setting.nodes, classes);
            Run::new(setting, case, seed, fleet).run()
        }
    }
}

struct Run<'a, F: Fleet> {
    setting: &'a Setting,
    case: Case,
    seed: u64,
    random: Random,
    net: Net<F::Payload>,
    fleet: F,
    bulk_senders: Vec<usize>,
    look_at: Nanos,
    looked_busy: Vec<Nanos>,
    /// When uplinks were looked at, and the part of them that was saturated.
    saturated: Vec<(Nanos, f64)>,
    loading: bool,
}

/// The state at one time, to be compared with a later one.
struct Mark {
    at: Nanos,
    traffic: Traffic,
    bulk_bytes: u64,
}

impl<'a, F: Fleet> Run<'a, F> {
    fn new(setting: &'a Setting, case: Case, seed: u64, fleet: F) -> Self {
        let links = Links {
            rate: setting.rate,
            loss: setting.loss,
            transport: case.transport,
        };
        let mut random = Random::new(seed, 4);
        let bulk_senders = (0..setting.bulk_senders)
            .map(|_| random.below(setting.nodes))
            .collect();
        Self {
            setting,
            case,
            seed,
            random,
            net: Net::new(setting.nodes, seed, links),
            fleet,
            bulk_senders,
            look_at: LOOK_EVERY,
            looked_busy: vec![0; setting.nodes],
            saturated: Vec::new(),
            loading: false,
        }
    }

    fn run(mut self) -> Outcome {
        self.form();
        let until = self.net.now() + self.setting.settle_secs * SEC;
        self.advance(until);
        self.start_load();
        self.publish(WARM_UP_OBJECTS);
        let until = self.net.now() + PAUSE;
        self.advance(until);
        let before = self.mark();
        self.publish(self.setting.objects);
        let after = self.mark();
        let until = self.net.now() + DRAIN;
        self.advance(until);
        self.outcome(&before, &after)
    }

    fn form(&mut self) {
        for node in 0..self.setting.nodes {
            let contacts = F::CONTACTS.min(node);
            let mut known: Vec<usize> = Vec::with_capacity(contacts);
            while known.len() < contacts {
                let contact = self.random.below(node);
                if !known.contains(&contact) {
                    known.push(contact);
                }
            }
            self.fleet.join(&mut self.net, node, &known);
            let until = self.net.now() + JOIN_EVERY;
            self.advance(until);
        }
    }

    fn publish(&mut self, objects: usize) {
        let one = self.setting.nodes / 2;
        for _ in 0..objects {
            let node = match self.case.senders {
                Senders::One => one,
                Senders::Random => self.random.below(self.setting.nodes),
            };
            let now = self.net.now();
            let len = self.setting.object_bytes;
            let content = self.net.journal.publish(now, node, len);
            self.fleet.publish(&mut self.net, node, URGENT, content);
            self.drain();
            self.advance(now + self.setting.interval_ms * MS);
        }
    }

    fn advance(&mut self, until: Nanos) {
        while self.net.now() < until {
            while let Some(happening) = self.net.step(until.min(self.look_at)) {
                match happening {
                    Happening::Messages(messages) => {
                        for message in messages {
                            self.fleet.receive(&mut self.net, message);
                        }
                    }
                    Happening::Timer(node, key) => self.fleet.timer(&mut self.net, node, key),
                }
                self.drain();
            }
            if self.net.now() >= self.look_at {
                self.look();
            }
        }
    }

    fn drain(&mut self) {
        while let Some(writable) = self.net.pop_writable() {
            self.fleet.writable(&mut self.net, writable);
        }
    }

    fn start_load(&mut self) {
        match self.case.load {
            Load::Idle => {}
            Load::Streams => {
                let mut nodes: Vec<usize> = (0..self.setting.nodes).collect();
                self.random.shuffle(&mut nodes);
                for node in &nodes[..self.setting.nodes / 2] {
                    for _ in 0..self.setting.bulk_streams {
                        let other = self.random.below(self.setting.nodes - 1);
                        let other = other + usize::from(other >= *node);
                        self.net.saturate(*node, other);
                    }
                }
            }
            Load::Objects => self.loading = true,
        }
    }

    /// Notes how many uplinks were saturated lately; if bulk objects are the load and it was less
    /// than half, publishes another.
    fn look(&mut self) {
        let busy = self.net.busy();
        let saturated = saturated(&self.looked_busy, &busy);
        self.saturated.push((self.net.now(), saturated));
        self.looked_busy = busy;
        self.look_at += LOOK_EVERY;
        if self.loading && saturated < 0.5 {
            self.publish_bulk();
        }
    }

    fn publish_bulk(&mut self) {
        let sender = self.bulk_senders[self.random.below(self.bulk_senders.len())];
        let part = self.fleet.part_bytes_max();
        let mut left = self.setting.bulk_bytes;
        while left > 0 {
            let len = left.min(part);
            left -= len;
            let content = self.net.journal.publish_bulk(len);
            self.fleet.publish(&mut self.net, sender, BULK, content);
        }
        self.drain();
    }

    fn mark(&self) -> Mark {
        Mark {
            at: self.net.now(),
            traffic: self.net.traffic,
            bulk_bytes: self.net.journal.bulk_bytes,
        }
    }

    fn outcome(self, before: &Mark, after: &Mark) -> Outcome {
        let objects = &self.net.journal.objects[WARM_UP_OBJECTS..];
        let reached: usize = objects.iter().map(|object| object.reached() - 1).sum();
        let wanted = objects.len() * (self.setting.nodes - 1);
        let payload = (reached * self.setting.object_bytes) as f64;
        let span = after.at - before.at;
        let sent = |of: fn(&Traffic) -> &[u64; 3], class: Class| {
            (of(&after.traffic)[class] - of(&before.traffic)[class]) as f64
        };
        let full = self.saturated.iter();
        let full = full.filter(|(at, _)| (before.at..after.at).contains(at));
        let full: Vec<f64> = full.map(|(_, part)| *part).collect();
        let bulk_bytes = (after.bulk_bytes - before.bulk_bytes) as f64;
        Outcome {
            case: self.case,
            seed: self.seed,
            reach_ms: objects
                .iter()
                .map(|object| object.time_to(0.99).map(millis))
                .collect(),
            delivered: reached as f64 / wanted as f64,
            repeated: self.net.journal.repeated,
            message_overhead: sent(|t| &t.messages, URGENT) / payload,
            wire_overhead: sent(|t| &t.wire, URGENT) / payload,
            saturated: full.iter().sum::<f64>() / full.len().max(1) as f64,
            bulk_mbit: bulk_bytes * 8.0
                / self.setting.nodes as f64
                / (span as f64 / SEC as f64)
                / 1e6,
            bulk_overhead: sent(|t| &t.messages, BULK) / bulk_bytes.max(1.0),
        }
    }
}

fn saturated(before: &[Nanos], after: &[Nanos]) -> f64 {
    let full = before
        .iter()
        .zip(after)
        .filter(|(before, after)| (*after - *before) as f64 >= LOOK_EVERY as f64 * SATURATED)
        .count();
    full as f64 / before.len() as f64
}
