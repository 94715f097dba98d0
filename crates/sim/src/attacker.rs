//! An attacker that sees every datagram and can send any, but holds no key of a host.
//!
//! Owns what it captured and keys of its own. It never stops a datagram: links do that.

use crate::check::Check;
use crate::link::{MS, SECOND};
use crate::options::Mutation;
use crate::random::Random;
use crate::trace::Note;
use crate::world::{Action, Simulation};
use std::net::SocketAddr;
use wiremesh_core::Transmit;
use wiremesh_noise::crypto::{hash, mac};
use wiremesh_noise::{LocalIdentity, RemoteIdentity, create_initiation};
use wiremesh_wire::{NodeId, SecretKey, Tai64n};

/// Captured datagrams that are kept.
const CAPTURED_MAX: usize = 512;

/// A captured datagram and where it went.
struct Captured {
    to: SocketAddr,
    from: SocketAddr,
    bytes: Vec<u8>,
}

pub(crate) struct Attacker {
    captured: Vec<Captured>,
    keys: Vec<LocalIdentity>,
    seen: u64,
}

impl Attacker {
    pub(crate) fn new(random: &mut Random) -> Self {
        let keys = (0..3)
            .map(|_| LocalIdentity::new(SecretKey::from_bytes(random.bytes32())))
            .collect::<Result<_, _>>()
            .expect("a random secret key has a public one");
        Self {
            captured: Vec::new(),
            keys,
            seen: 0,
        }
    }

    /// Keeps a datagram; when full, in place of a random one, so that old ones stay too.
    pub(crate) fn capture(
        &mut self,
        random: &mut Random,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
    ) {
        self.seen += 1;
        // Handshake messages are few and worth more.
        if bytes.first() == Some(&4) && !self.seen.is_multiple_of(5) {
            return;
        }
        let captured = Captured {
            to,
            from,
            bytes: bytes.to_vec(),
        };
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(captured);
        } else {
            let place = random.index(CAPTURED_MAX);
            self.captured[place] = captured;
        }
    }
}

impl Simulation {
    pub(crate) fn on_attack(&mut self) -> Check {
        if self.time >= self.chaos_end {
            return Ok(());
        }
        let gap = self.random.between(MS, 2 * self.attack_gap);
        self.after(gap, Action::Attack);
        self.attacks += 1;
        let victim = self.random.index(self.hosts.len());
        self.break_rules(victim)?;
        let from = self.attack_source();
        match self.random.below(9) {
            0 => self.junk(victim, from),
            1 | 2 => self.replay(from, |_, _| ()),
            3 => self.replay(from, |random, bytes| {
                let len = random.index(bytes.len());
                bytes.truncate(len);
            }),
            4 => self.replay(from, |random, bytes| {
                let bit = random.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }),
            5 => self.replay(from, |random, bytes| {
                let len = random.between(1, 200) as usize;
                bytes.extend(std::iter::repeat_n(0, len));
            }),
            6 => self.forge_response(from),
            7 => self.forge_data(from),
            _ => self.strange_initiation(victim, from),
        }
        Ok(())
    }

    /// An address of its own, or that of a host.
    fn attack_source(&mut self) -> SocketAddr {
        match self.random.below(3) {
            0 => {
                let host = self.random.index(self.hosts.len());
                self.hosts[host].address
            }
            1 => {
                let host = self.random.index(self.hosts.len());
                self.first_address(host)
            }
            _ => SocketAddr::from(([203, 0, 113, self.random.below(4) as u8], 6_666)),
        }
    }

    fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let delay = self.random.below(2 * SECOND);
        self.trace.note(self.time, usize::MAX, Note::Sent(&bytes));
        self.after(delay, Action::Arrive { from, to, bytes });
    }

    fn junk(&mut self, victim: usize, from: SocketAddr) {
        let len = [0, 1, 4, 31, 32, 64, 92, 148, 149, 1_500][self.random.index(10)];
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes);
        if bytes.len() >= 4 && self.random.permille(800) {
            bytes[..4].copy_from_slice(&[self.random.below(6) as u8, 0, 0, 0]);
        }
        self.inject(from, self.hosts[victim].address, bytes);
    }

    fn some_captured(&mut self, kind: Option<u8>) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let fitting: Vec<&Captured> = self
            .attacker
            .captured
            .iter()
            .filter(|captured| kind.is_none() || captured.bytes.first() == kind.as_ref())
            .collect();
        if fitting.is_empty() {
            return None;
        }
        let captured = fitting[self.random.index(fitting.len())];
        Some((captured.from, captured.to, captured.bytes.clone()))
    }

    /// Sends a captured datagram again, changed.
    fn replay(&mut self, from: SocketAddr, change: impl Fn(&mut Random, &mut Vec<u8>)) {
        let kind = match self.random.below(3) {
            0 => None,
            _ => Some(self.random.between(1, 5) as u8),
        };
        if let Some((_, to, mut bytes)) = self.some_captured(kind) {
            change(&mut self.random, &mut bytes);
            self.inject(from, to, bytes);
        }
    }

    /// A response with the right index and `mac1`, to somebody who waits for one.
    fn forge_response(&mut self, from: SocketAddr) {
        let Some((initiator, _, initiation)) = self.some_captured(Some(1)) else {
            return;
        };
        let Some(victim) = self.hosts.iter().find(|host| host.address == initiator) else {
            return;
        };
        let victim = victim.id;
        let mut bytes = vec![0; 92];
        self.random.fill(&mut bytes);
        bytes[..4].copy_from_slice(&[2, 0, 0, 0]);
        bytes[8..12].copy_from_slice(&initiation[4..8]);
        set_mac1(&mut bytes, &victim);
        self.inject(from, initiator, bytes);
    }

    /// Transport data with a live index and any counter.
    fn forge_data(&mut self, from: SocketAddr) {
        if let Some((_, to, mut bytes)) = self.some_captured(Some(4)) {
            let counter = self.random.word() >> self.random.below(64);
            bytes[8..16].copy_from_slice(&counter.to_le_bytes());
            self.inject(from, to, bytes);
        }
    }

    /// A correct initiation with a key that nobody knows.
    fn strange_initiation(&mut self, victim: usize, from: SocketAddr) {
        let (ephemeral, sender) = (self.random.bytes32(), self.random.word() as u32);
        let key = self.random.index(self.attacker.keys.len());
        let local = &self.attacker.keys[key];
        let remote = RemoteIdentity::new(local, self.hosts[victim].id);
        let timestamp = Tai64n::from_unix(self.hosts[victim].now(self.time).unix);
        let (message, _) = create_initiation(local, &remote, ephemeral, sender, timestamp);
        let to = self.hosts[victim].address;
        self.inject(from, to, message.emit().to_vec());
    }

    /// What a wrong node would do, for the tests of the checks.
    fn break_rules(&mut self, victim: usize) -> Check {
        let nowhere = SocketAddr::from(([203, 0, 113, 250], 1));
        match self.options.mutation {
            Some(Mutation::StealEndpoint) => {
                let node = &mut self.hosts[victim].node;
                let first = node.peers().next();
                first.map(|key| node.set_endpoint(key, nowhere));
                self.checker.check_node(victim, &self.hosts[victim])
            }
            Some(Mutation::OpenGateEarly) => {
                let now = self.hosts[victim].now(self.time);
                let node = &mut self.hosts[victim].node;
                let keys: Vec<_> = node.peers().collect();
                for key in keys {
                    node.set_gate_level(now, key, 1);
                }
                self.drain(victim)
            }
            Some(Mutation::AnswerTooMuch) => {
                let path = self.hosts[victim].path_from(nowhere);
                self.on_transmit(
                    victim,
                    Transmit {
                        path,
                        datagram: vec![3; 64],
                        ecn: 0,
                    },
                )
            }
            _ => Ok(()),
        }
    }
}

fn set_mac1(bytes: &mut [u8], receiver: &NodeId) {
    let mac1_at = bytes.len() - 32;
    let key = hash(&[b"mac1----", receiver.as_bytes()]);
    let mac1 = mac(&key, &bytes[..mac1_at]);
    bytes[mac1_at..mac1_at + 16].copy_from_slice(&mac1);
}
