//! A node of the engine on a network that the input owns: which datagram arrives, when, how
//! often, from where and with which damage; what strangers send; when clocks, keys and policies
//! change, and when a node restarts.
//!
//! Holds after every operation: no panic; state within its limits; nothing is delivered that its
//! peer did not send, and nothing twice; no more bytes go to an address without a session than
//! came from it; timers do not spin. With the control protocol: no session carries data below what
//! policy and pin require, and none before a stranger is admitted.

mod host;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use wiremesh_control::{Level, PeerSettings};
use wiremesh_core::{Admission, PeerConfig, PeerKey, Received};
use wiremesh_wire::address::{STREAM_PORT, overlay_address};
use wiremesh_wire::{Content, Instant, NodeId, Now, PresharedKey, UnixTime, ip};

use crate::input::Input;
use host::{Disk, Host, address, limits};

const OPERATIONS_MAX: usize = 96;
const NODES: usize = 4;
/// The serial number of a packet is behind its headers and one byte that makes it a stream packet.
const HEADER_LEN: usize = ip::IPV6_UDP_HEADER_LEN;
const QUIC_SHORT_HEADER: u8 = 0x5a;

struct Network {
    hosts: Vec<Host>,
    now: Now,
    /// Datagrams on their way: from, to, bytes.
    sent: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Who sealed the packet of each serial number, and for whom; and at which level, unless it had
    /// to wait for a session.
    packets: Vec<(usize, usize, Option<Level>)>,
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

impl Network {
    /// Two peers that know each other, a node that knows the first, and a stranger to it.
    fn new(input: &mut Input<'_>) -> Self {
        let origin = Instant::from_nanos(1_000_000_000_000);
        let now = Now::new(origin, UnixTime::from_secs_nanos(1_700_000_000, 0));
        let setting = input.u8();
        let policies = match setting & 32 {
            0 => [None; NODES],
            _ => [(); NODES].map(|()| Some(input.policy())),
        };
        let admission = match setting & 3 {
            0 | 1 if setting & 64 != 0 => Admission::Proof { pending_max: 1 },
            0 | 1 => Admission::AllowList,
            2 => Admission::AllowAll { provisional_max: 1 },
            _ => Admission::Ask { pending_max: 1 },
        };
        let tight = limits(setting & 4 != 0);
        let host = |n: usize| {
            let disk = Disk {
                policy: policies[n],
                ..Disk::default()
            };
            match n {
                0 => Host::new(n, now, admission, tight, disk),
                _ => Host::new(n, now, Admission::AllowList, limits(false), disk),
            }
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
            14 if input.bool() => self.restart(at),
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
        let payload = match received.content {
            Content::Stream => Some(packet),
            _ => packet.get(HEADER_LEN..),
        };
        let serial = payload.and_then(|rest| rest.get(1..)?.first_chunk());
        let serial = u32::from_le_bytes(*serial.expect("only whole packets are sealed"));
        let sealed = self.packets.get(serial as usize).copied();
        assert_eq!(
            sealed.map(|(from, to, _)| (Some(from), to)),
            Some((from, at))
        );
        let level = sealed.and_then(|(.., level)| level);
        self.hosts[at].check_passed(self.now, received.peer, level);
        assert!(
            self.hosts[at].delivered.insert(serial),
            "a packet is delivered twice"
        );
    }

    fn send_packet(&mut self, at: usize, whom: u8) {
        // On the stream port it goes without headers where that is agreed.
        let port = if whom & 0x80 == 0 { 7 } else { STREAM_PORT };
        let whom = usize::from(whom) % NODES;
        let serial = self.packets.len() as u32;
        let security = self
            .key(at, whom)
            .and_then(|key| self.hosts[at].node.security(self.now, key));
        let level = security.and_then(|security| security.level);
        self.packets.push((at, whom, level));
        let mut packet = vec![0; HEADER_LEN];
        packet.push(QUIC_SHORT_HEADER);
        packet.extend_from_slice(&serial.to_le_bytes());
        let way = [at, whom].map(|n| (overlay_address(&self.hosts[n].id), port));
        ip::emit_ipv6_udp(&mut packet, way[0], way[1], 5, 0);
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
            6 => {
                let policy = input.policy();
                if node.set_policy(now, policy).is_ok() {
                    self.hosts[at].disk.policy = Some(policy);
                }
            }
            _ => {
                let _ = node.status(now, key);
                let settings = PeerSettings {
                    minimum: Level::from_number(u16::from(how >> 3 & 3)),
                    proof: Some(vec![how; 9]),
                    needs_admission: false,
                };
                node.set_peer_settings(now, key, settings);
            }
        }
    }

    /// A node loses all but its disk; its owner adds the peers anew.
    fn restart(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let known: Vec<NodeId> = host
            .node
            .peers()
            .filter_map(|key| host.node.node_id_of(key))
            .collect();
        host.gates.clear();
        host.disk.lives += 1;
        host.node = host.disk.make(at, self.now, host.admission, host.limits);
        for whom in 0..NODES {
            if known.contains(&self.hosts[whom].id) {
                self.introduce(at, whom, true);
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

    fn check(&mut self) {
        let now = self.now;
        self.hosts.iter_mut().for_each(|host| host.check(now));
    }
}
