//! The cryptographic steps: both ends agree on one key, and whatever is changed on the way, they do
//! not agree at all. docs/spec.md section 7.3.

use crate::support::{NETWORK, Run, Script, accept, error, hello, reply, suites};
use std::collections::BTreeSet;
use wiremesh_control::exchange::{self, Agreement, ExchangeError, Role};
use wiremesh_control::message::{Offer, REPLY_TAIL_LEN, Reply};
use wiremesh_control::schedule::{self, Keys, Secret, Shared};
use wiremesh_control::{SuiteId, choose};
use wiremesh_wire::NetworkId;

const SUITES: [SuiteId; 3] = [SuiteId::WIREGUARD, SuiteId::HYBRID, SuiteId::HYBRID_STATIC];

#[test]
fn both_ends_agree_on_the_same_key_in_every_suite() {
    let mut keys = BTreeSet::new();
    for suite in SUITES {
        let run = Run::new(suite, 1);
        assert_eq!(run.at_a.psk(), run.at_b.psk());
        assert_eq!((run.at_a.suite(), run.at_a.epoch()), (suite, 7));
        assert_eq!((run.at_b.suite(), run.at_b.epoch()), (suite, 7));
        assert_eq!((run.replied.suite(), run.replied.epoch()), (suite, 7));
        assert_eq!(run.replied.peer_hello().nonce, [1; 16]);
        assert_eq!(
            (run.offered.epoch(), run.offered.hello().nonce),
            (7, [1; 16])
        );
        assert!(run.at_a.verify_done(&run.at_b.done()));
        keys.insert(*run.at_a.psk().as_bytes());
    }
    assert_eq!(keys.len(), SUITES.len());
}

/// The schedule by itself, of given secrets and messages.
fn psk_of(th0: &[u8; 32], offer: &[u8], reply: &[u8], shared: &Shared, suite: u16) -> [u8; 32] {
    let th2 = schedule::absorb(&schedule::absorb(th0, offer), reply);
    let keys = Keys::expand(&shared.extract(&th2), SuiteId(suite), 7);
    *keys.psk.as_bytes()
}

fn shared(secrets: &[[u8; 32]; 4]) -> Shared {
    let [ephemeral_kem, ephemeral_dh, a, b] = secrets.map(Secret::new);
    Shared {
        ephemeral_kem,
        ephemeral_dh,
        static_a: Some(a),
        static_b: Some(b),
    }
}

#[test]
fn any_bit_of_any_secret_or_transcript_gives_another_key() {
    let run = Run::new(SuiteId::HYBRID_STATIC, 1);
    let (offer, reply) = (run.offer, Reply::signed_part(&run.reply).to_vec());
    let th0 = schedule::th0(&NETWORK, &run.a.id, &run.b.id);
    let secrets = [[1; 32], [2; 32], [3; 32], [4; 32]];
    let mut seen = BTreeSet::new();
    let mut is_new = |psk| assert!(seen.insert(psk), "a key came out twice");

    is_new(psk_of(&th0, &offer, &reply, &shared(&secrets), 3));
    is_new(psk_of(&th0, &offer, &reply, &shared(&secrets), 2));
    for bit in 0..4 * 256 {
        let mut changed = secrets;
        changed[bit / 256][bit / 8 % 32] ^= 1 << (bit % 8);
        is_new(psk_of(&th0, &offer, &reply, &shared(&changed), 3));
    }
    for bit in 0..8 * offer.len() {
        let mut changed = offer.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        is_new(psk_of(&th0, &changed, &reply, &shared(&secrets), 3));
    }
    for bit in 0..8 * reply.len() {
        let mut changed = reply.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        is_new(psk_of(&th0, &offer, &changed, &shared(&secrets), 3));
    }
    // Roles, network, and what is moved from one field or message to the next.
    for (network, a, b) in [
        (NETWORK, run.b.id, run.a.id),
        (NETWORK, run.a.id, run.a.id),
        (NetworkId::from_bytes([0x78; 32]), run.a.id, run.b.id),
    ] {
        let th0 = schedule::th0(&network, &a, &b);
        is_new(psk_of(&th0, &offer, &reply, &shared(&secrets), 3));
    }
    let (shorter, moved) = offer.split_at(offer.len() - 1);
    let longer = [moved, &reply].concat();
    is_new(psk_of(&th0, shorter, &longer, &shared(&secrets), 3));
    let [kem, dh, a, b] = secrets;
    is_new(psk_of(&th0, &offer, &reply, &shared(&[dh, kem, a, b]), 3));
    is_new(psk_of(&th0, &offer, &reply, &shared(&[kem, dh, b, a]), 3));
    for (with_a, with_b) in [(true, false), (false, true), (false, false)] {
        let mut fewer = shared(&[kem, dh, a, a]);
        fewer.static_a = fewer.static_a.filter(|_| with_a);
        fewer.static_b = fewer.static_b.filter(|_| with_b);
        is_new(psk_of(&th0, &offer, &reply, &fewer, 3));
    }
}

