//! The network: uplinks, packets, losses and reliable ordered streams, in virtual time.
//!
//! Owns the events, the streams and the wire. Every protocol runs on this one model; what differs
//! is only how packets wait for the wire (`transport`). Never knows what a message means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use crate::journal::Journal;
use crate::random::Random;
use crate::time::{MS, Nanos};
use crate::transport::{Next, Transport, Turn, Uplink};
use crate::world::World;

/// Stream bytes in a full packet.
pub const PACKET_PAYLOAD_BYTES: u64 = 1380;

/// Everything around them: IPv6, UDP, the tunnel or QUIC, the stream frame.
pub const PACKET_OVERHEAD_BYTES: u64 = 100;

/// What a receiver's uplink carries for each packet: one acknowledgement for two.
const ACK_BYTES: u64 = PACKET_OVERHEAD_BYTES / 2;

/// A loss shows after 9/8 of the round trip and this (RFC 9002's timers on a steady path).
const ACK_DELAY: Nanos = 25 * MS;

/// Urgent, normal, bulk: the place of a class in tables.
pub type Class = usize;

/// The class of what is measured.
pub const URGENT: Class = 0;

/// The class of the load.
pub const BULK: Class = 2;

/// What all links have in common.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Of each node's uplink, in bit/s.
    pub rate: u64,
    /// The part of packets that is lost.
    pub loss: f64,
    /// How packets wait for the wire.
    pub transport: Transport,
}

/// A message that a stream gave to its receiver.
pub struct Arrived<P> {
    /// Who sent it.
    pub from: usize,
    /// Who has it now.
    pub to: usize,
    /// The class of its stream.
    pub class: Class,
    /// The message.
    pub payload: P,
}

/// A stream that has nothing left to send.
#[derive(Clone, Copy, Debug)]
pub struct Writable {
    /// Who may write.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// In which class.
    pub class: Class,
}

/// What a step of the simulation brings about.
pub enum Happening<P> {
    /// Messages arrived, perhaps none.
    Messages(Vec<Arrived<P>>),
    /// A protocol's timer is due.
    Timer(usize, u64),
}

/// A packet of a stream: a range of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The stream, by its place.
    pub stream: u32,
    start: u64,
    len: u32,
    attempt: u8,
}

impl Packet {
    /// On the wire.
    pub fn wire_bytes(&self) -> u64 {
        u64::from(self.len) + PACKET_OVERHEAD_BYTES
    }
}

struct Stream<P> {
    from: u32,
    to: u32,
    class: Class,
    open_at: Nanos,
    written: u64,
    sent: u64,
    lost: VecDeque<Packet>,
    messages: VecDeque<(u64, P)>,
    received: u64,
    ahead: BTreeMap<u64, u64>,
    queued: bool,
}

impl<P> Stream<P> {
    fn has_data(&self) -> bool {
        self.sent < self.written || !self.lost.is_empty()
    }

    /// The length of the next packet.
    fn next_bytes(&self) -> u64 {
        let unsent = (self.written - self.sent).min(PACKET_PAYLOAD_BYTES);
        let lost = self.lost.front();
        lost.map_or(unsent, |packet| u64::from(packet.len))
    }

    fn packet(&mut self, place: u32) -> Option<Packet> {
        if let Some(packet) = self.lost.pop_front() {
            return Some(packet);
        }
        let len = (self.written - self.sent).min(PACKET_PAYLOAD_BYTES);
        let start = self.sent;
        self.sent += len;
        (len > 0).then_some(Packet {
            stream: place,
            start,
            len: len as u32,
            attempt: 0,
        })
    }

