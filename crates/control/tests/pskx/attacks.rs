//! The cryptographic steps under attack. The attacker holds the tunnel: it reads, changes, drops,
//! replays and makes up control messages. docs/spec.md section 7.3.

use crate::support::{Dice, NETWORK, Run, accept, error, hello, nodes, offer, reply, suites};
use wiremesh_control::exchange::{self, ExchangeError, Party, Role};
use wiremesh_control::kem::EK_LEN;
use wiremesh_control::message::{Fin, Hello, Offer, REPLY_TAIL_LEN, Reply};
use wiremesh_control::schedule::{self, CONTEXT_A, CONTEXT_B};
use wiremesh_control::{KemSecret, SuiteId, choose, sign};
use wiremesh_wire::NetworkId;

/// Where the lists are, in an OFFER and a REPLY with three suites.
const OFFER_LIST: usize = 23;
const REPLY_LIST: usize = 19;
const OFFER_EPHEMERAL: usize = 70;
const OFFER_EK: usize = OFFER_EPHEMERAL + 32;

#[test]
fn a_stripped_list_of_suites_ends_the_exchange() {
    let [a, b] = nodes();
    let (offered, bytes) = offer(&a, &b, 1);
    // A offers 3, 2, 1; B sees 1 and numbers that it does not know.
    let mut stripped = bytes.clone();
    stripped[OFFER_LIST..OFFER_LIST + 4].copy_from_slice(&[0x0a, 0x0a, 0x1a, 0x1a]);
    let parsed = Offer::parse(&stripped).expect("valid");
    assert_eq!(
        choose(&parsed.hello.suites, &suites(&[3, 2, 1])),
        Some(SuiteId::WIREGUARD)
    );
    let (_, answer) = reply(&b, &a, &stripped, SuiteId::WIREGUARD).expect("a REPLY");
    assert_eq!(
        error(accept(&offered, &a, &b.id, &answer)),
        ExchangeError::InvalidSignature
    );

    // B's list, and the suite that B chose, in the REPLY.
    let (_, answer) = reply(&b, &a, &bytes, SuiteId::HYBRID).expect("a REPLY");
    let parsed = Reply::parse(&answer).expect("valid");
    for change in [
        |reply: &mut Reply| reply.hello.suites = suites(&[1]),
        |reply: &mut Reply| reply.chosen = SuiteId::WIREGUARD,
    ] {
        let mut edited = parsed.clone();
        change(&mut edited);
        assert_eq!(
            error(accept(&offered, &a, &b.id, &edited.emit())),
            ExchangeError::InvalidSignature
        );
    }
    assert_eq!(answer[REPLY_LIST..REPLY_LIST + 6], [0, 1, 0, 2, 0, 3]);
}

#[test]
fn a_suite_that_is_unknown_is_not_used() {
    let run = Run::new(SuiteId::HYBRID, 1);
    for number in [0, 4, 0x0101, 0x0a0a] {
        let refused = reply(&run.b, &run.a, &run.offer, SuiteId(number));
        assert_eq!(error(refused), ExchangeError::UnknownSuite);
        let mut edited = Reply::parse(&run.reply).expect("valid");
        edited.chosen = SuiteId(number);
        let refused = accept(&run.offered, &run.a, &run.b.id, &edited.emit());
        assert_eq!(error(refused), ExchangeError::UnknownSuite);
    }
}

#[test]
fn reflected_messages_are_refused() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let parsed = Offer::parse(&run.offer).expect("valid");
    // A's own OFFER, back at A.
    let random = &mut Dice(1);
    let back = exchange::reply(
        &run.a.party(),
        hello(&[2, 1], 1),
        SuiteId::HYBRID,
        &run.b.id,
        &parsed,
        &run.offer,
        None,
        random,
    );
    assert_eq!(error(back), ExchangeError::WrongRole);
    // The proof at the end of B's REPLY, back at B as a FIN; and A's FIN as the end of a REPLY.
    let tail = &run.reply[run.reply.len() - REPLY_TAIL_LEN..];
    for peer in [&run.a.id, &run.b.id] {
        assert_eq!(
            error(run.replied.accept_fin(peer, tail)),
            ExchangeError::InvalidSignature
        );
    }
    let forged = [Reply::signed_part(&run.reply), &run.fin].concat();
    for peer in [&run.a.id, &run.b.id] {
        assert_eq!(
            error(accept(&run.offered, &run.a, peer, &forged)),
            ExchangeError::InvalidSignature
        );
    }
    // LIVE and ABORT name the role of their sender.
    for role in [Role::A, Role::B] {
        let live = run.at_a.live(role);
        assert!(run.at_b.verify_live(role, &live));
        assert!(!run.at_a.verify_live(role.other(), &live));
        let mac = run.at_a.abort_mac(role, 5, SuiteId::HYBRID);
        assert!(run.at_b.verify_abort(role, 5, SuiteId::HYBRID, &mac));
        assert!(
            !run.at_b
                .verify_abort(role.other(), 5, SuiteId::HYBRID, &mac)
        );
        assert!(!run.at_b.verify_abort(role, 4, SuiteId::HYBRID, &mac));
        assert!(!run.at_b.verify_abort(role, 5, SuiteId::WIREGUARD, &mac));
    }
}