#[test]
fn every_epoch_gives_another_key() {
    let prk = Secret::new([1; 32]);
    let keys: BTreeSet<[u8; 32]> = (0..32)
        .map(|bit| *Keys::expand(&prk, SuiteId::HYBRID, 1 << bit).psk.as_bytes())
        .collect();
    assert_eq!(keys.len(), 32);
}

/// B's side of one exchange again, with these random bytes.
fn reply_with(run: &Run, random: Vec<u8>) -> (Agreement, Agreement) {
    let parsed = Offer::parse(&run.offer).expect("an OFFER");
    let suite = SuiteId::HYBRID;
    let random = &mut Script(random);
    let party = run.b.party();
    let (offer, hello) = (&run.offer, hello(&[2, 1], 8));
    let (replied, reply) = exchange::reply(
        &party, hello, suite, &run.a.id, &parsed, offer, None, random,
    )
    .expect("a REPLY");
    let (at_a, fin) = accept(&run.offered, &run.a, &run.b.id, &reply).expect("a FIN");
    (at_a, replied.accept_fin(&run.a.id, &fin).expect("agreed"))
}

#[test]
fn either_fresh_secret_alone_gives_another_key() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let mut seen = BTreeSet::new();
    // The X25519 secret, m of ML-KEM, and the nonce of the signature, which is no secret of the
    // key: with that alone changed, the key is the same.
    for (random, new) in [
        ([1, 2, 3], true),
        ([4, 2, 3], true),
        ([1, 4, 3], true),
        ([1, 2, 4], false),
    ] {
        let (at_a, at_b) = reply_with(&run, random.map(|byte| [byte; 32]).concat());
        assert_eq!(at_a.psk(), at_b.psk());
        assert_eq!(seen.insert(*at_a.psk().as_bytes()), new);
    }
}

#[test]
fn a_changed_offer_is_never_agreed_on() {
    let run = Run::new(SuiteId::HYBRID_STATIC, 1);
    let mut answered = 0;
    for at in 0..run.offer.len() {
        let mut bytes = run.offer.clone();
        bytes[at] ^= 1 << (at % 8);
        let Ok(parsed) = Offer::parse(&bytes) else {
            continue;
        };
        // The lowest suite that the changed list allows: what an attacker hopes for.
        let ours = suites(&[1]);
        let suite = choose(&parsed.hello.suites, &ours).unwrap_or(SuiteId::HYBRID);
        let Ok((_, reply)) = reply(&run.b, &run.a, &bytes, suite) else {
            continue;
        };
        answered += 1;
        let refused = accept(&run.offered, &run.a, &run.b.id, &reply);
        assert_eq!(error(refused), ExchangeError::InvalidSignature, "byte {at}");
    }
    assert!(answered > run.offer.len() / 2, "most of them can be read");
}

