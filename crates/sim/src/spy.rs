//! A spy in the network that reads what was sealed under boot keys.
//!
//! Owns a second account of what each node may have said in the clear of L1. It knows the static
//! secrets, the boot keys and the seed of each node's generator, and follows the generator draw by
//! draw, so it finds the ephemeral secret of every handshake message and knows which key made a
//! session. It never asks a node what its sessions are.

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use wiremesh_control::frame::MessageType;
use wiremesh_noise::crypto::DhSecret;
use wiremesh_noise::{
    LocalIdentity, OpeningKey, RemoteIdentity, create_initiation, open_initiation, verify_mac1,
};
use wiremesh_wire::address::{CONTROL_PORT, control_address};
use wiremesh_wire::{
    HandshakeInitiation, HandshakeResponse, Message, NodeId, Now, PresharedKey, SecretKey, ip,
};

/// Bytes of transport data before and after the packet.
const HEADER_BYTES: usize = 16;

/// The generator of a node, from its seed.
struct Generator {
    key: [u8; 32],
    draws: u64,
    /// What was drawn in the last step, and when that was.
    step: Option<Now>,
    drawn: Vec<[u8; 32]>,
}

impl Generator {
    fn new(seed: [u8; 32]) -> Self {
        Self {
            key: seed,
            draws: 0,
            step: None,
            drawn: Vec::new(),
        }
    }

    fn block(&self, now: Now, label: u8) -> [u8; 32] {
        let mut mac = Blake2sMac256::new_from_slice(&self.key).expect("32 bytes are a BLAKE2s key");
        mac.update(&[label]);
        mac.update(&self.draws.to_le_bytes());
        mac.update(&now.instant.as_nanos().to_le_bytes());
        mac.update(&now.unix.as_duration().as_nanos().to_le_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Draws until there were `draws` in all.
    fn follow(&mut self, now: Now, draws: u64) {
        if self.draws >= draws {
            return;
        }
        if self.step != Some(now) {
            self.step = Some(now);
            self.drawn.clear();
        }
        while self.draws < draws {
            self.drawn.push(self.block(now, 0));
            self.key = self.block(now, 1);
            self.draws += 1;
        }
    }
}

/// What is known of one node.
struct Watched {
    identity: LocalIdentity,
    id: NodeId,
    control: Ipv6Addr,
    generator: Generator,
}

/// An initiation that waits for its response.
struct Initiation {
    from: usize,
    at: u64,
    message: HandshakeInitiation,
    bytes: Vec<u8>,
    /// One of these is its ephemeral secret.
    drawn: Vec<[u8; 32]>,
}

/// One direction of a session that a boot key made.
struct BootSession {
    to: usize,
    at: u64,
    key: OpeningKey,
}

/// What was inside a datagram that left under a boot key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// A keepalive.
    Nothing,
    /// A frame of the control protocol between the two control addresses.
    Control {
        kind: MessageType,
        exchange: [u8; 8],
    },
    /// Anything else.
    Other,
}

/// What the spy made out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing of a session: cookies, junk.
    Noise,
    Initiation,
    /// Whether the boot key made it.
    Response {
        to: usize,
        boot: bool,
    },
    /// On a session that another key made.
    Sealed,
    Boot {
        to: usize,
        inside: Inside,
    },
}

/// The spy.
pub(crate) struct Spy {
    nodes: Vec<Watched>,
    boot: BTreeMap<(usize, usize), PresharedKey>,
    remotes: BTreeMap<(usize, usize), RemoteIdentity>,
    initiations: BTreeMap<u32, Vec<Initiation>>,
    /// By sender and receiver index. A replayed initiation may have made several of one index.
    sessions: BTreeMap<(usize, u32), Vec<BootSession>>,
}