#[test]
fn only_the_smaller_id_offers() {
    let [a, b] = nodes();
    // B offers, A would answer.
    let (offered, bytes) = offer(&b, &a, 1);
    let parsed = Offer::parse(&bytes).expect("valid");
    let (party, random) = (a.party(), &mut Dice(1));
    let hello_a = hello(&[2, 1], 1);
    let suite = SuiteId::HYBRID;
    let answer = exchange::reply(&party, hello_a, suite, &b.id, &parsed, &bytes, None, random);
    assert_eq!(error(answer), ExchangeError::WrongRole);
    // B takes its own OFFER for one of A.
    let (_, answer) = reply(&b, &a, &bytes, suite).expect("B is B");
    for (node, peer) in [(&b, &a.id), (&b, &b.id), (&a, &b.id)] {
        assert_eq!(
            error(accept(&offered, node, peer, &answer)),
            ExchangeError::InvalidSignature
        );
    }
    assert_eq!(Role::of(&a.id, &b.id), Role::B.other());
    assert_eq!(Role::of(&b.id, &a.id), Role::A.other());
    assert_eq!(Role::of(&a.id, &a.id), Role::B);
}

#[test]
fn messages_of_another_exchange_are_refused() {
    let (first, second) = (Run::new(SuiteId::HYBRID, 1), Run::new(SuiteId::HYBRID, 2));
    let b = &first.b.id;
    assert_ne!(first.at_a.psk(), second.at_a.psk());
    for (run, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(
            error(accept(&run.offered, &run.a, b, &other.reply)),
            ExchangeError::InvalidSignature
        );
        assert_eq!(
            error(run.replied.accept_fin(&run.a.id, &other.fin)),
            ExchangeError::InvalidSignature
        );
        assert!(!run.at_a.verify_done(&other.at_b.done()));
        assert!(!run.at_a.verify_live(Role::B, &other.at_b.live(Role::B)));
    }
    // The same OFFER answered twice: each REPLY has its own FIN, even under the same epoch.
    let parsed = Offer::parse(&first.offer).expect("valid");
    let (again, _) = exchange::reply(
        &first.b.party(),
        hello(&[1, 2, 3], 0xb1),
        SuiteId::HYBRID,
        &first.a.id,
        &parsed,
        &first.offer,
        None,
        &mut Dice(0xb1),
    )
    .expect("a REPLY");
    assert_eq!(
        error(again.accept_fin(&first.a.id, &first.fin)),
        ExchangeError::InvalidSignature
    );
}

#[test]
fn who_one_talks_to_is_part_of_the_exchange() {
    let [a, b, c] = nodes();
    // A offers to C; the attacker hands it to B as if it were for B.
    let (offered, bytes) = offer(&a, &c, 1);
    let (replied, answer) = reply(&b, &a, &bytes, SuiteId::HYBRID).expect("B takes it for its own");
    for peer in [&b.id, &c.id] {
        assert_eq!(
            error(accept(&offered, &a, peer, &answer)),
            ExchangeError::InvalidSignature
        );
    }
    // C helps: it signs what A computes, but it has no keys that fit.
    let signed = Reply::signed_part(&answer);
    let th0 = schedule::th0(&NETWORK, &a.id, &c.id);
    let th2 = schedule::absorb(&schedule::absorb(&th0, &bytes), signed);
    let signature = sign::sign(&c.secret, CONTEXT_B, &th2, &[1; 32]);
    let confirmation = Reply::parse(&answer).expect("valid").confirmation;
    let end = Fin {
        signature,
        confirmation,
    };
    let forged = [signed, &end.emit()].concat();
    assert_eq!(
        error(accept(&offered, &a, &c.id, &forged)),
        ExchangeError::InvalidConfirmation
    );
    // C answers honestly, and A's FIN for C is handed to B.
    let (_, honest) = reply(&c, &a, &bytes, SuiteId::HYBRID).expect("a REPLY");
    let (_, fin) = accept(&offered, &a, &c.id, &honest).expect("a FIN");
    assert_eq!(
        error(replied.accept_fin(&a.id, &fin)),
        ExchangeError::InvalidSignature
    );
    // B takes the FIN of C for that of A.
    let run = Run::new(SuiteId::HYBRID, 1);
    assert_eq!(
        error(run.replied.accept_fin(&c.id, &run.fin)),
        ExchangeError::InvalidSignature
    );
}

