//! The node: construction, peers, commands and polls.
//!
//! Owns the table of peers in [`Peers`] and, in [`Shared`], everything that they share. Messages are
//! handled in `node/handshake.rs` and `node/data.rs`, strangers in `node/admission.rs`, deadlines
//! in `node/timeout.rs`; `node/gate.rs` says which sessions carry data, and `node/control.rs` is
//! where the control protocol is attached.

mod admission;
mod agreement;
mod control;
mod data;
mod gate;
mod handshake;
mod peers;
mod prefixes;
mod shared;
mod stream;
mod timeout;
mod usage;

use crate::config::{AddPeerError, NewNodeError, NodeConfig, Path, PeerConfig, Routing};
use crate::counters::Counters;
use crate::event::Event;
use crate::peer::{Peer, PeerKey, PeerStats};
use crate::psk_slots::PskSlots;
use crate::remote::Remote;
use crate::status::{PeerState, PeerStatus};
use admission::PendingAdmission;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
pub use gate::{GATE_CLOSED, GATE_OPEN};
use peers::Peers;
use shared::Shared;
pub use stream::sealed_stream_len;
pub use usage::Usage;
use wiremesh_control::{PeerSettings, Pin};
use wiremesh_noise::Role;
use wiremesh_wire::{Content, Instant, NodeId, Now, address};

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to, and from which address of ours.
    pub path: Path,
    /// The UDP payload.
    pub datagram: Vec<u8>,
    /// The ECN codepoint for the outer header (RFC 3168).
    pub ecn: u8,
}

/// A packet that came out of the tunnel, in the buffer of its datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whose session it came through.
    pub peer: PeerKey,
    /// What it is: [`Content::Packet`] is an IP packet whose source is among this peer's allowed
    /// IPs, [`Content::Stream`] a QUIC packet from this peer's stream port to ours. Nothing else
    /// comes out.
    pub content: Content,
    /// Where it lies in the datagram's buffer, padding cut off.
    pub packet: Range<usize>,
}

/// Why a packet was not taken. The packet comes back to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The destination is in no peer's allowed IPs, or the packet is from or to a control address.
    NoRoute(Vec<u8>),
    /// Not an IP packet.
    NotIp(Vec<u8>),
    /// The peer's queue is full: offer it again after the session is there.
    QueueFull(Vec<u8>),
}

/// Why [`Node::seal_packet`] or [`Node::seal_stream_packet`] could not seal at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The handle names no peer.
    UnknownPeer,
    /// No session is live at the level that the peer needs; a handshake was started if that can
    /// help. Give the packet to [`Node::handle_packet`], which keeps it until there is one.
    NoSession,
    /// The packet is from or to a control address: only the node itself may send such.
    ControlOnly,
    /// The peer takes no bare stream packets: give it the IPv6 and UDP form.
    BareNotAgreed,
    /// The stream packet lacks QUIC's fixed bit, so it has no bare form. It was counted.
    NoFixedBit,
}

/// One WireGuard node, without I/O. See the crate documentation for how to drive it.
pub struct Node {
    peers: Peers,
    shared: Shared,
    pending_admissions: BTreeMap<NodeId, PendingAdmission>,
    provisional_peers: u32,
    /// Those who need a proof, oldest first; some may be gone.
    strangers: VecDeque<PeerKey>,
}

/// Most places that an initiation is sent to at once.
const CANDIDATES_MAX: usize = 24;

impl Node {
    /// Makes a node. `seed` is 32 bytes of the operating system's randomness; all secrets of the
    /// node come from it, so it is used once and never stored.
    ///
    /// # Errors
    ///
    /// [`NewNodeError`]: the policy contradicts itself.
    pub fn new(config: NodeConfig, seed: [u8; 32], now: Now) -> Result<Self, NewNodeError> {
        Ok(Self {
            peers: Peers::new(&seed),
            shared: Shared::new(config, seed, now)?,
            pending_admissions: BTreeMap::new(),
            provisional_peers: 0,
            strangers: VecDeque::new(),
        })
    }

