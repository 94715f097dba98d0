//! WireGuard messages: offsets of the paper, lengths at their limits, and properties.

use proptest::array::uniform;
use proptest::prelude::*;
use wiremesh_wire::{
    CookieReply, HandshakeInitiation, HandshakeResponse, Message, MessageError, TransportDataHeader,
};

fn emit(message: &Message) -> Vec<u8> {
    match message {
        Message::Initiation(message) => message.emit().to_vec(),
        Message::Response(message) => message.emit().to_vec(),
        Message::CookieReply(message) => message.emit().to_vec(),
        Message::TransportData(header) => header.emit().to_vec(),
    }
}

/// The lengths of the fields, from the diagrams of WireGuard paper, section 5.4.
#[test]
fn fields_are_where_the_paper_has_them() {
    let table: [(u8, &[usize]); 4] = [
        (1, &[4, 4, 32, 48, 28, 16, 16]),
        (2, &[4, 4, 4, 32, 16, 16, 16]),
        (3, &[4, 4, 24, 32]),
        (4, &[4, 4, 8]),
    ];
    for (message_type, lens) in table {
        // Every byte of a field holds the number of the field.
        let mut bytes: Vec<u8> = lens
            .iter()
            .enumerate()
            .flat_map(|(index, len)| vec![index as u8; *len])
            .collect();
        bytes[..4].copy_from_slice(&[message_type, 0, 0, 0]);
        let tag: &[u8] = if message_type == 4 { &[0; 16] } else { &[] };
        let message = Message::parse(&[&bytes, tag].concat()).expect("a right message");
        match &message {
            Message::Initiation(m) => {
                assert_eq!((m.sender, m.ephemeral), (0x0101_0101, [2; 32]));
                assert_eq!(
                    (m.encrypted_static, m.encrypted_timestamp),
                    ([3; 48], [4; 28])
                );
                assert_eq!((m.mac1, m.mac2), ([5; 16], [6; 16]));
                assert_eq!(bytes[HandshakeInitiation::MAC1_RANGE], [5; 16]);
                assert_eq!(bytes[HandshakeInitiation::MAC2_RANGE], [6; 16]);
            }
            Message::Response(m) => {
                assert_eq!((m.sender, m.receiver), (0x0101_0101, 0x0202_0202));
                assert_eq!((m.ephemeral, m.encrypted_nothing), ([3; 32], [4; 16]));
                assert_eq!((m.mac1, m.mac2), ([5; 16], [6; 16]));
                assert_eq!(bytes[HandshakeResponse::MAC1_RANGE], [5; 16]);
                assert_eq!(bytes[HandshakeResponse::MAC2_RANGE], [6; 16]);
            }
            Message::CookieReply(m) => {
                assert_eq!((m.receiver, m.nonce), (0x0101_0101, [2; 24]));
                assert_eq!(m.encrypted_cookie, [3; 32]);
            }
            Message::TransportData(m) => {
                assert_eq!(
                    (m.receiver, m.counter),
                    (0x0101_0101, 0x0202_0202_0202_0202)
                );
            }
        }
        assert_eq!(emit(&message), bytes);
    }
}

