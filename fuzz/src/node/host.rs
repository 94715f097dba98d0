//! One node with what is known of it apart from itself: what it may send where, and its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use wiremesh_control::{Level, Pin, Policy};
use wiremesh_core::{
    Admission, ControlConfig, Event, Limits, Node, NodeConfig, Path, PeerConfig, PeerKey, Received,
};
use wiremesh_wire::{Instant, NodeId, Now, SecretKey, Tai64n};

/// For so long data passes that its sender sealed before it knew of a higher gate.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Host {
    pub(super) node: Node,
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    /// Addresses to which it may send on its own: endpoints that its owner named, and those that
    /// proved a session.
    pub(super) trusted: BTreeSet<SocketAddr>,
    /// Bytes from and to every other address.
    pub(super) ledger: BTreeMap<SocketAddr, (usize, usize)>,
    pub(super) delivered: BTreeSet<u32>,
    pub(super) limits: Limits,
    pub(super) admission: Admission,
    pub(super) disk: Disk,
    /// What data of each peer needs, and since when.
    pub(super) gates: BTreeMap<PeerKey, (Option<Level>, Instant)>,
}

/// What is left after a restart.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) lives: u8,
    pub(super) timestamp_floor: Option<Tai64n>,
    pub(super) record_seq: u64,
    pub(super) pins: BTreeMap<NodeId, Pin>,
    /// None: plain WireGuard.
    pub(super) policy: Option<Policy>,
}

pub(super) fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8], 51_820))
}

pub(super) fn limits(tight: bool) -> Limits {
    if !tight {
        return Limits::default();
    }
    Limits {
        peers_max: 3,
        staged_packets_max: 2,
        staged_bytes_max: 2_000,
        transmits_max: 4,
        events_max: 4,
        handshakes_per_second_max: 0,
    }
}

impl Disk {
    pub(super) fn make(&self, n: usize, now: Now, admission: Admission, limits: Limits) -> Node {
        let mut config = NodeConfig::new(SecretKey::from_bytes([n as u8 + 1; 32]));
        config.admission = admission;
        config.limits = limits;
        config.timestamp_floor = self.timestamp_floor;
        config.control = self.policy.map(|policy| ControlConfig {
            // At hand if a later policy wants it.
            policy: Policy {
                static_kem: true,
                ..policy
            },
            kem_seed: Some([n as u8; 64]),
            record_seq_floor: self.record_seq,
            rotate_after: Duration::from_secs(150),
            pins: self.pins.clone().into_iter().collect(),
            ..ControlConfig::default()
        });
        let mut seed = [n as u8; 32];
        seed[0] = self.lives;
        let mut node = Node::new(config, seed, now).expect("a valid secret key");
        if let Some(policy) = self.policy {
            node.set_policy(now, policy).expect("a consistent policy");
        }
        node
    }
}

impl Host {
    pub(super) fn new(
        n: usize,
        now: Now,
        admission: Admission,
        limits: Limits,
        disk: Disk,
    ) -> Self {
        let node = disk.make(n, now, admission, limits);
        Self {
            id: node.node_id(),
            node,
            disk,
            address: address(n),
            trusted: BTreeSet::new(),
            ledger: BTreeMap::new(),
            delivered: BTreeSet::new(),
            limits,
            admission,
            gates: BTreeMap::new(),
        }
    }

    pub(super) fn handle(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Received> {
        self.ledger.entry(from).or_default().0 += datagram.len();
        self.node.handle_datagram(now, Path::to(from), datagram)
    }

    /// Takes events; strangers that ask are let in or not.
    pub(super) fn take_events(&mut self, now: Now) {
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
                Event::AdmissionRequested { node_id, .. } => self.node.refuse(now, &node_id),
                Event::ReserveTimestamps(floor) => self.disk.timestamp_floor = Some(floor),
                Event::SaveRecordSeq(seq) => {
                    assert!(seq > self.disk.record_seq, "a record number twice");
                    self.disk.record_seq = seq;
                }
                Event::SavePin { node_id, pin } => drop(self.disk.pins.insert(node_id, pin)),
                _ => {}
            }
        }
        // A session below the gate is not told, and carries control packets.
        for key in self.node.peers() {
            let status = self.node.status(now, key).expect("a peer");
            if status.session_level.is_some() {
                self.trusted.extend(status.path.map(|path| path.remote));
            }
        }
    }

    pub(super) fn on_transmit(&mut self, to: SocketAddr, len: usize) {
        let (received, sent) = self.ledger.entry(to).or_default();
        *sent += len;
        assert!(
            self.trusted.contains(&to) || sent <= received,
            "{sent} bytes for {received} to an address without a session"
        );
    }

    pub(super) fn check(&mut self, now: Now) {
        self.check_usage();
        for key in self.node.peers() {
            self.check_level(now, key);
            let required = self.node.security(now, key).expect("a peer").required;
            let known = self.gates.entry(key).or_insert((required, now.instant));
            if known.0 != required {
                *known = (required, now.instant);
            }
        }
    }

    /// Data came that was sealed at this level: the gate lets it through, or did until just now.
    pub(super) fn check_passed(&self, now: Now, key: PeerKey, sealed: Option<Level>) {
        let required = self.node.security(now, key).expect("a peer").required;
        let Some((known, since)) = self.gates.get(&key) else {
            return;
        };
        let long_ago = now.instant.saturating_since(*since) > GRACE;
        if *known == required && long_ago && self.disk.policy.is_some() {
            let required = required.expect("data of a stranger");
            assert!(sealed.is_none_or(|level| level >= required));
        }
    }

    /// A session that carries data has the level that is required, and that is no less than what
    /// policy and pin demand.
    fn check_level(&self, now: Now, key: PeerKey) {
        let security = self.node.security(now, key).expect("a peer");
        let Some(policy) = self.disk.policy.filter(|_| !security.stock) else {
            return;
        };
        let Some(required) = security.required else {
            assert_eq!(security.level, None, "data before admission");
            return;
        };
        let listed = policy.suites().expect("a consistent policy");
        let best = listed.best_level().expect("known suites");
        let id = self.node.node_id_of(key).expect("a peer");
        let pin = self.disk.pins.get(&id).copied().unwrap_or_default();
        let pinned = pin.level.min(best);
        let settings = self.node.peer_settings(key).expect("a peer");
        let minimum = settings.minimum.unwrap_or(Level::Classical);
        assert!(required >= policy.minimum.max(pinned).max(minimum));
        assert!(security.level.is_none_or(|level| level >= required));
    }

    fn check_usage(&self) {
        let usage = self.node.usage();
        assert!(usage.peers <= self.limits.peers_max as usize);
        assert!(usage.transmits <= self.limits.transmits_max);
        assert!(usage.events <= self.limits.events_max);
        assert!(usage.staged_packets <= usage.links * self.limits.staged_packets_max);
        assert!(usage.staged_bytes <= self.limits.staged_bytes_max);
        assert!(usage.links <= usage.peers && usage.indices <= usage.links * 5);
        let (provisional, pending) = match self.admission {
            Admission::AllowList => (0, 0),
            Admission::AllowAll { provisional_max } => (provisional_max, 0),
            Admission::Ask { pending_max } => (0, pending_max),
            Admission::Proof { pending_max } => (pending_max, 0),
        };
        assert!(usage.provisional_peers <= provisional as usize);
        assert!(usage.pending_admissions <= pending as usize);
    }
}
