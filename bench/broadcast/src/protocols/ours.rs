//! Wiremesh's own `gossip` crate on the simulated network.
//!
//! Owns the topics, the links between them and their timers. One topic carries all classes; a link
//! has a stream for each. A message is taken from a topic when the stream has nothing left to send.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wiremesh_gossip::{Config, Contact, Output, PublishError, Topic, TopicId};
use wiremesh_wire::{Instant, NodeId, Now, Priority, UnixTime};

use super::Fleet;
use crate::net::{Arrived, Class, Net, URGENT, Writable};
use crate::random::Random;
use crate::time::Nanos;

/// A message has its length before it.
const FRAME_BYTES: usize = 4;

/// How long objects live: longer than they need, and short enough for a thousand stores.
const LIFETIME: Duration = Duration::from_secs(30);

/// A node keeps so much for its neighbours; a thousand nodes share one machine here.
const STORE_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Where a node is: as long as an IPv4 and an IPv6 address with ports.
const ADDRESSES: [u8; 26] = [1; 26];

/// What goes over a stream; both with the number of the link.
pub enum Payload {
    /// A message of the protocol.
    Message(u64, Vec<u8>),
    /// The link is closed.
    Closed(u64),
}

/// The timer of a topic; other keys are links that come up.
const TIMEOUT: u64 = 0;

struct Node {
    topic: Topic,
    timer_at: Nanos,
    unpublished: VecDeque<(Class, Arc<[u8]>)>,
}

/// All nodes.
pub struct Ours {
    nodes: Vec<Node>,
    ids: Vec<NodeId>,
    by_id: HashMap<NodeId, usize>,
    links: HashMap<(usize, usize), u64>,
    dialled: Vec<(usize, usize)>,
}

impl Ours {
    /// Nodes that know nobody.
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, 3);
        let topic = TopicId::from_bytes(random.bytes32());
        let ids: Vec<NodeId> = (0..nodes).map(|_| id(&mut random)).collect();
        let config = Config {
            store_bytes_max: STORE_BYTES_MAX,
            ..Config::default()
        };
        let node = |id: &NodeId| {
            let mut topic = Topic::new(topic, *id, config.clone(), random.bytes32());
            topic.set_addresses(ADDRESSES.to_vec());
            Node {
                topic,
                timer_at: Nanos::MAX,
                unpublished: VecDeque::new(),
            }
        };
        Self {
            nodes: ids.iter().map(node).collect(),
            by_id: ids.iter().copied().zip(0..).collect(),
            ids,
            links: HashMap::new(),
            dialled: Vec::new(),
        }
    }

    /// Does what a topic asks for, after every call.
    fn drain(&mut self, net: &mut Net<Payload>, node: usize) {
        let now = now(net);
        while let Some(output) = self.nodes[node].topic.poll_output(now) {
            match output {
                Output::Connect(contact) => self.dial(net, node, &contact.node),
                Output::Disconnect(peer) => {
                    let peer = self.by_id[&peer];
                    if let Some(link) = self.links.remove(&(node, peer)) {
                        net.send(node, peer, URGENT, 1, Payload::Closed(link));
                    }
                }
                Output::Ready(peer, class) => {
                    self.fill(net, node, self.by_id[&peer], class.index());
                }
                Output::Deliver { content, .. } => {
                    net.journal.deliver(net.now(), node, &content);
                }
                Output::Room => self.publish_more(now, node),
                Output::Validate { .. } => {}
            }
        }
        let wanted = self.nodes[node].topic.poll_timeout();
        let wanted = wanted.map_or(Nanos::MAX, Instant::as_nanos);
        if wanted < self.nodes[node].timer_at {
            self.nodes[node].timer_at = wanted;
            net.set_timer(node, TIMEOUT, wanted);
        }
    }

    fn publish_more(&mut self, now: Now, node: usize) {
        let node = &mut self.nodes[node];
        while let Some((class, content)) = node.unpublished.front() {
            let priority = Priority::ALL[*class];
            match node.topic.publish(now, content.clone(), priority, LIFETIME) {
                Err(PublishError::Full) => return,
                Ok(_) | Err(_) => node.unpublished.pop_front(),
            };
        }
    }

    fn dial(&mut self, net: &mut Net<Payload>, node: usize, peer: &NodeId) {
        let peer = self.by_id[peer];
        let at = net.now() + net.round_trip(node, peer);
        self.dialled.push((node, peer));
        net.set_timer(node, self.dialled.len() as u64, at);
    }

    fn link_up(&mut self, net: &mut Net<Payload>, key: u64) {
        let (node, peer) = self.dialled[key as usize - 1];
        if !self.links.contains_key(&(node, peer)) {
            self.links.insert((node, peer), key);
            self.links.insert((peer, node), key);
        }
        for (node, peer) in [(node, peer), (peer, node)] {
            let id = self.ids[peer];
            self.nodes[node].topic.peer_up(now(net), id);
            self.drain(net, node);
        }
    }

    /// Takes messages for a stream until it has something to send.
    fn fill(&mut self, net: &mut Net<Payload>, node: usize, peer: usize, class: Class) {
        let Some(link) = self.links.get(&(node, peer)).copied() else {
            return;
        };
        while net.unsent(node, peer, class) == 0 {
            let (now, id) = (now(net), self.ids[peer]);
            let topic = &mut self.nodes[node].topic;
            let Some(message) = topic.poll_send(now, id, Priority::ALL[class]) else {
                return;
            };
            let len = message.len() + FRAME_BYTES;
            net.send(node, peer, class, len, Payload::Message(link, message));
        }
    }
}

