//! Signed records: layout, limits and refusals. docs/spec.md section 7.2.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use blake2::{Blake2s256, Digest};
use curve25519_dalek::montgomery::MontgomeryPoint;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use wiremesh_control::record::{
    FIELD_ENDPOINTS, FIELD_RELAYS, FIELD_SUCCESSOR, LIFETIME_SECS_MAX, RECORD_LEN_MAX,
};
use wiremesh_control::sign;
use wiremesh_control::{
    Field, Level, Record, RecordError, SIGNATURE_LEN, SignedRecord, SuiteId, Suites, SuitesError,
};
use wiremesh_wire::{NetworkId, NodeId, SecretKey};

const CONTEXT: &[u8] = b"wiremesh record v1";
const RANDOM: [u8; 32] = [0x5a; 32];
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3_600;

/// Where the parts are, in a record with two suites.
const AT_NOT_BEFORE: usize = 41;
const AT_EXPIRY: usize = 49;
const AT_MIN_LEVEL: usize = 57;
const AT_CAPS: usize = 59;
const AT_COUNT: usize = 92;
const AT_FIELDS: usize = 97;

fn secret() -> SecretKey {
    SecretKey::from_bytes([0x42; 32])
}

fn node_id(secret: &SecretKey) -> NodeId {
    let public = MontgomeryPoint::mul_base_clamped(*secret.as_bytes()).0;
    NodeId::from_bytes(&public).expect("a valid public key")
}

fn suites(numbers: impl IntoIterator<Item = u16>) -> Suites {
    Suites::new(numbers.into_iter().map(SuiteId)).expect("a valid list")
}

fn record() -> Record {
    Record {
        network: NetworkId::from_bytes([0x11; 32]),
        seq: 0x0102_0304_0506_0708,
        not_before: NOW,
        expiry: NOW + DAY,
        min_level: Level::PostQuantum,
        caps: 0x81,
        kem_pk_hash: Some([0x22; 32]),
        suites: suites([3, 2]),
        fields: Vec::new(),
    }
}

fn signed(record: Record) -> Result<SignedRecord, RecordError> {
    SignedRecord::sign(record, &secret(), &RANDOM)
}

fn open(bytes: &[u8]) -> Result<SignedRecord, RecordError> {
    SignedRecord::open(bytes, &node_id(&secret()))
}

/// The bytes of the record above, without the signature.
fn body() -> Vec<u8> {
    let signed = signed(record()).expect("a valid record");
    signed.bytes()[..AT_FIELDS].to_vec()
}

/// Any bytes, with a signature that is valid.
fn forge(body: &[u8]) -> Vec<u8> {
    let signature = sign::sign(&secret(), CONTEXT, body, &RANDOM);
    [body, &signature].concat()
}

/// The error of the bytes, validly signed.
fn error(body: &[u8]) -> RecordError {
    open(&forge(body)).expect_err("a rule is broken")
}

fn field(kind: u8, len: usize) -> Field {
    Field {
        kind,
        value: vec![kind; len],
    }
}

#[test]
fn the_layout_is_that_of_the_specification() {
    let mut record = record();
    record.fields = vec![
        Field {
            kind: FIELD_RELAYS,
            value: b"relay".to_vec(),
        },
        Field {
            kind: FIELD_ENDPOINTS,
            value: Vec::new(),
        },
    ];
    let mut expected = vec![1];
    expected.extend([0x11; 32]);
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend([0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0x00]);
    expected.extend([0, 0, 0, 0, 0x6b, 0x4b, 0x23, 0x80]);
    expected.extend([0, 2, 0x81]);
    expected.extend([0x22; 32]);
    expected.extend([2, 0, 3, 0, 2]);
    expected.extend(*b"\x02\x00\x05relay\x01\x00\x00");
    let signed = signed(record.clone()).expect("a valid record");
    let (body, signature) = signed.bytes().split_at(expected.len());
    assert_eq!(body, expected);
    assert_eq!(signature.len(), SIGNATURE_LEN);
    assert_eq!(signed.record(), &record);

    let point = MontgomeryPoint(*node_id(&secret()).as_bytes()).to_edwards(0);
    let key = point.expect("on the curve").compress().0;
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(&[CONTEXT, body].concat(), signature)
        .expect("the signature is over the context and everything before");
    assert_eq!(signed.hash()[..], Blake2s256::digest(signed.bytes())[..]);
}

#[test]
fn no_key_is_written_as_zero() {
    for kem_pk_hash in [None, Some([0; 32])] {
        let signed = signed(Record {
            kem_pk_hash,
            ..record()
        });
        let signed = signed.expect("a valid record");
        assert_eq!(signed.record().kem_pk_hash, None);
        assert_eq!(signed.bytes()[AT_CAPS + 1..AT_COUNT], [0; 32]);
        assert_eq!(open(signed.bytes()), Ok(signed));
    }
}

