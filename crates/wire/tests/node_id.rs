//! Keys and node ids: every rule of validity as a table, text errors, and properties.

use proptest::prelude::*;
use wiremesh_wire::{
    InvalidNodeId, KeyTextError, NodeId, ParseNodeIdError, PresharedKey, SecretKey,
};

/// A little-endian number written as in RFC 7748, in hexadecimal.
fn check(text: &str) -> Result<NodeId, InvalidNodeId> {
    assert_eq!(text.len(), 64);
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).expect("hexadecimal");
    }
    let by_value = NodeId::try_from(bytes);
    assert_eq!(NodeId::from_bytes(&bytes), by_value);
    by_value
}

/// The known points of low order of the curve and its twist, in every encoding that X25519
/// implementations accept. RFC 7748, section 6.1.
#[test]
fn low_order_points_are_refused() {
    use InvalidNodeId::{NotOnCurve, NotReduced, SmallOrder, TopBit};
    let table = [
        // 0, of order 2; 1, of order 4; and the two of order 8.
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            SmallOrder,
        ),
        (
            "0100000000000000000000000000000000000000000000000000000000000000",
            SmallOrder,
        ),
        (
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            SmallOrder,
        ),
        (
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            SmallOrder,
        ),
        // p - 1, of order 4 on the twist.
        (
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            NotOnCurve,
        ),
        // p and p + 1: 0 and 1 not reduced.
        (
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            NotReduced,
        ),
        (
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            NotReduced,
        ),
        // The two of order 8, plus p.
        (
            "cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
            TopBit,
        ),
        (
            "4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
            TopBit,
        ),
        // 2p - 1, 2p, 2p + 1.
        (
            "d9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            TopBit,
        ),
        (
            "daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            TopBit,
        ),
        (
            "dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            TopBit,
        ),
        // 0, 1 and both of order 8 with the bit that X25519 masks.
        (
            "0000000000000000000000000000000000000000000000000000000000000080",
            TopBit,
        ),
        (
            "0100000000000000000000000000000000000000000000000000000000000080",
            TopBit,
        ),
        (
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
            TopBit,
        ),
        (
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
            TopBit,
        ),
    ];
    for (text, error) in table {
        assert_eq!(check(text), Err(error), "{text}");
    }
}

#[test]
fn encodings_at_the_limits() {
    use InvalidNodeId::{NotOnCurve, NotReduced, TopBit};
    let f = "ff".repeat(30);
    let table = [
        // 2^255 - 1, the largest without the top bit; 2^256 - 1.
        (format!("ff{f}7f"), Err(NotReduced)),
        (format!("ff{f}ff"), Err(TopBit)),
        // The base point 9; 9 with the top bit; 9 + p.
        (format!("09{}", "00".repeat(31)), Ok(())),
        (format!("09{}80", "00".repeat(30)), Err(TopBit)),
        (format!("f6{f}7f"), Err(NotReduced)),
        // 2, on the twist.
        (format!("02{}", "00".repeat(31)), Err(NotOnCurve)),
        // p - 2, the largest valid number.
        (format!("eb{f}7f"), Ok(())),
    ];
    for (text, result) in table {
        assert_eq!(check(&text).map(drop), result, "{text}");
    }
}

#[test]
fn text_errors_name_the_place() {
    use KeyTextError::{Character, Ending, Length};
    let good = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    assert!(good.parse::<NodeId>().is_ok());
    assert!(format!(" \t{good}\r\n").parse::<NodeId>().is_ok());
    let table = [
        (String::new(), Length(0)),
        (good[..43].to_owned(), Length(43)),
        (format!("{good}="), Length(45)),
        // 44 bytes, but "é" is two of them.
        (format!("é{}", &good[2..]), Character(0)),
        (good.replace('k', "-"), Character(6)),
        (good.replace("SD", "S "), Character(2)),
        // Padding too early, too long, absent; spare bits set.
        (good.replace("SD", "S="), Character(2)),
        (good.replace("o=", "=="), Ending),
        (good.replace("o=", "oA"), Ending),
        (good.replace("o=", "p="), Ending),
        (good.replace("o=", "o-"), Ending),
    ];
    for (text, error) in table {
        assert_eq!(
            text.parse::<NodeId>(),
            Err(ParseNodeIdError::Base64(error)),
            "{text}"
        );
        assert_eq!(text.parse::<SecretKey>().map(drop), Err(error), "{text}");
        assert_eq!(text.parse::<PresharedKey>().map(drop), Err(error), "{text}");
    }
    let zero = format!("{}=", "A".repeat(43));
    let small = ParseNodeIdError::Invalid(InvalidNodeId::SmallOrder);
    assert_eq!(zero.parse::<NodeId>(), Err(small));
    assert!(zero.parse::<PresharedKey>().expect("any bytes").is_zero());
}

