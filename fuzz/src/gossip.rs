//! A topic whose neighbours are the input: what they send, when links come and go, what the owner
//! publishes and judges, how time passes. The first byte chooses between that and one bare message.
//!
//! Holds after every operation: no panic; memory within `Config::memory_max`; no object is
//! delivered twice or after its expiry; timers do not spin; what is sent can be read, and what can
//! be read is written the same way.

use std::collections::BTreeSet;
use std::time::Duration;

use wiremesh_gossip::message::{Range, Wish};
use wiremesh_gossip::{
    CHUNK_LEN, Config, Contact, Header, Message, ObjectId, Output, Topic, TopicId, Verdict,
    chunk_hash,
};
use wiremesh_wire::{Instant, NodeId, Now, Priority, UnixTime, network_id};

use crate::input::Input;

const OPERATIONS_MAX: usize = 256;
/// Ids of X25519 public keys: multiples of small points would not do, these are on the curve.
const FIRST_BYTES: [u8; 8] = [9, 3, 5, 6, 13, 14, 16, 17];

struct World {
    topic: Topic,
    config: Config,
    now: Now,
    peers: Vec<NodeId>,
    delivered: BTreeSet<ObjectId>,
    judged: Vec<ObjectId>,
    /// Objects that neighbours have made up, to be sent again and asked for.
    objects: Vec<(Header, Vec<u8>, ObjectId)>,
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    if how & 1 != 0 {
        return read(input.rest());
    }
    let config = Config {
        far: (2, 3),
        near: (1, 2),
        passive_max: 8,
        validate: how & 2 != 0,
        seen_max: 16,
        store_bytes_max: 128 * 1024,
        queue_bytes_max: 32 * 1024,
        missing_max: 16,
        incomplete_max: 3,
        pending_max: 4,
        ..Config::default()
    };
    let peers: Vec<NodeId> = FIRST_BYTES
        .iter()
        .filter_map(|first| node(*first))
        .collect();
    let topic = TopicId::new(&network_id(""), "fuzz");
    let mut world = World {
        topic: Topic::new(topic, peers[0], config.clone(), [how; 32]),
        config,
        now: Now::new(
            Instant::from_nanos(1),
            UnixTime::from_secs_nanos(1_700_000_000, 0),
        ),
        peers,
        delivered: BTreeSet::new(),
        judged: Vec::new(),
        objects: Vec::new(),
    };
    let contacts = [world.contact(1), world.contact(2)];
    world.topic.join(world.now, &contacts);
    world.drain();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.drain();
        assert!(world.topic.memory().bytes() <= world.config.memory_max());
    }
}

fn node(first: u8) -> Option<NodeId> {
    let mut bytes = [0; 32];
    bytes[0] = first;
    NodeId::from_bytes(&bytes).ok()
}

fn read(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        assert_eq!(message.emit(), bytes);
    }
}