    /// Our own node id.
    pub fn node_id(&self) -> NodeId {
        self.shared.local.node_id()
    }

    /// Mixes fresh randomness of the host into the node's.
    pub fn reseed(&mut self, now: Now, entropy: &[u8; 32]) {
        self.shared.drbg.reseed(now, entropy);
    }

    /// Adds a peer. Nothing is sent, and no key agreement made, until there is a reason to.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`]; nothing has changed then.
    pub fn add_peer(&mut self, now: Now, config: PeerConfig) -> Result<PeerKey, AddPeerError> {
        if config.node_id == self.node_id() {
            return Err(AddPeerError::OwnKey);
        }
        if self.peers.key_of(&config.node_id).is_some() {
            return Err(AddPeerError::Exists);
        }
        if self.peers.len() >= self.shared.limits.peers_max as usize {
            return Err(AddPeerError::TooManyPeers);
        }
        let remote = Remote::Named(config.node_id);
        self.insert_peer(now, config, remote)
    }

    fn insert_peer(
        &mut self,
        now: Now,
        config: PeerConfig,
        remote: Remote,
    ) -> Result<PeerKey, AddPeerError> {
        let key = self.peers.next_key();
        let overlay = address::overlay_address(&config.node_id);
        let control = address::control_address(&config.node_id);
        let own = self.shared.prefixes.own(overlay, control);
        let wanted = own.iter().chain(&config.allowed_ips);
        self.shared
            .prefixes
            .insert(key, wanted)
            .map_err(AddPeerError::Overlap)?;
        let settings =
            (config.security != PeerSettings::default()).then(|| Box::new(config.security.clone()));
        let gate = match config.stock {
            true => GATE_OPEN,
            false => self.shared.initial_gate(&config.node_id, &config.security),
        };
        let mut peer = Box::new(Peer {
            key,
            remote,
            psks: PskSlots::new(config.preshared_key, 0),
            gate,
            stock: config.stock,
            settings,
            machine: None,
            bare_streams: false,
            speaks_control: false,
            expects_initiation: false,
            path: config.endpoint.map(Path::to),
            candidates: Box::default(),
            overlay,
            control,
            allowed_ips: config.allowed_ips.into_boxed_slice(),
            persistent_keepalive: config.persistent_keepalive,
            persistent_due: config.persistent_keepalive.map(|_| now.instant),
            greatest_timestamp: None,
            last_initiation_received: None,
            last_initiation_sent: None,
            provisional: None,
            link: None,
            scheduled: None,
            stats: PeerStats::default(),
        });
        self.shared.schedule(&mut peer);
        self.peers.insert(peer);
        Ok(key)
    }

    /// Removes a peer with its sessions, staged packets and allowed IPs.
    pub fn remove_peer(&mut self, key: PeerKey) -> bool {
        let Some(mut peer) = self.peers.remove(key) else {
            return false;
        };
        if peer.provisional.is_some() {
            self.provisional_peers -= 1;
        }
        self.shared.forget(&mut peer);
        true
    }

    /// Keeps a provisional peer for good, as if it had been added; `false` if there is none.
    pub fn keep_peer(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        if peer.provisional.take().is_some() {
            self.provisional_peers -= 1;
            let learned = peer.machine.as_deref().map(|machine| *machine.pin());
            if let Some(pin) = learned.filter(|pin| *pin != Pin::default()) {
                self.shared.save_pin(peer.remote.node_id(), pin);
            }
        }
        true
    }

    /// The peer with this key, if there is one.
    pub fn peer_by_id(&self, id: &NodeId) -> Option<PeerKey> {
        self.peers.key_of(id)
    }

