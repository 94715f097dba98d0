//! What several test files share: hex, the vector files, and a pair of nodes.

use wiremesh_noise::crypto::{hash, mac};
use wiremesh_noise::{
    AuthenticatedInitiation, HandshakeError, LocalIdentity, RemoteIdentity, SessionKeys,
    create_initiation, open_initiation, verify_mac1,
};
use wiremesh_wire::{
    HandshakeInitiation, HandshakeResponse, NodeId, PresharedKey, SecretKey, Tai64n, UnixTime,
};

/// Decodes hex of any even length.
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hex has two digits a byte");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("a hex digit"))
        .collect()
}

/// Decodes hex of a fixed length.
pub fn hex_array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().expect("the length asked for")
}

/// A file of `name = hex` lines.
pub struct Vectors(pub &'static str);

impl Vectors {
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let value = self.0.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim())
        });
        hex(value.unwrap_or_else(|| panic!("no vector {name}")))
    }

    pub fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name)
            .try_into()
            .unwrap_or_else(|_| panic!("length of {name}"))
    }
}

pub fn identity(seed: u8) -> LocalIdentity {
    LocalIdentity::new(SecretKey::from_bytes([seed; 32])).expect("a clamped secret has a node id")
}

pub fn psk(seed: u8) -> PresharedKey {
    PresharedKey::from_bytes([seed; 32])
}

pub fn at(secs: u64) -> Tai64n {
    Tai64n::from_unix(UnixTime::from_secs_nanos(secs, 0))
}

/// Sets mac1 again after a test has changed the message: everyone who knows the node id can.
pub fn remac(message: &mut [u8], receiver: &NodeId) {
    let end = message.len() - 32;
    let key = hash(&[b"mac1----", receiver.as_bytes()]);
    let mac1 = mac(&key, &message[..end]);
    message[end..end + 16].copy_from_slice(&mac1);
}

/// Two nodes that know each other.
pub struct Pair {
    pub initiator: LocalIdentity,
    pub responder: LocalIdentity,
    pub to_responder: RemoteIdentity,
    pub to_initiator: RemoteIdentity,
}

impl Pair {
    pub fn new(initiator: u8, responder: u8) -> Pair {
        let (initiator, responder) = (identity(initiator), identity(responder));
        let to_responder = RemoteIdentity::new(&initiator, responder.node_id());
        let to_initiator = RemoteIdentity::new(&responder, initiator.node_id());
        Pair {
            initiator,
            responder,
            to_responder,
            to_initiator,
        }
    }

    /// Takes an initiation as the responder does.
    pub fn authenticate(
        &self,
        message: &HandshakeInitiation,
    ) -> Result<AuthenticatedInitiation, HandshakeError> {
        open_initiation(&self.responder, message)?.authenticate(&self.to_initiator)
    }

    /// Runs a whole handshake: the initiator's keys, then the responder's.
    pub fn handshake(&self, psk: &PresharedKey) -> (SessionKeys, SessionKeys) {
        let (initiation, pending) =
            create_initiation(&self.initiator, &self.to_responder, [3; 32], 7, at(1));
        assert!(verify_mac1(&self.responder, &initiation.emit()));
        let opened = self.authenticate(&initiation).expect("a true initiation");
        let (response, theirs) = opened.respond(psk, &[4; 32], 9).expect("a true initiation");
        assert!(verify_mac1(&self.initiator, &response.emit()));
        let ours = pending
            .consume_response(&self.initiator, &response, psk)
            .expect("a true response");
        (ours, theirs)
    }
}

pub fn parse_initiation(bytes: &[u8]) -> HandshakeInitiation {
    HandshakeInitiation::parse(bytes.try_into().expect("148 bytes")).expect("an initiation")
}

pub fn parse_response(bytes: &[u8]) -> HandshakeResponse {
    HandshakeResponse::parse(bytes.try_into().expect("92 bytes")).expect("a response")
}

/// A datagram with room for header and tag around the plaintext.
pub fn room_around(plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; 16];
    datagram.extend_from_slice(plaintext);
    datagram.extend_from_slice(&[0; 16]);
    datagram
}