    /// Notes what arrived; true when more can be read now.
    fn receive(&mut self, packet: Packet) -> bool {
        let end = packet.start + u64::from(packet.len);
        if packet.start > self.received {
            self.ahead.insert(packet.start, end);
            return false;
        }
        self.received = self.received.max(end);
        while let Some(next) = self.ahead.first_entry() {
            if *next.key() > self.received {
                break;
            }
            self.received = self.received.max(next.remove());
        }
        true
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(u32, u64, u32),
    Lost(u32, u64, u32, u8),
    Pump(u32),
    Open(u32),
    Timer(u32, u64),
}

/// What was sent, by class.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes of messages, as the protocols wrote them.
    pub messages: [u64; 3],
    /// Bytes on the wire: with headers, acknowledgements and what was sent again.
    pub wire: [u64; 3],
    /// Packets that were lost.
    pub lost: u64,
    /// Packets.
    pub packets: u64,
}

/// The simulation of everything below the protocols.
pub struct Net<P> {
    now: Nanos,
    sequence: u64,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    world: World,
    links: Links,
    random: Random,
    streams: Vec<Stream<P>>,
    by_ends: HashMap<(u32, u32, Class), u32>,
    open_at: HashMap<(u32, u32), Nanos>,
    uplinks: Vec<Uplink>,
    writable: Vec<Writable>,
    /// What was sent so far.
    pub traffic: Traffic,
    /// What was published and delivered.
    pub journal: Journal,
}

impl<P> Net<P> {
    /// A silent network of `nodes` nodes.
    pub fn new(nodes: usize, seed: u64, links: Links) -> Self {
        Self {
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            world: World::new(nodes, &mut Random::new(seed, 1)),
            links,
            random: Random::new(seed, 2),
            streams: Vec::new(),
            by_ends: HashMap::new(),
            open_at: HashMap::new(),
            uplinks: (0..nodes)
                .map(|_| Uplink::new(links.transport, links.rate))
                .collect(),
            writable: Vec::new(),
            traffic: Traffic::default(),
            journal: Journal::new(nodes),
        }
    }

    /// The virtual present.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// How long each uplink was busy since the start.
    pub fn busy(&self) -> Vec<Nanos> {
        self.uplinks.iter().map(|uplink| uplink.busy).collect()
    }

    /// There and back between two nodes, without queues.
    pub fn round_trip(&self, from: usize, to: usize) -> Nanos {
        self.world.round_trip(from, to)
    }

    /// Calls [`Happening::Timer`] with `key` at `at`.
    pub fn set_timer(&mut self, node: usize, key: u64, at: Nanos) {
        self.schedule(at, Event::Timer(node as u32, key));
    }

    /// Writes a message of `len` bytes to the stream from one node to another.
    ///
    /// The first stream between two nodes opens after a round trip.
    pub fn send(&mut self, from: usize, to: usize, class: Class, len: usize, payload: P) {
        let place = self.stream(from, to, class);
        self.traffic.messages[class] += len as u64;
        let stream = &mut self.streams[place as usize];
        stream.written += len as u64;
        stream.messages.push_back((stream.written, payload));
        self.activate(place);
        self.pump(from);
    }

    /// Keeps a stream from one node to another full for good.
    pub fn saturate(&mut self, from: usize, to: usize) {
        let place = self.stream(from, to, BULK);
        self.streams[place as usize].written = u64::MAX;
        self.activate(place);
        self.pump(from);
    }

    /// Bytes written to a stream that were not sent for the first time yet.
    pub fn unsent(&self, from: usize, to: usize, class: Class) -> u64 {
        let place = self.by_ends.get(&(from as u32, to as u32, class));
        place.map_or(0, |place| {
            let stream = &self.streams[*place as usize];
            stream.written - stream.sent
        })
    }

    /// A stream that became empty, for protocols that are asked when there is room.
    pub fn pop_writable(&mut self) -> Option<Writable> {
        self.writable.pop()
    }

