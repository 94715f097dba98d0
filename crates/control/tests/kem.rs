//! ML-KEM-768 against NIST's vectors and against another implementation. FIPS 203.

use std::collections::BTreeMap;

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use wiremesh_control::kem::{CT_LEN, EK_LEN, InvalidKemKey, KemSecret, encapsulate};

/// One case: names and bytes.
struct Case(BTreeMap<&'static str, Vec<u8>>);

impl Case {
    fn bytes<const N: usize>(&self, name: &str) -> [u8; N] {
        let bytes = self.0.get(name).expect("the case has this name");
        bytes.as_slice().try_into().expect("the length of the name")
    }

    fn seed(&self) -> [u8; 64] {
        let mut seed = [0; 64];
        seed[..32].copy_from_slice(&self.bytes::<32>("d"));
        seed[32..].copy_from_slice(&self.bytes::<32>("z"));
        seed
    }
}

/// The cases of one section, in order.
fn cases(section: &str) -> Vec<Case> {
    let text = include_str!("vectors/mlkem768.txt");
    let heading = format!("[{section}]\n");
    let found = text
        .split("\n\n")
        .filter_map(|case| case.strip_prefix(&heading));
    let cases: Vec<Case> = found
        .map(|case| {
            let lines = case.lines().map(|l| l.split_once(" = ").expect("a line"));
            Case(lines.map(|(name, value)| (name, hex(value))).collect())
        })
        .collect();
    assert!(!cases.is_empty(), "no cases of {section}");
    cases
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn secret(number: u8) -> KemSecret {
    KemSecret::from_seed(&core::array::from_fn(|i| number ^ i as u8))
}

/// What aws-lc makes of a ciphertext, under a key in its long form.
fn decapsulate_elsewhere(dk: &[u8], ct: &[u8]) -> Vec<u8> {
    let key = DecapsulationKey::new(&ML_KEM_768, dk).expect("a key");
    let shared = key.decapsulate(Ciphertext::from(ct)).expect("a secret");
    shared.as_ref().to_vec()
}

#[test]
fn keys_are_those_of_nist() {
    let cases = cases("keygen");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let secret = KemSecret::from_seed(&case.seed());
        assert_eq!(*secret.encapsulation_key(), case.bytes::<EK_LEN>("ek"));
    }
}

#[test]
fn encapsulation_is_that_of_nist() {
    let cases = cases("encap");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let (ct, shared) = encapsulate(&case.bytes("ek"), &case.bytes("m")).expect("a valid key");
        assert_eq!(ct, case.bytes::<CT_LEN>("c"));
        assert_eq!(*shared, case.bytes::<32>("k"));
    }
}

/// NIST gives this key in the long form only, which [`KemSecret`] does not take; half of the
/// ciphertexts are modified and end in implicit rejection.
#[test]
#[expect(deprecated)]
fn decapsulation_is_that_of_nist() {
    use ml_kem::array::Array;
    use ml_kem::{Decapsulate, ml_kem_768};

    let cases = cases("decap");
    let (key, cases) = cases.split_first().expect("the key comes first");
    let dk = Array(key.bytes::<2400>("dk"));
    let key = ml_kem_768::DecapsulationKey::from_expanded(&dk).expect("a valid key");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let shared = key.decapsulate(&Array(case.bytes::<CT_LEN>("c")));
        assert_eq!(shared.0, case.bytes::<32>("k"));
    }
}

/// Algorithm 7 of FIPS 203 reads as many bytes as it needs.
#[test]
fn a_key_that_needs_many_samples_works() {
    let case = &cases("unlucky")[0];
    let (ct, shared) = encapsulate(&case.bytes("ek"), &case.bytes("m")).expect("a valid key");
    assert_eq!(ct, case.bytes::<CT_LEN>("c"));
    assert_eq!(*shared, case.bytes::<32>("k"));
}

