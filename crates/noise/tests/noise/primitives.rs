//! The primitives against their published vectors: RFC 7693, RFC 7748, RFC 8439,
//! draft-irtf-cfrg-xchacha-03 and the HKDF table of the WireGuard implementations.

use crate::support::{hex, hex_array};
use wiremesh_noise::crypto::{
    ZeroProduct, aead_open, aead_seal, hash, hmac, kdf1, kdf2, kdf3, mac, x25519, xaead_open,
    xaead_seal,
};

const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only \
    one tip for the future, sunscreen would be it.";

/// RFC 7693, appendix B.
#[test]
fn blake2s_of_abc() {
    let digest = hash(&[b"a", b"", b"bc"]);
    assert_eq!(
        digest.to_vec(),
        hex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982")
    );
}

/// The Fibonacci byte sequence of RFC 7693, appendix E.
fn sequence(len: usize) -> Vec<u8> {
    let (mut a, mut b) = (0xdead_4badu32.wrapping_mul(len as u32), 1u32);
    let mut out = Vec::with_capacity(len);
    for _ in 0..len {
        let sum = a.wrapping_add(b);
        (a, b) = (b, sum);
        out.push((sum >> 24) as u8);
    }
    out
}

/// RFC 7693, appendix E, narrowed to the two output lengths that WireGuard uses: the expected
/// value is BLAKE2s-256 over BLAKE2s-256 of each input and the 128-bit keyed hash of each input,
/// computed with Python's hashlib after that reproduced the appendix's grand total.
#[test]
fn blake2s_unkeyed_and_keyed_over_the_lengths_of_the_self_test() {
    let key = sequence(16);
    let mut all = Vec::new();
    for len in [0, 3, 64, 65, 255, 1024] {
        let input = sequence(len);
        all.extend_from_slice(&hash(&[&input]));
        all.extend_from_slice(&mac(&key, &input));
    }
    assert_eq!(
        hash(&[&all]).to_vec(),
        hex("20c157f1fbb9c0af984a38b656ac9ea7decb8ab94d15e6f82703d3043c3e0702")
    );
}

/// The table that the kernel module and wireguard-go check themselves with.
#[test]
fn kdf_table_of_the_wireguard_implementations() {
    let table = [
        (
            "test-key",
            "test-input",
            "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
            "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
            "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
        ),
        (
            "wireguard",
            "wireguard",
            "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
            "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
            "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
        ),
        (
            "",
            "",
            "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
            "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
            "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
        ),
    ];
    for (key, input, t0, t1, t2) in table {
        let (key, input) = (key.as_bytes(), input.as_bytes());
        assert_eq!(kdf1(key, input).to_vec(), hex(t0));
        let (a, b) = kdf2(key, input);
        assert_eq!((a.to_vec(), b.to_vec()), (hex(t0), hex(t1)));
        let (a, b, c) = kdf3(key, input);
        assert_eq!(
            (a.to_vec(), b.to_vec(), c.to_vec()),
            (hex(t0), hex(t1), hex(t2))
        );
    }
}

/// RFC 2104: a key longer than the block is hashed first; one of exactly the block is not.
#[test]
fn hmac_hashes_only_keys_longer_than_a_block() {
    let long = [7u8; 65];
    assert_eq!(hmac(&long, &[b"x"]), hmac(&hash(&[&long]), &[b"x"]));
    let block = [7u8; 64];
    assert_ne!(hmac(&block, &[b"x"]), hmac(&hash(&[&block]), &[b"x"]));
}