    /// Goes on to the next event before `until`; `None` and the clock at `until` without one.
    pub fn step(&mut self, until: Nanos) -> Option<Happening<P>> {
        loop {
            let due = self.events.peek().is_some_and(|next| next.0.0 < until);
            if !due {
                self.now = until;
                return None;
            }
            let Reverse((at, _, event)) = self.events.pop()?;
            self.now = at;
            match event {
                Event::Arrive(stream, start, len) => {
                    let messages = self.arrive(Packet {
                        stream,
                        start,
                        len,
                        attempt: 0,
                    });
                    return Some(Happening::Messages(messages));
                }
                Event::Lost(stream, start, len, attempt) => self.resend(Packet {
                    stream,
                    start,
                    len,
                    attempt,
                }),
                Event::Pump(node) => {
                    let uplink = &mut self.uplinks[node as usize];
                    if uplink.pump_at == Some(at) {
                        uplink.pump_at = None;
                        self.pump(node as usize);
                    }
                }
                Event::Open(place) => {
                    self.activate(place);
                    self.pump(self.streams[place as usize].from as usize);
                }
                Event::Timer(node, key) => return Some(Happening::Timer(node as usize, key)),
            }
            if !self.writable.is_empty() {
                return Some(Happening::Messages(Vec::new()));
            }
        }
    }

    fn schedule(&mut self, at: Nanos, event: Event) {
        self.sequence += 1;
        self.events
            .push(Reverse((at.max(self.now), self.sequence, event)));
    }

    fn stream(&mut self, from: usize, to: usize, class: Class) -> u32 {
        let (from, to) = (from as u32, to as u32);
        if let Some(place) = self.by_ends.get(&(from, to, class)) {
            return *place;
        }
        let round_trip = self.world.round_trip(from as usize, to as usize);
        let open_at = *self
            .open_at
            .entry((from.min(to), from.max(to)))
            .or_insert(self.now + round_trip);
        let place = self.streams.len() as u32;
        self.streams.push(Stream {
            from,
            to,
            class,
            open_at,
            written: 0,
            sent: 0,
            lost: VecDeque::new(),
            messages: VecDeque::new(),
            received: 0,
            ahead: BTreeMap::new(),
            queued: false,
        });
        self.by_ends.insert((from, to, class), place);
        if open_at > self.now {
            self.schedule(open_at, Event::Open(place));
        }
        place
    }

    fn activate(&mut self, place: u32) {
        let now = self.now;
        let stream = &mut self.streams[place as usize];
        if stream.queued || stream.open_at > now || !stream.has_data() {
            return;
        }
        stream.queued = true;
        let turn = Turn {
            stream: place,
            to: stream.to,
            class: stream.class,
            bytes: stream.next_bytes() + PACKET_OVERHEAD_BYTES,
        };
        self.uplinks[stream.from as usize].queue(now, turn);
    }

    /// Moves packets from streams to the wire, as far as the transport lets them.
    fn pump(&mut self, node: usize) {
        loop {
            let place = match self.uplinks[node].next(self.now) {
                Next::Stream(place) => place,
                Next::At(at) => {
                    let uplink = &mut self.uplinks[node];
                    if uplink.pump_at.is_none_or(|planned| at < planned) {
                        uplink.pump_at = Some(at);
                        self.schedule(at, Event::Pump(node as u32));
                    }
                    return;
                }
                Next::Nothing => return,
            };
            let stream = &mut self.streams[place as usize];
            let packet = stream.packet(place);
            let (to, class) = (stream.to as usize, stream.class);
            stream.queued = false;
            if stream.has_data() {
                self.activate(place);
            } else {
                let from = node;
                self.writable.push(Writable { from, to, class });
            }
            if let Some(packet) = packet {
                self.transmit(node, to, class, packet);
            }
        }
    }

    fn transmit(&mut self, node: usize, to: usize, class: Class, packet: Packet) {
        let bytes = packet.wire_bytes();
        self.traffic.packets += 1;
        self.traffic.wire[class] += bytes;
        let sent_at = self.uplinks[node].occupy(self.now, bytes);
        if self.random.unit() < self.links.loss {
            self.traffic.lost += 1;
            let round_trip = self.world.round_trip(node, to);
            let wait = (round_trip * 9 / 8 + ACK_DELAY) << packet.attempt.min(6);
            let attempt = packet.attempt.saturating_add(1);
            let lost = Event::Lost(packet.stream, packet.start, packet.len, attempt);
            self.schedule(sent_at + wait, lost);
            return;
        }
        let arrival = sent_at + self.world.latency(node, to);
        self.schedule(
            arrival,
            Event::Arrive(packet.stream, packet.start, packet.len),
        );
    }

