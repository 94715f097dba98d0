//! One host of the network: what it runs, what is on its disk, and what its interface was told.
//!
//! The kernel's WireGuard is played by a plain [`Node`], which has no control protocol: real
//! handshakes and real keys, so that all kinds of hosts talk to each other.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use wiremesh_control::{Pin, Policy};
use wiremesh_core::{
    ControlConfig, Event, KernelFigures, KernelNode, KernelPeerChange, KernelTask, Node,
    NodeConfig, PeerConfig, PeerKey, PeerSecurity, PeerStatus, Routing,
};
use wiremesh_wire::address::{CONTROL_NET, CONTROL_PORT, control_address, overlay_address};
use wiremesh_wire::ip::{self, IPV6_UDP_HEADER_LEN};
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, SecretKey, Tai64n, UnixTime};

/// Wall time at the start.
const START: Duration = Duration::from_secs(1_700_000_000);

/// What a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Kernel,
    Engine,
    Stock,
}

/// A message of the control protocol, and the control address that it came from.
pub type Frame = (Ipv6Addr, Vec<u8>);

/// What outlives a restart.
#[derive(Clone, Default)]
pub struct Disk {
    pub pins: BTreeMap<NodeId, Pin>,
    pub record_seq: u64,
    floor: Option<Tai64n>,
}

pub struct Host {
    pub make: Make,
    pub addr: SocketAddr,
    secret: SecretKey,
    pub id: NodeId,
    pub policy: Policy,
    pub rotate_after: Duration,
    /// Kernel mode only.
    pub mind: Option<KernelNode>,
    /// The engine itself, or what plays the kernel's interface.
    pub node: Node,
    pub on: bool,
    pub events: Vec<Event>,
    pub disk: Disk,
    peers: Vec<PeerConfig>,
    /// The preshared key that the interface has for each peer.
    pub slots: BTreeMap<NodeId, PresharedKey>,
    /// How often each peer was added to the interface.
    pub replaced: BTreeMap<NodeId, u32>,
    /// All that the interface was told, in order.
    pub told: Vec<KernelPeerChange>,
    /// Numbers of the application's packets that came in, and when.
    pub arrived: BTreeMap<u64, Instant>,
    /// Of those that were accepted here.
    pub sent: BTreeMap<u64, Instant>,
    /// All that came in.
    pub frames: Vec<Frame>,
    /// Its figures are not read: the helper hangs.
    pub deaf: bool,
    /// Against the wall clock of the world, seconds.
    pub wall_offset: i64,
    lives: u8,
}

/// The same call, whoever decides.
macro_rules! either {
    ($host:expr, $node:ident => $call:expr) => {
        match &$host.mind {
            Some($node) => $call,
            None => {
                let $node = &$host.node;
                $call
            }
        }
    };
    (mut $host:expr, $node:ident => $call:expr) => {
        match &mut $host.mind {
            Some($node) => $call,
            None => {
                let $node = &mut $host.node;
                $call
            }
        }
    };
}

impl Host {
    /// A host with keys and an address of its own, off until it is booted.
    pub fn new(n: u8, make: Make, policy: Policy, rotate_after: Duration, at: Instant) -> Self {
        let secret = SecretKey::from_bytes([n + 1; 32]);
        let now = Now::new(at, UnixTime::EPOCH);
        let node = Node::new(NodeConfig::new(secret.clone()), [n; 32], now).expect("a valid key");
        let mut host = Self {
            make,
            addr: SocketAddr::from(([192, 0, 2, n + 1], 51_820)),
            secret,
            id: node.node_id(),
            policy,
            rotate_after,
            mind: None,
            node,
            on: false,
            events: Vec::new(),
            disk: Disk::default(),
            peers: Vec::new(),
            slots: BTreeMap::new(),
            replaced: BTreeMap::new(),
            told: Vec::new(),
            arrived: BTreeMap::new(),
            sent: BTreeMap::new(),
            frames: Vec::new(),
            deaf: false,
            wall_offset: 0,
            lives: n,
        };
        host.boot(at);
        host
    }

    /// Its clocks.
    pub fn now(&self, instant: Instant) -> Now {
        let wall = START + Duration::from_nanos(instant.as_nanos());
        let offset = Duration::from_secs(self.wall_offset.unsigned_abs());
        let wall = match self.wall_offset >= 0 {
            true => wall + offset,
            false => wall.saturating_sub(offset),
        };
        Now::new(instant, UnixTime::from_duration(wall))
    }

