//! The layouts of the control messages: limits, refusals, and that reading and writing agree.

use crate::support::{Dice, hello, suites};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use wiremesh_control::frame::MESSAGE_MAX;
use wiremesh_control::kem::EK_LEN;
use wiremesh_control::message::{
    Abort, AbortCode, CAP_STATIC_CT, Fin, Hello, Key, Live, MessageError, OFFER_MAX, Offer,
    PROOF_MAX, Reply,
};
use wiremesh_control::record::RECORD_LEN_MAX;
use wiremesh_control::{Level, Random, SuiteId, Suites, SuitesError};

/// Where fields are in an OFFER with three suites, and where its TLVs begin.
const AT_EPOCH: usize = 16;
const AT_LEVEL: usize = 20;
const AT_COUNT: usize = 22;
const AT_SUITES: usize = 23;
const AT_CAPS: usize = 69;
const AT_TLVS: usize = AT_CAPS + 1 + 32 + EK_LEN;

fn filled<const N: usize>(number: u64) -> Box<[u8; N]> {
    let mut bytes = Box::new([0; N]);
    Dice(number).fill(&mut *bytes);
    bytes
}

fn offer() -> Offer {
    Offer {
        hello: hello(&[3, 2, 1], 5),
        epoch: 9,
        ephemeral: *filled(1),
        ek: filled(2),
        static_ct: None,
    }
}