#[test]
fn integers_are_little_endian() {
    let header = TransportDataHeader {
        receiver: 0x0403_0201,
        counter: 0x0c0b_0a09_0807_0605,
    };
    assert_eq!(
        header.emit(),
        [4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    );
}

#[test]
fn lengths_are_exact() {
    let right = |message_type: u8, len: usize| match message_type {
        1 => len == 148,
        2 => len == 92,
        3 => len == 64,
        _ => len >= 32,
    };
    for message_type in 1..=4 {
        for len in 4..200 {
            let mut bytes = vec![0; len];
            bytes[0] = message_type;
            let error = Message::parse(&bytes).err();
            let expected = (!right(message_type, len)).then_some(MessageError::BadLength);
            assert_eq!(error, expected, "type {message_type}, {len} bytes");
        }
    }
    for len in 0..4 {
        assert_eq!(
            Message::parse(&[1, 0, 0, 0][..len]),
            Err(MessageError::BadLength)
        );
    }
    let mut largest = vec![0; 65_535];
    largest[0] = 4;
    assert!(Message::parse(&largest).is_ok());
}

#[test]
fn unknown_types_and_reserved_bytes_are_refused() {
    for len in [32, 64, 92, 148] {
        for message_type in [0, 5, 255] {
            let mut bytes = vec![0; len];
            bytes[0] = message_type;
            assert_eq!(Message::parse(&bytes), Err(MessageError::UnknownType));
        }
        for message_type in 1..=4 {
            for reserved in 1..4 {
                let mut bytes = vec![0; len];
                bytes[0] = message_type;
                bytes[reserved] = 1;
                assert_eq!(Message::parse(&bytes), Err(MessageError::UnknownType));
            }
        }
    }
    assert_eq!(
        HandshakeInitiation::parse(&[2; 148]),
        Err(MessageError::UnknownType)
    );
    assert_eq!(
        HandshakeResponse::parse(&[0; 92]),
        Err(MessageError::UnknownType)
    );
    assert_eq!(CookieReply::parse(&[0; 64]), Err(MessageError::UnknownType));
    assert_eq!(
        TransportDataHeader::parse(&[0; 16]),
        Err(MessageError::UnknownType)
    );
}

fn any_mac() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
}

fn any_message() -> impl Strategy<Value = Message> {
    let initiation = (
        any::<u32>(),
        any::<[u8; 32]>(),
        uniform::<_, 48>(any::<u8>()),
        uniform::<_, 28>(any::<u8>()),
        any_mac(),
        any_mac(),
    )
        .prop_map(
            |(sender, ephemeral, encrypted_static, encrypted_timestamp, mac1, mac2)| {
                let message = HandshakeInitiation {
                    sender,
                    ephemeral,
                    encrypted_static,
                    encrypted_timestamp,
                    mac1,
                    mac2,
                };
                Message::Initiation(message)
            },
        );
    let response = (
        any::<u32>(),
        any::<u32>(),
        any::<[u8; 32]>(),
        any_mac(),
        any_mac(),
        any_mac(),
    )
        .prop_map(
            |(sender, receiver, ephemeral, encrypted_nothing, mac1, mac2)| {
                let message = HandshakeResponse {
                    sender,
                    receiver,
                    ephemeral,
                    encrypted_nothing,
                    mac1,
                    mac2,
                };
                Message::Response(message)
            },
        );
    let cookie = (any::<u32>(), any::<[u8; 24]>(), any::<[u8; 32]>()).prop_map(
        |(receiver, nonce, encrypted_cookie)| {
            Message::CookieReply(CookieReply {
                receiver,
                nonce,
                encrypted_cookie,
            })
        },
    );
    let data = (any::<u32>(), any::<u64>()).prop_map(|(receiver, counter)| {
        Message::TransportData(TransportDataHeader { receiver, counter })
    });
    prop_oneof![initiation, response, cookie, data]
}

/// Bytes that are often of a right type and length.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![Just(148usize), Just(92), Just(64), 0..200usize];
    (0..6u8, len).prop_flat_map(|(message_type, len)| {
        proptest::collection::vec(any::<u8>(), len).prop_map(move |mut bytes| {
            let word = [message_type, 0, 0, 0];
            let count = bytes.len().min(4);
            bytes[..count].copy_from_slice(&word[..count]);
            bytes
        })
    })
}

proptest! {
    #[test]
    fn emit_then_parse_is_identity(message in any_message(), rest in any::<[u8; 16]>()) {
        let mut bytes = emit(&message);
        if matches!(message, Message::TransportData(_)) {
            bytes.extend_from_slice(&rest);
        }
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn parse_then_emit_is_identity(bytes in nearly_a_message()) {
        if let Ok(message) = Message::parse(&bytes) {
            let emitted = emit(&message);
            prop_assert_eq!(&bytes[..emitted.len()], &emitted);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(bytes.starts_with(&emit(&message)));
        }
    }
}