    /// Starts from what is on its disk.
    pub fn boot(&mut self, instant: Instant) {
        let now = self.now(instant);
        self.on = true;
        self.lives = self.lives.wrapping_add(16);
        self.slots.clear();
        let control = ControlConfig {
            policy: self.policy,
            rotate_after: self.rotate_after,
            kem_seed: Some([self.secret.as_bytes()[0]; 64]),
            record_seq_floor: self.disk.record_seq,
            pins: self.disk.pins.clone().into_iter().collect(),
            ..ControlConfig::default()
        };
        let mut seed = [self.lives; 32];
        let mut config = NodeConfig::new(self.secret.clone());
        config.timestamp_floor = self.disk.floor;
        match self.make {
            Make::Engine => config.control = Some(control),
            Make::Stock => config.routing = Routing::AsGiven,
            Make::Kernel => {
                config.routing = Routing::AsGiven;
                let mut config = NodeConfig::new(self.secret.clone());
                config.control = Some(control);
                self.mind = Some(KernelNode::new(config, seed, now).expect("a valid key"));
            }
        }
        seed[0] ^= 99;
        self.node = Node::new(config, seed, now).expect("a valid key");
        for config in self.peers.clone() {
            self.insert(now, config);
        }
    }

    pub fn add_peer(&mut self, now: Now, config: PeerConfig) -> PeerKey {
        self.peers.push(config.clone());
        self.insert(now, config)
    }

    fn insert(&mut self, now: Now, config: PeerConfig) -> PeerKey {
        let added = either!(mut self, node => node.add_peer(now, config));
        added.expect("a new peer")
    }

    pub fn remove_peer(&mut self, id: &NodeId) {
        let key = self.key_of(id);
        self.peers.retain(|config| config.node_id != *id);
        assert!(either!(mut self, node => node.remove_peer(key)));
    }

    pub fn set_policy(&mut self, now: Now, policy: Policy) {
        self.policy = policy;
        let set = either!(mut self, node => node.set_policy(now, policy));
        set.expect("a consistent policy");
    }

    pub fn key_of(&self, id: &NodeId) -> PeerKey {
        either!(self, node => node.peer_by_id(id)).expect("a known peer")
    }

    pub fn keys(&self) -> Vec<PeerKey> {
        either!(self, node => node.peers().collect())
    }

    pub fn security(&self, now: Now, key: PeerKey) -> PeerSecurity {
        either!(self, node => node.security(now, key)).expect("a known peer")
    }

    pub fn status(&self, now: Now, key: PeerKey) -> PeerStatus {
        either!(self, node => node.status(now, key)).expect("a known peer")
    }

    /// Whether the interface has more of a peer's addresses than the control address.
    pub fn is_open(&self, id: &NodeId) -> bool {
        let overlay = overlay_address(id);
        self.node.peer_by_address(overlay.into()).is_some()
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let mind = self.mind.as_ref().and_then(KernelNode::poll_timeout);
        let due = [self.node.poll_timeout(), mind].into_iter().flatten().min();
        due.filter(|_| self.on)
    }

    pub fn handle_timeout(&mut self, instant: Instant) {
        let now = self.now(instant);
        if self.node.poll_timeout().is_some_and(|at| at <= instant) {
            self.node.handle_timeout(now);
        }
        if let Some(mind) = &mut self.mind
            && mind.poll_timeout().is_some_and(|at| at <= instant)
        {
            mind.handle_timeout(now);
            let next = mind.poll_timeout();
            assert!(next.is_none_or(|at| at > instant), "it asks again at once");
        }
    }

    /// Takes what came out of the tunnel: a message of the control protocol, or the application's.
    pub fn take(&mut self, now: Now, packet: &[u8]) {
        let is_control = |header: ip::IpHeader| CONTROL_NET.contains(header.source);
        if !ip::parse(packet).is_ok_and(is_control) {
            let number = packet[IPV6_UDP_HEADER_LEN..][..8].try_into();
            let number = u64::from_le_bytes(number.expect("eight bytes"));
            self.arrived.insert(number, now.instant);
            return;
        }
        let to = SocketAddr::new(control_address(&self.id).into(), CONTROL_PORT);
        let Ok(udp) = ip::parse_udp(packet) else {
            return;
        };
        if let (Some(mind), SocketAddr::V6(from)) = (&mut self.mind, udp.source)
            && udp.destination == to
            && from.port() == CONTROL_PORT
        {
            let payload = &packet[udp.payload];
            self.frames.push((*from.ip(), payload.to_vec()));
            mind.handle_control(now, *from.ip(), payload);
        }
    }

