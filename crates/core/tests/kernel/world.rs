//! A network of nodes in kernel mode, nodes with our engine and stock WireGuard, in virtual time.
//!
//! It knows by which preshared key each session of the kernel was made, and looks at every datagram
//! with data of an application: none may leave on a session below the level of its pair.

use crate::host::{Host, Make};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_control::Policy;
use wiremesh_core::{KernelNode, Path, PeerConfig, PeerKey, PeerSecurity, PeerStatus, Received};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::ip::{self, IPV6_UDP_HEADER_LEN};
use wiremesh_wire::{Instant, Now};

/// Longer than every control packet, so that a datagram tells what is in it.
const APPLICATION_BYTES: usize = 1_300;
/// Datagrams from this length on carry data of an application.
const APPLICATION_DATAGRAM: usize = 1_200;

pub struct Sent {
    pub from: usize,
    pub to: SocketAddr,
    pub source: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    pub fn is_application(&self) -> bool {
        self.kind() == 4 && self.bytes.len() >= APPLICATION_DATAGRAM
    }
}

/// `None`: lost. Else what is added to the way's time.
pub type Fate = Box<dyn FnMut(Instant, &Sent) -> Option<Duration>>;

pub struct World {
    pub instant: Instant,
    pub hosts: Vec<Host>,
    pub fate: Fate,
    pub delay: Duration,
    /// Each pair sends both ways this often.
    pub chatter: Option<Duration>,
    /// The lowest level that data of a pair may be on; 2 unless named here.
    pub floors: BTreeMap<(usize, usize), u8>,
    /// Every other preshared key is of an exchange.
    pub boots: BTreeSet<[u8; 32]>,
    /// By receiver and its index: the preshared key.
    sessions: BTreeMap<(usize, u32), [u8; 32]>,
    in_flight: BTreeMap<(Instant, u64), Sent>,
    serial: u64,
    numbers: u64,
    next_chatter: Instant,
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl World {
    pub fn new() -> Self {
        Self {
            instant: Instant::from_nanos(1_000_000_000_000),
            hosts: Vec::new(),
            fate: Box::new(|_, _| Some(Duration::ZERO)),
            delay: Duration::from_millis(10),
            chatter: None,
            floors: BTreeMap::new(),
            boots: BTreeSet::from([[0; 32]]),
            sessions: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            serial: 0,
            numbers: 0,
            next_chatter: Instant::ZERO,
        }
    }

    /// Two hosts that know each other and where they are.
    pub fn pair(makes: [Make; 2]) -> Self {
        let mut world = Self::new();
        for make in makes {
            world.add(make, Policy::default());
        }
        world.introduce(0, 1);
        world.chatter = Some(Duration::from_millis(200));
        world
    }

    pub fn now_of(&self, at: usize) -> Now {
        self.hosts[at].now(self.instant)
    }

    pub fn add(&mut self, make: Make, policy: Policy) -> usize {
        self.add_rotating(make, policy, Duration::from_secs(900))
    }

    pub fn add_rotating(&mut self, make: Make, policy: Policy, rotate_after: Duration) -> usize {
        let n = self.hosts.len();
        let host = Host::new(n as u8, make, policy, rotate_after, self.instant);
        self.hosts.push(host);
        n
    }

    /// Both know each other and where they are.
    pub fn introduce(&mut self, a: usize, b: usize) {
        for (at, whom) in [(a, b), (b, a)] {
            let endpoint = Some(self.hosts[whom].addr);
            self.introduce_with(at, whom, |config| config.endpoint = endpoint);
        }
    }

    pub fn introduce_with(
        &mut self,
        at: usize,
        whom: usize,
        change: impl FnOnce(&mut PeerConfig),
    ) -> PeerKey {
        let mut config = PeerConfig::new(self.hosts[whom].id);
        config.stock = self.hosts[whom].make == Make::Stock;
        if self.hosts[at].make == Make::Stock {
            config.allowed_ips = vec![overlay_address(&config.node_id).into()];
        }
        change(&mut config);
        self.boots.insert(*config.preshared_key.as_bytes());
        let now = self.now_of(at);
        let key = self.hosts[at].add_peer(now, config);
        self.drain();
        key
    }

    pub fn remove(&mut self, at: usize, whom: usize) {
        let id = self.hosts[whom].id;
        self.hosts[at].remove_peer(&id);
        self.drain();
    }

    pub fn key(&self, at: usize, whom: usize) -> PeerKey {
        self.hosts[at].key_of(&self.hosts[whom].id)
    }

    pub fn security(&self, at: usize, whom: usize) -> PeerSecurity {
        self.hosts[at].security(self.now_of(at), self.key(at, whom))
    }

    pub fn status(&self, at: usize, whom: usize) -> PeerStatus {
        self.hosts[at].status(self.now_of(at), self.key(at, whom))
    }

    /// Whether the interface has more of the peer's addresses than the control address.
    pub fn is_open(&self, at: usize, whom: usize) -> bool {
        self.hosts[at].is_open(&self.hosts[whom].id)
    }

    pub fn mind(&mut self, at: usize) -> &mut KernelNode {
        self.hosts[at].mind.as_mut().expect("kernel mode")
    }

    /// Power off, or `kill -9` of the program, with which its interface goes.
    pub fn kill(&mut self, at: usize) {
        self.hosts[at].on = false;
    }

    pub fn start(&mut self, at: usize) {
        self.hosts[at].boot(self.instant);
        self.drain();
    }

    pub fn restart(&mut self, at: usize) {
        self.kill(at);
        self.start(at);
    }

    /// Moves the wall clock of one host.
    pub fn step_wall(&mut self, at: usize, seconds: i64) {
        self.hosts[at].wall_offset += seconds;
    }

    pub fn set_policy(&mut self, at: usize, policy: Policy) {
        let now = self.now_of(at);
        self.hosts[at].set_policy(now, policy);
        self.drain();
    }

    /// Offers a packet of the application; `false` when there is no way.
    pub fn send(&mut self, at: usize, whom: usize) -> bool {
        if !self.hosts[at].on {
            return false;
        }
        self.numbers += 1;
        let mut packet = vec![0; APPLICATION_BYTES];
        packet[IPV6_UDP_HEADER_LEN..][..8].copy_from_slice(&self.numbers.to_le_bytes());
        let from = (overlay_address(&self.hosts[at].id), 7);
        let to = (overlay_address(&self.hosts[whom].id), 7);
        let payload_len = APPLICATION_BYTES - IPV6_UDP_HEADER_LEN;
        ip::emit_ipv6_udp(&mut packet, from, to, payload_len, 0);
        let now = self.now_of(at);
        let taken = self.hosts[at].node.handle_packet(now, packet).is_ok();
        if taken {
            self.hosts[at].sent.insert(self.numbers, self.instant);
        }
        self.drain();
        taken
    }

    /// Packets that were accepted from `since` on, a second ago or more, and arrived nowhere.
    pub fn lost(&self, since: Instant) -> usize {
        let until = self.instant.saturating_sub(Duration::from_secs(1));
        let arrived = |number| {
            self.hosts
                .iter()
                .any(|host| host.arrived.contains_key(number))
        };
        let sent = self.hosts.iter().flat_map(|host| &host.sent);
        sent.filter(|(_, at)| (since..until).contains(*at))
            .filter(|(number, _)| !arrived(number))
            .count()
    }

    /// What the last packets sent say: data passes both ways.
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        let recent = self.instant.saturating_sub(Duration::from_millis(700));
        [a, b].into_iter().all(|at| {
            let last = self.hosts[at].arrived.values().next_back();
            self.hosts[at].on && last.is_some_and(|last| *last >= recent)
        })
    }

