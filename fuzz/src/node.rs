//! A node of the engine on a network that the input owns: which datagram arrives, when, how
//! often, from where and with which damage; what strangers send; when clocks and keys change.
//!
//! Holds after every operation: no panic; state within its limits; nothing is delivered that its
//! peer did not send, and nothing twice; no more bytes go to an address without a session than
//! came from it; timers do not spin.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use wiremesh_core::{
    Admission, Event, Limits, Node, NodeConfig, Path, PeerConfig, PeerKey, Received,
};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, SecretKey, UnixTime, ip};

use crate::input::Input;

const OPERATIONS_MAX: usize = 96;
const NODES: usize = 4;
/// The serial number of a packet is behind its headers.
const HEADER_LEN: usize = ip::IPV6_UDP_HEADER_LEN;

struct Host {
    node: Node,
    id: NodeId,
    address: SocketAddr,
    /// Addresses to which it may send on its own: endpoints that its owner named, and those that
    /// proved a session.
    trusted: BTreeSet<SocketAddr>,
    /// Bytes from and to every other address.
    ledger: BTreeMap<SocketAddr, (usize, usize)>,
    delivered: BTreeSet<u32>,
    limits: Limits,
    admission: Admission,
}

struct Network {
    hosts: Vec<Host>,
    now: Now,
    /// Datagrams on their way: from, to, bytes.
    sent: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Who sealed the packet of each serial number, and for whom.
    packets: Vec<(usize, usize)>,
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut network = Network::new(&mut input);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        network.step(&mut input);
        network.drain();
        network.check();
    }
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8], 51_820))
}

fn limits(tight: bool) -> Limits {
    if !tight {
        return Limits::default();
    }
    Limits {
        peers_max: 3,
        staged_packets_max: 2,
        transmits_max: 4,
        events_max: 4,
        handshakes_per_second_max: 0,
    }
}

impl Host {
    fn new(n: usize, now: Now, admission: Admission, limits: Limits) -> Self {
        let mut config = NodeConfig::new(SecretKey::from_bytes([n as u8 + 1; 32]));
        config.admission = admission;
        config.limits = limits;
        let node = Node::new(config, [n as u8; 32], now).expect("a valid secret key");
        Self {
            id: node.node_id(),
            node,
            address: address(n),
            trusted: BTreeSet::new(),
            ledger: BTreeMap::new(),
            delivered: BTreeSet::new(),
            limits,
            admission,
        }
    }

    fn handle(&mut self, now: Now, from: SocketAddr, datagram: &mut [u8]) -> Option<Received> {
        self.ledger.entry(from).or_default().0 += datagram.len();
        self.node.handle_datagram(now, Path::to(from), datagram)
    }

    /// Takes events; strangers that ask are let in or not.
    fn take_events(&mut self, now: Now) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::EndpointChanged { path, .. } => {
                    self.trusted.insert(path.remote);
                }
                Event::SessionEstablished { peer, .. } => {
                    let path = self.node.path_of(peer);
                    self.trusted.extend(path.map(|path| path.remote));
                }
                Event::AdmissionRequested { node_id, .. } if node_id.as_bytes()[0] & 1 == 0 => {
                    let _ = self.node.admit(now, PeerConfig::new(node_id));
                }
                Event::AdmissionRequested { node_id, .. } => self.node.refuse(&node_id),
                _ => {}
            }
        }
    }

    fn on_transmit(&mut self, to: SocketAddr, len: usize) {
        let (received, sent) = self.ledger.entry(to).or_default();
        *sent += len;
        assert!(
            self.trusted.contains(&to) || sent <= received,
            "{sent} bytes for {received} to an address without a session"
        );
    }

    fn check(&self) {
        let usage = self.node.usage();
        assert!(usage.peers <= self.limits.peers_max as usize);
        assert!(usage.transmits <= self.limits.transmits_max);
        assert!(usage.events <= self.limits.events_max);
        assert!(usage.staged_packets <= usage.links * self.limits.staged_packets_max);
        assert!(usage.links <= usage.peers && usage.indices <= usage.links * 4);
        let (provisional, pending) = match self.admission {
            Admission::AllowList => (0, 0),
            Admission::AllowAll { provisional_max } => (provisional_max, 0),
            Admission::Ask { pending_max } => (0, pending_max),
        };
        assert!(usage.provisional_peers <= provisional as usize);
        assert!(usage.pending_admissions <= pending as usize);
    }
}

