//! XEdDSA against `vectors/xeddsa.py` and against an independent Ed25519 verifier. "The XEdDSA and
//! VXEdDSA Signature Schemes", sections 2.3 and 2.4.

use aws_lc_rs::agreement::{self, X25519};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use blake2::{Blake2s256, Digest};
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::{EdwardsPoint, Scalar};
use sha2::Sha512;
use wiremesh_control::sign::{InvalidSignature, SIGNATURE_LEN, Signer, sign, verify};
use wiremesh_wire::{NodeId, SecretKey};

const CONTEXT: &[u8] = b"wiremesh test v1";
const RANDOM: [u8; 32] = [0x5a; 32];

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    let digits = if text == "-" { 0 } else { text.len() };
    (0..digits).step_by(2).map(byte).collect()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the length of the field")
}

fn secret(number: u32) -> SecretKey {
    SecretKey::from_bytes(Blake2s256::digest(number.to_le_bytes()).into())
}

/// The public key, computed by aws-lc.
fn node_id(secret: &SecretKey) -> NodeId {
    let key = agreement::PrivateKey::from_private_key(&X25519, secret.as_bytes()).expect("a key");
    let public = key.compute_public_key().expect("its public half");
    NodeId::from_bytes(&array(public.as_ref())).expect("a valid public key")
}

/// The Ed25519 key of a node: its point with sign bit 0.
fn ed25519_key(node_id: &NodeId) -> [u8; 32] {
    let point = MontgomeryPoint(*node_id.as_bytes()).to_edwards(0);
    point.expect("a node id is on the curve").compress().0
}

/// Whether aws-lc takes it for an Ed25519 signature.
fn verifies_elsewhere(key: &[u8; 32], signed: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(signed, signature).is_ok()
}

#[test]
fn signatures_are_those_of_the_script() {
    let mut sign_bits = [0; 2];
    for line in include_str!("vectors/xeddsa.txt").lines() {
        let fields: Vec<Vec<u8>> = line.split(' ').map(hex).collect();
        let [secret, id, bit, public, context, message, random, expected] = &fields[..] else {
            panic!("eight fields");
        };
        sign_bits[usize::from(bit[0])] += 1;
        let secret = SecretKey::from_bytes(array(secret));
        let id = NodeId::from_bytes(&array(id)).expect("a valid public key");
        assert_eq!(id, node_id(&secret));
        assert_eq!(ed25519_key(&id), public[..]);
        let signature = sign(&secret, context, message, &array(random));
        assert_eq!(signature, expected[..]);
        assert_eq!(verify(&id, context, message, &signature), Ok(()));
    }
    assert!(sign_bits.iter().all(|count| *count > 3), "{sign_bits:?}");
}

#[test]
fn an_independent_verifier_accepts_every_signature() {
    let mut sign_bits = [0; 2];
    for number in 0..400 {
        let secret = secret(number);
        let point = EdwardsPoint::mul_base_clamped(*secret.as_bytes());
        sign_bits[usize::from(point.compress().0[31] >> 7)] += 1;
        let id = node_id(&secret);
        let message = vec![number as u8; number as usize % 100];
        let random = Blake2s256::digest(&message).into();
        let signature = sign(&secret, CONTEXT, &message, &random);
        let signed = [CONTEXT, &message].concat();
        assert!(verifies_elsewhere(&ed25519_key(&id), &signed, &signature));
        assert_eq!(verify(&id, CONTEXT, &message, &signature), Ok(()));
    }
    assert!(sign_bits.iter().all(|count| *count > 100), "{sign_bits:?}");
}

#[test]
fn a_signer_signs_as_the_secret_key_does() {
    for number in 0..8 {
        let (secret, message) = (secret(number), number.to_be_bytes());
        let signer = Signer::new(&secret);
        let signature = signer.sign(CONTEXT, &message, &RANDOM);
        assert_eq!(signature, sign(&secret, CONTEXT, &message, &RANDOM));
    }
}

#[test]
fn whatever_is_changed_is_refused() {
    let secret = secret(1);
    let id = node_id(&secret);
    let message = *b"what is signed";
    let good = sign(&secret, CONTEXT, &message, &RANDOM);
    let refused = Err(InvalidSignature);
    for bit in 0..SIGNATURE_LEN * 8 {
        let mut changed = good;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            verify(&id, CONTEXT, &message, &changed),
            refused,
            "bit {bit}"
        );
    }
    for bit in 0..message.len() * 8 {
        let mut changed = message;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(&id, CONTEXT, &changed, &good), refused, "bit {bit}");
    }
    assert_eq!(verify(&id, CONTEXT, &message[1..], &good), refused);
    assert_eq!(verify(&id, CONTEXT, &[], &good), refused);
    assert_eq!(verify(&id, b"wiremesh test v2", &message, &good), refused);
    assert_eq!(verify(&id, b"", &message, &good), refused);
    for number in 2..20 {
        let other = node_id(&self::secret(number));
        assert_eq!(verify(&other, CONTEXT, &message, &good), refused);
    }
    assert_eq!(verify(&id, CONTEXT, &message, &[0; SIGNATURE_LEN]), refused);
    assert_eq!(
        verify(&id, CONTEXT, &message, &[0xff; SIGNATURE_LEN]),
        refused
    );
    assert_eq!(verify(&id, CONTEXT, &message, &good), Ok(()), "the control");
}