    /// The peer whose allowed IPs hold this address.
    ///
    /// Costs the same for any number of peers if it is an overlay address.
    pub fn peer_by_address(&self, address: IpAddr) -> Option<PeerKey> {
        let overlay = match (self.shared.prefixes.routing, address) {
            (Routing::Overlay, IpAddr::V6(address)) => self.peers.with_overlay(address),
            _ => None,
        };
        // It is a prefix of one address: none is longer.
        overlay.or_else(|| self.shared.prefixes.lookup(address))
    }

    /// The key of a peer.
    pub fn node_id_of(&self, key: PeerKey) -> Option<NodeId> {
        self.peers.peek(key).map(|peer| peer.remote.node_id())
    }

    /// All peers, ordered by key.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.peers.keys()
    }

    /// Sets where a peer is reached. A live session goes on there.
    pub fn set_endpoint(&mut self, key: PeerKey, endpoint: SocketAddr) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        peer.path = Some(Path::to(endpoint));
        true
    }

    /// Sets several places where a peer may be, at most 24. While there is no session, or none that
    /// is answered, each initiation goes to all of them; the one that answers becomes the endpoint.
    pub fn set_candidates(&mut self, key: PeerKey, candidates: &[SocketAddr]) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
        peer.path = peer
            .path
            .or(candidates.first().map(|first| Path::to(*first)));
        peer.candidates = candidates.into();
        true
    }

    /// Where a peer is reached now.
    pub fn path_of(&self, key: PeerKey) -> Option<Path> {
        self.peers.peek(key)?.path
    }

    /// The overlay address of a peer.
    pub fn overlay_address_of(&self, key: PeerKey) -> Option<Ipv6Addr> {
        Some(self.peers.peek(key)?.overlay)
    }

    /// Changes the length beyond which padding never goes, see [`NodeConfig::mtu_bytes`].
    pub fn set_mtu(&mut self, mtu_bytes: u16) {
        self.shared.mtu_bytes = usize::from(mtu_bytes);
    }

    /// The length of the datagram that [`Node::seal_packet`] makes of a packet.
    pub fn sealed_len(&self, packet_len: usize) -> usize {
        data::HEADER_BYTES + self.shared.padded_len(packet_len) + data::TAG_BYTES
    }

    /// Sets or ends the persistent keepalive of a peer.
    pub fn set_persistent_keepalive(&mut self, now: Now, key: PeerKey, every: Option<Duration>) {
        if let Some(peer) = self.peers.of(key) {
            peer.persistent_keepalive = every;
            peer.persistent_due = every.map(|_| now.instant);
            self.shared.schedule(peer);
        }
    }

    /// Forgets which of our addresses each peer used, and sends a keepalive on every live
    /// session: for when an address or socket of ours has changed, so that peers learn of it.
    pub fn on_local_address_changed(&mut self, now: Now) {
        let keys: Vec<PeerKey> = self.peers().collect();
        for key in keys {
            if let Some(peer) = self.peers.of(key) {
                if let Some(path) = &mut peer.path {
                    path.local = None;
                }
                if peer
                    .link
                    .as_ref()
                    .is_some_and(|link| link.sessions.has_sealing())
                {
                    self.shared.send_keepalive(now, peer);
                    self.shared.schedule(peer);
                }
            }
        }
    }

    /// Forgets the local address of every path that is `path`: sending from it failed.
    ///
    /// Looks at every peer; for when an address of the host went away.
    pub fn forget_local_address(&mut self, path: Path) {
        let keys: Vec<PeerKey> = self.peers().collect();
        for key in keys {
            if let Some(own) = self.peers.of(key).and_then(|peer| peer.path.as_mut())
                && *own == path
            {
                own.local = None;
            }
        }
    }

    /// Starts a handshake unless a session for data is live, one is under way, or one would not
    /// help, see [`Node::set_gate_level`].
    pub fn connect(&mut self, now: Now, key: PeerKey) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        peer.stats.gave_up = false;
        if !self.shared.has_data_session(now, peer) {
            self.shared.want_session(now, peer);
            self.shared.schedule(peer);
        }
        true
    }

    /// Starts a handshake even if a session is live, at least 40 ms after the last initiation.
    pub fn rekey(&mut self, now: Now, key: PeerKey) -> bool {
        let Some(peer) = self.peers.of(key) else {
            return false;
        };
        self.shared.initiate_soon(now, peer);
        self.shared.schedule(peer);
        true
    }

    /// Whether a packet to this peer can be sealed at once.
    pub fn is_ready(&self, now: Now, key: PeerKey) -> bool {
        self.peers
            .peek(key)
            .is_some_and(|peer| self.shared.has_data_session(now, peer))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// The next datagram to send. Call it only while the socket can take more.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// When [`Node::handle_timeout`] is to be called next. It may be a little early, never late.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pending = self.pending_admissions.values().map(|p| p.expires_at).min();
        match (self.shared.wheel.next_deadline(), pending) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What was dropped and counted so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// For how long data that was sent to a peer has had no answer; `None` when nothing waits.
    pub fn unanswered_for(&self, now: Now, key: PeerKey) -> Option<Duration> {
        let timers = &self.peers.peek(key)?.link.as_ref()?.timers;
        let since = timers.unanswered_since?;
        Some(now.instant.saturating_since(since))
    }

    /// A snapshot of one peer.
    pub fn status(&self, now: Now, key: PeerKey) -> Option<PeerStatus> {
        let peer = self.peers.peek(key)?;
        let link = peer.link.as_deref();
        let live = link.and_then(|link| link.sessions.in_use(now.instant));
        let last_received = peer
            .stats
            .last_received
            .map(|at| now.instant.saturating_since(at));
        Some(PeerStatus {
            node_id: peer.remote.node_id(),
            overlay: peer.overlay,
            path: peer.path,
            allowed_ips: self.shared.prefixes.of(peer.key, &peer.allowed_ips),
            persistent_keepalive: peer.persistent_keepalive,
            state: state_of(peer, live.is_some(), now),
            bare_streams: peer.bare_streams,
            provisional: peer.provisional.is_some(),
            gate: peer.gate,
            session_age: live.map(|session| now.instant.saturating_since(session.birth)),
            initiator: live.map(|session| session.role == Role::Initiator),
            session_psk_epoch: live.map(|session| session.psk.epoch),
            session_level: live.map(|session| session.psk.level),
            last_handshake: peer.stats.last_handshake,
            handshake_time: peer.stats.last_handshake_time,
            rx_bytes: peer.stats.rx_bytes,
            tx_bytes: peer.stats.tx_bytes,
            last_received,
        })
    }
}

