//! A peer that has its keys and lies: OFFER and REPLY with any list, promise and epoch, and FIN or
//! DONE that fit them.

use super::pair::{Pair, Seeded, Session, network};
use super::{Input, World};
use wiremesh_control::exchange::{self, Offered, Party};
use wiremesh_control::frame::{ExchangeId, Message, MessageType};
use wiremesh_control::message::{Hello, Offer, Reply};
use wiremesh_control::{KemSecret, Level, Random, SuiteId, Suites, choose};

impl World {
    fn random(&mut self) -> Seeded {
        self.pair.random.fill(&mut [0]);
        Seeded(self.pair.random.0)
    }

    /// What a side says of itself if it lies as the input wants.
    fn hello_of(&mut self, at: usize, input: &mut Input<'_>) -> Hello {
        let how = input.u8();
        let [own, peer] = [at, 1 - at].map(|at| &self.pair.sides[at].local);
        let listed = (0..how & 3).map(|_| match input.u8() {
            known @ 0..=127 => SuiteId(u16::from(known & 3)),
            grease => SuiteId::grease(grease),
        });
        let suites = Suites::new(listed).unwrap_or(*own.suites());
        let mut nonce = [0; 16];
        self.pair.random.fill(&mut nonce);
        Hello {
            nonce,
            min_level: Level::ALL[usize::from(how >> 2 & 3) % 3],
            suites,
            own_seq: own.record().record().seq + u64::from(how >> 4 & 1),
            peer_record: match how & 32 {
                0 => peer.record().hash(),
                _ => [0; 32],
            },
            caps: input.u8(),
            record: (how & 64 == 0).then(|| own.record().bytes().to_vec()),
            proof: (how & 128 != 0).then(|| input.block().to_vec()),
            network: Hello::network_prefix(&network()),
        }
    }

    /// An OFFER of this side that fits its keys.
    pub(super) fn offer_of(&mut self, at: usize, input: &mut Input<'_>) -> (Offered, Vec<u8>) {
        let hello = self.hello_of(at, input);
        let epoch = u32::from_be_bytes([input.u8(), 0, 0, input.u8()]).max(1);
        let ek = input
            .bool()
            .then(|| *static_key(&self.pair, 1 - at).encapsulation_key());
        let kem = static_key(&self.pair, at);
        let mut random = self.random();
        let party = party(&self.pair, at, &kem);
        let peer = self.pair.keys[1 - at].1;
        exchange::offer(&party, hello, epoch, &peer, ek.as_ref(), &mut random)
    }

    /// Somebody has the keys of a side and takes part in an exchange as he likes.
    pub(super) fn rogue(&mut self, at: usize, how: u8, input: &mut Input<'_>) {
        let lists = |hello: &Hello| hello.suites;
        self.impersonated = true;
        match at {
            0 => {
                let (offered, body) = self.offer_of(0, input);
                self.pair.sides[0].listed.push(lists(offered.hello()));
                self.rogue_offer(how, &offered, body);
            }
            _ => {
                let hello = self.hello_of(1, input);
                self.pair.sides[1].listed.push(lists(&hello));
                self.rogue_reply(hello, input.u8());
            }
        }
    }

    fn rogue_offer(&mut self, how: u8, offered: &Offered, body: Vec<u8>) {
        let mut id = [how; 8];
        self.pair.random.fill(&mut id[1..]);
        let (kind, id) = (MessageType::Offer, ExchangeId(id));
        let mut random = self.random();
        let before = self.pair.sent.len();
        self.pair.inject(1, &Message { kind, id, body });
        let reply = self.pair.sent[before..].iter().find_map(|(to, message)| {
            (*to == 0 && message.kind == MessageType::Reply).then_some(&message.body)
        });
        let Some(bytes) = reply else {
            return;
        };
        let reply = Reply::parse(bytes).expect("a reply of the machine");
        let kem = static_key(&self.pair, 0);
        let party = party(&self.pair, 0, &kem);
        let peer = self.pair.keys[1].1;
        let accepted = offered.accept_reply(&party, &peer, &reply, bytes, &mut random);
        let Ok((agreement, body)) = accepted else {
            return;
        };
        let level = reply.chosen.level().expect("it was chosen");
        self.agreed
            .push((agreement.psk().clone(), agreement.epoch(), level));
        let kind = MessageType::Fin;
        self.pair.inject(1, &Message { kind, id, body });
        let epoch = agreement.epoch();
        let side = &self.pair.sides[1];
        if how & 1 != 0
            && side
                .primary
                .as_ref()
                .is_some_and(|slot| slot.epoch == epoch)
        {
            self.rogue_sessions += 1;
            let session = Session {
                id: u64::MAX - self.rogue_sessions,
                epoch,
                level: level as u8,
                since: self.pair.time,
                initiator: false,
            };
            self.pair.sides[1].sessions.push(session);
            self.pair
                .run(1, |machine, cx| machine.handle_session(cx, epoch));
        }
    }

    /// Answers the newest OFFER to B in its place, with any suite.
    fn rogue_reply(&mut self, hello: Hello, chosen: u8) {
        let mut random = self.random();
        let offers = self.pair.sent.iter().rev();
        let mut offers = offers.filter(|(to, m)| *to == 1 && m.kind == MessageType::Offer);
        let Some((_, message)) = offers.next() else {
            return;
        };
        let Ok(offer) = Offer::parse(&message.body) else {
            return;
        };
        let computed = choose(&offer.hello.suites, &hello.suites);
        let chosen = match computed {
            Some(computed) if chosen & 4 == 0 => computed,
            _ => SuiteId(u16::from(chosen & 3)),
        };
        let (own, peer) = (static_key(&self.pair, 1), static_key(&self.pair, 0));
        let answer = exchange::reply(
            &party(&self.pair, 1, &own),
            hello,
            chosen,
            &self.pair.keys[0].1,
            &offer,
            &message.body,
            Some(peer.encapsulation_key()),
            &mut random,
        );
        let Ok((replied, body)) = answer else {
            return;
        };
        let (kind, id) = (MessageType::Reply, message.id);
        let before = self.pair.sent.len();
        self.pair.inject(0, &Message { kind, id, body });
        let fin = self.pair.sent[before..].iter().find_map(|(to, message)| {
            (*to == 1 && message.kind == MessageType::Fin).then_some(&message.body)
        });
        let Some(fin) = fin else {
            return;
        };
        let agreement = replied
            .accept_fin(&self.pair.keys[0].1, fin)
            .expect("A says what it confirms");
        let (kind, body) = (MessageType::Done, agreement.done().to_vec());
        self.pair.inject(0, &Message { kind, id, body });
    }
}

/// The static key that `pair::local` gives a side.
fn static_key(pair: &Pair, at: usize) -> KemSecret {
    KemSecret::from_seed(&[pair.keys[at].0.as_bytes()[0]; 64])
}

fn party<'a>(pair: &'a Pair, at: usize, kem: &'a KemSecret) -> Party<'a> {
    Party {
        secret: &pair.keys[at].0,
        node_id: pair.keys[at].1,
        network: network(),
        static_kem: Some(kem),
    }
}