/// Adds to the scalar of a signature, without reducing.
fn add_to_s(signature: &[u8; SIGNATURE_LEN], number: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
    let mut sum = *signature;
    let mut carry = 0;
    for (byte, add) in sum[32..].iter_mut().zip(number) {
        carry += u16::from(*byte) + u16::from(*add);
        *byte = carry as u8;
        carry >>= 8;
    }
    sum
}

/// RFC 8032, section 5.1.7: a scalar that is not below the group order would make a second
/// signature of a first one.
#[test]
fn a_scalar_that_is_not_reduced_is_refused() {
    // The order is -1 plus 1; the bytes of -1 are those of the order less one.
    let mut order = (-Scalar::ONE).to_bytes();
    order[0] += 1;
    let secret = secret(1);
    let id = node_id(&secret);
    let mut signature = sign(&secret, CONTEXT, b"x", &RANDOM);
    for times in 1..8 {
        signature = add_to_s(&signature, &order);
        let result = verify(&id, CONTEXT, b"x", &signature);
        assert_eq!(result, Err(InvalidSignature), "{times}");
    }
}

/// What the challenge of Ed25519 is, for forged signatures.
fn challenge(r: &[u8; 32], key: &[u8; 32], signed: &[u8]) -> Scalar {
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key)
        .chain_update(signed);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// The secret scalar of a node's Ed25519 key.
fn signing_scalar(secret: &SecretKey) -> Scalar {
    let clamped = curve25519_dalek::scalar::clamp_integer(*secret.as_bytes());
    let scalar = Scalar::from_bytes_mod_order(clamped);
    let sign = EdwardsPoint::mul_base(&scalar).compress().0[31] >> 7;
    if sign == 1 { -scalar } else { scalar }
}

/// A signature with nonce zero satisfies the equation, and gives the secret away; it cannot come
/// from an honest signer. Plain verification accepts it.
#[test]
fn a_nonce_point_of_small_order_is_refused() {
    let secret = secret(1);
    let id = node_id(&secret);
    let key = ed25519_key(&id);
    let mut identity = [0; 32];
    identity[0] = 1;
    let signed = [CONTEXT, b"x"].concat();
    let s = challenge(&identity, &key, &signed) * signing_scalar(&secret);
    let mut forged = [0; SIGNATURE_LEN];
    forged[..32].copy_from_slice(&identity);
    forged[32..].copy_from_slice(s.as_bytes());
    assert!(
        verifies_elsewhere(&key, &signed, &forged),
        "the equation holds"
    );
    assert_eq!(verify(&id, CONTEXT, b"x", &forged), Err(InvalidSignature));
}

/// The same point, encoded as y = p + 1.
#[test]
fn a_nonce_point_that_is_not_canonical_is_refused() {
    let secret = secret(1);
    let id = node_id(&secret);
    let mut encoded = [0xff; 32];
    encoded[0] = 0xee;
    encoded[31] = 0x7f;
    let challenge = challenge(&encoded, &ed25519_key(&id), &[CONTEXT, b"x"].concat());
    let mut forged = [0; SIGNATURE_LEN];
    forged[..32].copy_from_slice(&encoded);
    forged[32..].copy_from_slice((challenge * signing_scalar(&secret)).as_bytes());
    assert_eq!(verify(&id, CONTEXT, b"x", &forged), Err(InvalidSignature));
}

/// A key of small order would verify signatures over everything; the type of the key refuses it.
#[test]
fn a_key_of_small_order_is_no_node_id() {
    let torsion = &curve25519_dalek::constants::EIGHT_TORSION;
    for point in torsion {
        let u = point.to_montgomery().0;
        assert!(NodeId::from_bytes(&u).is_err(), "{u:?}");
    }
}

/// Two signatures with one nonce over different messages give the secret key away.
#[test]
fn a_nonce_does_not_repeat_even_if_the_random_bytes_do() {
    let secret = secret(1);
    let nonce = |context: &[u8], message: &[u8], random: [u8; 32]| {
        array::<32>(&sign(&secret, context, message, &random)[..32])
    };
    let nonces = [
        nonce(CONTEXT, b"one", RANDOM),
        nonce(CONTEXT, b"two", RANDOM),
        nonce(b"wiremesh test v2", b"one", RANDOM),
        nonce(CONTEXT, b"one", [0; 32]),
        nonce(CONTEXT, b"two", [0; 32]),
        array(&sign(&self::secret(2), CONTEXT, b"one", &RANDOM)[..32]),
    ];
    for (at, one) in nonces.iter().enumerate() {
        assert!(!nonces[at + 1..].contains(one), "nonce {at} twice");
    }
    assert_eq!(
        nonce(CONTEXT, b"one", RANDOM),
        nonces[0],
        "all else is equal"
    );
}

#[test]
fn a_signer_prints_nothing() {
    assert_eq!(format!("{:?}", Signer::new(&secret(1))), "Signer(..)");
}