/// FIPS 203, algorithm 18: a ciphertext that was not made for the key gives a secret that follows
/// from `z` and the ciphertext alone. Another implementation gives the same one.
#[test]
fn implicit_rejection_agrees_with_another_implementation() {
    let cases = cases("keygen");
    let with_dk = cases.iter().filter(|case| case.0.contains_key("dk"));
    let mut compared = 0;
    for case in with_dk {
        let dk = case.bytes::<2400>("dk");
        let ours = KemSecret::from_seed(&case.seed());
        let (ct, shared) = encapsulate(ours.encapsulation_key(), &[7; 32]).expect("valid");
        assert_eq!(decapsulate_elsewhere(&dk, &ct), *shared);
        assert_eq!(*ours.decapsulate(&ct), *shared);
        for bit in [0, 1, 7_000, CT_LEN * 8 - 1] {
            let mut changed = ct;
            changed[bit / 8] ^= 1 << (bit % 8);
            let rejected = ours.decapsulate(&changed);
            assert_ne!(*rejected, *shared, "bit {bit}");
            assert_eq!(decapsulate_elsewhere(&dk, &changed), *rejected, "bit {bit}");
        }
        for ct in [[0; CT_LEN], [0xff; CT_LEN]] {
            assert_eq!(decapsulate_elsewhere(&dk, &ct), *ours.decapsulate(&ct));
        }
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn rejected_secrets_depend_on_z_and_on_the_ciphertext() {
    let mut seed = [3; 64];
    let one = KemSecret::from_seed(&seed);
    seed[63] ^= 1;
    let other_z = KemSecret::from_seed(&seed);
    assert_eq!(one.encapsulation_key(), other_z.encapsulation_key());
    let (a, b) = ([0x11; CT_LEN], [0x22; CT_LEN]);
    assert_eq!(*one.decapsulate(&a), *one.decapsulate(&a));
    assert_ne!(*one.decapsulate(&a), *one.decapsulate(&b));
    assert_ne!(*one.decapsulate(&a), *other_z.decapsulate(&a));
}

#[test]
fn both_directions_agree_with_another_implementation() {
    for number in 0..16 {
        let ours = secret(number);
        let ek = EncapsulationKey::new(&ML_KEM_768, ours.encapsulation_key()).expect("a key");
        let (ct, theirs) = ek.encapsulate().expect("a secret");
        let ct = ct.as_ref().try_into().expect("the length of a ciphertext");
        assert_eq!(*ours.decapsulate(ct), theirs.as_ref());

        let theirs = DecapsulationKey::generate(&ML_KEM_768).expect("a key");
        let ek = theirs.encapsulation_key().expect("its public half");
        let ek = ek.key_bytes().expect("its bytes");
        let ek = ek.as_ref().try_into().expect("the length of a key");
        let (ct, shared) = encapsulate(ek, &[number; 32]).expect("a valid key");
        let found = theirs.decapsulate(Ciphertext::from(ct.as_slice()));
        assert_eq!(found.expect("a secret").as_ref(), *shared);
    }
}

/// Puts a 12-bit number at a place in the encoded vector (FIPS 203, algorithm 5).
fn put(ek: &mut [u8; EK_LEN], index: usize, number: u16) {
    let (at, [low, high]) = (index / 2 * 3, number.to_le_bytes());
    if index.is_multiple_of(2) {
        ek[at] = low;
        ek[at + 1] = (ek[at + 1] & 0xf0) | high;
    } else {
        ek[at + 1] = (ek[at + 1] & 0x0f) | (low << 4);
        ek[at + 2] = (low >> 4) | (high << 4);
    }
}

/// FIPS 203, section 7.2: the modulus check.
#[test]
fn a_key_with_an_unreduced_coefficient_is_refused() {
    let good = *secret(1).encapsulation_key();
    let with = |index, number| {
        let mut ek = good;
        put(&mut ek, index, number);
        encapsulate(&ek, &[9; 32])
    };
    for index in 0..768 {
        for number in [3329, 4095] {
            assert_eq!(with(index, number), Err(InvalidKemKey), "{index} {number}");
        }
    }
    for number in 3329..=4095 {
        assert_eq!(with(500, number), Err(InvalidKemKey), "{number}");
    }
    for index in [0, 1, 383, 766, 767] {
        assert!(with(index, 3328).is_ok(), "{index}");
        assert!(with(index, 0).is_ok(), "{index}");
    }
}

#[test]
fn each_key_and_each_m_give_another_secret() {
    let (one, two) = (secret(1), secret(2));
    assert_ne!(one.encapsulation_key(), two.encapsulation_key());
    let (ct_a, a) = encapsulate(one.encapsulation_key(), &[1; 32]).expect("valid");
    let (ct_b, b) = encapsulate(one.encapsulation_key(), &[2; 32]).expect("valid");
    assert_ne!(ct_a, ct_b);
    assert_ne!(*a, *b);
    assert_ne!(*two.decapsulate(&ct_a), *a, "the wrong key");
}

#[test]
fn a_secret_prints_nothing() {
    assert_eq!(format!("{:?}", secret(5)), "KemSecret(..)");
}
