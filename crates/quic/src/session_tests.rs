//! Both session types driven without quinn, by any bytes in any pieces.
//!
//! Owns the properties that hold whatever a peer sends: no panic, an end after the first error, no
//! 0-RTT keys without a choice.

use std::sync::Arc;

use proptest::prelude::*;
use quinn_proto::crypto::Session;
use quinn_proto::{Side, TransportErrorCode};

use crate::HandshakeData;
use crate::assumed::assumed_parameters;
use crate::client::ClientSession;
use crate::message::{
    MESSAGE_LEN_MAX, emit_client_finished, emit_client_hello, emit_server_hello,
    emit_server_parameters,
};
use crate::parameters;
use crate::protocols::Protocols;
use crate::server::ServerSession;

fn protocols(names: &[&str]) -> Arc<Protocols> {
    Arc::new(Protocols::new(names).expect("valid names"))
}

fn client(names: &[&str]) -> ClientSession {
    ClientSession::new(
        protocols(names),
        &assumed_parameters(),
        assumed_parameters(),
    )
}

fn server(names: &[&str]) -> ServerSession {
    ServerSession::new(protocols(names), &assumed_parameters())
}

/// Writes until there is nothing to write, as quinn does; gives the bytes and the number of keys.
fn flush(session: &mut dyn Session) -> (Vec<u8>, usize) {
    let (mut bytes, mut keys) = (Vec::new(), 0);
    loop {
        let mut out = Vec::new();
        let upgraded = session.write_handshake(&mut out).is_some();
        keys += usize::from(upgraded);
        bytes.extend_from_slice(&out);
        if out.is_empty() && !upgraded {
            return (bytes, keys);
        }
    }
}

/// Feeds pieces; checks what holds for every session and every input.
fn feed(session: &mut dyn Session, pieces: &[Vec<u8>]) {
    let (_, mut keys) = flush(session);
    let (mut failed, mut announced) = (false, 0);
    for piece in pieces {
        match session.read_handshake(piece) {
            Ok(data_ready) => {
                assert!(!failed, "a failed session reads on");
                announced += usize::from(data_ready);
                assert!(!data_ready || session.handshake_data().is_some());
                keys += flush(session).1;
            }
            Err(_) => {
                failed = true;
                assert_eq!(flush(session), (Vec::new(), 0));
                assert!(session.is_handshaking());
            }
        }
        let _ = session.transport_parameters();
        assert!(session.next_1rtt_keys().is_some());
    }
    assert!(announced <= 1, "handshake data is announced once");
    assert!(keys <= 2, "there are two spaces to enter");
    assert_eq!(
        session.early_data_accepted().is_some(),
        session.handshake_data().is_some()
    );
}

fn client_messages() -> Vec<u8> {
    let parameters = parameters::canonical(&assumed_parameters());
    emit_client_hello(&protocols(&["a", "b"]), &parameters)
}

fn server_messages() -> [Vec<u8>; 2] {
    let parameters = parameters::canonical(&assumed_parameters());
    [
        emit_server_hello(true, b"a"),
        emit_server_parameters(&parameters),
    ]
}

fn fails_with(session: &mut dyn Session, bytes: &[u8]) -> TransportErrorCode {
    session.read_handshake(bytes).expect_err("refused").code
}

#[test]
fn sessions_complete_with_each_other() {
    let (mut client, mut server) = (client(&["a", "b"]), server(&["b", "a"]));
    assert!(client.early_crypto().is_some() && server.early_crypto().is_none());
    let (hello, keys) = flush(&mut client);
    assert_eq!((hello.clone(), keys), (client_messages(), 0));
    assert_eq!(server.read_handshake(&hello), Ok(true));
    let mut first = Vec::new();
    assert!(server.write_handshake(&mut first).is_some());
    let mut second = Vec::new();
    assert!(server.write_handshake(&mut second).is_some());
    assert_eq!(client.read_handshake(&first), Ok(true));
    assert_eq!(flush(&mut client), (Vec::new(), 1));
    assert_eq!(client.read_handshake(&second), Ok(false));
    assert!(!client.is_handshaking());
    let (finished, keys) = flush(&mut client);
    assert_eq!((finished.clone(), keys), (emit_client_finished(), 1));
    assert!(server.is_handshaking());
    assert_eq!(server.read_handshake(&finished), Ok(false));
    assert!(!server.is_handshaking());
    for session in [&client as &dyn Session, &server] {
        let data = session
            .handshake_data()
            .expect("done")
            .downcast::<HandshakeData>();
        assert_eq!(data.expect("our type").protocol, b"b");
        // The client's first name was not chosen.
        assert_eq!(session.early_data_accepted(), Some(false));
    }
    assert!(server.early_crypto().is_none());
}