    fn resend(&mut self, packet: Packet) {
        let stream = &mut self.streams[packet.stream as usize];
        stream.lost.push_back(packet);
        let from = stream.from as usize;
        self.activate(packet.stream);
        self.pump(from);
    }

    fn arrive(&mut self, packet: Packet) -> Vec<Arrived<P>> {
        let stream = &mut self.streams[packet.stream as usize];
        let (from, to, class) = (stream.from as usize, stream.to as usize, stream.class);
        let mut messages = Vec::new();
        if stream.receive(packet) {
            while let Some((end, _)) = stream.messages.front() {
                if *end > stream.received {
                    break;
                }
                let (_, payload) = stream.messages.pop_front().expect("there is a first");
                messages.push(Arrived {
                    from,
                    to,
                    class,
                    payload,
                });
            }
        }
        // An acknowledgement goes before everything that waits, whatever the transport.
        self.traffic.wire[class] += ACK_BYTES;
        self.uplinks[to].acknowledge(self.now, ACK_BYTES);
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SEC;

    fn links(transport: Transport, loss: f64) -> Links {
        Links {
            rate: 10_000_000,
            loss,
            transport,
        }
    }

    /// When node 1 has a 1 KB message of node 0, whose uplink a bulk stream fills.
    fn delay(transport: Transport, load: bool) -> Nanos {
        let mut net: Net<()> = Net::new(3, 7, links(transport, 0.0));
        net.send(0, 1, URGENT, 1, ());
        if load {
            net.saturate(0, 2);
        }
        while net.step(SEC).is_some() {}
        net.send(0, 1, URGENT, 1024, ());
        loop {
            match net.step(2 * SEC).expect("the message arrives") {
                Happening::Messages(messages) if !messages.is_empty() => break,
                _ => {}
            }
        }
        net.now() - SEC - net.world.latency(0, 1)
    }

    #[test]
    fn the_queue_below_a_stream_delays_it_and_classes_do_not() {
        for transport in [Transport::Fifo, Transport::Paced, Transport::Classes] {
            assert!(delay(transport, false) < MS, "{transport:?}");
        }
        assert!(delay(Transport::Fifo, true) > 25 * MS);
        assert!(delay(Transport::Paced, true) < 4 * MS);
        assert!(delay(Transport::Classes, true) < 3 * MS);
    }

    #[test]
    fn streams_are_ordered_and_whole_under_loss() {
        let mut net: Net<usize> = Net::new(2, 3, links(Transport::Fifo, 0.2));
        for n in 0..500 {
            net.send(0, 1, URGENT, 700, n);
        }
        let mut next = 0;
        while let Some(happening) = net.step(600 * SEC) {
            let Happening::Messages(messages) = happening else {
                continue;
            };
            for message in messages {
                assert_eq!(message.payload, next);
                next += 1;
            }
        }
        assert_eq!(next, 500);
        assert!(net.traffic.lost > 20);
    }

    #[test]
    fn a_loss_delays_its_own_stream_only() {
        let mut net: Net<usize> = Net::new(2, 3, links(Transport::Paced, 0.0));
        let slow = net.stream(0, 1, BULK);
        net.send(0, 1, BULK, 100, 1);
        net.streams[slow as usize].sent = 50;
        net.send(0, 1, URGENT, 100, 2);
        let mut seen = Vec::new();
        while let Some(happening) = net.step(9 * SEC) {
            if let Happening::Messages(messages) = happening {
                seen.extend(messages.iter().map(|m| m.payload));
            }
        }
        assert_eq!(seen, [2], "the first half of the other stream never comes");
    }
}
