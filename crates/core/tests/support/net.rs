//! A few nodes on a perfect network under virtual time, for tests of single behaviours.
//!
//! Owns the clock, the datagrams in flight and a log of everything sent. The tests decide what is
//! lost, and may put datagrams on the wire themselves. Whole hostile networks are the simulator's
//! work, not this file's.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_core::{
    Admission, Event, Node, NodeConfig, Path, PeerConfig, PeerKey, PeerState, PeerStatus, Rejected,
};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{Content, Instant, NodeId, Now, SecretKey, Tai64n, UnixTime, ip};

/// One way of the wire.
pub const LATENCY: Duration = Duration::from_millis(10);
/// Wall time at the start.
pub const START: UnixTime = UnixTime::from_secs_nanos(1_700_000_000, 0);

/// One datagram on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Instant,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    pub ecn: u8,
}

impl Sent {
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }
    pub fn is_initiation(&self) -> bool {
        self.kind() == 1
    }
    pub fn is_response(&self) -> bool {
        self.kind() == 2
    }
    pub fn is_cookie(&self) -> bool {
        self.kind() == 3
    }
    pub fn is_data(&self) -> bool {
        self.kind() == 4 && self.bytes.len() > 32
    }
    pub fn is_keepalive(&self) -> bool {
        self.kind() == 4 && self.bytes.len() == 32
    }
    pub fn counter(&self) -> u64 {
        u64::from_le_bytes(self.bytes[8..16].try_into().expect("transport data"))
    }
    pub fn receiver(&self) -> u32 {
        u32::from_le_bytes(self.bytes[4..8].try_into().expect("transport data"))
    }
}

/// A node, where it listens, and what came out of it.
pub struct Host {
    pub node: Node,
    pub addr: SocketAddr,
    pub events: Vec<Event>,
    pub received: Vec<Vec<u8>>,
    /// What each of them is, and whose.
    pub sources: Vec<(Content, PeerKey)>,
    pub floor: Option<Tai64n>,
}

impl Host {
    pub fn established(&self) -> usize {
        let made = |e: &&Event| matches!(e, Event::SessionEstablished { .. });
        self.events.iter().filter(made).count()
    }
    pub fn failures(&self) -> usize {
        let failed = |e: &&Event| matches!(e, Event::HandshakeFailed { .. });
        self.events.iter().filter(failed).count()
    }
}

type Loss = Box<dyn FnMut(&Sent) -> bool>;
type Delay = Box<dyn FnMut(&Sent) -> Duration>;

/// The network.
pub struct Net {
    pub now: Now,
    pub hosts: Vec<Host>,
    pub log: Vec<Sent>,
    pub lost: Loss,
    /// How much later than others a datagram arrives.
    pub late: Delay,
    in_flight: BTreeMap<(Instant, u64), Sent>,
    serial: u64,
}

pub fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

pub fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8], 51_820))
}

pub fn packet(from: &NodeId, to: &NodeId, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes.extend_from_slice(payload);
    let (from, to) = ((overlay_address(from), 7), (overlay_address(to), 7));
    ip::emit_ipv6_udp(&mut bytes, from, to, payload.len(), 0);
    bytes
}