#[test]
fn two_networks_do_not_agree_even_if_their_ids_begin_alike() {
    let [a, mut b] = nodes();
    let mut network = *NETWORK.as_bytes();
    network[31] ^= 1;
    b.network = NetworkId::from_bytes(network);
    assert_eq!(
        Hello::network_prefix(&a.network),
        Hello::network_prefix(&b.network)
    );
    let (offered, bytes) = offer(&a, &b, 1);
    let (_, answer) = reply(&b, &a, &bytes, SuiteId::HYBRID).expect("a REPLY");
    assert_eq!(
        error(accept(&offered, &a, &b.id, &answer)),
        ExchangeError::InvalidSignature
    );
}

/// A REPLY and a FIN by who has every key of the exchange, but not the node's own.
#[test]
fn the_right_keys_do_not_replace_the_signature() {
    let [a, b, mallory] = nodes();
    let posing = |id| Party {
        node_id: id,
        ..mallory.party()
    };
    let (offered, bytes) = offer(&a, &b, 1);
    let parsed = Offer::parse(&bytes).expect("valid");
    let (hello_b, suite) = (hello(&[2, 1], 9), SuiteId::HYBRID);
    let (party, random) = (posing(b.id), &mut Dice(1));
    let (_, answer) = exchange::reply(&party, hello_b, suite, &a.id, &parsed, &bytes, None, random)
        .expect("a REPLY");
    assert_eq!(
        error(accept(&offered, &a, &b.id, &answer)),
        ExchangeError::InvalidSignature
    );
    // And a FIN with the right confirmation.
    let (replied, answer) = reply(&b, &a, &bytes, suite).expect("a REPLY");
    let parsed = Reply::parse(&answer).expect("valid");
    let (_, fin) = offered
        .accept_reply(&posing(a.id), &b.id, &parsed, &answer, &mut Dice(1))
        .expect("a FIN signed by another key");
    assert_eq!(
        error(replied.accept_fin(&a.id, &fin)),
        ExchangeError::InvalidSignature
    );
}

/// The signing key alone, as somebody has it who broke the classical half: no keys, no agreement.
#[test]
fn the_right_signature_does_not_replace_the_keys() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let th0 = schedule::th0(&NETWORK, &run.a.id, &run.b.id);
    let signed = Reply::signed_part(&run.reply);
    let th2 = schedule::absorb(&schedule::absorb(&th0, &run.offer), signed);
    let end = Fin {
        signature: sign::sign(&run.b.secret, CONTEXT_B, &th2, &[1; 32]),
        confirmation: *schedule::hmac(&[9; 32], &[&th2]),
    };
    let forged = [signed, &end.emit()].concat();
    assert_eq!(
        error(accept(&run.offered, &run.a, &run.b.id, &forged)),
        ExchangeError::InvalidConfirmation
    );
    let reply = Reply::parse(&run.reply).expect("valid");
    let th3 = schedule::absorb_proof(&th2, &reply.signature, &reply.confirmation);
    let fin = Fin {
        signature: sign::sign(&run.a.secret, CONTEXT_A, &th3, &[1; 32]),
        confirmation: Fin::parse(&run.fin).expect("valid").confirmation,
    };
    assert_eq!(
        error(run.replied.accept_fin(&run.a.id, &fin.emit())),
        ExchangeError::InvalidConfirmation
    );
}

/// Shares of small order, and values that reduce to them; RFC 7748, section 6.1.
#[test]
fn a_share_of_small_order_is_refused() {
    let p_plus = |n: u8| {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xed_u8.wrapping_add(n);
        bytes[31] = 0x7f;
        bytes
    };
    let mut one = [0; 32];
    one[0] = 1;
    let shares = [[0; 32], one, p_plus(0), p_plus(1), p_plus(0xff)];
    let run = Run::new(SuiteId::HYBRID, 1);
    let th0 = schedule::th0(&NETWORK, &run.a.id, &run.b.id);
    for share in shares {
        let mut bytes = run.offer.clone();
        bytes[OFFER_EPHEMERAL..OFFER_EK].copy_from_slice(&share);
        let answer = reply(&run.b, &run.a, &bytes, SuiteId::HYBRID);
        assert_eq!(error(answer), ExchangeError::ZeroShare);

        // Even if B signs it.
        let mut forged = Reply::parse(&run.reply).expect("valid");
        forged.ephemeral = share;
        let bytes = forged.emit();
        let signed = Reply::signed_part(&bytes);
        let th2 = schedule::absorb(&schedule::absorb(&th0, &run.offer), signed);
        forged.signature = sign::sign(&run.b.secret, CONTEXT_B, &th2, &[1; 32]);
        assert_eq!(
            error(accept(&run.offered, &run.a, &run.b.id, &forged.emit())),
            ExchangeError::ZeroShare
        );
    }
}