#[test]
fn fields_that_nobody_knows_are_kept_byte_for_byte() {
    let fields = vec![
        field(0xfe, 3),
        field(FIELD_SUCCESSOR, 96),
        field(0, 0),
        field(FIELD_ENDPOINTS, 7),
        field(0x7f, 300),
    ];
    let signed = signed(Record {
        fields: fields.clone(),
        ..record()
    });
    let signed = signed.expect("a valid record");
    let opened = open(signed.bytes()).expect("a valid record");
    assert_eq!(opened.record().fields, fields);
    assert_eq!(opened.bytes(), signed.bytes());
    assert_eq!(opened.record().caps, 0x81, "unknown caps too");
}

#[test]
fn a_record_has_at_most_996_bytes() {
    let room = RECORD_LEN_MAX - SIGNATURE_LEN - AT_FIELDS - 3;
    let sized = |len| Record {
        fields: vec![field(9, len)],
        ..record()
    };
    let longest = signed(sized(room)).expect("it fits");
    assert_eq!(longest.bytes().len(), 996);
    assert_eq!(open(longest.bytes()), Ok(longest.clone()));
    assert_eq!(signed(sized(room + 1)), Err(RecordError::TooLong));
    assert_eq!(signed(sized(0x1_0000)), Err(RecordError::TooLong));

    let mut body = longest.bytes()[..996 - SIGNATURE_LEN].to_vec();
    body[AT_FIELDS + 1..AT_FIELDS + 3].copy_from_slice(&(room as u16 + 1).to_be_bytes());
    body.push(9);
    assert_eq!(error(&body), RecordError::TooLong);
}

#[test]
fn a_record_is_valid_for_more_than_nothing_and_up_to_7_days() {
    assert_eq!(LIFETIME_SECS_MAX, 604_800);
    let with = |not_before, expiry| Record {
        not_before,
        expiry,
        ..record()
    };
    let cases = [
        (NOW, NOW, false),
        (NOW, NOW + 1, true),
        (NOW, NOW + 7 * DAY, true),
        (NOW, NOW + 7 * DAY + 1, false),
        (NOW + 1, NOW, false),
        (0, u64::MAX, false),
        (u64::MAX, 0, false),
        (u64::MAX - 1, u64::MAX, true),
    ];
    for (not_before, expiry, valid) in cases {
        let expected = if valid {
            Ok(())
        } else {
            Err(RecordError::Lifetime)
        };
        let result = signed(with(not_before, expiry));
        assert_eq!(result.map(drop), expected, "{not_before} {expiry}");

        let mut body = body();
        body[AT_NOT_BEFORE..AT_EXPIRY].copy_from_slice(&not_before.to_be_bytes());
        body[AT_EXPIRY..AT_MIN_LEVEL].copy_from_slice(&expiry.to_be_bytes());
        let result = open(&forge(&body));
        assert_eq!(result.map(drop), expected, "{not_before} {expiry}");
    }
}

#[test]
fn freshness_allows_300_seconds_of_skew_at_the_start_and_none_at_the_end() {
    let record = record();
    let (start, end) = (record.not_before, record.expiry);
    let cases = [
        (0, Err(RecordError::NotYetValid)),
        (start - 301, Err(RecordError::NotYetValid)),
        (start - 300, Ok(())),
        (start, Ok(())),
        (end - 1, Ok(())),
        (end, Err(RecordError::Expired)),
        (u64::MAX, Err(RecordError::Expired)),
    ];
    for (now, expected) in cases {
        assert_eq!(record.check_fresh(now), expected, "{now}");
    }
}

#[test]
fn suites_are_1_to_16_and_none_twice() {
    let with = |numbers: &[u16]| {
        let mut body = body();
        body.truncate(AT_COUNT);
        body.push(numbers.len() as u8);
        numbers.iter().for_each(|n| body.extend(n.to_be_bytes()));
        open(&forge(&body)).map(|opened| opened.record().suites)
    };
    let refused = |error| Err(RecordError::Suites(error));
    let many: Vec<u16> = (1..=17).collect();
    assert_eq!(with(&[]), refused(SuitesError::Empty));
    assert_eq!(with(&many), refused(SuitesError::TooMany));
    let twice = refused(SuitesError::Duplicate(SuiteId(2)));
    assert_eq!(with(&[2, 1, 2]), twice);
    assert_eq!(with(&many[..16]), Ok(suites(1..=16)));
    let unknown = [0x0777, 0x1a2a, 1];
    assert_eq!(with(&unknown), Ok(suites(unknown)), "unknown ones are kept");
}

#[test]
fn levels_that_are_not_defined_are_refused() {
    for number in [0, 4, 0x0100, 0xffff] {
        let mut body = body();
        body[AT_MIN_LEVEL..AT_CAPS].copy_from_slice(&u16::to_be_bytes(number));
        assert_eq!(error(&body), RecordError::MinLevel(number));
    }
    for level in Level::ALL {
        let mut body = body();
        body[AT_MIN_LEVEL..AT_CAPS].copy_from_slice(&level.number().to_be_bytes());
        let opened = open(&forge(&body)).expect("a valid record");
        assert_eq!(opened.record().min_level, level);
    }
}

#[test]
fn other_versions_are_refused() {
    for version in [0, 2, 0xff] {
        let mut body = body();
        body[0] = version;
        assert_eq!(error(&body), RecordError::Version(version));
    }
}