#[test]
fn a_changed_reply_is_never_accepted() {
    for suite in SUITES {
        let run = Run::new(suite, 1);
        for at in 0..run.reply.len() {
            let mut bytes = run.reply.clone();
            bytes[at] ^= 1 << (at % 8);
            let error = error(accept(&run.offered, &run.a, &run.b.id, &bytes));
            // In what is signed, a byte can also make the body unreadable.
            if let Some(in_tail) = at.checked_sub(run.reply.len() - REPLY_TAIL_LEN) {
                let expected = match in_tail {
                    ..64 => ExchangeError::InvalidSignature,
                    _ => ExchangeError::InvalidConfirmation,
                };
                assert_eq!(error, expected, "byte {at}");
            }
        }
    }
}

#[test]
fn a_changed_fin_done_or_live_is_never_accepted() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..8 * run.fin.len() {
        let fin = flipped(&run.fin, bit);
        let expected = match bit / 8 {
            ..64 => ExchangeError::InvalidSignature,
            _ => ExchangeError::InvalidConfirmation,
        };
        assert_eq!(error(run.replied.accept_fin(&run.a.id, &fin)), expected);
    }
    let (done, live) = (run.at_b.done(), run.at_b.live(Role::B));
    assert!(run.at_a.verify_live(Role::B, &live));
    for bit in 0..8 * done.len() {
        assert!(!run.at_a.verify_done(&flipped(&done, bit)));
    }
    for bit in 0..8 * live.len() {
        assert!(!run.at_a.verify_live(Role::B, &flipped(&live, bit)));
    }
}

#[test]
fn every_other_length_is_refused() {
    let run = Run::new(SuiteId::HYBRID_STATIC, 1);
    for len in 0..run.offer.len() {
        let cut = &run.offer[..len];
        let Ok(parsed) = Offer::parse(cut) else {
            continue;
        };
        assert_eq!(parsed.hello.proof, None);
        let (_, reply) = reply(&run.b, &run.a, cut, SuiteId::HYBRID).expect("it can be read");
        assert!(accept(&run.offered, &run.a, &run.b.id, &reply).is_err());
    }
    for len in 0..run.reply.len() {
        assert!(accept(&run.offered, &run.a, &run.b.id, &run.reply[..len]).is_err());
    }
    for len in 0..run.fin.len() {
        let refused = run.replied.accept_fin(&run.a.id, &run.fin[..len]);
        assert_eq!(error(refused), ExchangeError::Malformed);
    }
    let (done, live) = (run.at_b.done(), run.at_b.live(Role::B));
    assert!((0..32).all(|len| !run.at_a.verify_done(&done[..len])));
    assert!((0..36).all(|len| !run.at_a.verify_live(Role::B, &live[..len])));

    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(Offer::parse(&longer(&run.offer)).is_err());
    assert!(accept(&run.offered, &run.a, &run.b.id, &longer(&run.reply)).is_err());
    assert!(
        run.replied
            .accept_fin(&run.a.id, &longer(&run.fin))
            .is_err()
    );
    assert!(!run.at_a.verify_done(&longer(&done)));
    assert!(!run.at_a.verify_live(Role::B, &longer(&live)));
}

/// A refused message leaves the exchange as it was.
#[test]
fn a_good_message_is_taken_after_bad_ones() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let mut bad = run.reply.clone();
    bad[0] ^= 1;
    assert!(accept(&run.offered, &run.a, &run.b.id, &bad).is_err());
    let (again, fin) = accept(&run.offered, &run.a, &run.b.id, &run.reply).expect("good");
    assert_eq!(again.psk(), run.at_a.psk());
    assert!(run.replied.accept_fin(&run.a.id, &[0; 96]).is_err());
    assert!(run.replied.accept_fin(&run.a.id, &fin).is_ok());
}

#[test]
fn nothing_secret_is_printed() {
    let run = Run::new(SuiteId::HYBRID_STATIC, 1);
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        run.offered,
        run.replied,
        run.at_a,
        shared(&[[1; 32]; 4]),
        Keys::expand(&Secret::new([1; 32]), SuiteId::HYBRID, 1),
    );
    assert_eq!(
        shown,
        "Offered { epoch: 7, .. } Replied { suite: 0x0003, epoch: 7, .. } \
         Agreement { suite: 0x0003, epoch: 7, .. } Shared(..) Keys(..)"
    );
}
