//! The invariants, checked from outside the nodes.
//!
//! Owns a reference of everything that was sent: application packets, datagrams, nonces, bytes per
//! source. It sees what a network and an operator would see, never the inside of a node.

use crate::host::{Host, lan_of};
use crate::options::Rule;
use crate::trace::digest;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wiremesh_core::Admission;
use wiremesh_noise::{LocalIdentity, RemoteIdentity, open_initiation, verify_mac1};
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{Instant, Message, NodeId, SecretKey, Tai64n, ip};

/// A broken rule, without the place and time.
pub(crate) type Check = Result<(), (Rule, String)>;

fn ensure(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

/// One packet of the application.
pub(crate) struct AppPacket {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) digest: [u8; 16],
    /// Its source address is not the sender's: it must not arrive.
    pub(crate) forged: bool,
    pub(crate) delivered: bool,
}

/// What is known of one life of a host.
#[derive(Default)]
struct Life {
    bytes_in: BTreeMap<SocketAddr, u64>,
    bytes_out: BTreeMap<SocketAddr, u64>,
    /// Where each peer may be: configured, or authenticated data came from there.
    endpoints: BTreeMap<usize, BTreeSet<SocketAddr>>,
    /// Datagrams that were accepted once.
    consumed: BTreeSet<[u8; 16]>,
    epochs: BTreeMap<usize, BTreeSet<u32>>,
    /// The last three, newest first.
    last_initiations: BTreeMap<usize, [Option<Instant>; 3]>,
    last_timestamp: Option<Tai64n>,
}

/// The reference.
pub(crate) struct Checker {
    ids: Vec<NodeId>,
    identities: Vec<LocalIdentity>,
    lives: Vec<Life>,
    /// By sender and receiver index: the counter that must come next.
    nonces: BTreeMap<(usize, u32), u64>,
    ephemerals: BTreeSet<[u8; 32]>,
    /// Who sent a datagram.
    senders: BTreeMap<[u8; 16], usize>,
    pub(crate) packets: Vec<AppPacket>,
    pub(crate) delivered: u64,
    initiations: u64,
}

impl Checker {
    pub(crate) fn new(secrets: &[[u8; 32]]) -> Self {
        let identities: Vec<LocalIdentity> = secrets
            .iter()
            .map(|secret| LocalIdentity::new(SecretKey::from_bytes(*secret)))
            .collect::<Result<_, _>>()
            .expect("a random secret key has a public one");
        Self {
            ids: identities.iter().map(LocalIdentity::node_id).collect(),
            lives: identities.iter().map(|_| Life::default()).collect(),
            identities,
            nonces: BTreeMap::new(),
            ephemerals: BTreeSet::new(),
            senders: BTreeMap::new(),
            packets: Vec::new(),
            delivered: 0,
            initiations: 0,
        }
    }

    pub(crate) fn host_of(&self, id: &NodeId) -> Option<usize> {
        self.ids.iter().position(|known| known == id)
    }

    pub(crate) fn on_restart(&mut self, host: usize, kept_floor: bool) {
        let last_timestamp = self.lives[host].last_timestamp.filter(|_| kept_floor);
        self.lives[host] = Life {
            last_timestamp,
            ..Life::default()
        };
    }

    pub(crate) fn on_peer_added(&mut self, host: usize, other: usize, at: Option<SocketAddr>) {
        let life = &mut self.lives[host];
        life.endpoints.entry(other).or_default().extend(at);
        life.last_initiations.remove(&other);
    }

    pub(crate) fn on_psk(&mut self, host: usize, other: usize, epoch: u32) {
        self.lives[host]
            .epochs
            .entry(other)
            .or_default()
            .insert(epoch);
    }

