//! What the handshake promises: both sides come to the same keys, only with the right secrets,
//! and a refused message changes nothing.

use crate::support::{
    Pair, at, identity, parse_initiation, parse_response, psk, remac, room_around,
};
use proptest::prelude::*;
use wiremesh_noise::{
    HandshakeError, LocalIdentity, RemoteIdentity, Role, SessionKeys, create_initiation,
    open_initiation, open_initiation_from, verify_mac1,
};
use wiremesh_wire::{PresharedKey, SecretKey, Tai64n};

/// A point of order four on the curve.
const SMALL_ORDER: [u8; 32] = {
    let mut point = [0u8; 32];
    point[0] = 1;
    point
};

fn agree(from: &SessionKeys, to: &SessionKeys) -> bool {
    let mut datagram = room_around(b"sixteen bytes ..");
    from.sealing
        .seal_with_counter(from.remote_index, 5, &mut datagram)
        .expect("room and counter are fine");
    from.remote_index == to.local_index
        && to.opening.open_with_counter(5, &mut datagram[16..]).is_ok()
}

#[test]
fn both_sides_come_to_the_same_keys() {
    let (ours, theirs) = Pair::new(1, 2).handshake(&psk(0));
    assert!(agree(&ours, &theirs) && agree(&theirs, &ours));
    assert!(
        !agree(&ours, &ours),
        "the two directions have different keys"
    );
    assert_eq!((ours.role, theirs.role), (Role::Initiator, Role::Responder));
    assert_eq!((ours.local_index, ours.remote_index), (7, 9));
    assert_eq!((theirs.local_index, theirs.remote_index), (9, 7));
}

#[test]
fn spoofed_response_does_not_clear_the_pending_handshake() {
    let pair = Pair::new(1, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let (response, theirs) = proven.respond(&psk(0), &[4; 32], 9).expect("responds");

    let mut spoofed = response.clone();
    spoofed.encrypted_nothing = [0xff; 16];
    let refused = pending.consume_response(&pair.initiator, &spoofed, &psk(0));
    assert_eq!(refused.err(), Some(HandshakeError::Authentication));

    spoofed.ephemeral = SMALL_ORDER;
    let refused = pending.consume_response(&pair.initiator, &spoofed, &psk(0));
    assert_eq!(refused.err(), Some(HandshakeError::ZeroProduct));

    let ours = pending
        .consume_response(&pair.initiator, &response, &psk(0))
        .expect("the true response still counts");
    assert!(agree(&ours, &theirs));
}

/// Every bit of a response that an attacker can change: mac1 is made again after each flip, as
/// everyone can who knows the initiator's node id.
#[test]
fn bit_flips_in_a_response_are_refused() {
    let pair = Pair::new(1, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let (response, _) = proven.respond(&psk(5), &[4; 32], 9).expect("responds");
    let bytes = response.emit();
    for bit in 4 * 8..76 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify_mac1(&pair.initiator, &damaged), "bit {bit}");
    }
    for bit in 8 * 8..60 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        remac(&mut damaged, &pair.initiator.node_id());
        assert!(verify_mac1(&pair.initiator, &damaged));
        let refused = pending.consume_response(&pair.initiator, &parse_response(&damaged), &psk(5));
        let expected = if bit < 12 * 8 {
            HandshakeError::WrongReceiver
        } else {
            HandshakeError::Authentication
        };
        assert_eq!(refused.err(), Some(expected), "bit {bit}");
    }
    assert!(
        pending
            .consume_response(&pair.initiator, &response, &psk(5))
            .is_ok()
    );
}

#[test]
fn bit_flips_in_an_initiation_are_refused() {
    let pair = Pair::new(1, 2);
    let (initiation, _) = create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let bytes = initiation.emit();
    for bit in 4 * 8..132 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify_mac1(&pair.responder, &damaged), "bit {bit}");
    }
    for bit in 8 * 8..116 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        remac(&mut damaged, &pair.responder.node_id());
        assert!(verify_mac1(&pair.responder, &damaged));
        let refused = pair.authenticate(&parse_initiation(&damaged));
        assert_eq!(
            refused.err(),
            Some(HandshakeError::Authentication),
            "bit {bit}"
        );
    }
    assert!(pair.authenticate(&initiation).is_ok());
}

#[test]
fn ephemeral_of_small_order_is_refused() {
    let pair = Pair::new(1, 2);
    let (mut initiation, _) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    initiation.ephemeral = SMALL_ORDER;
    let refused = open_initiation(&pair.responder, &initiation);
    assert_eq!(refused.err(), Some(HandshakeError::ZeroProduct));
}

#[test]
fn initiation_for_another_node_is_refused() {
    let (pair, other) = (Pair::new(1, 2), identity(3));
    let (initiation, _) = create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    assert!(!verify_mac1(&other, &initiation.emit()));
    let refused = open_initiation(&other, &initiation);
    assert_eq!(refused.err(), Some(HandshakeError::Authentication));
}