impl Net {
    pub fn new() -> Self {
        let instant = Instant::from_nanos(1_000_000_000_000);
        Self {
            now: Now::new(instant, START),
            hosts: Vec::new(),
            log: Vec::new(),
            lost: Box::new(|_| false),
            late: Box::new(|_| Duration::ZERO),
            in_flight: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Two nodes that know each other and each other's address.
    pub fn pair() -> Self {
        let mut net = Self::new();
        net.add(|_| ());
        net.add(|_| ());
        net.introduce(0, 1);
        net.introduce(1, 0);
        net
    }

    /// As [`Net::pair`], with a session that the first made.
    pub fn connected_pair() -> Self {
        let mut net = Self::pair();
        net.connect(0, 1);
        net.run(100);
        assert!(net.ready(0, 1) && net.ready(1, 0), "no session");
        net
    }

    pub fn add(&mut self, change: impl FnOnce(&mut NodeConfig)) -> usize {
        let n = self.hosts.len();
        let node = self.make(n, 0, change);
        self.hosts.push(Host {
            node,
            addr: addr(n + 1),
            events: Vec::new(),
            received: Vec::new(),
            sources: Vec::new(),
            floor: None,
        });
        n
    }

    pub fn add_with_admission(&mut self, admission: Admission) -> usize {
        self.add(|config| config.admission = admission)
    }

    pub fn make(&self, n: usize, life: u8, change: impl FnOnce(&mut NodeConfig)) -> Node {
        let mut config = NodeConfig::new(secret(n as u8 + 1));
        change(&mut config);
        let mut seed = [n as u8; 32];
        seed[0] = life;
        Node::new(config, seed, self.now).expect("a valid secret key")
    }

    /// The node loses everything but its key and, with `keep_floor`, its timestamp floor.
    pub fn restart(&mut self, n: usize, life: u8, keep_floor: bool) {
        self.drain();
        let floor = self.hosts[n].floor.filter(|_| keep_floor);
        self.hosts[n].node = self.make(n, life, |config| config.timestamp_floor = floor);
        self.hosts[n].events.clear();
        self.hosts[n].received.clear();
    }

    pub fn id(&self, n: usize) -> NodeId {
        self.hosts[n].node.node_id()
    }

    pub fn introduce(&mut self, at: usize, whom: usize) -> PeerKey {
        let endpoint = Some(self.hosts[whom].addr);
        self.introduce_with(at, whom, |config| config.endpoint = endpoint)
    }

    pub fn introduce_with(
        &mut self,
        at: usize,
        whom: usize,
        change: impl FnOnce(&mut PeerConfig),
    ) -> PeerKey {
        let mut config = PeerConfig::new(self.id(whom));
        change(&mut config);
        let now = self.now;
        let node = &mut self.hosts[at].node;
        node.add_peer(now, config).expect("a new peer")
    }

    pub fn key(&self, at: usize, whom: usize) -> PeerKey {
        let id = self.id(whom);
        self.hosts[at].node.peer_by_id(&id).expect("a known peer")
    }

    pub fn status(&self, at: usize, whom: usize) -> PeerStatus {
        let key = self.key(at, whom);
        let status = self.hosts[at].node.status(self.now, key);
        status.expect("a known peer")
    }

    pub fn state(&self, at: usize, whom: usize) -> PeerState {
        self.status(at, whom).state
    }

    pub fn ready(&self, at: usize, whom: usize) -> bool {
        let key = self.key(at, whom);
        self.hosts[at].node.is_ready(self.now, key)
    }

    pub fn connect(&mut self, at: usize, whom: usize) {
        let key = self.key(at, whom);
        self.hosts[at].node.connect(self.now, key);
        self.drain();
    }

    pub fn rekey(&mut self, at: usize, whom: usize) {
        let key = self.key(at, whom);
        self.hosts[at].node.rekey(self.now, key);
        self.drain();
    }

    pub fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        self.try_send(from, to, payload).expect("room for a packet");
    }

    pub fn try_send(&mut self, from: usize, to: usize, payload: &[u8]) -> Result<(), Rejected> {
        let packet = packet(&self.id(from), &self.id(to), payload);
        let result = self.hosts[from].node.handle_packet(self.now, packet);
        self.drain();
        result
    }

    /// What `n` received as payloads since the last call.
    pub fn payloads(&mut self, n: usize) -> Vec<Vec<u8>> {
        let received = core::mem::take(&mut self.hosts[n].received);
        received
            .iter()
            .map(|packet| packet[48..].to_vec())
            .collect()
    }

    /// Puts a datagram on the wire as if it came from `from`.
    pub fn inject(&mut self, from: SocketAddr, to: usize, bytes: &[u8]) {
        let at = self.now.instant;
        let to = self.hosts[to].addr;
        let bytes = bytes.to_vec();
        self.fly(Sent {
            at,
            from,
            to,
            bytes,
            ecn: 0,
        });
    }

    /// Hands a datagram to a node at once.
    pub fn deliver(&mut self, from: SocketAddr, to: usize, bytes: &[u8]) {
        let mut buffer = bytes.to_vec();
        let host = &mut self.hosts[to];
        let received = host
            .node
            .handle_datagram(self.now, Path::to(from), &mut buffer);
        if let Some(received) = received {
            host.sources.push((received.content, received.peer));
            host.received.push(buffer[received.packet].to_vec());
        }
        self.drain();
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn drain(&mut self) {
        let at = self.now.instant;
        let mut sent = Vec::new();
        for host in &mut self.hosts {
            while let Some(event) = host.node.poll_event() {
                if let Event::ReserveTimestamps(floor) = event {
                    host.floor = Some(floor);
                }
                host.events.push(event);
            }
            while let Some(transmit) = host.node.poll_transmit() {
                sent.push(Sent {
                    at,
                    from: host.addr,
                    to: transmit.path.remote,
                    bytes: transmit.datagram,
                    ecn: transmit.ecn,
                });
            }
        }
        for sent in sent {
            self.log.push(sent.clone());
            if !(self.lost)(&sent) {
                self.fly(sent);
            }
        }
    }

    fn fly(&mut self, sent: Sent) {
        self.serial += 1;
        let arrives = self.now.instant + LATENCY + (self.late)(&sent);
        self.in_flight.insert((arrives, self.serial), sent);
    }

    /// Runs the network for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        self.run_for(Duration::from_millis(ms));
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        loop {
            self.drain();
            let timer = self
                .hosts
                .iter()
                .filter_map(|h| h.node.poll_timeout())
                .min();
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let next = [timer, arrival].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end.instant) else {
                break;
            };
            steps += 1;
            assert!(steps < 2_000_000, "timers spin");
            self.now = self.now + next.saturating_since(self.now.instant);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            if host.node.poll_timeout().is_some_and(|at| at <= now.instant) {
                host.node.handle_timeout(now);
            }
        }
        self.drain();
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now.instant {
                break;
            }
            let sent = entry.remove();
            if let Some(to) = self.hosts.iter().position(|host| host.addr == sent.to) {
                self.deliver(sent.from, to, &sent.bytes);
            }
        }
    }

    /// Both clocks go on, nothing runs: the host sleeps and its clocks do not.
    pub fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// The wall clock alone goes on, as in a suspend that stops the monotonic clock.
    pub fn step_wall(&mut self, time: Duration) {
        self.now.unix = self.now.unix + time;
    }

    /// The wall clock goes back.
    pub fn step_wall_back(&mut self, time: Duration) {
        let since = self.now.unix.as_duration().saturating_sub(time);
        self.now.unix = UnixTime::from_duration(since);
    }

    pub fn sent_by(&self, n: usize) -> impl Iterator<Item = &Sent> {
        let from = self.hosts[n].addr;
        self.log.iter().filter(move |sent| sent.from == from)
    }

    pub fn initiations_of(&self, n: usize) -> Vec<Instant> {
        self.sent_by(n)
            .filter(|sent| sent.is_initiation())
            .map(|sent| sent.at)
            .collect()
    }

    /// The last datagram that `n` sent and `of` accepts.
    pub fn last(&self, n: usize, of: impl Fn(&Sent) -> bool) -> Sent {
        let mut sent: Vec<&Sent> = self.sent_by(n).filter(|sent| of(sent)).collect();
        sent.pop().expect("such a datagram was sent").clone()
    }
}