fn now<P>(net: &Net<P>) -> Now {
    let unix = UnixTime::from_secs_nanos(1_800_000_000, 0) + Duration::from_nanos(net.now());
    Now::new(Instant::from_nanos(net.now()), unix)
}

/// A random key that is one: about every second is.
fn id(random: &mut Random) -> NodeId {
    loop {
        if let Ok(id) = NodeId::from_bytes(&random.bytes32()) {
            return id;
        }
    }
}

impl Fleet for Ours {
    type Payload = Payload;

    const CONTACTS: usize = 1;

    fn join(&mut self, net: &mut Net<Payload>, node: usize, contacts: &[usize]) {
        let contacts: Vec<Contact> = contacts
            .iter()
            .map(|contact| Contact {
                node: self.ids[*contact],
                addresses: ADDRESSES.to_vec(),
            })
            .collect();
        self.nodes[node].topic.join(now(net), &contacts);
        self.drain(net, node);
    }

    fn publish(&mut self, net: &mut Net<Payload>, node: usize, class: Class, content: Vec<u8>) {
        let unpublished = &mut self.nodes[node].unpublished;
        unpublished.push_back((class, content.into()));
        self.publish_more(now(net), node);
        self.drain(net, node);
    }

    fn receive(&mut self, net: &mut Net<Payload>, arrived: Arrived<Payload>) {
        let (from, to) = (arrived.from, arrived.to);
        let link = self.links.get(&(to, from)).copied();
        match arrived.payload {
            Payload::Message(number, message) if link == Some(number) => {
                let topic = &mut self.nodes[to].topic;
                topic.handle_message(now(net), self.ids[from], &message);
            }
            Payload::Closed(number) if link == Some(number) => {
                self.links.remove(&(to, from));
                self.nodes[to].topic.peer_down(now(net), self.ids[from]);
            }
            // Of a link that this end closed.
            Payload::Message(..) | Payload::Closed(_) => return,
        }
        self.drain(net, to);
    }

    fn timer(&mut self, net: &mut Net<Payload>, node: usize, key: u64) {
        if key != TIMEOUT {
            return self.link_up(net, key);
        }
        if net.now() < self.nodes[node].timer_at {
            return;
        }
        self.nodes[node].timer_at = Nanos::MAX;
        self.nodes[node].topic.handle_timeout(now(net));
        self.drain(net, node);
    }

    fn writable(&mut self, net: &mut Net<Payload>, writable: Writable) {
        self.fill(net, writable.from, writable.to, writable.class);
        self.drain(net, writable.from);
    }

    /// Large objects are the protocol's matter.
    fn part_bytes_max(&self) -> usize {
        usize::MAX
    }
}
