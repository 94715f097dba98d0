//! Handshakes per second of a whole node on one core, as responder and as initiator.
//!
//! Everything that a node does is in the time: parsing, `mac1`, the timestamp, key generation, each
//! key agreement, the session, timers, queues. What the other side does is not.

use crate::far::{
    Far, Numbers, add, address, connect, deliver, hub, open_hub, packet, sealed, start,
};
use crate::report::Report;
use std::hint::black_box;
use std::time::{Duration, Instant as Clock};
use wiremesh_core::{Node, Path, PeerKey};
use wiremesh_noise::crypto::{DhSecret, kdf2};
use wiremesh_wire::{Message, NodeId, Now};

const PEERS: usize = 500;
const ROUNDS: usize = 20;

/// One round's time for the responses, and for taking the confirmations.
struct Round {
    answers: Duration,
    confirmations: Duration,
}

fn add_all(hub: &mut Node, far: &[Far]) -> Vec<PeerKey> {
    far.iter().map(|far| add(hub, far)).collect()
}

/// Gives the node one datagram of each; the last datagram that it sends to each.
fn deliver_all(hub: &mut Node, now: Now, far: &[Far], datagrams: &mut [Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sent = Vec::with_capacity(far.len());
    for (far, datagram) in far.iter().zip(datagrams) {
        sent.extend(deliver(hub, now, far.number, datagram));
    }
    sent
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let began = Clock::now();
    let result = run();
    (began.elapsed(), result)
}

/// All of them connect to the node.
fn respond(hub: &mut Node, now: Now, far: &[Far]) -> Round {
    let (mut initiations, pending): (Vec<_>, Vec<_>) =
        far.iter().map(|far| far.initiate(now)).unzip();
    let (answers, sent) = timed(|| deliver_all(hub, now, far, &mut initiations));
    assert_eq!(sent.len(), far.len(), "each is answered");
    let all = far.iter().zip(&pending).zip(&sent);
    let mut keepalives: Vec<_> = all
        .map(|((far, pending), response)| far.confirm(pending, response).0)
        .collect();
    let before = hub.counters().handshakes;
    let (confirmations, _) = timed(|| deliver_all(hub, now, far, &mut keepalives));
    assert_eq!(hub.counters().handshakes - before, far.len() as u64);
    Round {
        answers,
        confirmations,
    }
}

/// The node connects to all of them.
fn initiate(hub: &mut Node, now: Now, far: &[Far], keys: &[PeerKey]) -> Duration {
    let (began, sent) = timed(|| {
        for key in keys {
            hub.rekey(now, *key);
        }
        let sent = std::iter::from_fn(|| hub.poll_transmit());
        sent.map(|one| one.datagram).collect::<Vec<_>>()
    });
    let answer = |(far, datagram): (&Far, &Vec<u8>)| match Message::parse(datagram) {
        Ok(Message::Initiation(initiation)) => far.answer(&initiation).emit().to_vec(),
        other => panic!("not an initiation: {other:?}"),
    };
    let mut responses: Vec<_> = far.iter().zip(&sent).map(answer).collect();
    let before = hub.counters().handshakes;
    let (finished, _) = timed(|| deliver_all(hub, now, far, &mut responses));
    assert_eq!(hub.counters().handshakes - before, far.len() as u64);
    began + finished
}

/// What a handshake consists of, which says how many there can be.
fn measure_parts(report: &mut Report) {
    let dh = DhSecret::new(&[3; 32]);
    let public = *DhSecret::new(&[4; 32]).public();
    let mut add = |name: &str, part: &mut dyn FnMut()| {
        let mut times: Vec<Duration> = (0..PEERS).map(|_| timed(&mut *part).0).collect();
        times.sort();
        let us = times[times.len() / 2].as_secs_f64() * 1e6;
        report.add("parts of a handshake", name, us, "us");
    };
    add("key agreement", &mut || {
        black_box(dh.agree(black_box(&public))).expect("not zero");
    });
    add("key generation", &mut || {
        black_box(DhSecret::new(black_box(&[5; 32])));
    });
    add("check of a node id", &mut || {
        black_box(NodeId::from_bytes(black_box(&public))).expect("valid");
    });
    add("key derivation with two outputs", &mut || {
        black_box(kdf2(black_box(&public), &public));
    });
}

/// A small packet of one of many sessions, in any order: found by its receiver index.
pub fn measure_sessions(report: &mut Report) {
    const PACKETS: usize = 20_000;
    for sessions in [100, 1_000, 10_000] {
        let mut hub = hub(sessions);
        let id = hub.node_id();
        let mut sealers = Vec::new();
        for number in 1..=sessions as u32 {
            let far = Far::new(number, id);
            add(&mut hub, &far);
            let sealer = connect(&mut hub, start(), &far);
            sealers.push((packet(&far.local.node_id(), &id, 64), sealer));
        }
        let mut numbers = Numbers(3);
        let mut datagrams: Vec<_> = (0..PACKETS)
            .map(|_| {
                let which = numbers.next() as usize % sessions;
                let (packet, sealer) = &mut sealers[which];
                (which as u32 + 1, sealed(sealer, packet))
            })
            .collect();
        let (time, ()) = timed(|| {
            for (number, datagram) in &mut datagrams {
                let path = Path::to(address(*number));
                assert!(hub.handle_datagram(start(), path, datagram).is_some());
            }
        });
        let ns = time.as_secs_f64() * 1e9 / PACKETS as f64;
        let name = format!("{sessions}");
        report.add(
            "to open 64 bytes of one of so many sessions",
            &name,
            ns,
            "ns",
        );
    }
}

/// Adds all figures.
pub fn measure(report: &mut Report) {
    measure_parts(report);
    let id = hub(1).node_id();
    let far: Vec<Far> = (1..=PEERS as u32)
        .map(|number| Far::new(number, id))
        .collect();
    let mut add = |name: &str, times: &mut Vec<Duration>| {
        times.sort();
        let per_second = PEERS as f64 / times[times.len() / 2].as_secs_f64();
        report.add("handshakes per second and core", name, per_second, "/s");
    };
    let minute = Duration::from_secs(60);

    let mut node = hub(PEERS);
    let keys = add_all(&mut node, &far);
    let mut now = start();
    respond(&mut node, now, &far);
    let rounds: Vec<Round> = (0..ROUNDS)
        .map(|_| {
            now = now + minute;
            node.handle_timeout(now);
            while node.poll_transmit().is_some() {}
            respond(&mut node, now, &far)
        })
        .collect();
    let answers = |rounds: &[Round]| rounds.iter().map(|round| round.answers).collect::<Vec<_>>();
    let whole = |round: &Round| round.answers + round.confirmations;
    add("responder, known peer", &mut answers(&rounds));
    add(
        "responder, known peer, with its first data",
        &mut rounds.iter().map(whole).collect(),
    );

    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        now = now + minute;
        node.handle_timeout(now);
        while node.poll_transmit().is_some() {}
        times.push(initiate(&mut node, now, &far, &keys));
    }
    add("initiator, known peer", &mut times);

    let first = |_| {
        let mut node = hub(PEERS);
        add_all(&mut node, &far);
        respond(&mut node, start(), &far)
    };
    let rounds: Vec<Round> = (0..ROUNDS).map(first).collect();
    add("responder, first contact", &mut answers(&rounds));
    let mut times = (0..ROUNDS).map(|_| {
        let mut node = hub(PEERS);
        let keys = add_all(&mut node, &far);
        initiate(&mut node, start(), &far, &keys)
    });
    add("initiator, first contact", &mut times.by_ref().collect());

    let stranger = |_| respond(&mut open_hub(PEERS as u32), start(), &far);
    let rounds: Vec<Round> = (0..ROUNDS).map(stranger).collect();
    add("responder, stranger that is let in", &mut answers(&rounds));
}
