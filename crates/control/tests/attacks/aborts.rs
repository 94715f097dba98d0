//! Forged ABORTs, in every state: they lower nothing, open nothing and end nothing.

use super::*;
use crate::puppet::record_of;
use wiremesh_control::SuiteId;
use wiremesh_control::message::{Abort, AbortCode};

/// What a forger can choose.
struct Forgery {
    code: u16,
    mac: Option<[u8; 32]>,
    record: Option<Vec<u8>>,
}

fn forge(pair: &mut Pair, to: usize, forgery: &Forgery) {
    let abort = Abort {
        code: forgery.code,
        highest: SuiteId::WIREGUARD,
        mac: forgery.mac,
        record: forgery.record.clone(),
    };
    let message = pair::message(MessageType::Abort, newest_id(pair), abort.emit());
    pair.inject(to, &message);
}

fn codes() -> impl Iterator<Item = u16> {
    let known = AbortCode::ALL.into_iter().map(AbortCode::number);
    known.chain([0, 8, u16::MAX])
}

fn everywhere(policies: [Policy; 2], level: u8) {
    for code in codes() {
        for mac in [None, Some([7; 32])] {
            let plain = Forgery {
                code,
                mac,
                record: None,
            };
            in_every_state(policies, level, Duration::ZERO, |pair| {
                for to in 0..2 {
                    forge(pair, to, &plain);
                    forge(pair, to, &plain);
                }
            });
        }
    }
}

#[test]
fn a_forged_abort_ends_no_exchange_at_l2() {
    everywhere([both(); 2], 2);
}

#[test]
fn a_forged_abort_ends_no_exchange_at_l3() {
    everywhere([with_static_keys(Level::PostQuantum); 2], 3);
}

#[test]
fn a_forged_abort_ends_no_exchange_at_l1() {
    everywhere([both(), Policy::at(Stage::OldOnly)], 1);
    everywhere([Policy::at(Stage::OldOnly), both()], 1);
}

/// The peer's own newer record makes A offer anew if the OFFER is all there is, and ends nothing
/// that has been agreed on; any other record does nothing at all.
#[test]
fn a_forged_abort_with_a_record_costs_a_repetition_at_most() {
    for which in 0..5 {
        in_every_state([both(); 2], 2, Duration::from_millis(1_100), |pair| {
            for to in 0..2 {
                let from = 1 - to;
                let record = match which {
                    0 => record_of(pair, from, |r| r.seq += 1).bytes().to_vec(),
                    1 => pair.sides[from].local.record().bytes().to_vec(),
                    2 => record_of(pair, from, |r| r.seq -= 1).bytes().to_vec(),
                    3 => record_of(pair, to, |r| r.seq += 1).bytes().to_vec(),
                    _ => vec![1; 300],
                };
                let forgery = Forgery {
                    code: AbortCode::StaleRecord.number(),
                    mac: None,
                    record: Some(record),
                };
                forge(pair, to, &forgery);
            }
        });
    }
}

#[test]
fn a_forged_abort_does_not_close_what_is_open() {
    for (policies, level) in [([both(); 2], 2), ([Policy::at(Stage::OldOnly); 2], 1)] {
        let mut pair = met(policies, level);
        let before = kept(&pair);
        for code in codes() {
            for to in 0..2 {
                let forgery = Forgery {
                    code,
                    mac: None,
                    record: None,
                };
                forge(&mut pair, to, &forgery);
                pair.pass(SECOND);
            }
            assert_eq!(pair.data_level(), Some(level));
        }
        assert_eq!(kept(&pair), before);
        let waiting = pair
            .sides
            .iter()
            .any(|side| side.machine.status().waiting.is_some());
        assert!(!waiting, "nobody waits");
    }
}