/// A peer that has not answered data for this long is shown as silent, session or not. An idle one
/// answers by a keepalive after 10 s, which has to travel.
const SILENT_AFTER: Duration = Duration::from_secs(12);

/// The same for an initiation, which is answered at once: one was repeated.
const REKEY_SILENT_AFTER: Duration = Duration::from_secs(5);

fn state_of(peer: &Peer, live: bool, now: Now) -> PeerState {
    let Some(link) = peer.link.as_deref() else {
        return if peer.stats.gave_up {
            PeerState::NoAnswer
        } else {
            PeerState::Idle
        };
    };
    let since = |at: Instant| now.instant.saturating_since(at);
    let data = link.timers.unanswered_since;
    let rekey = link.attempt_began;
    let silent = peer.stats.gave_up
        || data.is_some_and(|at| since(at) >= SILENT_AFTER)
        || rekey.is_some_and(|at| since(at) >= REKEY_SILENT_AFTER);
    match () {
        () if live && silent => PeerState::Silent,
        () if live => PeerState::Connected,
        () if link.pending.is_some() || link.attempt_began.is_some() => PeerState::Handshaking,
        () if link.sessions.has_next() => PeerState::AwaitingConfirmation,
        () if peer.stats.gave_up => PeerState::NoAnswer,
        () => PeerState::Idle,
    }
}
