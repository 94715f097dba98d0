//! Strangers: nothing passes before the application has said yes, and a no leaves nothing behind.

use super::*;
use crate::puppet::{Puppet, has_refused};
use wiremesh_control::machine::{ADMISSION_TIME, Refusal};
use wiremesh_control::message::{Abort, AbortCode, PROOF_MAX};
use wiremesh_control::{PeerSettings, Phase, WaitReason};

/// Side `host` asks for a proof; the other one shows `proof`.
fn stranger(policies: [Policy; 2], host: usize, proof: &[u8]) -> Pair {
    let mut settings = [PeerSettings::default(), PeerSettings::default()];
    settings[host].needs_admission = true;
    settings[1 - host].proof = Some(proof.to_vec());
    let mut pair = Pair::with_settings(policies, settings);
    pair.busy = true;
    pair
}

fn admit(pair: &mut Pair, host: usize, admitted: bool) {
    pair.run(host, |machine, cx| machine.admit(cx, admitted));
    pair.settle();
}

fn shut(pair: &Pair, host: usize) {
    assert_eq!(pair.sides[host].gate, Some(Gate::Closed));
    assert!(!pair.sides[host].open() && pair.sides[host].primary.is_none());
}

fn shut_for(pair: &mut Pair, host: usize, time: Duration) {
    let end = pair.time + time;
    while pair.time < end {
        pair.pass(Duration::from_millis(100));
        shut(pair, host);
    }
}

#[test]
fn an_admitted_stranger_gets_in_whenever_the_answer_comes() {
    for host in 0..2 {
        for late in [0, 1, 9, 10, 11, 19, 25, 29] {
            let mut pair = stranger([Policy::default(); 2], host, b"let me in");
            pair.pass(SECOND);
            assert_eq!(pair.sides[host].asked, [b"let me in"]);
            shut_for(&mut pair, host, SECOND * late);
            admit(&mut pair, host, true);
            recovers_within(&mut pair, 2, 25 * SECOND);
            let side = &pair.sides[host];
            assert!(side.admitted && !side.forgotten, "after {late} s");
            pair.pass(60 * SECOND);
            assert!(!pair.sides[host].forgotten);
            assert_eq!(pair.data_level(), Some(2));
        }
    }
}

#[test]
fn a_stranger_gets_no_l1_either_before_it_is_admitted() {
    for host in 0..2 {
        let mut pair = stranger([Policy::at(Stage::OldOnly); 2], host, b"old");
        // Its record names L1 alone, and it goes silent.
        let record = pair.sides[1 - host].local.record().bytes().to_vec();
        pair.pass(SECOND);
        pair.run(host, |machine, cx| {
            machine.learn_record(cx, &record).expect("valid");
        });
        pair.tap = Some(Box::new(|_, _| Vec::new()));
        shut_for(&mut pair, host, 25 * SECOND);
        pair.tap = None;
        admit(&mut pair, host, true);
        recovers(&mut pair, 1);
    }
}

#[test]
fn a_stranger_that_is_not_answered_is_told_and_forgotten() {
    for host in 0..2 {
        let mut pair = stranger([Policy::default(); 2], host, b"hello?");
        pair.pass(2 * SECOND);
        assert_eq!(pair.sides[host].asked.len(), 1);
        shut_for(&mut pair, host, ADMISSION_TIME - 3 * SECOND);
        assert!(!pair.sides[host].forgotten);
        shut_for(&mut pair, host, 2 * SECOND);
        assert!(pair.sides[host].forgotten);
        assert_eq!(pair.sides[host].asked.len(), 1, "asked once");
        let told = Abort::parse(&pair.last_sent(1 - host, MessageType::Abort).body);
        let code = told.expect("honest").code;
        assert_eq!(code, AbortCode::NotAdmitted.number());
        assert_eq!(pair.sides[host].machine.status().phase, Phase::Boot);
    }
}

#[test]
fn an_answer_that_comes_too_late_is_none() {
    for host in 0..2 {
        let mut pair = stranger([Policy::default(); 2], host, b"hello?");
        pair.pass(2 * SECOND);
        pair.busy = false;
        pair.deaf = [true; 2];
        pair.pass(ADMISSION_TIME);
        assert!(pair.sides[host].forgotten);
        admit(&mut pair, host, true);
        shut(&pair, host);
        assert!(!pair.sides[host].admitted);
    }
}

#[test]
fn a_refused_stranger_learns_the_reason_and_is_asked_about_anew() {
    for host in 0..2 {
        let mut pair = stranger([Policy::default(); 2], host, b"wrong");
        let mut asked = 0;
        for _ in 0..10 {
            while pair.sides[host].asked.len() == asked {
                pair.pass(SECOND);
                shut(&pair, host);
            }
            asked += 1;
            assert_eq!(pair.sides[host].asked.len(), asked);
            admit(&mut pair, host, false);
            let side = &mut pair.sides[host];
            assert!(std::mem::take(&mut side.forgotten));
            assert_eq!(side.machine.status().phase, Phase::Boot);
            let why = pair.sides[1 - host]
                .machine
                .status()
                .waiting
                .map(|(why, _)| why);
            let code = AbortCode::NotAdmitted.number();
            assert!(matches!(why, Some(WaitReason::PeerRefused { code: c, .. }) if c == code));
            // The engine forgets the peer; here it stays and is none the wiser.
            pair.run(host, |machine, cx| machine.handle_policy(cx));
        }
        while pair.sides[host].asked.len() == asked {
            pair.pass(SECOND);
        }
        admit(&mut pair, host, true);
        recovers(&mut pair, 2);
    }
}