/// The first message shows the initiator's key to the responder, so a stranger can claim one; the
/// static-static product is what it cannot make.
#[test]
fn initiator_that_claims_a_key_it_does_not_hold_is_refused() {
    use wiremesh_noise::crypto::{DhSecret, aead_seal, hash, kdf1, kdf2};
    let pair = Pair::new(1, 2);
    let stranger = identity(3);
    let to_responder = RemoteIdentity::new(&stranger, pair.responder.node_id());
    let (mut initiation, _) = create_initiation(&stranger, &to_responder, [3; 32], 7, at(1));

    // The same first steps as a true initiator's, with another's static key inside.
    let ephemeral = DhSecret::new(&[3; 32]);
    let chaining = hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]);
    let transcript = hash(&[&chaining, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
    let transcript = hash(&[&transcript, pair.responder.node_id().as_bytes()]);
    let transcript = hash(&[&transcript, ephemeral.public()]);
    let chaining = kdf1(&chaining, ephemeral.public());
    let product = ephemeral
        .agree(pair.responder.node_id().as_bytes())
        .expect("not zero");
    let (_, key) = kdf2(&chaining[..], &product[..]);
    initiation.encrypted_static[..32].copy_from_slice(pair.initiator.node_id().as_bytes());
    aead_seal(&key, 0, &transcript, &mut initiation.encrypted_static);

    let opened = open_initiation(&pair.responder, &initiation).expect("the claim decrypts");
    assert_eq!(opened.peer(), pair.initiator.node_id());
    let refused = opened.authenticate(&pair.to_initiator);
    assert_eq!(refused.err(), Some(HandshakeError::Authentication));

    // A claimed key that is no node id is refused where it is parsed.
    initiation.encrypted_static[..32].copy_from_slice(&SMALL_ORDER);
    aead_seal(&key, 0, &transcript, &mut initiation.encrypted_static);
    let unknown = |bytes: &[u8; 32]| {
        assert_eq!(bytes, &SMALL_ORDER);
        None
    };
    for refused in [
        open_initiation(&pair.responder, &initiation),
        open_initiation_from(&pair.responder, &initiation, unknown),
    ] {
        let error = refused.err();
        assert!(matches!(error, Some(HandshakeError::InvalidNodeId(_))));
    }
}

#[test]
fn static_key_that_was_checked_before_is_asked_for_and_taken() {
    let pair = Pair::new(1, 2);
    let (initiation, _) = create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let known = |bytes: &[u8; 32]| {
        let id = pair.initiator.node_id();
        (bytes == id.as_bytes()).then_some(id)
    };
    let opened = open_initiation_from(&pair.responder, &initiation, known).expect("opens");
    assert_eq!(opened.peer(), pair.initiator.node_id());
    assert!(opened.authenticate(&pair.to_initiator).is_ok());
}

#[test]
fn identity_of_another_peer_does_not_authenticate() {
    let pair = Pair::new(1, 2);
    let (initiation, _) = create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let other = RemoteIdentity::new(&pair.responder, identity(3).node_id());
    let opened = open_initiation(&pair.responder, &initiation).expect("opens");
    assert_eq!(
        opened.authenticate(&other).err(),
        Some(HandshakeError::WrongPeer)
    );
}

/// The preshared key enters only with the response: one initiation can be answered under two
/// keys, and one response can be tried under two.
#[test]
fn each_preshared_key_makes_its_own_session() {
    let pair = Pair::new(1, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let (first, first_keys) = proven.respond(&psk(0), &[4; 32], 9).expect("responds");
    let (second, second_keys) = proven
        .respond(&psk(8), &[5; 32], 10)
        .expect("responds again");

    let (one, other) = (psk(0), psk(8));
    let consume = |response, key| pending.consume_response(&pair.initiator, response, key);
    assert_eq!(
        consume(&first, &other).err(),
        Some(HandshakeError::Authentication)
    );
    assert_eq!(
        consume(&second, &one).err(),
        Some(HandshakeError::Authentication)
    );
    let first_ours = consume(&first, &one).expect("under the first key");
    let second_ours = consume(&second, &other).expect("under the second key");
    assert!(agree(&first_ours, &first_keys) && agree(&second_ours, &second_keys));
    assert!(!agree(&first_ours, &second_keys));
}

/// One call tries several keys, tells which one fits, and comes to the same session as a call
/// with that key alone.
#[test]
fn a_response_is_tried_under_several_preshared_keys() {
    let pair = Pair::new(1, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let keys = [psk(0), psk(8), psk(9)];
    let psks: Vec<&PresharedKey> = keys.iter().collect();
    for (place, key) in keys.iter().enumerate() {
        let (response, theirs) = proven.respond(key, &[4; 32], 9).expect("responds");
        let consumed = pending.consume_response_any(&pair.initiator, &response, &psks);
        let (fits, ours) = consumed.expect("under one of the keys");
        assert_eq!(fits, place);
        assert!(agree(&ours, &theirs));

        let others: Vec<&PresharedKey> = psks.iter().copied().filter(|k| *k != key).collect();
        for psks in [&others[..], &[]] {
            let refused = pending.consume_response_any(&pair.initiator, &response, psks);
            assert_eq!(refused.err(), Some(HandshakeError::Authentication));
        }
        // Of equal keys the first one counts.
        let consumed = pending.consume_response_any(&pair.initiator, &response, &[key, key]);
        assert_eq!(consumed.map(|(place, _)| place), Ok(0));

        let mut elsewhere = response.clone();
        elsewhere.receiver ^= 1;
        let refused = pending.consume_response_any(&pair.initiator, &elsewhere, &psks);
        assert_eq!(refused.err(), Some(HandshakeError::WrongReceiver));
    }
}

#[test]
fn initiator_with_another_static_key_cannot_consume_the_response() {
    let pair = Pair::new(1, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [3; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let (response, _) = proven.respond(&psk(0), &[4; 32], 9).expect("responds");
    let other = identity(3);
    assert!(!verify_mac1(&other, &response.emit()));
    let refused = pending.consume_response(&other, &response, &psk(0));
    assert_eq!(refused.err(), Some(HandshakeError::Authentication));
}

#[test]
fn macs_of_short_messages_are_refused() {
    let local = identity(1);
    for len in 0..40 {
        assert!(!verify_mac1(&local, &vec![0; len]));
    }
}

#[test]
fn secrets_are_not_printed() {
    let pair = Pair::new(0x5a, 2);
    let (initiation, pending) =
        create_initiation(&pair.initiator, &pair.to_responder, [0xa5; 32], 7, at(1));
    let proven = pair.authenticate(&initiation).expect("a true initiation");
    let (_, keys) = proven.respond(&psk(0), &[4; 32], 9).expect("responds");
    let id = pair.initiator.node_id();
    assert_eq!(
        format!("{:?}", pair.initiator),
        format!("LocalIdentity {{ node_id: {id:?}, .. }}")
    );
    assert_eq!(
        format!("{:?}", pair.to_initiator),
        format!("RemoteIdentity {{ node_id: {id:?}, .. }}")
    );
    assert_eq!(
        format!("{pending:?}"),
        "InitiatorHandshake { local_index: 7, .. }"
    );
    let printed = format!("{keys:?}");
    assert!(printed.contains("SealingKey(..)") && printed.contains("OpeningKey(..)"));
}

#[test]
fn long_lived_values_stay_small() {
    assert!(size_of::<RemoteIdentity>() <= 128);
    assert!(size_of::<LocalIdentity>() <= 256);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_secrets_come_to_the_same_keys(
        initiator: [u8; 32],
        responder: [u8; 32],
        ephemerals: ([u8; 32], [u8; 32]),
        indices: (u32, u32),
        key: [u8; 32],
        wrong: [u8; 32],
        stamp: [u8; 12],
    ) {
        let local = |secret| {
            LocalIdentity::new(SecretKey::from_bytes(secret)).expect("a clamped secret")
        };
        let (initiator, responder) = (local(initiator), local(responder));
        let to_responder = RemoteIdentity::new(&initiator, responder.node_id());
        let to_initiator = RemoteIdentity::new(&responder, initiator.node_id());
        let key = PresharedKey::from_bytes(key);
        let stamp = Tai64n::from_bytes(stamp);

        let (initiation, pending) =
            create_initiation(&initiator, &to_responder, ephemerals.0, indices.0, stamp);
        let initiation = parse_initiation(&initiation.emit());
        prop_assert!(verify_mac1(&responder, &initiation.emit()));
        let proven = open_initiation(&responder, &initiation)
            .and_then(|opened| opened.authenticate(&to_initiator))
            .expect("a true initiation");
        prop_assert_eq!(proven.peer(), initiator.node_id());
        prop_assert_eq!(proven.timestamp(), stamp);
        let (response, theirs) =
            proven.respond(&key, &ephemerals.1, indices.1).expect("responds");
        let response = parse_response(&response.emit());
        prop_assert!(verify_mac1(&initiator, &response.emit()));

        let wrong = PresharedKey::from_bytes(wrong);
        if wrong != key {
            let refused = pending.consume_response(&initiator, &response, &wrong);
            prop_assert_eq!(refused.err(), Some(HandshakeError::Authentication));
        }
        let ours = pending.consume_response(&initiator, &response, &key).expect("consumes");
        prop_assert!(agree(&ours, &theirs) && agree(&theirs, &ours));
    }

    #[test]
    fn random_messages_never_open(message: [[u8; 32]; 5]) {
        let local = identity(1);
        let mut bytes = [0u8; 148];
        bytes.copy_from_slice(&message.concat()[..148]);
        bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
        prop_assert!(!verify_mac1(&local, &bytes));
        prop_assert!(open_initiation(&local, &parse_initiation(&bytes)).is_err());
    }
}
