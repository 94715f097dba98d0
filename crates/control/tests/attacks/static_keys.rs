//! Static keys that are not the peer's, that nobody asked for, or that belong to another time.

use super::*;
use crate::puppet::{has_refused, record_of};
use wiremesh_control::KemSecret;
use wiremesh_control::machine::Refusal;
use wiremesh_control::message::Key;

fn l3() -> Policy {
    with_static_keys(Level::PostQuantum)
}

/// Changes every KEY on its way, for a minute; L3 is not had, nor is anything else.
fn attempt(refusal: Option<Refusal>, mut how: impl FnMut(&mut Key) + 'static) {
    let mut pair = Pair::new([l3(); 2]);
    pair.busy = true;
    change(&mut pair, move |message| {
        if message.kind == MessageType::Key {
            let mut key = Key::parse(&message.body).expect("honest");
            how(&mut key);
            message.body = key.emit();
        }
    });
    stays_shut(&mut pair, 60 * SECOND);
    if let Some(refusal) = refusal {
        assert!(
            has_refused(&pair, 0, refusal),
            "{:?}",
            pair.sides[0].refusals()
        );
    }
    recovers(&mut pair, 3);
}

fn other_key() -> Box<[u8; wiremesh_control::kem::EK_LEN]> {
    Box::new(*KemSecret::from_seed(&[77; 64]).encapsulation_key())
}

#[test]
fn a_static_key_that_the_record_does_not_name_is_refused() {
    attempt(Some(Refusal::WrongStaticKey), |key| {
        key.ek = Some(other_key())
    });
}

#[test]
fn a_static_key_with_one_bit_changed_is_refused() {
    attempt(Some(Refusal::WrongStaticKey), |key| {
        key.ek.as_mut().expect("honest")[500] ^= 1;
    });
}

#[test]
fn a_static_key_that_was_taken_out_does_not_make_it_l2() {
    attempt(None, |key| key.ek = None);
}

#[test]
fn a_static_key_with_a_changed_record_is_refused() {
    attempt(Some(Refusal::Record), |key| key.record[100] ^= 1);
}

#[test]
fn a_static_key_without_a_record_is_refused() {
    attempt(Some(Refusal::Record), |key| key.record.clear());
}

/// The attacker has an old static key of the peer, with the record that named it.
#[test]
fn a_static_key_of_an_earlier_record_is_refused() {
    let mut pair = met([l3(); 2], 3);
    let old = record_of(&pair, 1, |record| {
        record.seq -= 100;
        let hash = wiremesh_control::schedule::hash(&[&*other_key()]);
        record.kem_pk_hash = Some(hash);
    });
    pair.crash(0, l3());
    pair.busy = true;
    let bytes = old.bytes().to_vec();
    change(&mut pair, move |message| {
        if message.kind == MessageType::Key {
            let (record, ek) = (bytes.clone(), Some(other_key()));
            message.body = Key { record, ek }.emit();
        }
    });
    let pin = pair.sides[0].pin;
    pair.pass(60 * SECOND);
    assert!(has_refused(&pair, 0, Refusal::WrongStaticKey));
    assert_eq!(pair.sides[0].pin, pin);
    assert!(!pair.sides[0].open());
    recovers(&mut pair, 3);
}

/// Injects a message into the exchange under way, to each side that has a session, and tells what
/// each has refused because of it.
fn inject(pair: &mut Pair, kind: MessageType, body: &[u8]) -> Vec<(usize, Vec<Refusal>)> {
    let to = (0..2).filter(|to| !pair.sides[*to].sessions.is_empty());
    let to: Vec<usize> = to.collect();
    to.into_iter()
        .map(|to| {
            let before = pair.sides[to].refusals().len();
            let message = pair::message(kind, newest_id(pair), body.to_vec());
            pair.inject(to, &message);
            (to, pair.sides[to].refusals().split_off(before))
        })
        .collect()
}

/// Between the frames of a longer message, a frame of another one takes its place: it is repeated.
const ONE_REPETITION: Duration = Duration::from_millis(1_100);

#[test]
fn a_key_that_nobody_asked_for_is_ignored() {
    let pair = met([l3(); 2], 3);
    let genuine = pair.last_sent(0, MessageType::Key).body;
    let forged = Key {
        record: pair.sides[1].local.record().bytes().to_vec(),
        ek: Some(other_key()),
    };
    for body in [genuine, forged.emit()] {
        in_every_state([both(); 2], 2, ONE_REPETITION, |pair| {
            for (_, refusals) in inject(pair, MessageType::Key, &body) {
                assert_eq!(refusals, [Refusal::Unexpected]);
            }
        });
    }
}

#[test]
fn a_forged_key_ends_no_exchange_at_l3() {
    let forged = Key {
        record: vec![3; 200],
        ek: Some(other_key()),
    };
    in_every_state([l3(); 2], 3, ONE_REPETITION, |pair| {
        inject(pair, MessageType::Key, &forged.emit());
    });
}

#[test]
fn whoever_asks_for_a_key_learns_only_what_is_public() {
    for (policy, level) in [(both(), 2), (l3(), 3)] {
        in_every_state([policy; 2], level, Duration::ZERO, |pair| {
            for (to, _) in inject(pair, MessageType::GetKey, &[]) {
                let key = Key::parse(&pair.last_sent(1 - to, MessageType::Key).body);
                let key = key.expect("honest");
                assert_eq!(key.record, pair.sides[to].local.record().bytes());
                assert_eq!(key.ek.is_some(), policy.static_kem);
            }
        });
    }
}