impl Network {
    /// Two peers that know each other, a node that knows the first, and a stranger to it.
    fn new(input: &mut Input<'_>) -> Self {
        let origin = Instant::from_nanos(1_000_000_000_000);
        let now = Now::new(origin, UnixTime::from_secs_nanos(1_700_000_000, 0));
        let setting = input.u8();
        let admission = match setting & 3 {
            0 | 1 => Admission::AllowList,
            2 => Admission::AllowAll { provisional_max: 1 },
            _ => Admission::Ask { pending_max: 1 },
        };
        let tight = limits(setting & 4 != 0);
        let host = |n: usize| match n {
            0 => Host::new(n, now, admission, tight),
            _ => Host::new(n, now, Admission::AllowList, limits(false)),
        };
        let mut network = Self {
            hosts: (0..NODES).map(host).collect(),
            now,
            sent: VecDeque::new(),
            packets: Vec::new(),
        };
        network.introduce(0, 1, setting & 8 == 0);
        network.introduce(1, 0, true);
        network.introduce(2, 0, true);
        network.introduce(3, 0, true);
        if setting & 16 != 0 {
            network.introduce(0, 2, false);
        }
        network
    }

    fn introduce(&mut self, at: usize, whom: usize, with_endpoint: bool) {
        let mut config = PeerConfig::new(self.hosts[whom].id);
        let host = &mut self.hosts[at];
        if with_endpoint {
            config.endpoint = Some(address(whom));
            host.trusted.insert(address(whom));
        }
        let _ = host.node.add_peer(self.now, config);
    }

    fn key(&self, at: usize, whom: usize) -> Option<PeerKey> {
        self.hosts[at].node.peer_by_id(&self.hosts[whom].id)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.u8();
        let at = usize::from(operation >> 6);
        match operation & 15 {
            0..=2 => self.deliver_next(input, false),
            3 => self.deliver_next(input, true),
            4 => {
                self.sent.pop_front();
            }
            5 | 6 => self.send_packet(at, input.u8()),
            7 => self.connect(at, input.u8()),
            8 => self.wait(Duration::from_millis(u64::from(input.u8()))),
            9 => self.wait(Duration::from_millis(u64::from(input.u16()) * 8)),
            10 => self.inject(at, input),
            11 => self.change(at, input),
            12 => {
                // The wall clock alone: forward, as after a suspend, or back.
                let step = Duration::from_secs(u64::from(input.u16()));
                let unix = self.now.unix.as_duration();
                let unix = if input.bool() {
                    unix + step
                } else {
                    unix - step
                };
                self.now.unix = UnixTime::from_duration(unix);
            }
            13 => self.deliver_first_from_elsewhere(input),
            14 => self.hosts[at].node.on_local_address_changed(self.now),
            _ => {
                let bytes = input.bytes(64).to_vec();
                // Only what goes nowhere: what is delivered must have a serial number.
                if !ip::parse(&bytes).is_ok_and(|header| {
                    let node = &self.hosts[at].node;
                    node.peer_by_address(header.destination).is_some()
                }) {
                    let _ = self.hosts[at].node.handle_packet(self.now, bytes);
                }
            }
        }
    }

    /// Delivers the next datagram, perhaps once more later, perhaps damaged.
    fn deliver_next(&mut self, input: &mut Input<'_>, damaged: bool) {
        let Some((from, to, mut bytes)) = self.sent.pop_front() else {
            return;
        };
        if damaged {
            let at = usize::from(input.u16()) % bytes.len();
            match input.u8() {
                0 => bytes.truncate(at),
                // Repeated at once.
                1 => self.deliver(from, to, &bytes),
                // Repeated later.
                2 => self.sent.push_back((from, to, bytes.clone())),
                // Later.
                3 => return self.sent.push_back((from, to, bytes)),
                value => bytes[at] ^= value,
            }
        }
        self.deliver(from, to, &bytes);
    }

    /// The next datagram arrives from another address, as after roaming or from an attacker who
    /// saw it.
    fn deliver_first_from_elsewhere(&mut self, input: &mut Input<'_>) {
        let Some((from, to, bytes)) = self.sent.front().cloned() else {
            return;
        };
        let elsewhere = SocketAddr::new([198, 51, 100, input.u8() & 3].into(), from.port());
        if input.bool() {
            self.sent.pop_front();
        }
        self.deliver(elsewhere, to, &bytes);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(at) = self.hosts.iter().position(|host| host.address == to) else {
            return;
        };
        let mut buffer = bytes.to_vec();
        let received = self.hosts[at].handle(self.now, from, &mut buffer);
        if let Some(received) = received {
            self.on_received(at, &received, &buffer[received.packet.clone()]);
        }
        self.drain();
    }

