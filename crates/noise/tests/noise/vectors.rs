//! The handshake byte for byte, against vectors/handshake.txt, which an independent program in
//! another language (vectors/handshake.py) has made; and against the literal values below, which
//! reproduce the keys of the public cacophony set. WireGuard paper, sections 5.4.2 to 5.4.7.

use crate::support::{Vectors, hex, parse_initiation, parse_response, room_around};
use wiremesh_noise::crypto::{hash, xaead_seal};
use wiremesh_noise::{
    CookieState, LocalIdentity, RemoteIdentity, SessionKeys, create_initiation, open_initiation,
    set_mac2, verify_mac1,
};
use wiremesh_wire::{CookieReply, Instant, PresharedKey, SecretKey, Tai64n, TransportDataHeader};

const VECTORS: Vectors = Vectors(include_str!("../vectors/handshake.txt"));

const INITIATION: &str = concat!(
    "0100000044332211ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98",
    "ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf752d6cf9956f6a4cc1a138d6de1e87238cbd2c46",
    "2d6bf53d8393fb0c36d60887685b3082f6eedfaee2126ded71a29b8015fa3015cc0fb8acda5c803f000000000000",
    "00000000000000000000",
);
const RESPONSE_ZERO: &str = concat!(
    "02000000887766554433221195ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843203b",
    "018b5399c3e1123b9d9bcdc5ad7283b4e34c9d0d82e607a95eb6d98a990600000000000000000000000000000000",
);
const RESPONSE_PSK: &str = concat!(
    "02000000887766554433221195ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088431033",
    "7dab25a2c4b66c579e58407c52c23ac9450aaefa57171a7673aeb7f2efcf00000000000000000000000000000000",
);
const KEEPALIVE_ZERO: &str = "040000008877665500000000000000000382c91a49a8cf83a69aeb24cf1372f7";
const KEEPALIVE_PSK: &str = "040000008877665500000000000000007b10d7058fd6195d3ef4f80e0a625b8b";

struct Made {
    initiation: Vec<u8>,
    response: Vec<u8>,
    initiator: SessionKeys,
    responder: SessionKeys,
}

fn secret(name: &str) -> LocalIdentity {
    LocalIdentity::new(SecretKey::from_bytes(VECTORS.array(name))).expect("a clamped secret")
}

fn handshake(psk: &PresharedKey) -> Made {
    let (initiator, responder) = (secret("init_static"), secret("resp_static"));
    let to_responder = RemoteIdentity::new(&initiator, responder.node_id());
    let to_initiator = RemoteIdentity::new(&responder, initiator.node_id());
    let timestamp = Tai64n::from_bytes(VECTORS.array("timestamp"));
    let ephemeral = VECTORS.array("init_ephemeral");

    let (message, pending) =
        create_initiation(&initiator, &to_responder, ephemeral, 0x1122_3344, timestamp);
    let initiation = message.emit().to_vec();
    assert!(verify_mac1(&responder, &initiation));

    let opened = open_initiation(&responder, &parse_initiation(&initiation)).expect("opens");
    assert_eq!(opened.peer(), initiator.node_id());
    let proven = opened.authenticate(&to_initiator).expect("authenticates");
    assert_eq!(
        (proven.timestamp(), proven.sender()),
        (timestamp, 0x1122_3344)
    );
    let ephemeral = VECTORS.array("resp_ephemeral");
    let (message, theirs) = proven
        .respond(psk, &ephemeral, 0x5566_7788)
        .expect("responds");
    let response = message.emit().to_vec();
    assert!(verify_mac1(&initiator, &response));

    let ours = pending
        .consume_response(&initiator, &parse_response(&response), psk)
        .expect("the response is consumed");
    Made {
        initiation,
        response,
        initiator: ours,
        responder: theirs,
    }
}

fn sealed(keys: &SessionKeys, counter: u64, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = room_around(plaintext);
    keys.sealing
        .seal_with_counter(keys.remote_index, counter, &mut datagram)
        .expect("room and counter are fine");
    datagram
}