impl Spy {
    pub(crate) fn new(nodes: impl Iterator<Item = ([u8; 32], [u8; 32])>) -> Self {
        let watched = |(secret, seed)| {
            let identity = LocalIdentity::new(SecretKey::from_bytes(secret))
                .expect("a random secret key has a public one");
            let id = identity.node_id();
            Watched {
                identity,
                id,
                control: control_address(&id),
                generator: Generator::new(seed),
            }
        };
        Self {
            nodes: nodes.map(watched).collect(),
            boot: BTreeMap::new(),
            remotes: BTreeMap::new(),
            initiations: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// The pair has another boot key than the zero one.
    pub(crate) fn set_boot_key(&mut self, (a, b): (usize, usize), psk: PresharedKey) {
        self.boot.insert((a.min(b), a.max(b)), psk);
    }

    /// A node starts anew, from a new seed.
    pub(crate) fn on_restart(&mut self, host: usize, seed: [u8; 32]) {
        self.nodes[host].generator = Generator::new(seed);
    }

    /// A node was called at `now` and has drawn so often since it started.
    pub(crate) fn on_step(&mut self, host: usize, now: Now, draws: u64) {
        self.nodes[host].generator.follow(now, draws);
    }

    /// Forgets sessions and initiations that began before.
    pub(crate) fn forget_before(&mut self, time: u64) {
        self.sessions.retain(|_, sessions| {
            sessions.retain(|session| session.at >= time);
            !sessions.is_empty()
        });
        self.initiations.retain(|_, waiting| {
            waiting.retain(|initiation| initiation.at >= time);
            !waiting.is_empty()
        });
    }

    /// Looks at a datagram that a node sends, in the step in which it was made.
    ///
    /// # Errors
    ///
    /// The node did what this engine cannot have done, or the spy has lost the thread.
    pub(crate) fn on_sent(
        &mut self,
        host: usize,
        time: u64,
        datagram: &[u8],
    ) -> Result<Heard, String> {
        match Message::parse(datagram) {
            Ok(Message::Initiation(message)) => {
                self.on_initiation(host, time, message, datagram);
                Ok(Heard::Initiation)
            }
            Ok(Message::Response(message)) => self.on_response(host, time, &message, datagram),
            Ok(Message::TransportData(_)) => match self.open(host, datagram) {
                Some((to, packet)) => {
                    let inside = self.look_inside(host, to, &packet);
                    Ok(Heard::Boot { to, inside })
                }
                None => Ok(Heard::Sealed),
            },
            _ => Ok(Heard::Noise),
        }
    }

    /// Whether a node sealed this under a boot key.
    pub(crate) fn is_boot(&self, host: usize, datagram: &[u8]) -> bool {
        self.open(host, datagram).is_some()
    }

    /// For whom a datagram of a node is and what is in it, if a boot key made its session.
    fn open(&self, host: usize, datagram: &[u8]) -> Option<(usize, Vec<u8>)> {
        let Ok(Message::TransportData(header)) = Message::parse(datagram) else {
            return None;
        };
        let sessions = self.sessions.get(&(host, header.receiver))?;
        sessions.iter().find_map(|session| {
            let mut sealed = datagram[HEADER_BYTES..].to_vec();
            let opened = session.key.open_with_counter(header.counter, &mut sealed);
            Some((session.to, opened.ok()?.to_vec()))
        })
    }

    fn on_initiation(&mut self, host: usize, at: u64, message: HandshakeInitiation, bytes: &[u8]) {
        let waiting = self.initiations.entry(message.sender).or_default();
        // One initiation goes to several candidates.
        if waiting.iter().any(|known| known.bytes == bytes) {
            return;
        }
        waiting.push(Initiation {
            from: host,
            at,
            message,
            bytes: bytes.to_vec(),
            drawn: self.nodes[host].generator.drawn.clone(),
        });
    }

    fn on_response(
        &mut self,
        host: usize,
        time: u64,
        message: &HandshakeResponse,
        bytes: &[u8],
    ) -> Result<Heard, String> {
        let asked = |initiation: &&Initiation| {
            let from = &self.nodes[initiation.from].identity;
            let to = &self.nodes[host].identity;
            verify_mac1(from, bytes) && verify_mac1(to, &initiation.bytes)
        };
        let waiting = self.initiations.get(&message.receiver);
        let Some(from) = waiting
            .and_then(|waiting| waiting.iter().find(asked))
            .map(|initiation| initiation.from)
        else {
            // Strangers may ask too; but whoever belongs here has been seen to.
            let ours = |node: &Watched| verify_mac1(&node.identity, bytes);
            return match self.nodes.iter().any(ours) {
                true => Err(format!("node {host} answered what nobody asked")),
                false => Ok(Heard::Noise),
            };
        };
        self.meet(from, host);
        self.meet(host, from);
        let keys = self.agree((from, host), message).ok_or_else(|| {
            format!("the spy cannot follow the handshake of nodes {from} and {host}")
        })?;
        let boot = keys.is_some();
        if let Some((to_responder, to_initiator)) = keys {
            let session = |to, key| BootSession { to, at: time, key };
            let mut add = |at, session| self.sessions.entry(at).or_default().push(session);
            add((from, message.sender), session(host, to_responder));
            add((host, message.receiver), session(from, to_initiator));
        }
        Ok(Heard::Response { to: from, boot })
    }

    /// Goes through a handshake again, from both ends. `Some(None)` if another key than the boot
    /// key made the response; `None` if the secrets are not those that made the messages.
    fn agree(
        &self,
        (from, host): (usize, usize),
        response: &HandshakeResponse,
    ) -> Option<Option<(OpeningKey, OpeningKey)>> {
        let (initiator, responder) = (&self.nodes[from], &self.nodes[host]);
        let waiting = self.initiations.get(&response.receiver)?;
        let asked = waiting.iter().find(|asked| asked.from == from)?;
        let pair = (from.min(host), from.max(host));
        let psk = self.boot.get(&pair).cloned().unwrap_or_default();
        let secret = secret_of(&responder.generator.drawn, &response.ephemeral)?;
        let remote = self.remotes.get(&(host, from))?;
        let opened = open_initiation(&responder.identity, &asked.message).ok()?;
        let authentic = opened.authenticate(remote).ok()?;
        let (made, keys) = authentic.respond(&psk, &secret, response.sender).ok()?;
        if made.encrypted_nothing != response.encrypted_nothing {
            return Some(None);
        }
        let to_responder = keys.opening;
        let secret = secret_of(&asked.drawn, &asked.message.ephemeral)?;
        let (made, pending) = create_initiation(
            &initiator.identity,
            self.remotes.get(&(from, host))?,
            secret,
            asked.message.sender,
            authentic.timestamp(),
        );
        if made.encrypted_timestamp != asked.message.encrypted_timestamp {
            return None;
        }
        let keys = pending.consume_response(&initiator.identity, response, &psk);
        Some(Some((to_responder, keys.ok()?.opening)))
    }

    fn meet(&mut self, own: usize, other: usize) {
        let (identity, id) = (&self.nodes[own].identity, self.nodes[other].id);
        self.remotes
            .entry((own, other))
            .or_insert_with(|| RemoteIdentity::new(identity, id));
    }

    /// What a packet of `from` to `to` is.
    fn look_inside(&self, from: usize, to: usize, packet: &[u8]) -> Inside {
        if packet.is_empty() {
            return Inside::Nothing;
        }
        let end = |node: usize| SocketAddr::from((self.nodes[node].control, CONTROL_PORT));
        let Ok(udp) = ip::parse_udp(packet) else {
            return Inside::Other;
        };
        let frame = &packet[udp.payload.clone()];
        let kind = frame
            .get(1)
            .and_then(|kind| MessageType::from_number(*kind));
        let exchange = frame.get(4..).and_then(|rest| rest.first_chunk::<8>());
        match (kind, exchange) {
            (Some(kind), Some(exchange))
                if udp.source == end(from) && udp.destination == end(to) =>
            {
                Inside::Control {
                    kind,
                    exchange: *exchange,
                }
            }
            _ => Inside::Other,
        }
    }
}

/// Which of these has this public key.
fn secret_of(drawn: &[[u8; 32]], public: &[u8; 32]) -> Option<[u8; 32]> {
    let made = |secret: &&[u8; 32]| DhSecret::new(secret).public() == public;
    drawn.iter().rev().find(made).copied()
}