fn reply() -> Reply {
    Reply {
        hello: hello(&[3, 2, 1], 6),
        chosen: SuiteId::HYBRID,
        ephemeral: *filled(1),
        ct: filled(2),
        static_ct: Some(filled(3)),
        signature: *filled(4),
        confirmation: *filled(5),
    }
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Offer, MessageError> {
    let mut bytes = offer().emit();
    change(&mut bytes);
    Offer::parse(&bytes)
}

/// An OFFER with these TLVs instead of its own.
fn with_tlvs(tlvs: &[(u8, usize)]) -> Result<Offer, MessageError> {
    changed(|bytes| {
        bytes.truncate(AT_TLVS);
        for (kind, len) in tlvs {
            bytes.push(*kind);
            bytes.extend_from_slice(&(*len as u16).to_be_bytes());
            bytes.extend(vec![*kind; *len]);
        }
    })
}

#[test]
fn the_longest_offer_and_reply_fit_into_a_message() {
    let numbers: Vec<u16> = (1..=16).collect();
    let hello = Hello {
        record: Some(vec![1; RECORD_LEN_MAX]),
        proof: Some(vec![2; PROOF_MAX]),
        ..hello(&numbers, 5)
    };
    let offer = Offer {
        hello: hello.clone(),
        static_ct: Some(filled(3)),
        ..offer()
    };
    assert_eq!(offer.emit().len(), OFFER_MAX);
    let reply = Reply { hello, ..reply() };
    assert!(reply.emit().len() < OFFER_MAX && OFFER_MAX <= MESSAGE_MAX);
    for (hello, parsed) in [
        (&offer.hello, Offer::parse(&offer.emit()).map(|o| o.hello)),
        (&reply.hello, Reply::parse(&reply.emit()).map(|r| r.hello)),
    ] {
        let parsed = parsed.expect("the longest one is valid");
        assert_eq!(parsed.record, hello.record);
        assert_eq!(parsed.proof, hello.proof);
    }
}

#[test]
fn a_record_or_proof_that_nobody_would_read_is_left_out() {
    let mut offer = offer();
    offer.hello.record = Some(vec![1; RECORD_LEN_MAX + 1]);
    offer.hello.proof = Some(vec![2; PROOF_MAX + 1]);
    let parsed = Offer::parse(&offer.emit()).expect("still valid");
    assert_eq!((parsed.hello.record, parsed.hello.proof), (None, None));
}

#[test]
fn fields_out_of_range_are_refused() {
    use MessageError as E;
    let list = |numbers: [u16; 3]| {
        changed(move |bytes| {
            for (i, number) in numbers.iter().enumerate() {
                let at = AT_SUITES + 2 * i;
                bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
            }
        })
    };
    let cases = [
        (changed(|b| b[AT_EPOCH + 3] = 0), E::BootEpoch),
        (changed(|b| b[AT_LEVEL + 1] = 0), E::UnknownLevel(0)),
        (changed(|b| b[AT_LEVEL + 1] = 4), E::UnknownLevel(4)),
        (changed(|b| b[AT_LEVEL] = 1), E::UnknownLevel(0x101)),
        (changed(|b| b[AT_COUNT] = 0), E::Suites(SuitesError::Empty)),
        (
            changed(|b| {
                b[AT_COUNT] = 17;
                let numbers = (0..14).flat_map(|n: u16| (100 + n).to_be_bytes());
                b.splice(AT_SUITES + 6..AT_SUITES + 6, numbers);
            }),
            E::Suites(SuitesError::TooMany),
        ),
        (
            list([3, 1, 3]),
            E::Suites(SuitesError::Duplicate(SuiteId(3))),
        ),
        (changed(|b| b.truncate(AT_TLVS)), E::NoNetwork),
        (changed(|b| b[AT_CAPS] |= CAP_STATIC_CT), E::Truncated),
    ];
    for (parsed, error) in cases {
        assert_eq!(parsed, Err(error));
    }
    assert!(list([3, 1, 0x7777]).is_ok());
}

#[test]
fn tlvs_have_limits_and_unknown_ones_are_skipped() {
    use MessageError as E;
    type Case = (&'static [(u8, usize)], Option<MessageError>);
    let cases: [Case; 15] = [
        (&[(2, 8)], None),
        (&[(3, 5), (2, 8), (1, 5)], None),
        (&[(4, 0), (2, 8), (255, 1000), (4, 1)], None),
        (&[(0, 0), (2, 8)], None),
        (&[(1, 0), (2, 8), (3, 0)], None),
        (&[(1, RECORD_LEN_MAX), (2, 8)], None),
        (&[(1, RECORD_LEN_MAX + 1), (2, 8)], Some(E::WrongLength(1))),
        (&[(2, 8), (3, PROOF_MAX)], None),
        (&[(2, 8), (3, PROOF_MAX + 1)], Some(E::WrongLength(3))),
        (&[(2, 7)], Some(E::WrongLength(2))),
        (&[(2, 9)], Some(E::WrongLength(2))),
        (&[(1, 5), (3, 5)], Some(E::NoNetwork)),
        (&[(2, 8), (2, 8)], Some(E::Repeated(2))),
        (&[(1, 5), (2, 8), (1, 5)], Some(E::Repeated(1))),
        (&[(3, 0), (2, 8), (3, 0)], Some(E::Repeated(3))),
    ];
    for (tlvs, error) in cases {
        assert_eq!(with_tlvs(tlvs).err(), error, "{tlvs:?}");
    }
}

#[test]
fn unknown_capabilities_are_kept_and_mean_nothing() {
    let parsed = changed(|b| b[AT_CAPS] = !CAP_STATIC_CT).expect("valid");
    assert_eq!(parsed.hello.caps, !CAP_STATIC_CT);
    assert_eq!(parsed.static_ct, None);
}

#[test]
fn the_static_ciphertext_is_announced_by_its_presence_alone() {
    let mut offer = offer();
    for (caps, static_ct, announced) in [
        (0xff, None, !CAP_STATIC_CT),
        (0, Some(filled(3)), CAP_STATIC_CT),
    ] {
        offer.hello.caps = caps;
        offer.static_ct = static_ct;
        let parsed = Offer::parse(&offer.emit()).expect("valid");
        assert_eq!(parsed.hello.caps, announced);
        assert_eq!(parsed.static_ct, offer.static_ct);
    }
}

/// A shorter body is refused, but for one: without the last TLV it is an OFFER or REPLY that says
/// less. Then the transcript differs, as `exchange.rs` shows.
#[test]
fn cut_bodies_are_refused_unless_the_cut_is_between_two_tlvs() {
    let offer = Offer {
        static_ct: Some(filled(3)),
        ..offer()
    };
    let proof = offer
        .hello
        .proof
        .as_ref()
        .map_or(0, |proof| 3 + proof.len());
    let bytes = offer.emit();
    let without_proof = bytes.len() - proof;
    for len in 0..bytes.len() {
        let parsed = Offer::parse(&bytes[..len]);
        assert_eq!(parsed.is_ok(), len == without_proof, "{len}");
    }
    let bytes = reply().emit();
    let without_proof = bytes.len() - proof;
    for len in 0..bytes.len() {
        let parsed = Reply::parse(&bytes[..len]);
        assert_eq!(parsed.is_ok(), len == without_proof, "{len}");
    }
}

#[test]
fn one_or_two_trailing_bytes_are_never_a_tlv() {
    for extra in [&[0][..], &[9], &[0, 0], &[4, 0], &[4, 0, 1]] {
        let parsed = changed(|bytes| bytes.extend_from_slice(extra));
        assert_eq!(parsed, Err(MessageError::Truncated));
    }
    let reply = reply().emit();
    for extra in 1..3 {
        assert!(Reply::parse(&[&reply[..], &vec![0; extra]].concat()).is_err());
    }
}

#[test]
fn bodies_of_fixed_length_are_refused_at_every_other_length() {
    for len in 0..300 {
        let bytes = vec![1; len];
        assert_eq!(Fin::parse(&bytes).is_ok(), len == 96, "FIN of {len}");
        assert_eq!(Live::parse(&bytes).is_ok(), len == 36, "LIVE of {len}");
    }
    assert_eq!(Fin::parse(&[0; 97]), Err(MessageError::Trailing));
    assert_eq!(Live::parse(&[0; 37]), Err(MessageError::Trailing));
}

#[test]
fn abort_codes_have_their_numbers_and_unknown_ones_pass() {
    for number in 0..=u16::MAX {
        let code = AbortCode::from_number(number);
        assert_eq!(code.is_some(), (1..=7).contains(&number));
        assert!(code.is_none_or(|code| code.number() == number));
    }
    let unknown = Abort::parse(&[0x12, 0x34, 0, 3, 0xfe]).expect("valid");
    assert_eq!((unknown.code, unknown.mac), (0x1234, None));
    for len in 0..5 {
        let cut = Abort::parse(&[0, 1, 0, 3, 0][..len]);
        assert_eq!(cut, Err(MessageError::Truncated));
    }
    let no_mac = Abort::parse(&[&[0, 1, 0, 3, 1][..], &[0; 31]].concat());
    assert_eq!(no_mac, Err(MessageError::Truncated));
}

#[test]
fn key_has_a_whole_key_or_none() {
    let key = Key {
        record: vec![7; 20],
        ek: Some(filled(1)),
    };
    let bytes = key.emit();
    for len in 0..bytes.len() {
        let parsed = Key::parse(&bytes[..len]);
        assert_eq!(parsed.is_ok(), len == 22, "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Key::parse(&longer), Err(MessageError::Trailing));
    for len in [RECORD_LEN_MAX, RECORD_LEN_MAX + 1] {
        let bytes = [&(len as u16).to_be_bytes()[..], &vec![7; len]].concat();
        assert_eq!(Key::parse(&bytes).is_ok(), len == RECORD_LEN_MAX);
        let (record, ek) = (vec![7; len], None);
        let kept = Key { record, ek }.emit().len() > 2;
        assert_eq!(kept, len == RECORD_LEN_MAX);
    }
}

fn any_suites() -> impl Strategy<Value = Suites> {
    btree_set(any::<u16>(), 1..=16).prop_map(|set| suites(&set.into_iter().collect::<Vec<u16>>()))
}

prop_compose! {
    fn any_hello()(
        nonce in any::<[u8; 16]>(),
        level in 0..3_usize,
        suites in any_suites(),
        own_seq in any::<u64>(),
        peer_record in any::<[u8; 32]>(),
        caps in any::<u8>(),
        record in option::of(vec(any::<u8>(), 0..=RECORD_LEN_MAX)),
        proof in option::of(vec(any::<u8>(), 0..300)),
        network in any::<[u8; 8]>(),
    ) -> Hello {
        let min_level = Level::ALL[level];
        let caps = caps & !CAP_STATIC_CT;
        Hello { nonce, min_level, suites, own_seq, peer_record, caps, record, proof, network }
    }
}

prop_compose! {
    fn any_offer()(
        hello in any_hello(),
        epoch in 1..=u32::MAX,
        seed in any::<u32>(),
        with_ct in any::<bool>(),
    ) -> Offer {
        let static_ct = with_ct.then(|| filled(seed.into()));
        let mut hello = hello;
        hello.caps |= if with_ct { CAP_STATIC_CT } else { 0 };
        let (ephemeral, ek) = (*filled(seed.into()), filled(seed.into()));
        Offer { hello, epoch, ephemeral, ek, static_ct }
    }
}

prop_compose! {
    fn any_reply()(offer in any_offer(), chosen in any::<u16>(), seed in any::<u32>()) -> Reply {
        let Offer { hello, ephemeral, static_ct, .. } = offer;
        Reply {
            hello,
            chosen: SuiteId(chosen),
            ephemeral,
            ct: filled(seed.into()),
            static_ct,
            signature: *filled(seed.into()),
            confirmation: *filled(seed.into()),
        }
    }
}

prop_compose! {
    fn any_abort()(
        code in any::<u16>(),
        highest in any::<u16>(),
        mac in option::of(any::<[u8; 32]>()),
        record in option::of(vec(any::<u8>(), 0..=RECORD_LEN_MAX)),
    ) -> Abort {
        Abort { code, highest: SuiteId(highest), mac, record }
    }
}

prop_compose! {
    fn any_key()(
        record in vec(any::<u8>(), 0..=RECORD_LEN_MAX),
        seed in option::of(any::<u32>()),
    ) -> Key {
        Key { record, ek: seed.map(|seed| filled(seed.into())) }
    }
}

/// What reads is written and read again the same; unknown fields may be lost on the way.
fn reading_is_stable(bytes: &[u8]) {
    if let Ok(parsed) = Offer::parse(bytes) {
        assert_eq!(Offer::parse(&parsed.emit()), Ok(parsed));
    }
    if let Ok(parsed) = Reply::parse(bytes) {
        assert_eq!(Reply::parse(&parsed.emit()), Ok(parsed));
    }
    if let Ok(parsed) = Abort::parse(bytes) {
        assert_eq!(Abort::parse(&parsed.emit()), Ok(parsed));
    }
    if let Ok(parsed) = Key::parse(bytes) {
        assert_eq!(parsed.emit(), bytes);
    }
    if let Ok(parsed) = Fin::parse(bytes) {
        assert_eq!(parsed.emit(), bytes);
    }
    if let Ok(parsed) = Live::parse(bytes) {
        assert_eq!(parsed.emit(), bytes);
    }
    let _ = Reply::signed_part(bytes);
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(
        offer in any_offer(),
        reply in any_reply(),
        abort in any_abort(),
        key in any_key(),
    ) {
        prop_assert_eq!(Offer::parse(&offer.emit()), Ok(offer));
        prop_assert_eq!(Reply::parse(&reply.emit()), Ok(reply));
        prop_assert_eq!(Abort::parse(&abort.emit()), Ok(abort));
        prop_assert_eq!(Key::parse(&key.emit()), Ok(key));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..3_000)) {
        reading_is_stable(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_panics(
        offer in any_offer(),
        reply in any_reply(),
        abort in any_abort(),
        key in any_key(),
        which in 0..4_usize,
        damage in vec((any::<Index>(), any::<u8>(), 0..12_u8), 1..8),
    ) {
        let mut bytes = match which {
            0 => offer.emit(),
            1 => reply.emit(),
            2 => abort.emit(),
            _ => key.emit(),
        };
        for (at, value, how) in damage {
            // Most of it near the beginning, where the lengths are.
            let places = bytes.len() + 1;
            let at = at.index(if how < 3 { places } else { places.min(120) });
            match how {
                0 => bytes.insert(at, value),
                1 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
            }
        }
        reading_is_stable(&bytes);
    }
}