#[test]
fn messages_out_of_turn_are_refused() {
    let unexpected = TransportErrorCode::crypto(10);
    let [hello, parameters] = server_messages();

    // Both messages of the server in the Initial space, in one piece or two.
    let mut session = client(&["a"]);
    flush(&mut session);
    assert_eq!(
        fails_with(&mut session, &[hello.clone(), parameters.clone()].concat()),
        unexpected
    );
    let mut session = client(&["a"]);
    flush(&mut session);
    assert_eq!(session.read_handshake(&hello), Ok(true));
    assert_eq!(fails_with(&mut session, &parameters), unexpected);

    // A repeated hello, and anything after the end.
    let mut session = client(&["a"]);
    flush(&mut session);
    assert_eq!(session.read_handshake(&hello), Ok(true));
    flush(&mut session);
    assert_eq!(fails_with(&mut session, &hello), unexpected);
    let mut session = server(&["a"]);
    assert_eq!(session.read_handshake(&client_messages()), Ok(true));
    flush(&mut session);
    assert_eq!(session.read_handshake(&emit_client_finished()), Ok(false));
    assert_eq!(
        fails_with(&mut session, &emit_client_finished()),
        unexpected
    );
    // And after an error.
    assert_eq!(fails_with(&mut session, &client_messages()), unexpected);
}

#[test]
fn server_hello_must_match_the_offer() {
    let illegal = TransportErrorCode::crypto(47);
    for hello in [
        emit_server_hello(false, b"c"),
        emit_server_hello(true, b"b"),
    ] {
        let mut session = client(&["a", "b"]);
        flush(&mut session);
        assert_eq!(fails_with(&mut session, &hello), illegal);
        assert!(session.handshake_data().is_none());
    }
}

#[test]
fn refused_client_gets_no_early_keys() {
    let mut session = server(&["z"]);
    assert_eq!(
        fails_with(&mut session, &client_messages()),
        TransportErrorCode::crypto(120)
    );
    assert!(session.early_crypto().is_none() && session.handshake_data().is_none());
    assert!(session.transport_parameters().expect("no error").is_none());
}

#[test]
fn bad_transport_parameters_are_refused() {
    // Repeated id, preferred address, server-only parameter, cut value, illegal value.
    let reset_token = [&[2, 16][..], &[0; 16]].concat();
    for bad in [
        &[1, 1, 5, 1, 1, 5][..],
        &[0x0d, 0],
        &reset_token,
        &[4, 9, 0],
        &[3, 1, 9],
    ] {
        let hello = emit_client_hello(&protocols(&["a"]), bad);
        let code = fails_with(&mut server(&["a"]), &hello);
        assert_eq!(
            code,
            TransportErrorCode::TRANSPORT_PARAMETER_ERROR,
            "{bad:?}"
        );
    }
    let long = emit_client_hello(
        &protocols(&["a"]),
        &[&[0x1b, 0x43, 0xfe][..], &[0; 0x3fe]].concat(),
    );
    let code = fails_with(&mut server(&["a"]), &long);
    assert_eq!(code, TransportErrorCode::TRANSPORT_PARAMETER_ERROR);
}

#[test]
fn endless_handshake_is_cut_off() {
    let mut session = server(&["a"]);
    let mut sent = 0;
    let code = loop {
        // A header that announces the longest message, then bytes without end.
        let piece = if sent == 0 {
            vec![1, 1, 0x0f, 0xfc]
        } else {
            vec![0; 100]
        };
        sent += piece.len();
        if let Err(error) = session.read_handshake(&piece) {
            break error.code;
        }
    };
    assert_eq!(code, TransportErrorCode::CRYPTO_BUFFER_EXCEEDED);
    assert!(sent <= MESSAGE_LEN_MAX + 100);
}

/// Splits and damages valid messages, so that inputs get deep into the state machine.
fn damaged(messages: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..3);
    (
        changes,
        1usize..64,
        any::<bool>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(move |(changes, size, repeat, cut)| {
            let mut messages = messages.clone();
            if repeat {
                messages.push(messages[0].clone());
            }
            for (index, value) in changes {
                let total: usize = messages.iter().map(Vec::len).sum();
                let mut at = index.index(total);
                for message in &mut messages {
                    match message.get_mut(at) {
                        Some(byte) => {
                            *byte = value;
                            break;
                        }
                        None => at -= message.len(),
                    }
                }
            }
            let last = messages.last_mut().expect("not empty");
            last.truncate(cut.index(last.len() + 1));
            messages
                .iter()
                .flat_map(|m| m.chunks(size).map(<[u8]>::to_vec))
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        feed(&mut client(&["a", "b"]), &pieces);
        feed(&mut server(&["a", "b"]), &pieces);
    }

    #[test]
    fn damaged_client_messages_never_panic(
        pieces in damaged(vec![client_messages(), emit_client_finished()]),
    ) {
        feed(&mut server(&["a", "c"]), &pieces);
    }

    #[test]
    fn damaged_server_messages_never_panic(pieces in damaged(server_messages().to_vec())) {
        feed(&mut client(&["a", "b"]), &pieces);
    }

    #[test]
    fn arbitrary_transport_parameters_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = parameters::parse(Side::Server, &bytes);
        let _ = parameters::parse(Side::Client, &bytes);
    }

    #[test]
    fn emitted_hello_parses_to_itself(
        names in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..60), 1..33),
    ) {
        let names: Vec<_> = names.into_iter().collect();
        let list = Protocols::new(&names).expect("within the limits");
        let hello = emit_client_hello(&list, &[4, 1, 9]);
        let parsed = crate::message::ClientHello::parse(&hello[4..]).expect("our own");
        prop_assert_eq!(parsed.protocols, list);
        prop_assert_eq!(parsed.parameters, &[4, 1, 9][..]);
    }
}
