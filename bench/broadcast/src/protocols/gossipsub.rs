//! libp2p gossipsub on the simulated network: whole libp2p swarms, polled in virtual time.
//!
//! Owns the swarms and who is polled when. A node has one swarm for each topic, so that topics have
//! connections and streams of their own. Its clock and timers are the stand-ins of `shims/`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use futures::task::{ArcWake, waker};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::Transport;
use libp2p_gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, Message, MessageAuthenticity, MessageId,
    ValidationMode,
};
use libp2p_identity::PeerId;
use libp2p_swarm::{Config, Swarm, SwarmEvent};

use super::fabric::{Fabric, Payload, Slot, SlotTransport};
use super::{Fleet, PART_BYTES_MAX};
use crate::net::{Arrived, Class, Net, Writable};

/// Message ids are as long as Ethereum's.
const MESSAGE_ID_BYTES: usize = 20;

/// Connections outside of the mesh stay.
const IDLE_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Puts a swarm on the list of those to be polled.
struct SlotWaker {
    slot: Slot,
    listed: AtomicBool,
    ready: Arc<Mutex<VecDeque<Slot>>>,
}

impl ArcWake for SlotWaker {
    fn wake_by_ref(this: &Arc<Self>) {
        if !this.listed.swap(true, Ordering::Relaxed) {
            let mut ready = this.ready.lock().expect("one thread");
            ready.push_back(this.slot);
        }
    }
}

struct Node {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    waker: Arc<SlotWaker>,
}

/// All nodes.
pub struct Gossipsub {
    /// By slot: the node's number times the number of classes, and the place of the class.
    nodes: Vec<Node>,
    classes: Vec<Class>,
    fabric: Arc<Mutex<Fabric>>,
    ready: Arc<Mutex<VecDeque<Slot>>>,
    timer_at: u64,
}

impl Gossipsub {
    /// Nodes that know nobody, in the topics of `classes`.
    pub fn new(nodes: usize, classes: &[Class]) -> Self {
        web_time::set_nanos(0);
        let slots = nodes * classes.len();
        let fabric = Arc::new(Mutex::new(Fabric::new(slots)));
        let ready = Arc::new(Mutex::new(VecDeque::new()));
        let nodes = (0..slots)
            .map(|slot| {
                let waker = Arc::new(SlotWaker {
                    slot,
                    listed: AtomicBool::new(false),
                    ready: ready.clone(),
                });
                let topic = IdentTopic::new("broadcast");
                let swarm = swarm(slot, &fabric, &topic);
                Node {
                    swarm,
                    topic,
                    waker,
                }
            })
            .collect();
        Self {
            nodes,
            classes: classes.to_vec(),
            fabric,
            ready,
            timer_at: u64::MAX,
        }
    }

    fn slot(&self, node: usize, class: Class) -> Option<Slot> {
        let place = self.classes.iter().position(|known| *known == class)?;
        Some(node * self.classes.len() + place)
    }

    fn node(&self, slot: Slot) -> (usize, Class) {
        let classes = self.classes.len();
        (slot / classes, self.classes[slot % classes])
    }

    /// Polls every swarm that has something to do, and sends what they wrote.
    fn settle(&mut self, net: &mut Net<Payload>) {
        web_time::set_nanos(net.now());
        loop {
            let slot = self.ready.lock().expect("one thread").pop_front();
            let Some(slot) = slot else {
                break;
            };
            self.poll(net, slot);
        }
        let outbox = self.fabric.lock().expect("one thread").take_outbox();
        for sent in outbox {
            let ((from, class), (to, _)) = (self.node(sent.from), self.node(sent.to));
            net.send(from, to, class, sent.payload.len(), sent.payload);
        }
        if let Some(at) = futures_timer::next_deadline().filter(|at| *at < self.timer_at) {
            self.timer_at = at;
            net.set_timer(0, 0, at);
        }
    }

    fn poll(&mut self, net: &mut Net<Payload>, slot: Slot) {
        let (number, _) = self.node(slot);
        let node = &mut self.nodes[slot];
        node.waker.listed.store(false, Ordering::Relaxed);
        let waker: Waker = waker(node.waker.clone());
        let mut context = Context::from_waker(&waker);
        while let Poll::Ready(Some(event)) = node.swarm.poll_next_unpin(&mut context) {
            if let SwarmEvent::Behaviour(Event::Message { message, .. }) = event {
                net.journal.deliver(net.now(), number, &message.data);
            }
        }
    }

    fn wake(&self, slot: Slot) {
        ArcWake::wake_by_ref(&self.nodes[slot].waker);
    }
}

/// A node's swarm in one topic. Objects are neither signed nor checked, which is to its advantage.
fn swarm(slot: Slot, fabric: &Arc<Mutex<Fabric>>, topic: &IdentTopic) -> Swarm<Behaviour> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message: &Message| {
            let mut id = message.data.clone();
            id.truncate(MESSAGE_ID_BYTES);
            MessageId::from(id)
        })
        .build()
        .expect("the defaults agree with each other");
    let mut behaviour =
        Behaviour::new(MessageAuthenticity::Anonymous, config).expect("the modes agree");
    behaviour.subscribe(topic).expect("no filter");
    let peer = PeerId::random();
    let transport = SlotTransport::new(slot, peer, fabric.clone());
    let config = Config::without_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    let mut swarm = Swarm::new(transport.boxed(), behaviour, peer, config);
    swarm
        .listen_on(address(slot))
        .expect("every address is free");
    swarm
}

fn address(slot: Slot) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(slot as u64 + 1))
}

impl Fleet for Gossipsub {
    type Payload = Payload;

    const CONTACTS: usize = 10;

    fn join(&mut self, net: &mut Net<Payload>, node: usize, contacts: &[usize]) {
        web_time::set_nanos(net.now());
        for class in self.classes.clone() {
            let Some(slot) = self.slot(node, class) else {
                continue;
            };
            for contact in contacts {
                if let Some(other) = self.slot(*contact, class) {
                    let dialled = self.nodes[slot].swarm.dial(address(other));
                    dialled.expect("nothing stands against a connection");
                }
            }
            self.wake(slot);
        }
        self.settle(net);
    }

    fn publish(&mut self, net: &mut Net<Payload>, node: usize, class: Class, content: Vec<u8>) {
        web_time::set_nanos(net.now());
        if let Some(slot) = self.slot(node, class) {
            let Node { swarm, topic, .. } = &mut self.nodes[slot];
            // Without peers, or with full queues, the object is lost; the journal shows it.
            let _ = swarm.behaviour_mut().publish(topic.hash(), content);
            self.wake(slot);
        }
        self.settle(net);
    }

    fn receive(&mut self, net: &mut Net<Payload>, arrived: Arrived<Payload>) {
        web_time::set_nanos(net.now());
        self.fabric
            .lock()
            .expect("one thread")
            .receive(arrived.payload);
        self.settle(net);
    }

    fn timer(&mut self, net: &mut Net<Payload>, _node: usize, _key: u64) {
        web_time::set_nanos(net.now());
        self.timer_at = u64::MAX;
        futures_timer::fire();
        self.settle(net);
    }

    fn writable(&mut self, net: &mut Net<Payload>, writable: Writable) {
        let from = self.slot(writable.from, writable.class);
        let to = self.slot(writable.to, writable.class);
        if let (Some(from), Some(to)) = (from, to) {
            let woken = self.fabric.lock().expect("one thread").drained(from, to);
            if woken {
                self.settle(net);
            }
        }
    }

    fn part_bytes_max(&self) -> usize {
        PART_BYTES_MAX
    }
}