    /// What is delivered was sealed by that peer for this host, and comes once.
    fn on_received(&mut self, at: usize, received: &Received, packet: &[u8]) {
        let from = self.hosts[at].node.node_id_of(received.peer);
        let from = from.and_then(|id| self.hosts.iter().position(|host| host.id == id));
        let serial = packet.get(HEADER_LEN..).and_then(|rest| rest.first_chunk());
        let serial = u32::from_le_bytes(*serial.expect("only whole packets are sealed"));
        let way = self.packets.get(serial as usize);
        assert_eq!(way.copied(), from.map(|from| (from, at)));
        assert!(
            self.hosts[at].delivered.insert(serial),
            "a packet is delivered twice"
        );
    }

    fn send_packet(&mut self, at: usize, whom: u8) {
        let whom = usize::from(whom) % NODES;
        let serial = self.packets.len() as u32;
        self.packets.push((at, whom));
        let mut packet = vec![0; HEADER_LEN];
        packet.extend_from_slice(&serial.to_le_bytes());
        let way = [at, whom].map(|n| (overlay_address(&self.hosts[n].id), 7));
        ip::emit_ipv6_udp(&mut packet, way[0], way[1], 4, 0);
        let _ = self.hosts[at].node.handle_packet(self.now, packet);
    }

    fn connect(&mut self, at: usize, how: u8) {
        if let Some(key) = self.key(at, usize::from(how) % NODES) {
            let (now, node) = (self.now, &mut self.hosts[at].node);
            match how & 0x80 {
                0 => node.connect(now, key),
                _ => node.rekey(now, key),
            };
        }
    }

    /// Lets time pass and runs the timers that are due on the way.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let deadlines = self
                .hosts
                .iter()
                .filter_map(|host| host.node.poll_timeout());
            let Some(next) = deadlines.min().filter(|at| *at <= end.instant) else {
                self.now = end;
                return;
            };
            self.now = self.now + next.saturating_since(self.now.instant);
            for host in &mut self.hosts {
                let due = host.node.poll_timeout();
                if due.is_some_and(|at| at <= self.now.instant) {
                    host.node.handle_timeout(self.now);
                }
            }
            self.drain();
        }
        panic!("timers spin");
    }

    /// A stranger's datagram, or a datagram with a peer's source address.
    fn inject(&mut self, at: usize, input: &mut Input<'_>) {
        let from = match input.u8() {
            n @ 0..=3 => address(usize::from(n)),
            n => SocketAddr::from(([203, 0, 113, n], 9)),
        };
        let mut bytes = input.block().to_vec();
        // Zeros to the length of a message, so that headers alone go far.
        let len = match bytes.first() {
            Some(1) => 148,
            Some(2) => 92,
            Some(3) => 64,
            Some(4) => bytes.len().max(32),
            _ => bytes.len(),
        };
        bytes.resize(len, 0);
        self.deliver(from, address(at), &bytes);
    }

    /// The owner changes something.
    fn change(&mut self, at: usize, input: &mut Input<'_>) {
        let how = input.u8();
        let whom = usize::from(how >> 6);
        let now = self.now;
        let Some(key) = self.key(at, whom) else {
            return self.introduce(at, whom, how & 1 == 0);
        };
        let node = &mut self.hosts[at].node;
        match how & 7 {
            0 => {
                node.remove_peer(key);
            }
            1 => {
                let psk = PresharedKey::from_bytes([how & 16; 32]);
                node.set_preshared_key(key, psk, 1);
            }
            2 => node.set_persistent_keepalive(now, key, Some(Duration::from_secs(1))),
            3 => node.set_persistent_keepalive(now, key, None),
            4 => node.reseed(now, &[how; 32]),
            5 => {
                let candidates = [address(whom), address(9)];
                node.set_candidates(key, &candidates);
                self.hosts[at].trusted.extend(candidates);
            }
            _ => {
                let _ = node.status(now, key);
            }
        }
    }

    fn drain(&mut self) {
        for host in &mut self.hosts {
            // Answers to questions may cause transmits, and those events.
            host.take_events(self.now);
            while let Some(transmit) = host.node.poll_transmit() {
                let to = transmit.path.remote;
                host.on_transmit(to, transmit.datagram.len());
                self.sent.push_back((host.address, to, transmit.datagram));
            }
            host.take_events(self.now);
        }
        self.sent.truncate(512);
    }

    fn check(&self) {
        self.hosts.iter().for_each(Host::check);
    }
}