    /// Runs until data passes both ways; panics after `limit` seconds.
    pub fn run_until_up(&mut self, limit: u64) -> Duration {
        let began = self.instant;
        while !self.is_up(0, 1) {
            let passed = self.instant.saturating_since(began);
            assert!(
                passed < Duration::from_secs(limit),
                "not up after {limit} s: {}",
                self.describe()
            );
            self.run_for(Duration::from_millis(100));
        }
        self.instant.saturating_since(began)
    }

    pub fn run_secs(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.instant + time;
        let mut steps = 0;
        self.drain();
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            steps += 1;
            assert!(steps < 2_000_000, "timers spin");
            self.instant = self.instant.max(next);
            self.step();
        }
        self.instant = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter_map(Host::deadline);
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let chatter = self.chatter.map(|_| self.next_chatter);
        timers.chain(arrival).chain(chatter).min()
    }

    fn step(&mut self) {
        for host in self.hosts.iter_mut().filter(|host| host.on) {
            host.handle_timeout(self.instant);
        }
        self.drain();
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > self.instant {
                break;
            }
            let sent = entry.remove();
            self.deliver(sent);
        }
        if let Some(every) = self.chatter
            && self.instant >= self.next_chatter
        {
            self.next_chatter = self.instant + every;
            for a in 0..self.hosts.len() {
                for b in (0..self.hosts.len()).filter(|b| *b != a) {
                    self.send(a, b);
                }
            }
        }
    }

    fn host_at(&self, addr: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.addr == addr)
    }

    fn deliver(&mut self, mut sent: Sent) {
        let Some(to) = self.host_at(sent.to).filter(|to| self.hosts[*to].on) else {
            return;
        };
        if sent.kind() == 2 && self.hosts[to].make == Make::Kernel {
            self.note_session(to, (sent.from, to), &sent.bytes);
        }
        let now = self.now_of(to);
        let host = &mut self.hosts[to];
        let path = Path::to(sent.source);
        let received = host.node.handle_datagram(now, path, &mut sent.bytes);
        if let Some(Received { packet, .. }) = received {
            host.take(now, &sent.bytes[packet]);
        }
        self.drain();
    }

    /// Does all that hosts want done now.
    pub fn drain(&mut self) {
        for at in 0..self.hosts.len() {
            let now = self.now_of(at);
            while self.hosts[at].drain_mind(now) {}
            self.hosts[at].drain_node_events();
            while let Some(transmit) = self.hosts[at].node.poll_transmit() {
                if self.hosts[at].on {
                    self.transmit(at, transmit.path.remote, transmit.datagram);
                }
            }
        }
    }

    fn transmit(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.serial += 1;
        let source = self.hosts[from].addr;
        let sent = Sent {
            from,
            to,
            source,
            bytes,
        };
        let receiver = self.host_at(to);
        if let Some(receiver) = receiver {
            if sent.kind() == 2 && self.hosts[from].make == Make::Kernel {
                self.note_session(from, (from, receiver), &sent.bytes);
            }
            self.check(&sent, receiver);
        }
        if let Some(more) = (self.fate)(self.instant, &sent) {
            let at = self.instant + self.delay + more;
            self.in_flight.insert((at, self.serial), sent);
        }
    }

    /// A response, of which `knows` has the preshared key: it is a good one only under that.
    fn note_session(&mut self, knows: usize, (responder, initiator): (usize, usize), bytes: &[u8]) {
        let other = responder + initiator - knows;
        let id = self.hosts[other].id;
        if let Some(psk) = self.hosts[knows].slots.get(&id) {
            let psk = *psk.as_bytes();
            self.sessions.insert((responder, le32(bytes, 4)), psk);
            self.sessions.insert((initiator, le32(bytes, 8)), psk);
        }
    }

    /// The one invariant: see the module.
    fn check(&self, sent: &Sent, to: usize) {
        let from = sent.from;
        if !sent.is_application()
            || ![from, to]
                .iter()
                .any(|at| self.hosts[*at].make == Make::Kernel)
        {
            return;
        }
        let pair = (from.min(to), from.max(to));
        let floor = self.floors.get(&pair).copied().unwrap_or(2);
        let psk = self.sessions.get(&(to, le32(&sent.bytes, 4)));
        let psk = psk.expect("every session of the kernel was seen to begin");
        let level = match self.boots.contains(psk) {
            true => 1,
            false => 2,
        };
        assert!(
            level >= floor,
            "data from {from} to {to} on a session at L{level}: {}",
            self.describe()
        );
    }

    pub fn describe(&self) -> String {
        let mut text = format!("at {} ms", self.instant.as_nanos() / 1_000_000);
        for (at, host) in self.hosts.iter().enumerate() {
            let now = self.now_of(at);
            for key in host.keys() {
                let (security, status) = (host.security(now, key), host.status(now, key));
                text.push_str(&format!(
                    "\n  {at} {:?} on {}: {:?} level {:?} required {:?} phase {:?} epoch {:?} waiting {:?}",
                    host.make,
                    host.on,
                    status.state,
                    security.level,
                    security.required,
                    security.phase,
                    security.psk_epoch,
                    security.waiting,
                ));
            }
        }
        text
    }
}