impl World {
    fn contact(&self, number: usize) -> Contact {
        Contact {
            node: self.peers[number % self.peers.len()],
            addresses: vec![number as u8; number % 65],
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.u8();
        let peer = self.peers[usize::from(operation >> 5) % self.peers.len()];
        match operation & 31 {
            0 => self.topic.peer_up(self.now, peer),
            1 => self.topic.peer_down(self.now, peer),
            2 => self.pass(Duration::from_millis(u64::from(input.u16()))),
            3 => self.pass(Duration::from_secs(u64::from(input.u8()))),
            4 => {
                let class = Priority::ALL[usize::from(input.u8()) % 3];
                let content = vec![7; usize::from(input.u16()) + 1];
                let lifetime = Duration::from_secs(u64::from(input.u8()) * 20);
                let _ = self
                    .topic
                    .publish(self.now, content.into(), class, lifetime);
            }
            5 => {
                let verdict = match input.u8() % 3 {
                    0 => Verdict::Accept,
                    1 => Verdict::Ignore,
                    _ => Verdict::Reject,
                };
                if let Some(id) = self.judged.pop() {
                    self.topic.verdict(self.now, id, verdict);
                }
            }
            6 => {
                let class = Priority::ALL[usize::from(input.u8()) % 3];
                for _ in 0..input.u8() {
                    let Some(message) = self.topic.poll_send(self.now, peer, class) else {
                        break;
                    };
                    Message::parse(&message).expect("what is sent can be read");
                }
            }
            7 => self.topic.leave(self.now),
            8 => {
                let bytes = input.block().to_vec();
                self.topic.handle_message(self.now, peer, &bytes);
            }
            9 => self.make_object(input),
            _ => {
                let bytes = self.message(operation & 31, input);
                self.topic.handle_message(self.now, peer, &bytes);
            }
        }
    }

    /// A neighbour makes an object up, small or of a few chunks.
    fn make_object(&mut self, input: &mut Input<'_>) {
        let size = usize::from(input.u16()) + 1;
        let lifetime = u64::from(input.u16()) * 100;
        let header = Header {
            priority: Priority::ALL[usize::from(input.u8()) % 3],
            expiry_ms: self.now.unix.as_duration().as_millis() as u64 + lifetime,
            size_bytes: size as u32,
            salt: self.objects.len() as u64,
        };
        let content = vec![header.salt as u8; size];
        let body = if header.is_large() {
            content.chunks(CHUNK_LEN).flat_map(chunk_hash).collect()
        } else {
            content
        };
        let topic = TopicId::new(&network_id(""), "fuzz");
        let id = ObjectId::new(&topic, &header, &body);
        self.objects.push((header, body, id));
    }

    fn message(&mut self, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
        let contact = self.contact(usize::from(input.u8()));
        let priority = Priority::ALL[usize::from(input.u8()) % 3];
        let number = usize::from(input.u8()) % self.objects.len().max(1);
        let object = self.objects.get(number).cloned();
        let id = object
            .as_ref()
            .map_or(ObjectId::from_bytes([kind; 32]), |object| object.2);
        let range = Range {
            start: u16::from(input.u8() % 8),
            count: u16::from(input.u8() % 8) + 1,
        };
        let (addresses, token) = (&contact.addresses[..], u64::from(input.u8()));
        let chunk = [number as u8; CHUNK_LEN];
        let (ids, ranges, flag) = (vec![id], vec![range], token & 1 == 1);
        let hops = token as u8 % 8;
        let contacts = vec![contact.clone()];
        match (kind, &object) {
            (10, _) => Message::Join { addresses },
            (11, _) => Message::ForwardJoin { hops, contact },
            (12, _) => Message::Neighbor {
                wish: Wish::Low,
                addresses,
            },
            (13, _) => Message::Neighbor {
                wish: Wish::High,
                addresses,
            },
            (14, _) => Message::Neighbor {
                wish: Wish::Near(token as u16),
                addresses,
            },
            (15, _) => Message::NeighborReply { accepted: flag },
            (16, _) => Message::Disconnect,
            (17, _) => Message::Shuffle {
                hops,
                nonce: token,
                contacts,
            },
            (18, _) => Message::ShuffleReply {
                nonce: token,
                contacts,
            },
            (19, _) => Message::Ping { token },
            (20, _) => Message::Pong { token },
            (21, _) => Message::IHave { priority, ids },
            (22, _) => Message::Graft {
                priority,
                push: flag,
                ids,
            },
            (23, _) => Message::Prune { priority },
            (24, _) => Message::Lack { ids },
            (25, _) => Message::Have { id, ranges },
            (26, _) => Message::Want { id, ranges },
            (27, Some((header, ..))) if header.is_large() => {
                let index = range.start;
                let len = header.chunk_len(usize::from(index)).max(1);
                Message::Chunk {
                    id,
                    index,
                    bytes: &chunk[..len],
                }
            }
            (_, Some((header, body, _))) => Message::Object {
                header: *header,
                body,
            },
            _ => Message::Prune { priority },
        }
        .emit()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        for _ in 0..64 {
            let Some(due) = self.topic.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            let wait = due.saturating_since(self.now.instant);
            self.now = self.now + wait;
            self.topic.handle_timeout(self.now);
            let next = self.topic.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now.instant),
                "timers spin"
            );
            self.drain();
        }
        let rest = end.saturating_since(self.now.instant);
        self.now = self.now + rest;
    }

    fn drain(&mut self) {
        while let Some(output) = self.topic.poll_output(self.now) {
            match output {
                Output::Validate { id, .. } => self.judged.push(id),
                Output::Deliver { id, .. } => {
                    assert!(self.delivered.insert(id), "delivered twice");
                    let object = self.objects.iter().find(|object| object.2 == id);
                    let expiry = object.map_or(u64::MAX, |object| object.0.expiry_ms);
                    assert!(u128::from(expiry) > self.now.unix.as_duration().as_millis());
                }
                _ => {}
            }
        }
    }
}