/// FIPS 203, section 7.2: coefficients are below 3329.
#[test]
fn an_invalid_kem_key_is_refused() {
    let run = Run::new(SuiteId::HYBRID, 1);
    let mut bytes = run.offer.clone();
    bytes[OFFER_EK..OFFER_EK + 3].copy_from_slice(&[0x01, 0x0d, 0]); // 3329, 0
    assert_eq!(
        error(reply(&run.b, &run.a, &bytes, SuiteId::HYBRID)),
        ExchangeError::InvalidKemKey
    );
    // As B's static key it counts as none.
    let [a, b] = nodes();
    let hello = hello(&[3, 2], 1);
    let ek = [0xff; EK_LEN];
    let (_, bytes) = exchange::offer(&a.party(), hello, 1, &b.id, Some(&ek), &mut Dice(1));
    assert_eq!(Offer::parse(&bytes).expect("valid").static_ct, None);
}

#[test]
fn suite_3_needs_the_static_keys_of_both() {
    let run = Run::new(SuiteId::HYBRID_STATIC, 1);
    let (a, b) = (&run.a, &run.b);
    let suite = SuiteId::HYBRID_STATIC;
    let without = |party| Party {
        static_kem: None,
        ..party
    };
    let answer = |party: Party<'_>, bytes: &[u8], ek| {
        let parsed = Offer::parse(bytes).expect("valid");
        let hello = hello(&[3], 2);
        exchange::reply(
            &party,
            hello,
            suite,
            &a.id,
            &parsed,
            bytes,
            ek,
            &mut Dice(2),
        )
    };
    let ek_of_a = Some(a.kem.encapsulation_key());
    let (plain, plain_offer) =
        exchange::offer(&a.party(), hello(&[3], 1), 7, &b.id, None, &mut Dice(1));
    for refused in [
        answer(b.party(), &plain_offer, ek_of_a),
        answer(without(b.party()), &run.offer, ek_of_a),
        answer(b.party(), &run.offer, None),
    ] {
        assert_eq!(error(refused), ExchangeError::MissingStatic);
    }
    let parsed = Reply::parse(&run.reply).expect("valid");
    let party = without(a.party());
    let refused = run
        .offered
        .accept_reply(&party, &b.id, &parsed, &run.reply, &mut Dice(1));
    assert_eq!(error(refused), ExchangeError::MissingStatic);

    // B says suite 3 in a REPLY of suite 2, and signs it; and to an OFFER without a ciphertext.
    let (_, answer) = reply(b, a, &plain_offer, SuiteId::HYBRID).expect("a REPLY");
    let th0 = schedule::th0(&NETWORK, &a.id, &b.id);
    let th1 = schedule::absorb(&th0, &plain_offer);
    for static_ct in [None, parsed.static_ct] {
        let mut forged = Reply::parse(&answer).expect("valid");
        forged.chosen = suite;
        forged.static_ct = static_ct;
        let th2 = schedule::absorb(&th1, Reply::signed_part(&forged.emit()));
        forged.signature = sign::sign(&b.secret, CONTEXT_B, &th2, &[1; 32]);
        assert_eq!(
            error(accept(&plain, a, &b.id, &forged.emit())),
            ExchangeError::MissingStatic
        );
    }
}

/// Who has broken every classical key still needs the static ML-KEM keys for suite 3.
#[test]
fn suite_3_is_not_agreed_with_another_static_key() {
    let [a, b] = nodes();
    let kem = KemSecret::from_seed(&[9; 64]);
    let with_other = |party| Party {
        static_kem: Some(&kem),
        ..party
    };
    let (offered, bytes) = offer(&a, &b, 1);
    let parsed = Offer::parse(&bytes).expect("valid");
    let suite = SuiteId::HYBRID_STATIC;
    let (party, random) = (with_other(b.party()), &mut Dice(2));
    let (hello_b, ek) = (hello(&[3], 2), Some(a.kem.encapsulation_key()));
    let (_, answer) = exchange::reply(&party, hello_b, suite, &a.id, &parsed, &bytes, ek, random)
        .expect("a REPLY");
    assert_eq!(
        error(accept(&offered, &a, &b.id, &answer)),
        ExchangeError::InvalidConfirmation
    );
    let (_, answer) = reply(&b, &a, &bytes, suite).expect("a REPLY");
    let parsed = Reply::parse(&answer).expect("valid");
    let party = with_other(a.party());
    let refused = offered.accept_reply(&party, &b.id, &parsed, &answer, &mut Dice(1));
    assert_eq!(error(refused), ExchangeError::InvalidConfirmation);
}