/// RFC 8439, appendix A.5: the one whose nonce begins with four zero bytes, as ours do.
#[test]
fn chacha20_poly1305_decryption_vector() {
    let key = hex_array("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    let associated = hex("f33388860000000000004e91");
    let counter = 0x0807_0605_0403_0201;
    let sealed = hex(concat!(
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e",
        "382d26b0bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd",
        "60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c76",
        "7b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a",
        "0d072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a67276",
        "27097a1049e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b0270",
        "9beead9d67890cbb22392336fea1851f38",
    ));
    let mut buffer = sealed.clone();
    let text = aead_open(&key, counter, &associated, &mut buffer).expect("the vector opens");
    assert!(text.starts_with(b"Internet-Drafts are draft documents valid for a maximum"));
    assert_eq!(text.len(), 265);
    aead_seal(&key, counter, &associated, &mut buffer);
    assert_eq!(buffer, sealed);
}

#[test]
fn every_bit_flip_fails_the_aead() {
    let (key, associated) = ([5; 32], b"associated");
    let mut sealed = [0u8; 24];
    aead_seal(&key, 1, associated, &mut sealed);
    for bit in 0..sealed.len() * 8 {
        let mut damaged = sealed;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(aead_open(&key, 1, associated, &mut damaged).is_err());
    }
    assert!(aead_open(&key, 2, associated, &mut sealed.clone()).is_err());
    assert!(aead_open(&key, 1, b"", &mut sealed.clone()).is_err());
    assert!(aead_open(&key, 1, associated, &mut sealed[..15]).is_err());
    assert!(aead_open(&key, 1, associated, &mut []).is_err());
}

/// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
#[test]
fn xchacha20_poly1305_vector() {
    let key: [u8; 32] = core::array::from_fn(|i| 0x80 + i as u8);
    let nonce: [u8; 24] = core::array::from_fn(|i| 0x40 + i as u8);
    let associated = hex("50515253c0c1c2c3c4c5c6c7");
    let mut buffer = SUNSCREEN.to_vec();
    buffer.extend_from_slice(&[0; 16]);
    xaead_seal(&key, &nonce, &associated, &mut buffer);
    assert_eq!(
        buffer,
        hex(concat!(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3",
            "a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2b",
            "c369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8",
            "780acf49",
        ))
    );
    assert_eq!(
        xaead_open(&key, &nonce, &associated, &mut buffer),
        Ok(&mut *SUNSCREEN.to_vec())
    );
    assert!(xaead_open(&key, &nonce, &associated, &mut [0; 15]).is_err());
}

/// RFC 7748, section 5.2: the second one has the top bit of the point set, which is ignored.
#[test]
fn x25519_vectors() {
    let table = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for (scalar, point, product) in table {
        let found = x25519(&hex_array(scalar), &hex_array(point)).expect("not zero");
        assert_eq!(found.to_vec(), hex(product));
    }
}

/// RFC 7748, section 5.2: after 1 and after 1,000 iterations.
#[test]
fn x25519_iterated() {
    let mut point = [0u8; 32];
    point[0] = 9;
    let mut scalar = point;
    for round in 1..=1000 {
        let product = *x25519(&scalar, &point).expect("not zero");
        (scalar, point) = (product, scalar);
        if round == 1 {
            assert_eq!(
                scalar.to_vec(),
                hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
            );
        }
    }
    assert_eq!(
        scalar.to_vec(),
        hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
    );
}

/// RFC 7748, section 6.1.
#[test]
fn x25519_key_agreement() {
    use wiremesh_noise::crypto::DhSecret;
    let alice = DhSecret::new(&hex_array(
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    ));
    let bob = DhSecret::new(&hex_array(
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    ));
    assert_eq!(
        alice.public().to_vec(),
        hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    );
    let product = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(
        alice.agree(bob.public()).expect("not zero").to_vec(),
        product
    );
    assert_eq!(
        bob.agree(alice.public()).expect("not zero").to_vec(),
        product
    );
}

/// RFC 7748, section 6.1: the check for the all-zero product, over the points of small order and
/// their encodings that are not reduced.
#[test]
fn points_of_small_order_are_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        assert_eq!(
            x25519(&[0x42; 32], &hex_array(point)),
            Err(ZeroProduct),
            "{point}"
        );
    }
}