#[test]
fn a_type_occurs_once() {
    let twice = Record {
        fields: vec![field(9, 1), field(8, 2), field(9, 0)],
        ..record()
    };
    assert_eq!(signed(twice), Err(RecordError::DuplicateField(9)));
    let body = [body().as_slice(), &[1, 0, 0, 1, 0, 1, 0xaa]].concat();
    assert_eq!(error(&body), RecordError::DuplicateField(1));
}

#[test]
fn bytes_that_end_early_are_refused() {
    let signed = signed(Record {
        fields: vec![field(1, 4), field(2, 6)],
        ..record()
    });
    let signed = signed.expect("a valid record");
    let (first, second) = (AT_FIELDS + 7, AT_FIELDS + 16);
    let body = &signed.bytes()[..second];
    for len in 0..second {
        if len == AT_FIELDS || len == first {
            assert!(open(&forge(&body[..len])).is_ok(), "between fields");
        } else {
            assert_eq!(error(&body[..len]), RecordError::Truncated, "{len}");
        }
    }
    for len in 0..signed.bytes().len() {
        assert!(open(&signed.bytes()[..len]).is_err(), "{len} of all bytes");
    }
    assert_eq!(open(&[]), Err(RecordError::Truncated));
}

#[test]
fn every_bit_is_signed() {
    let signed = signed(Record {
        fields: vec![field(0x77, 5)],
        ..record()
    });
    let signed = signed.expect("a valid record");
    for bit in 0..signed.bytes().len() * 8 {
        let mut changed = signed.bytes().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn a_record_of_somebody_else_is_refused() {
    let signed = signed(record()).expect("a valid record");
    let other = node_id(&SecretKey::from_bytes([0x43; 32]));
    let result = SignedRecord::open(signed.bytes(), &other);
    assert_eq!(result, Err(RecordError::Signature));
}

#[test]
fn a_signature_for_another_purpose_is_refused() {
    let body = body();
    for context in [&b"wiremesh PSKX v1 sig A"[..], b"wiremesh record v2", b""] {
        let signature = sign::sign(&secret(), context, &body, &RANDOM);
        let result = open(&[&body[..], &signature].concat());
        assert_eq!(result, Err(RecordError::Signature));
    }
}

/// The network is for the caller to compare: the record of another network opens.
#[test]
fn a_record_of_another_network_says_so() {
    let signed = signed(Record {
        network: NetworkId::from_bytes([0x99; 32]),
        ..record()
    });
    let opened = open(signed.expect("a valid record").bytes()).expect("a valid record");
    assert_ne!(opened.record().network, record().network);
}

fn any_record() -> impl Strategy<Value = Record> {
    let times = (any::<u64>(), 1..=LIFETIME_SECS_MAX)
        .prop_map(|(start, life)| (start.min(u64::MAX - life), life));
    let listed = btree_set(any::<u16>(), 1..=16).prop_map(|set| suites(set.into_iter().rev()));
    let fields = btree_map(any::<u8>(), vec(any::<u8>(), 0..120), 0..6).prop_map(|fields| {
        let fields = fields.into_iter().rev();
        fields.map(|(kind, value)| Field { kind, value }).collect()
    });
    let hash = any::<Option<[u8; 32]>>().prop_map(|hash| hash.filter(|h| *h != [0; 32]));
    (
        (any::<[u8; 32]>(), any::<u64>(), times, 0..3_usize),
        (any::<u8>(), hash, listed, fields),
    )
        .prop_map(
            |((network, seq, times, level), (caps, hash, suites, fields))| Record {
                network: NetworkId::from_bytes(network),
                seq,
                not_before: times.0,
                expiry: times.0 + times.1,
                min_level: Level::ALL[level],
                caps,
                kem_pk_hash: hash,
                suites,
                fields,
            },
        )
}

proptest! {
    #[test]
    fn what_is_signed_opens_as_it_was(
        record in any_record(),
        secret: [u8; 32],
        random: [u8; 32],
    ) {
        let secret = SecretKey::from_bytes(secret);
        let signed = SignedRecord::sign(record.clone(), &secret, &random)?;
        prop_assert_eq!(signed.record(), &record);
        let opened = SignedRecord::open(signed.bytes(), &node_id(&secret))?;
        prop_assert_eq!(&opened, &signed);
        prop_assert_eq!(opened.hash(), signed.hash());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..1_100)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn no_signed_bytes_panic(tail in vec(any::<u8>(), 0..900), start in 0..=AT_FIELDS) {
        let _ = open(&forge(&[&body()[..start], &tail].concat()));
    }

    /// Whoever has a key can sign anything. What opens is written again as it was read.
    #[test]
    fn there_is_one_way_to_write_a_record(record in any_record(), at: u16, byte: u8) {
        let mut body = signed(record)?.bytes().to_vec();
        body.truncate(body.len() - SIGNATURE_LEN);
        let at = usize::from(at) % body.len();
        body[at] = byte;
        let bytes = forge(&body);
        if let Ok(opened) = open(&bytes) {
            let again = signed(opened.record().clone())?;
            prop_assert_eq!(again.bytes(), bytes);
        }
    }
}