#[test]
fn base32_errors_name_the_place() {
    use ParseNodeIdError::{Base32Character, Base32Ending, Base32Length, Invalid};
    let good = "quqpacmjgctvi5elpxolipxxlig36oqney4bv5hlusuy5ku3jzva";
    let table = [
        (String::new(), Base32Length(0)),
        (good[1..].to_owned(), Base32Length(51)),
        (format!("{good}a"), Base32Length(53)),
        (good.replace("pac", "p1c"), Base32Character(4)),
        (good.replace("pac", "péc"), Base32Character(4)),
        (good.replace("jzva", "jzvb"), Base32Ending),
        ("a".repeat(52), Invalid(InvalidNodeId::SmallOrder)),
    ];
    for (text, error) in table {
        assert_eq!(NodeId::from_base32(&text), Err(error), "{text}");
    }
}

#[test]
fn errors_read_as_sentences() {
    let message = |text: &str| text.parse::<NodeId>().expect_err("bad").to_string();
    assert_eq!(
        message("abc"),
        "a key has 44 base64 characters, this text has 3"
    );
    assert_eq!(
        message(&"!".repeat(44)),
        "character 1 is not a base64 character"
    );
    let zero = format!("{}=", "A".repeat(43));
    assert_eq!(message(&zero), "the public key is a point of small order");
}

#[test]
fn secrets_print_nothing() {
    let bytes = [0x5a; 32];
    assert_eq!(
        format!("{:?}", SecretKey::from_bytes(bytes)),
        "SecretKey(..)"
    );
    assert_eq!(
        format!("{:#?}", PresharedKey::from_bytes(bytes)),
        "PresharedKey(..)"
    );
}

#[test]
fn preshared_key_defaults_to_none() {
    assert!(PresharedKey::default().is_zero());
    for index in [0, 15, 31] {
        let mut bytes = [0; 32];
        bytes[index] = 1;
        assert!(!PresharedKey::from_bytes(bytes).is_zero());
        assert_ne!(PresharedKey::from_bytes(bytes), PresharedKey::default());
        assert_ne!(SecretKey::from_bytes(bytes), SecretKey::from_bytes([0; 32]));
    }
}

proptest! {
    /// Beside a plain test of the same rules, on bytes that are often near the limit.
    #[test]
    fn canonical_form_agrees_with_a_plain_test(
        bytes: [u8; 32], filled in 0..=31usize, last in prop_oneof![Just(0x7f), any::<u8>()],
    ) {
        let mut bytes = bytes;
        bytes[1..=filled.max(1)].fill(0xff);
        bytes[31] = last;
        let top_bit = last >= 0x80;
        let reduced = last < 0x7f || bytes[0] < 0xed || bytes[1..31] != [0xff; 30];
        let result = NodeId::from_bytes(&bytes);
        prop_assert_eq!(top_bit, result == Err(InvalidNodeId::TopBit));
        prop_assert_eq!(!top_bit && !reduced, result == Err(InvalidNodeId::NotReduced));
        if let Ok(node_id) = result {
            prop_assert_eq!(node_id.as_bytes(), &bytes);
        }
    }

    #[test]
    fn node_id_texts_come_back(bytes: [u8; 32]) {
        let mut bytes = bytes;
        bytes[31] &= 0x7f;
        if let Ok(node_id) = NodeId::from_bytes(&bytes) {
            prop_assert_eq!(node_id.to_string().parse(), Ok(node_id));
            prop_assert_eq!(NodeId::from_base32(&node_id.to_base32()), Ok(node_id));
        }
    }

    #[test]
    fn secret_texts_come_back(bytes: [u8; 32]) {
        let secret = SecretKey::from_bytes(bytes);
        prop_assert_eq!(secret.to_base64().parse::<SecretKey>().map(|k| *k.as_bytes()), Ok(bytes));
        let psk = PresharedKey::from_bytes(bytes);
        prop_assert_eq!(psk.to_base64().parse::<PresharedKey>().map(|k| *k.as_bytes()), Ok(bytes));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<NodeId>();
        let _ = text.parse::<SecretKey>();
        let _ = NodeId::from_base32(&text);
    }

    /// Whatever is read as a key is what is written for it.
    #[test]
    fn base64_has_one_text_for_each_key(text in "[A-Za-z0-9+/]{41}[AEIMQUYc048][A-Za-z0-9+/=]=") {
        if let Ok(key) = text.parse::<SecretKey>() {
            prop_assert_eq!(&*key.to_base64(), &text);
        }
    }

    #[test]
    fn base32_has_one_text_for_each_node_id(text in "[a-z2-7]{51}[aq]") {
        if let Ok(node_id) = NodeId::from_base32(&text) {
            prop_assert_eq!(node_id.to_base32(), text);
        }
    }
}
