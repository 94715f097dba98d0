//! Exchanges recorded with the real wireguard-go, in both roles, with a preshared key and without
//! (vectors/wireguard_go_handshake.txt): what it sent is accepted, what the recording program sent
//! comes out byte for byte.

use crate::support::{Vectors, parse_initiation, parse_response, room_around};
use wiremesh_noise::{
    LocalIdentity, RemoteIdentity, SessionKeys, create_initiation, open_initiation, verify_mac1,
};
use wiremesh_wire::{NodeId, PresharedKey, SecretKey, Tai64n};

const RECORDED: Vectors = Vectors(include_str!("../vectors/wireguard_go_handshake.txt"));

fn array<const N: usize>(exchange: &str, field: &str) -> [u8; N] {
    RECORDED.array(&format!("{exchange}.{field}"))
}

fn bytes(exchange: &str, field: &str) -> Vec<u8> {
    RECORDED.bytes(&format!("{exchange}.{field}"))
}

fn index(exchange: &str, field: &str) -> u32 {
    u32::from_be_bytes(array(exchange, field))
}

fn local(exchange: &str, field: &str) -> LocalIdentity {
    LocalIdentity::new(SecretKey::from_bytes(array(exchange, field))).expect("a clamped secret")
}

fn remote(exchange: &str, local: &LocalIdentity, field: &str) -> RemoteIdentity {
    let node_id = NodeId::from_bytes(&array(exchange, field)).expect("a node id");
    RemoteIdentity::new(local, node_id)
}

fn assert_data_matches(exchange: &str, keys: SessionKeys) {
    let (mut sealer, mut opener) = keys.split();
    let expected = bytes(exchange, "our_transport_data");
    let mut packet = bytes(exchange, "our_packet");
    packet.resize(expected.len() - 32, 0);
    let mut datagram = room_around(&packet);
    sealer
        .seal(&mut datagram)
        .expect("room and counter are fine");
    assert_eq!(datagram, expected);

    let mut theirs = bytes(exchange, "their_transport_data");
    let counter = u64::from_le_bytes(theirs[8..16].try_into().expect("8 bytes"));
    let opened = opener
        .open(counter, &mut theirs[16..])
        .expect("their packet opens");
    assert_eq!(opened.to_vec(), bytes(exchange, "their_packet_padded"));
}

fn assert_initiator_matches(exchange: &str) {
    let local = local(exchange, "init_static");
    let remote = remote(exchange, &local, "resp_public");
    let timestamp = Tai64n::from_bytes(array(exchange, "init_timestamp"));
    let ephemeral = array(exchange, "init_ephemeral");
    let (initiation, pending) = create_initiation(
        &local,
        &remote,
        ephemeral,
        index(exchange, "init_sender"),
        timestamp,
    );
    assert_eq!(initiation.emit().to_vec(), bytes(exchange, "initiation"));

    let response = bytes(exchange, "response");
    assert!(verify_mac1(&local, &response));
    let psk = PresharedKey::from_bytes(array(exchange, "psk"));
    let keys = pending
        .consume_response(&local, &parse_response(&response), &psk)
        .expect("their response is consumed");
    assert_data_matches(exchange, keys);
}

fn assert_responder_matches(exchange: &str) {
    let local = local(exchange, "resp_static");
    let remote = remote(exchange, &local, "init_public");
    let initiation = bytes(exchange, "initiation");
    assert!(verify_mac1(&local, &initiation));
    let proven = open_initiation(&local, &parse_initiation(&initiation))
        .expect("their initiation opens")
        .authenticate(&remote)
        .expect("their initiation authenticates");
    assert_eq!(
        proven.timestamp().as_bytes(),
        &array(exchange, "init_timestamp")
    );

    let psk = PresharedKey::from_bytes(array(exchange, "psk"));
    let ephemeral = array(exchange, "resp_ephemeral");
    let (response, keys) = proven
        .respond(&psk, &ephemeral, index(exchange, "resp_sender"))
        .expect("responds");
    assert_eq!(response.emit().to_vec(), bytes(exchange, "response"));
    assert_data_matches(exchange, keys);
}

#[test]
fn wireguard_go_answers_our_initiation() {
    assert_initiator_matches("python_initiates");
}

#[test]
fn wireguard_go_answers_our_initiation_with_preshared_key() {
    assert_initiator_matches("python_initiates_psk");
}

#[test]
fn wireguard_go_accepts_our_response() {
    assert_responder_matches("wireguard_go_initiates");
}

#[test]
fn wireguard_go_accepts_our_response_with_preshared_key() {
    assert_responder_matches("wireguard_go_initiates_psk");
}