fn assert_opens(keys: &SessionKeys, datagram: &[u8], plaintext: &[u8]) {
    let header = TransportDataHeader::parse(datagram[..16].try_into().expect("16 bytes"))
        .expect("transport data");
    assert_eq!(header.receiver, keys.local_index);
    let mut bytes = datagram[16..].to_vec();
    let opened = keys.opening.open_with_counter(header.counter, &mut bytes);
    assert_eq!(opened, Ok(&mut *plaintext.to_vec()));
}

fn assert_matches(name: &str, response: &str, keepalive: &str) {
    let psk = PresharedKey::from_bytes(VECTORS.array(&format!("{name}.psk")));
    let vector = |field: &str| VECTORS.bytes(&format!("{name}.{field}"));
    let packet = VECTORS.bytes("packet");
    let made = handshake(&psk);

    assert_eq!(made.initiation, hex(INITIATION));
    assert_eq!(made.initiation, vector("initiation"));
    assert_eq!(made.response, hex(response));
    assert_eq!(made.response, vector("response"));
    assert_eq!(sealed(&made.initiator, 0, b""), hex(keepalive));

    let late = 0x0123_4567_89ab_cdef;
    let directions = [
        (
            &made.initiator,
            &made.responder,
            "keepalive_i_to_r",
            0,
            &[][..],
        ),
        (
            &made.initiator,
            &made.responder,
            "packet_i_to_r",
            1,
            &packet[..],
        ),
        (
            &made.responder,
            &made.initiator,
            "keepalive_r_to_i",
            0,
            &[][..],
        ),
        (
            &made.responder,
            &made.initiator,
            "packet_r_to_i",
            late,
            &packet[..],
        ),
    ];
    for (from, to, field, counter, plaintext) in directions {
        let datagram = sealed(from, counter, plaintext);
        assert_eq!(datagram, vector(field), "{name}.{field}");
        assert_opens(to, &datagram, plaintext);
    }
}

#[test]
fn handshake_without_preshared_key_matches_byte_for_byte() {
    assert_matches("zero", RESPONSE_ZERO, KEEPALIVE_ZERO);
}

#[test]
fn handshake_with_preshared_key_matches_byte_for_byte() {
    assert_matches("psk", RESPONSE_PSK, KEEPALIVE_PSK);
}

#[test]
fn public_keys_match() {
    for (static_key, public_key) in [
        ("init_static", "init_public"),
        ("resp_static", "resp_public"),
    ] {
        let identity = secret(static_key);
        assert_eq!(
            identity.node_id().as_bytes().to_vec(),
            VECTORS.bytes(public_key)
        );
    }
}

/// WireGuard paper, section 5.4.7.
#[test]
fn cookie_reply_and_mac2_match_byte_for_byte() {
    let (initiator, responder) = (secret("init_static"), secret("resp_static"));
    let remote = RemoteIdentity::new(&initiator, responder.node_id());
    let initiation = parse_initiation(&hex(INITIATION));
    let bytes = VECTORS.array("cookie_reply");
    let reply = CookieReply::parse(&bytes).expect("a cookie reply");

    let mut encrypted = [0u8; 32];
    encrypted[..16].copy_from_slice(&VECTORS.bytes("cookie"));
    let key = hash(&[b"cookie--", responder.node_id().as_bytes()]);
    xaead_seal(
        &key,
        &VECTORS.array("cookie_nonce"),
        &initiation.mac1,
        &mut encrypted,
    );
    assert_eq!(encrypted, reply.encrypted_cookie);

    let mut state = CookieState::new();
    state.on_sent(&initiation.mac1);
    state
        .consume_reply(&reply, &remote, Instant::ZERO)
        .expect("the reply is consumed");
    let cookie = state.cookie(Instant::ZERO).expect("a fresh cookie");
    assert_eq!(cookie.to_vec(), VECTORS.bytes("cookie"));

    let mut message = hex(INITIATION);
    set_mac2(&mut message, &cookie);
    assert_eq!(message, VECTORS.bytes("initiation_with_mac2"));
}