    /// A node sends a datagram.
    pub(crate) fn on_sent(
        &mut self,
        host: usize,
        from: &Host,
        now: Instant,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Check {
        let life = &mut self.lives[host];
        if !life.endpoints.values().any(|known| known.contains(&to)) {
            let sent = life.bytes_out.entry(to).or_default();
            *sent += bytes.len() as u64;
            let came = life.bytes_in.get(&to).copied().unwrap_or(0);
            ensure(*sent <= came, Rule::NoAmplification, || {
                format!("node {host} sent {sent} bytes to {to}, which sent it {came}")
            })?;
        }
        let name = name_of(bytes);
        match Message::parse(bytes) {
            Ok(Message::TransportData(header)) => {
                let next = self.nonces.entry((host, header.receiver)).or_default();
                let (counter, expected) = (header.counter, *next);
                *next += 1;
                ensure(counter == expected, Rule::NonceOnce, || {
                    format!("node {host} sealed counter {counter} where {expected} comes next")
                })?;
            }
            Ok(Message::Initiation(message)) if !self.senders.contains_key(&name) => {
                self.on_ephemeral(host, message.ephemeral)?;
                self.on_initiation(host, from, now, bytes)?;
            }
            Ok(Message::Response(message)) => self.on_ephemeral(host, message.ephemeral)?,
            _ => (),
        }
        self.senders.insert(name, host);
        Ok(())
    }

    fn on_ephemeral(&mut self, host: usize, ephemeral: [u8; 32]) -> Check {
        ensure(
            self.ephemerals.insert(ephemeral),
            Rule::EphemeralOnce,
            || format!("node {host} used an ephemeral key again"),
        )
    }

    fn on_initiation(&mut self, host: usize, from: &Host, now: Instant, bytes: &[u8]) -> Check {
        let whom = self
            .identities
            .iter()
            .position(|identity| verify_mac1(identity, bytes));
        let Some(whom) = whom else {
            return Ok(());
        };
        let life = &mut self.lives[host];
        let last = life.last_initiations.entry(whom).or_default();
        // One may come right behind FIN and one right behind DONE, to an engine that has just got
        // a new key.
        let counts = if from.suites.is_some() { 2 } else { 0 };
        let before = last[counts];
        *last = [Some(now), last[0], last[1]];
        if let Some(last) = before {
            let gap = now.saturating_since(last);
            ensure(
                gap >= Duration::from_millis(40),
                Rule::InitiationsApart,
                || format!("node {host} sent two initiations to node {whom} within {gap:?}"),
            )?;
        }
        // Looking inside costs two curve operations, so one in four has to do.
        self.initiations += 1;
        if !self.initiations.is_multiple_of(4) {
            return Ok(());
        }
        let Some(timestamp) = timestamp_of(&self.identities[whom], bytes) else {
            return Err((Rule::Genuine, format!("node {host} sent a bad initiation")));
        };
        let last = life.last_timestamp.replace(timestamp);
        let saved = from.disk.floor;
        let rises = last.is_none_or(|last| timestamp > last);
        ensure(
            rises && saved.is_some_and(|floor| timestamp < floor),
            Rule::TimestampsRise,
            || format!("node {host} used {timestamp:?} after {last:?} with {saved:?} saved"),
        )
    }

    /// A datagram reaches a node.
    pub(crate) fn on_input(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        *self.lives[host].bytes_in.entry(from).or_default() += bytes.len() as u64;
    }

    /// The node has handled it and, with `accepted`, took it for authentic.
    pub(crate) fn on_handled(
        &mut self,
        host: usize,
        from: SocketAddr,
        bytes: &[u8],
        accepted: bool,
    ) {
        let authenticates = matches!(bytes.first(), Some(2 | 4));
        let name = name_of(bytes);
        let Some(sender) = self.senders.get(&name).copied() else {
            return;
        };
        let life = &mut self.lives[host];
        if accepted && authenticates && sender != host && life.consumed.insert(name) {
            life.endpoints.entry(sender).or_default().insert(from);
        }
    }

    /// A packet comes out of a node, said to be from `peer`.
    pub(crate) fn on_received(&mut self, host: usize, peer: NodeId, packet: &[u8]) -> Check {
        let Some((id, source)) = read_packet(packet) else {
            return Err((
                Rule::Genuine,
                format!("node {host} delivered what no one sent"),
            ));
        };
        let sender = self.host_of(&peer);
        let Some(sent) = self.packets.get_mut(id) else {
            return Err((
                Rule::Genuine,
                format!("node {host} delivered unknown packet {id}"),
            ));
        };
        let from = sent.from;
        ensure(sender == Some(from), Rule::Genuine, || {
            format!("packet {id} of node {from} was attributed to {sender:?}")
        })?;
        let allowed = source == IpAddr::V6(overlay_address(&peer)) || lan_of(from).contains(source);
        ensure(allowed && !sent.forged, Rule::SourceAllowed, || {
            format!("packet {id} of node {from} arrived with source {source}")
        })?;
        ensure(
            sent.to == host && sent.digest == digest(packet),
            Rule::Genuine,
            || {
                format!(
                    "packet {id} to node {} reached node {host} or was changed",
                    sent.to
                )
            },
        )?;
        ensure(!sent.delivered, Rule::DeliveredOnce, || {
            format!("packet {id} of node {from} was delivered twice")
        })?;
        sent.delivered = true;
        self.delivered += 1;
        Ok(())
    }

    /// What can be seen of a node after each step.
    pub(crate) fn check_node(&self, number: usize, host: &Host) -> Check {
        let known = &self.lives[number].endpoints;
        for key in host.node.peers() {
            let Some(path) = host.node.path_of(key) else {
                continue;
            };
            let other = host.node.node_id_of(key).and_then(|id| self.host_of(&id));
            let fine = other.is_some_and(|other| {
                known
                    .get(&other)
                    .is_some_and(|places| places.contains(&path.remote))
            });
            ensure(fine, Rule::EndpointAuthenticated, || {
                format!(
                    "node {number} takes {} for the place of node {other:?}",
                    path.remote
                )
            })?;
        }
        check_limits(number, host)
    }

    /// What is checked from time to time, since it costs more.
    pub(crate) fn check_epochs(&self, number: usize, host: &Host, time: u64) -> Check {
        for key in host.node.peers() {
            let Some(status) = host.node.status(host.now(time), key) else {
                continue;
            };
            let other = self.host_of(&status.node_id);
            let epochs = other.and_then(|other| self.lives[number].epochs.get(&other));
            // Above L1 an exchange has made the key.
            let agreed = status.session_level > Some(1);
            let fine = status.session_psk_epoch.is_none_or(|epoch| {
                agreed || epoch == 0 || epochs.is_some_and(|epochs| epochs.contains(&epoch))
            });
            ensure(fine, Rule::PskEpochKnown, || {
                format!(
                    "node {number} and {other:?}: epoch {:?}",
                    status.session_psk_epoch
                )
            })?;
        }
        Ok(())
    }
}

/// Names a datagram by what is authenticated in it: the last field of a handshake message, `mac2`,
/// is not looked at unless a node is under load.
fn name_of(bytes: &[u8]) -> [u8; 16] {
    match (bytes.first(), bytes.len()) {
        (Some(1), 148) => digest(&bytes[..132]),
        (Some(2), 92) => digest(&bytes[..76]),
        _ => digest(bytes),
    }
}

fn check_limits(number: usize, host: &Host) -> Check {
    let (usage, limits) = (host.node.usage(), &host.limits);
    let (provisional_max, pending_max) = match host.admission {
        Admission::AllowList => (0, 0),
        Admission::AllowAll { provisional_max } => (provisional_max as usize, 0),
        Admission::Ask { pending_max } => (0, pending_max as usize),
        Admission::Proof { pending_max } => (pending_max as usize, 0),
    };
    let fine = usage.peers <= limits.peers_max as usize
        && usage.provisional_peers <= provisional_max
        && usage.pending_admissions <= pending_max
        && usage.links <= usage.peers
        && usage.indices <= 5 * usage.links
        && usage.staged_packets <= usage.links * limits.staged_packets_max
        && usage.staged_bytes <= limits.staged_bytes_max
        && usage.transmits <= limits.transmits_max
        && usage.events <= limits.events_max;
    ensure(fine, Rule::WithinLimits, || {
        format!("node {number} holds {usage:?}")
    })
}

/// The number and the source of a packet that [`crate::traffic`] made.
fn read_packet(packet: &[u8]) -> Option<(usize, IpAddr)> {
    let header = ip::parse(packet).ok()?;
    let udp = ip::parse_udp(packet).ok()?;
    let id = packet[udp.payload].first_chunk()?;
    Some((u64::from_le_bytes(*id) as usize, header.source))
}

fn timestamp_of(receiver: &LocalIdentity, bytes: &[u8]) -> Option<Tai64n> {
    let Ok(Message::Initiation(message)) = Message::parse(bytes) else {
        return None;
    };
    let opened = open_initiation(receiver, &message).ok()?;
    let remote = RemoteIdentity::new(receiver, opened.peer());
    Some(opened.authenticate(&remote).ok()?.timestamp())
}
