//! Floods: what a machine holds and how much it computes is bounded, whatever comes through the
//! tunnel. docs/spec.md section 7.3: one exchange per peer, at most 8 KiB, 10 s.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/puppet.rs"]
mod puppet;

use counting::held_bytes;
use pair::{Pair, Seeded, message};
use puppet::Puppet;
use std::collections::VecDeque;
use std::time::Duration;
use wiremesh_control::frame::{
    ExchangeId, FRAGMENTS_MAX, FRAME_BODY_MAX, MESSAGE_MAX, Message, MessageType,
};
use wiremesh_control::machine::{Output, Refusal};
use wiremesh_control::message::{Abort, AbortCode, Hello, Key, Offer};
use wiremesh_control::{Level, Machine, PeerSettings, Pin, Policy, Random, Stage};

const SECOND: Duration = Duration::from_secs(1);
/// What one machine may hold at the worst moment: a message that is being put together, the one
/// that is being answered, and what answers it.
const HELD_MAX: i64 = 40 * 1024;
/// Messages that cost a signature or a key agreement: at once, and per second after that.
const COSTLY_AT_ONCE: usize = 8;
const COSTLY_PER_SECOND: usize = 20;

fn both() -> Policy {
    Policy::at(Stage::Both)
}

fn l3() -> Policy {
    Policy {
        static_kem: true,
        ..Policy::default()
    }
}

/// Runs a machine alone, in side `at` of a pair that only lends its keys and its clock. Nothing
/// that it wants is kept, so the bytes that a call leaves on the heap are the machine's.
struct Alone {
    pair: Pair,
    at: usize,
    sent: Vec<(MessageType, ExchangeId)>,
    refused: Vec<Refusal>,
    held: i64,
}

impl Alone {
    fn new(policy: Policy, at: usize, settings: PeerSettings) -> Self {
        let mut pair = Pair::new([policy; 2]);
        let peer = pair.keys[1 - at].1;
        pair.forge_session(at);
        let side = &mut pair.sides[at];
        side.machine = Machine::new(&side.local, peer, Pin::default(), settings);
        let mut alone = Self {
            pair,
            at,
            sent: Vec::with_capacity(100_000),
            refused: Vec::with_capacity(100_000),
            held: 0,
        };
        alone.forget_wishes();
        alone.run(|machine, cx| {
            machine.start(cx);
            machine.handle_session(cx, 0);
        });
        alone.sent.clear();
        alone
    }

