//! A peer that has its keys and lies: the cryptography is right, what it says is the test's choice.

#![allow(dead_code)]

use crate::pair::{Pair, Seeded, message, network};
use wiremesh_control::exchange::{self, Agreement, Offered, Party};
use wiremesh_control::frame::{ExchangeId, Message, MessageType};
use wiremesh_control::machine::Refusal;
use wiremesh_control::message::{CAP_SESSION_GATE, Hello, Offer, Reply};
use wiremesh_control::{KemSecret, Level, Record, SignedRecord, SuiteId, Suites, choose};
use wiremesh_wire::{NodeId, SecretKey};

/// What it says of itself.
#[derive(Clone)]
pub struct Claim {
    pub suites: Suites,
    pub min_level: Level,
    pub own_seq: u64,
    pub record: Option<Vec<u8>>,
    pub proof: Option<Vec<u8>>,
    /// The suite that it says was chosen, where it is not the one that both lists give.
    pub chosen: Option<SuiteId>,
    pub epoch: u32,
}

/// The peer, in the place of one side of a pair.
pub struct Puppet {
    secret: SecretKey,
    id: NodeId,
    peer: NodeId,
    pub kem: Option<KemSecret>,
    pub claim: Claim,
    random: Seeded,
    offered: Option<(Offered, ExchangeId)>,
    pub agreement: Option<Agreement>,
}

pub fn list(numbers: &[u16]) -> Suites {
    Suites::new(numbers.iter().map(|n| SuiteId(*n))).expect("a valid list")
}

/// A record that a side has signed with its own key, changed as the test likes.
pub fn record_of(pair: &Pair, of: usize, change: impl FnOnce(&mut Record)) -> SignedRecord {
    let mut record = pair.sides[of].local.record().record().clone();
    change(&mut record);
    SignedRecord::sign(record, &pair.keys[of].0, &[9; 32]).expect("valid")
}

impl Puppet {
    /// A peer that lists these suites, promises L1 and has no record.
    pub fn new(pair: &Pair, at: usize, suites: &[u16]) -> Self {
        Self {
            secret: pair.keys[at].0.clone(),
            id: pair.keys[at].1,
            peer: pair.keys[1 - at].1,
            kem: None,
            claim: Claim {
                suites: list(suites),
                min_level: Level::Classical,
                own_seq: 0,
                record: None,
                proof: None,
                chosen: None,
                epoch: 1,
            },
            random: Seeded(99),
            offered: None,
            agreement: None,
        }
    }

    fn hello(&mut self) -> Hello {
        let mut nonce = [0; 16];
        wiremesh_control::Random::fill(&mut self.random, &mut nonce);
        Hello {
            nonce,
            min_level: self.claim.min_level,
            suites: self.claim.suites,
            own_seq: self.claim.own_seq,
            peer_record: [0; 32],
            caps: CAP_SESSION_GATE,
            record: self.claim.record.clone(),
            proof: self.claim.proof.clone(),
            network: Hello::network_prefix(&network()),
        }
    }

    /// As B, the answer to an OFFER.
    pub fn reply(&mut self, offer: &Message) -> Message {
        let hello = self.hello();
        let parsed = Offer::parse(&offer.body).expect("an honest offer");
        let computed = choose(&parsed.hello.suites, &self.claim.suites);
        let chosen = self.claim.chosen.or(computed).unwrap_or(SuiteId::WIREGUARD);
        let (_, body) = exchange::reply(
            &Party {
                secret: &self.secret,
                node_id: self.id,
                network: network(),
                static_kem: self.kem.as_ref(),
            },
            hello,
            chosen,
            &self.peer,
            &parsed,
            &offer.body,
            None,
            &mut self.random,
        )
        .expect("it follows the cryptography");
        message(MessageType::Reply, offer.id, body)
    }

    /// As A, an OFFER.
    pub fn offer(&mut self, id: u8) -> Message {
        let hello = self.hello();
        let party = Party {
            secret: &self.secret,
            node_id: self.id,
            network: network(),
            static_kem: None,
        };
        let (epoch, random) = (self.claim.epoch, &mut self.random);
        let (offered, body) = exchange::offer(&party, hello, epoch, &self.peer, None, random);
        let id = ExchangeId([id; 8]);
        self.offered = Some((offered, id));
        message(MessageType::Offer, id, body)
    }

    /// As A, the FIN for a REPLY to the last OFFER.
    pub fn fin(&mut self, reply: &Message) -> Option<Message> {
        let (offered, id) = self.offered.as_ref()?;
        if *id != reply.id {
            return None;
        }
        let parsed = Reply::parse(&reply.body).expect("an honest reply");
        let party = Party {
            secret: &self.secret,
            node_id: self.id,
            network: network(),
            static_kem: None,
        };
        let accepted =
            offered.accept_reply(&party, &self.peer, &parsed, &reply.body, &mut self.random);
        let (agreement, fin) = accepted.expect("an honest reply");
        self.agreement = Some(agreement);
        Some(message(MessageType::Fin, *id, fin))
    }

    /// Takes the place of side 1: each OFFER is answered, whatever the machine there says is lost.
    pub fn play_b(mut self, pair: &mut Pair) {
        pair.tap = Some(Box::new(move |to, message| match (to, message.kind) {
            (1, MessageType::Offer) => vec![(0, self.reply(&message))],
            (1, MessageType::Fin) => Vec::new(),
            _ => Vec::new(),
        }));
    }

    /// Takes the place of side 0 for one exchange with side 1: OFFER, FIN. What side 1 answered.
    pub fn play_a(&mut self, pair: &mut Pair, id: u8) -> Vec<Message> {
        let sent = pair.sent.len();
        let offer = self.offer(id);
        pair.inject(1, &offer);
        let answers = |pair: &Pair, from: usize| -> Vec<Message> {
            let answers = pair.sent[from..].iter().filter(|(to, _)| *to == 0);
            answers.map(|(_, message)| message.clone()).collect()
        };
        for answer in answers(pair, sent) {
            if answer.kind == MessageType::Reply
                && let Some(fin) = self.fin(&answer)
            {
                pair.inject(1, &fin);
            }
        }
        pair.packets.clear();
        answers(pair, sent)
    }
}

/// Whether a side has refused something for this reason.
pub fn has_refused(pair: &Pair, at: usize, refusal: Refusal) -> bool {
    pair.sides[at].refusals().contains(&refusal)
}
