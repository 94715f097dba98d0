//! iroh-gossip's `proto` on the simulated network: its own state machine with its own defaults.
//!
//! Owns the states, one for each topic, and their timers. The clock it gives them is virtual; what they send counts with
//! the frame that iroh-gossip writes around it. The topic is in the head of a stream there, so its
//! 32 bytes in each message are not counted.

use bytes::Bytes;
use iroh_gossip::proto::{
    Command, Config, Event, InEvent, Message, OutEvent, Scope, State, Timer, TopicId,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

use super::{Fleet, PART_BYTES_MAX};
use crate::net::{Arrived, Class, Net};
use crate::random::Random;
use crate::time::Nanos;

/// What a message is allowed to be here: a part of a bulk object and its header.
const MESSAGE_BYTES_MAX: usize = 20 * 1024;

/// A frame has a length before it, and no topic in it.
const FRAME_BYTES: usize = 4;
const TOPIC_BYTES: usize = 32;

/// As long as a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id([u8; 32]);

impl Id {
    fn of(node: usize) -> Self {
        let mut bytes = [0xa5; 32];
        bytes[..4].copy_from_slice(&(node as u32).to_be_bytes());
        Self(bytes)
    }

    fn node(self) -> usize {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) as usize
    }
}

/// What goes over a stream.
pub enum Payload {
    /// A message of the protocol.
    Message(Message<Id>),
    /// The connection is closed, after everything before it.
    Closed,
}

/// The state machines of a node, by class.
type States = BTreeMap<Class, State<Id, StdRng>>;

/// All nodes.
pub struct Iroh {
    nodes: Vec<States>,
    timers: Vec<Option<(Class, Timer<Id>)>>,
    free: Vec<usize>,
    start: Instant,
}

impl Iroh {
    /// Nodes that know nobody, in the topics of `classes`.
    pub fn new(nodes: usize, seed: u64, classes: &[Class]) -> Self {
        let mut random = Random::new(seed, 3);
        let config = Config {
            max_message_size: MESSAGE_BYTES_MAX,
            ..Config::default()
        };
        let mut state = |node: usize| {
            let random = StdRng::from_seed(random.bytes32());
            State::new(Id::of(node), Default::default(), config.clone(), random)
        };
        Self {
            nodes: (0..nodes)
                .map(|node| classes.iter().map(|class| (*class, state(node))).collect())
                .collect(),
            timers: Vec::new(),
            free: Vec::new(),
            start: Instant::now(),
        }
    }

    fn handle(&mut self, net: &mut Net<Payload>, node: usize, class: Class, event: InEvent<Id>) {
        let now = self.start + Duration::from_nanos(net.now());
        let Some(state) = self.nodes[node].get_mut(&class) else {
            return;
        };
        let out: Vec<OutEvent<Id>> = state.handle(event, now, None).collect();
        for event in out {
            match event {
                OutEvent::SendMessage(to, message) => {
                    let size = message.size().expect("a message can be encoded");
                    let len = size - TOPIC_BYTES + FRAME_BYTES;
                    net.send(node, to.node(), class, len, Payload::Message(message));
                }
                OutEvent::EmitEvent(_, Event::Received(event)) => {
                    net.journal.deliver(net.now(), node, &event.content);
                }
                OutEvent::ScheduleTimer(after, timer) => {
                    let key = self.keep(class, timer);
                    net.set_timer(node, key as u64, net.now() + after.as_nanos() as Nanos);
                }
                OutEvent::DisconnectPeer(peer) => {
                    net.send(node, peer.node(), class, 1, Payload::Closed);
                }
                OutEvent::EmitEvent(..) | OutEvent::PeerData(..) => {}
            }
        }
    }

    fn keep(&mut self, class: Class, timer: Timer<Id>) -> usize {
        if let Some(key) = self.free.pop() {
            self.timers[key] = Some((class, timer));
            return key;
        }
        self.timers.push(Some((class, timer)));
        self.timers.len() - 1
    }
}

fn topic(class: Class) -> TopicId {
    TopicId::from([class as u8; 32])
}

impl Fleet for Iroh {
    type Payload = Payload;

    const CONTACTS: usize = 1;

    fn join(&mut self, net: &mut Net<Payload>, node: usize, contacts: &[usize]) {
        let contacts: Vec<Id> = contacts.iter().copied().map(Id::of).collect();
        let classes: Vec<Class> = self.nodes[node].keys().copied().collect();
        for class in classes {
            let join = Command::Join(contacts.clone());
            self.handle(net, node, class, InEvent::Command(topic(class), join));
        }
    }

    fn publish(&mut self, net: &mut Net<Payload>, node: usize, class: Class, content: Vec<u8>) {
        let command = Command::Broadcast(Bytes::from(content), Scope::Swarm);
        self.handle(net, node, class, InEvent::Command(topic(class), command));
    }

    fn receive(&mut self, net: &mut Net<Payload>, arrived: Arrived<Payload>) {
        let from = Id::of(arrived.from);
        let event = match arrived.payload {
            Payload::Message(message) => InEvent::RecvMessage(from, message),
            Payload::Closed => InEvent::PeerDisconnected(from),
        };
        self.handle(net, arrived.to, arrived.class, event);
    }

    fn timer(&mut self, net: &mut Net<Payload>, node: usize, key: u64) {
        let key = key as usize;
        if let Some((class, timer)) = self.timers[key].take() {
            self.free.push(key);
            self.handle(net, node, class, InEvent::TimerExpired(timer));
        }
    }

    fn part_bytes_max(&self) -> usize {
        PART_BYTES_MAX
    }
}