    fn run(
        &mut self,
        input: impl FnOnce(&mut Machine, &mut wiremesh_control::machine::Context<'_>),
    ) {
        let before = held_bytes();
        self.pair.run(self.at, input);
        let messages = self.pair.sent.drain(..);
        self.sent
            .extend(messages.map(|(_, message)| (message.kind, message.id)));
        for output in &self.pair.sides[self.at].outputs {
            if let Output::Refused(refusal) = output {
                self.refused.push(*refusal);
            }
        }
        self.forget_wishes();
        self.held += held_bytes() - before;
    }

    fn forget_wishes(&mut self) {
        let side = &mut self.pair.sides[self.at];
        side.outputs = Vec::new();
        side.asked = Vec::new();
        self.pair.sent = Vec::new();
        self.pair.packets = VecDeque::new();
    }

    fn frame(&mut self, frame: &[u8]) {
        self.run(|machine, cx| machine.handle_frame(cx, frame));
    }

    fn message(&mut self, message: &Message) {
        for frame in pair::frames(message) {
            self.frame(&frame);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.pair.time + time;
        while self.pair.time < end {
            self.pair.time += Duration::from_millis(100);
            let now = self.pair.instant();
            let machine = &self.pair.sides[self.at].machine;
            if machine.next_deadline().is_some_and(|at| now >= at) {
                self.run(|machine, cx| machine.handle_timeout(cx));
            }
        }
    }

    /// Bytes that the machine has on the heap.
    fn held(&self) -> i64 {
        self.held
    }

    fn count(&self, kind: MessageType) -> usize {
        self.sent.iter().filter(|(sent, _)| *sent == kind).count()
    }

    fn refusals(&self, refusal: Refusal) -> usize {
        self.refused
            .iter()
            .filter(|found| **found == refusal)
            .count()
    }
}

/// A first frame, or any other, of a message that is never completed.
fn fragment(random: &mut Seeded, kind: MessageType, number: usize) -> Vec<u8> {
    let mut frame = vec![1, kind as u8, number as u8, FRAGMENTS_MAX as u8];
    let mut id = [0; 8];
    random.fill(&mut id);
    frame.extend(id);
    frame.extend((MESSAGE_MAX as u16).to_be_bytes());
    frame.extend((FRAME_BODY_MAX as u16).to_be_bytes());
    frame.resize(16 + FRAME_BODY_MAX, 0xaa);
    frame
}

#[test]
fn a_flood_of_fragments_holds_one_message_for_ten_seconds() {
    for at in 0..2 {
        let mut alone = Alone::new(both(), at, PeerSettings::default());
        let idle = alone.held();
        let mut random = Seeded(5);
        for n in 0..10_000 {
            let kind = MessageType::ALL[n % MessageType::ALL.len()];
            alone.frame(&fragment(&mut random, kind, n % FRAGMENTS_MAX));
            let held = alone.held() - idle;
            assert!(held <= MESSAGE_MAX as i64 + 256, "{held} bytes");
        }
        assert!(alone.refused.is_empty() && alone.sent.is_empty());
        alone.pass(60 * SECOND);
        assert!(alone.held() < HELD_MAX - MESSAGE_MAX as i64);
        alone.run(|machine, cx| machine.handle_sessions_gone(cx));
        let left = alone.held();
        assert!(left < 64, "{left} bytes left");
    }
}

#[test]
fn a_message_that_is_never_completed_is_forgotten() {
    // B has nothing else to hold.
    let mut alone = Alone::new(both(), 1, PeerSettings::default());
    let idle = alone.held();
    alone.frame(&fragment(&mut Seeded(5), MessageType::Offer, 0));
    assert!(alone.held() - idle >= MESSAGE_MAX as i64);
    alone.pass(10 * SECOND);
    let left = alone.held() - idle;
    assert!(left < 64, "{left} bytes left");
}

#[test]
fn a_flood_of_oversize_and_broken_frames_holds_nothing() {
    let mut alone = Alone::new(both(), 1, PeerSettings::default());
    let idle = alone.held();
    let mut random = Seeded(6);
    for n in 0..10_000_usize {
        let mut frame = fragment(&mut random, MessageType::Offer, n % 8);
        match n % 6 {
            0 => frame[12..14].copy_from_slice(&u16::MAX.to_be_bytes()),
            1 => frame[3] = 9,
            2 => frame[2] = 8,
            3 => frame.extend([0; 1000]),
            4 => frame.truncate(n % 16),
            _ => frame[1] = 77,
        }
        alone.frame(&frame);
        assert_eq!(alone.held(), idle);
    }
    assert_eq!(alone.refusals(Refusal::Frame), 10_000);
}

/// What an attacker can send that takes work to refuse or to answer.
fn costly(pair: &Pair, at: usize, n: u32) -> Vec<Message> {
    let mut id = [0; 8];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let id = ExchangeId(id);
    let record = pair.sides[1 - at].local.record().bytes().to_vec();
    let mut offer = Puppet::new(pair, 0, &[2, 1]).offer(1);
    offer.id = id;
    let abort = Abort {
        code: AbortCode::StaleRecord.number(),
        highest: wiremesh_control::SuiteId::HYBRID,
        mac: Some([1; 32]),
        record: Some(record.clone()),
    };
    let key = Key { record, ek: None };
    let mut messages = vec![
        message(MessageType::GetKey, id, Vec::new()),
        message(MessageType::Abort, id, abort.emit()),
        message(MessageType::Key, id, key.emit()),
    ];
    match at {
        1 => messages.extend([offer, message(MessageType::Fin, id, vec![1; 96])]),
        _ => messages.push(message(MessageType::Reply, id, vec![1; 1400])),
    }
    messages
}

#[test]
fn a_flood_of_costly_messages_is_answered_in_measure() {
    for at in 0..2 {
        let mut alone = Alone::new(both(), at, PeerSettings::default());
        let (mut came, rounds) = (0, 200);
        let mut most = 0;
        for n in 0..rounds {
            for message in costly(&alone.pair, at, n) {
                alone.message(&message);
                came += 1;
                most = most.max(alone.held());
            }
            alone.pass(Duration::from_millis(100));
        }
        let seconds = usize::try_from(rounds).expect("few") / 10;
        let looked_at = came - alone.refusals(Refusal::TooMany);
        let allowed = COSTLY_AT_ONCE + COSTLY_PER_SECOND * seconds;
        assert!(looked_at <= allowed, "{looked_at} of {came} in {seconds} s");
        assert!(
            looked_at >= allowed / 2,
            "{looked_at}: and it still answers"
        );
        assert!(most < HELD_MAX, "{most} bytes");
        for kind in [MessageType::Reply, MessageType::Key] {
            assert!(alone.count(kind) <= allowed);
        }
    }
}

#[test]
fn ten_thousand_offers_at_once_cost_eight() {
    let mut alone = Alone::new(both(), 1, PeerSettings::default());
    let mut puppet = Puppet::new(&alone.pair, 0, &[2, 1]);
    let mut offer = puppet.offer(0);
    for n in 0..10_000u32 {
        offer.id.0[..4].copy_from_slice(&n.to_be_bytes());
        alone.message(&offer);
    }
    assert!((1..=COSTLY_AT_ONCE).contains(&alone.count(MessageType::Reply)));
    assert!(alone.held() < HELD_MAX);
    // Ten seconds later B has forgotten it all, but for the record that came with it.
    alone.pass(11 * SECOND);
    let left = alone.held();
    assert!(left < 2_048, "{left} bytes left");
}

#[test]
fn a_flood_of_getkey_is_answered_in_measure() {
    for at in 0..2 {
        let mut alone = Alone::new(l3(), at, PeerSettings::default());
        let mut bytes = 0;
        for n in 0..10_000u32 {
            let mut id = [0; 8];
            id[..4].copy_from_slice(&n.to_be_bytes());
            alone.message(&message(MessageType::GetKey, ExchangeId(id), Vec::new()));
            bytes += 16;
            alone.pair.time += Duration::from_millis(1);
        }
        let keys = alone.count(MessageType::Key);
        assert!(keys <= COSTLY_AT_ONCE + COSTLY_PER_SECOND * 10, "{keys}");
        assert!(
            keys >= COSTLY_PER_SECOND * 9,
            "{keys}: and it still answers"
        );
        assert!(keys * 2_300 < bytes * 4, "at most four times what came in");
        assert!(alone.held() < HELD_MAX);
    }
}

#[test]
fn a_flood_of_poke_makes_few_offers() {
    // Without an answer: one OFFER, and its repetitions.
    let mut alone = Alone::new(both(), 0, PeerSettings::default());
    for n in 0..9_000u32 {
        let id = ExchangeId([(n % 251) as u8; 8]);
        alone.message(&message(MessageType::Poke, id, Vec::new()));
        if n % 100 == 0 {
            alone.pass(Duration::from_millis(100));
        }
    }
    assert!(alone.count(MessageType::Offer) <= 4, "{:?}", alone.sent);

    // With an honest peer behind the flood: five exchanges a second, and data goes on.
    let mut pair = Pair::new([both(); 2]);
    pair.meet();
    let sent = pair.sent.len();
    for n in 0..1_000u32 {
        for _ in 0..10 {
            let id = ExchangeId([(n % 251) as u8; 8]);
            pair.inject(0, &message(MessageType::Poke, id, Vec::new()));
            pair.settle();
        }
        pair.pass(Duration::from_millis(100));
        assert_eq!(pair.data_level(), Some(2));
    }
    let offers = pair.sent[sent..].iter();
    let offers = offers
        .filter(|(_, message)| message.kind == MessageType::Offer)
        .count();
    assert!((400..=520).contains(&offers), "{offers} exchanges in 100 s");
    assert!(pair.is_up());
}

#[test]
fn a_flood_of_cheap_messages_is_answered_at_most_one_for_one() {
    for at in 0..2 {
        let mut pair = Pair::new([both(); 2]);
        pair.meet();
        let log = pair.sent.clone();
        let before = pair.sent.len();
        let mut injected = 0;
        for _ in 0..500 {
            for (to, message) in &log {
                if *to == at && message.kind.is_cheap() && message.kind != MessageType::Poke {
                    pair.inject(at, message);
                    injected += 1;
                }
            }
            pair.inject(
                at,
                &message(MessageType::Live, ExchangeId([1; 8]), vec![0; 36]),
            );
            pair.inject(
                at,
                &message(MessageType::Done, ExchangeId([1; 8]), vec![0; 32]),
            );
            injected += 2;
        }
        assert!(pair.sent.len() - before <= injected);
        pair.packets.clear();
        assert_eq!(pair.data_level(), Some(2));
    }
}

#[test]
fn an_honest_exchange_gets_through_as_soon_as_the_flood_ends() {
    for at in 0..2 {
        let mut pair = Pair::new([both(); 2]);
        pair.handshake(0);
        pair.settle();
        pair.crash(1 - at, both());
        for n in 0..100 {
            for message in costly(&pair, at, n) {
                pair.inject(at, &message);
            }
            pair.packets.clear();
            pair.time += Duration::from_millis(10);
        }
        pair.busy = true;
        pair.pass(30 * SECOND);
        assert_eq!(pair.data_level(), Some(2));
    }
}

#[test]
fn the_largest_messages_fit_what_is_allowed() {
    // Everything at once: a message half put together, the longest OFFER answered, a static key.
    let settings = PeerSettings {
        proof: Some(vec![7; 4096]),
        ..PeerSettings::default()
    };
    let mut alone = Alone::new(l3(), 1, settings);
    let mut puppet = Puppet::new(&alone.pair, 0, &[2]);
    puppet.claim.proof = Some(vec![8; 4096]);
    puppet.claim.record = Some(alone.pair.sides[0].local.record().bytes().to_vec());
    alone.message(&puppet.offer(1));
    assert_eq!(alone.count(MessageType::Reply), 1);
    alone.frame(&fragment(&mut Seeded(1), MessageType::Offer, 0));
    let held = alone.held();
    assert!(held > 16 * 1024, "{held}: that is what was to be measured");
    assert!(held < HELD_MAX, "{held} bytes");
}

#[test]
fn a_stranger_costs_no_more_than_its_offer() {
    let settings = PeerSettings {
        needs_admission: true,
        ..PeerSettings::default()
    };
    let mut alone = Alone::new(both(), 1, settings);
    let idle = alone.held();
    for round in 0..20 {
        let mut puppet = Puppet::new(&alone.pair, 0, &[2, 1]);
        puppet.claim.proof = Some(vec![8; 4096]);
        for id in 0..20 {
            alone.message(&puppet.offer(id));
            let held = alone.held() - idle;
            assert!(
                held < MESSAGE_MAX as i64 + 2_048,
                "{held} bytes in round {round}"
            );
            alone.pair.time += Duration::from_millis(100);
        }
        assert_eq!(
            alone.count(MessageType::Reply),
            0,
            "nothing is computed for it"
        );
        alone.run(|machine, cx| machine.admit(cx, false));
        let left = alone.held() - idle;
        assert!(left < 128, "{left} bytes left after a refusal");
    }
}

#[test]
fn an_idle_machine_is_small() {
    let size = size_of::<Machine>();
    assert!(size <= 640, "{size} bytes");
    let mut pair = Pair::new([Policy::default(); 2]);
    let before = held_bytes();
    let peer = pair.keys[1].1;
    let machine = Machine::new(
        &pair.sides[0].local,
        peer,
        Pin::default(),
        PeerSettings::default(),
    );
    assert_eq!(held_bytes(), before, "nothing on the heap");
    drop(machine);
    // One that is up holds the peer's record, and what the last exchange may still need.
    pair.meet();
    let took = held_bytes();
    for side in &mut pair.sides {
        let local = &side.local;
        side.machine = Machine::new(local, peer, Pin::default(), PeerSettings::default());
    }
    let each = (took - held_bytes()) / 2;
    assert!((100..1_024).contains(&each), "{each} bytes");
}

#[test]
fn a_hello_of_the_wrong_network_costs_an_abort() {
    let mut alone = Alone::new(both(), 1, PeerSettings::default());
    let message_of = Puppet::new(&alone.pair, 0, &[2, 1]).offer(1);
    let mut offer = Offer::parse(&message_of.body).expect("valid");
    offer.hello.network = [9; 8];
    offer.hello = Hello {
        min_level: Level::Classical,
        ..offer.hello
    };
    alone.message(&message(MessageType::Offer, message_of.id, offer.emit()));
    assert_eq!(
        alone.sent.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [MessageType::Abort]
    );
    assert!(alone.held() < 512, "nothing of it is kept");
}