#[test]
fn a_stranger_that_asks_twice_is_asked_about_once() {
    let mut pair = stranger([Policy::default(); 2], 1, b"");
    pair.busy = false;
    pair.forge_session(1);
    for id in 0..100 {
        let mut puppet = Puppet::new(&pair, 0, &[2]);
        puppet.claim.proof = Some(vec![id; 4000]);
        let answers = puppet.play_a(&mut pair, id);
        assert!(answers.is_empty(), "{answers:?}");
        pair.time += Duration::from_millis(100);
        shut(&pair, 1);
    }
    assert_eq!(pair.sides[1].asked.len(), 1);
    pair.pass(ADMISSION_TIME);
    assert!(pair.sides[1].forgotten);
}

/// Who shows a proof that he copied, in the name of another: the yes is for that other node, and
/// without its key he gets no further.
#[test]
fn an_admitted_offer_without_the_key_behind_it_opens_nothing() {
    let mut pair = stranger([both(); 2], 1, b"copied");
    let mut copied = None;
    pair.busy = false;
    pair.handshake(0);
    while let Some(packet) = pair.packets.pop_front() {
        pair.deliver(&packet);
        copied = copied.or(pair
            .sent
            .iter()
            .find(|(_, m)| m.kind == MessageType::Offer)
            .cloned());
    }
    let (_, offer) = copied.expect("sent");
    pair.crash(1, both());
    pair.forge_session(1);
    pair.inject(1, &offer);
    assert_eq!(pair.sides[1].asked.len(), 1);
    admit(&mut pair, 1, true);
    pair.packets.clear();
    assert_eq!(pair.sides[1].machine.status().phase, Phase::Replied);
    for _ in 0..300 {
        pair.time += Duration::from_millis(100);
        pair.run(1, |machine, cx| machine.handle_timeout(cx));
        assert!(!pair.sides[1].open() && pair.sides[1].primary.is_none());
    }
}

#[test]
fn a_proof_may_be_4096_bytes_and_no_more() {
    for host in 0..2 {
        let longest = vec![9; PROOF_MAX];
        let mut pair = stranger([with_static_keys(Level::PostQuantum); 2], host, &longest);
        pair.pass(SECOND);
        assert_eq!(pair.sides[host].asked, [longest]);
        admit(&mut pair, host, true);
        recovers(&mut pair, 3);
        // One that is too long is not sent.
        let mut pair = stranger([Policy::default(); 2], host, &[9; PROOF_MAX + 1]);
        pair.pass(SECOND);
        assert_eq!(pair.sides[host].asked, [Vec::<u8>::new()]);
    }
}

#[test]
fn a_longer_proof_is_refused_before_anybody_is_asked() {
    let mut pair = stranger([Policy::default(); 2], 1, b"");
    pair.busy = false;
    pair.forge_session(1);
    let offer = Puppet::new(&pair, 0, &[2]).offer(1);
    for len in [PROOF_MAX + 1, 5_000, usize::from(u16::MAX)] {
        let mut long = offer.clone();
        long.body.push(3);
        long.body.extend((len as u16).to_be_bytes());
        long.body.extend(vec![9; len]);
        if long.body.len() <= wiremesh_control::frame::MESSAGE_MAX {
            pair.inject(1, &long);
            assert!(has_refused(&pair, 1, Refusal::Malformed));
        } else {
            // No frame can say so; the first of as many as fit is refused.
            let mut frame = vec![1, 2, 0, 9];
            frame.extend(long.id.0);
            frame.extend((long.body.len() as u16).to_be_bytes());
            frame.extend(1024u16.to_be_bytes());
            frame.extend(&long.body[..1024]);
            pair.inject_frame(1, &frame);
            assert!(has_refused(&pair, 1, Refusal::Frame));
        }
        assert!(pair.sides[1].asked.is_empty());
        pair.time += SECOND;
    }
}

#[test]
fn two_that_ask_each_other_for_proof_come_together() {
    let mut pair = stranger([Policy::default(); 2], 0, b"of B");
    let peer = pair.keys[0].1;
    let side = &mut pair.sides[1];
    side.settings = PeerSettings {
        needs_admission: true,
        proof: Some(b"of B".to_vec()),
        ..PeerSettings::default()
    };
    side.machine =
        wiremesh_control::Machine::new(&side.local, peer, side.pin, side.settings.clone());
    for _ in 0..60 {
        pair.pass(SECOND);
        for host in 0..2 {
            if !pair.sides[host].admitted {
                admit(&mut pair, host, true);
            }
        }
    }
    assert!(
        pair.sides
            .iter()
            .all(|side| side.admitted && side.asked.len() == 1)
    );
    assert_eq!(pair.data_level(), Some(2));
}
