//! What the test files share: nodes, random sources, and a whole exchange step by step.

use curve25519_dalek::montgomery::MontgomeryPoint;
use std::fmt::Debug;
use wiremesh_control::exchange::{self, Agreement, ExchangeError, Offered, Party, Replied, Role};
use wiremesh_control::message::{Hello, Offer, Reply};
use wiremesh_control::schedule::hash;
use wiremesh_control::{KemSecret, Level, Random, SuiteId, Suites};
use wiremesh_wire::{NetworkId, NodeId, SecretKey};

pub const NETWORK: NetworkId = NetworkId::from_bytes([0x77; 32]);

/// Gives out fixed bytes in order.
pub struct Script(pub Vec<u8>);

impl Random for Script {
    fn fill(&mut self, out: &mut [u8]) {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
    }
}

/// Bytes that look random and follow from a number.
pub struct Dice(pub u64);

impl Random for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(32) {
            self.0 += 1 << 32;
            piece.copy_from_slice(&hash(&[&self.0.to_be_bytes()])[..piece.len()]);
        }
    }
}

pub struct Node {
    pub secret: SecretKey,
    pub id: NodeId,
    pub kem: KemSecret,
    pub network: NetworkId,
}

impl Node {
    pub fn new(secret: [u8; 32], kem_seed: [u8; 64]) -> Self {
        let public = MontgomeryPoint::mul_base_clamped(secret).0;
        Self {
            secret: SecretKey::from_bytes(secret),
            id: NodeId::from_bytes(&public).expect("a valid public key"),
            kem: KemSecret::from_seed(&kem_seed),
            network: NETWORK,
        }
    }

    pub fn numbered(number: u8) -> Self {
        Self::new([number; 32], [number; 64])
    }

    pub fn party(&self) -> Party<'_> {
        Party {
            secret: &self.secret,
            node_id: self.id,
            network: self.network,
            static_kem: Some(&self.kem),
        }
    }
}

/// Nodes in the order of their ids.
pub fn nodes<const N: usize>() -> [Node; N] {
    let mut nodes: [Node; N] = std::array::from_fn(|i| Node::numbered(i as u8 + 1));
    nodes.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    assert_eq!(Role::of(&nodes[0].id, &nodes[1].id), Role::A);
    nodes
}

pub fn suites(numbers: &[u16]) -> Suites {
    Suites::new(numbers.iter().map(|n| SuiteId(*n))).expect("a valid list")
}

pub fn hello(numbers: &[u16], nonce: u8) -> Hello {
    Hello {
        nonce: [nonce; 16],
        min_level: Level::Classical,
        suites: suites(numbers),
        own_seq: 1_800_000_000,
        peer_record: [0; 32],
        caps: 1,
        record: Some(vec![nonce; 150]),
        proof: Some(vec![nonce; 20]),
        network: Hello::network_prefix(&NETWORK),
    }
}

/// OFFER of `a` for `b`, with everything in it, and what `a` keeps.
pub fn offer(a: &Node, b: &Node, nonce: u8) -> (Offered, Vec<u8>) {
    let hello = hello(&[3, 2, 1], nonce);
    let ek = b.kem.encapsulation_key();
    let mut dice = Dice(nonce.into());
    exchange::offer(&a.party(), hello, 7, &b.id, Some(ek), &mut dice)
}

/// REPLY of `b` to an OFFER of `a`, with what `b` keeps.
pub fn reply(
    b: &Node,
    a: &Node,
    offer_bytes: &[u8],
    suite: SuiteId,
) -> Result<(Replied, Vec<u8>), ExchangeError> {
    let offer = Offer::parse(offer_bytes).expect("a valid OFFER");
    exchange::reply(
        &b.party(),
        hello(&[1, 2, 3], 0xb0),
        suite,
        &a.id,
        &offer,
        offer_bytes,
        Some(a.kem.encapsulation_key()),
        &mut Dice(0xb0),
    )
}

/// One honest exchange, with everything that went over the wire.
pub struct Run {
    pub a: Node,
    pub b: Node,
    pub offered: Offered,
    pub offer: Vec<u8>,
    pub replied: Replied,
    pub reply: Vec<u8>,
    pub at_a: Agreement,
    pub fin: Vec<u8>,
    pub at_b: Agreement,
}

impl Run {
    pub fn new(suite: SuiteId, nonce: u8) -> Self {
        let [a, b] = nodes();
        let (offered, offer) = offer(&a, &b, nonce);
        let (replied, reply) = reply(&b, &a, &offer, suite).expect("an honest OFFER");
        let (at_a, fin) = accept(&offered, &a, &b.id, &reply).expect("an honest REPLY");
        let at_b = replied.accept_fin(&a.id, &fin).expect("an honest FIN");
        Self {
            a,
            b,
            offered,
            offer,
            replied,
            reply,
            at_a,
            fin,
            at_b,
        }
    }
}

pub fn accept(
    offered: &Offered,
    a: &Node,
    peer: &NodeId,
    reply: &[u8],
) -> Result<(Agreement, Vec<u8>), ExchangeError> {
    let parsed = Reply::parse(reply).map_err(|_| ExchangeError::Malformed)?;
    offered.accept_reply(&a.party(), peer, &parsed, reply, &mut Dice(0xa0))
}

pub fn error<T: Debug>(result: Result<T, ExchangeError>) -> ExchangeError {
    result.expect_err("it is refused")
}