    /// As a driver does: events first, then the tasks in order, then the figures, if asked for.
    /// `false` when there was nothing to do.
    pub fn drain_mind(&mut self, now: Now) -> bool {
        let Some(mind) = self.mind.as_mut().filter(|_| self.on) else {
            return false;
        };
        let events: Vec<Event> = std::iter::from_fn(|| mind.poll_event()).collect();
        let tasks: Vec<KernelTask> = std::iter::from_fn(|| mind.poll_task()).collect();
        for event in events {
            if let Event::SaveRecordSeq(seq) = &event {
                assert!(*seq > self.disk.record_seq, "record numbers rise");
            }
            self.save(&event);
            self.events.push(event);
        }
        let mut figures = None;
        let busy = !tasks.is_empty();
        for task in tasks {
            match task {
                KernelTask::ReadFigures if self.deaf => {}
                KernelTask::ReadFigures => figures = Some(self.figures(now)),
                other => self.carry_out(now, other),
            }
        }
        if let (Some(figures), Some(mind)) = (figures, &mut self.mind) {
            mind.handle_figures(now, &figures);
        }
        busy
    }

    pub fn drain_node_events(&mut self) {
        while let Some(event) = self.node.poll_event() {
            self.save(&event);
            // The interface's are nobody's.
            if self.make != Make::Kernel {
                self.events.push(event);
            }
        }
    }

    fn save(&mut self, event: &Event) {
        match event {
            Event::ReserveTimestamps(floor) => self.disk.floor = Some(*floor),
            Event::SaveRecordSeq(seq) => self.disk.record_seq = *seq,
            Event::SavePin { node_id, pin } => {
                self.disk.pins.insert(*node_id, *pin);
            }
            _ => {}
        }
    }

    /// What the helper does with a task.
    fn carry_out(&mut self, now: Now, task: KernelTask) {
        match task {
            KernelTask::SetPeer(change) => self.set_peer(now, change),
            KernelTask::RemovePeer(id) => {
                let key = self.node.peer_by_id(&id).expect("a peer of the interface");
                self.node.remove_peer(key);
                self.slots.remove(&id);
            }
            KernelTask::Send { to, payload } => {
                let packet = control_packet(control_address(&self.id), to, &payload);
                // Without an endpoint or a peer it is lost.
                let _ = self.node.handle_packet(now, packet);
            }
            KernelTask::ReadFigures => {}
        }
    }

    fn set_peer(&mut self, now: Now, change: KernelPeerChange) {
        self.told.push(change.clone());
        let id = change.node_id;
        let node = &mut self.node;
        if let Some(psk) = &change.preshared_key {
            self.slots.insert(id, psk.clone());
        }
        let told = change.persistent_keepalive;
        let keepalive = told.filter(|every| !every.is_zero());
        let known = node.peer_by_id(&id);
        if change.replace {
            known.map(|key| node.remove_peer(key));
            let mut config = PeerConfig::new(id);
            config.preshared_key = change.preshared_key.expect("a new peer's key");
            config.endpoint = change.endpoint;
            config.persistent_keepalive = keepalive;
            config.allowed_ips = change.allowed_ips.expect("a new peer's addresses");
            node.add_peer(now, config).expect("it is not there");
            *self.replaced.entry(id).or_default() += 1;
            return;
        }
        let key = known.expect("a peer of the interface");
        if let Some(psk) = change.preshared_key {
            node.set_preshared_key(key, psk, 0);
        }
        if let Some(endpoint) = change.endpoint {
            node.set_endpoint(key, endpoint);
        }
        if let Some(nets) = change.allowed_ips {
            node.set_allowed_ips(key, &nets).expect("as WireGuard does");
        }
        if told.is_some() {
            let status = node.status(now, key).expect("it is there");
            node.set_persistent_keepalive(now, key, keepalive);
            if status.persistent_keepalive.is_none() && keepalive.is_some() {
                // The kernel sends one at once, for which it needs a session.
                node.connect(now, key);
            }
        }
    }

    fn figures(&self, now: Now) -> Vec<KernelFigures> {
        let peers = self.node.peers();
        let statuses = peers.filter_map(|key| self.node.status(now, key));
        let figures = |status: PeerStatus| KernelFigures {
            node_id: status.node_id,
            endpoint: status.path.map(|path| path.remote),
            // As `wg show` tells it.
            last_handshake: status
                .last_handshake
                .map(|at| UnixTime::from_secs_nanos(at.as_secs(), 0)),
            rx_bytes: status.rx_bytes,
            tx_bytes: status.tx_bytes,
        };
        statuses.map(figures).collect()
    }
}

fn control_packet(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_UDP_HEADER_LEN];
    packet.extend_from_slice(payload);
    let (from, to) = ((from, CONTROL_PORT), (to, CONTROL_PORT));
    ip::emit_ipv6_udp(&mut packet, from, to, payload.len(), 0);
    packet
}
