//! The null-crypto provider: QUIC without TLS and without encryption of its own.
//!
//! Owns: the handshake that stands in for TLS, the parameters that 0-RTT assumes, the default
//! transport settings, and seeded identifiers and keys, so that equal seeds give equal bytes.
//! Never does: encryption, authentication of a peer, sockets, clocks, OS randomness.
//! Specification: RFC 9000 for everything around the handshake; this page for the handshake.
//!
//! # Where it may run
//!
//! Only inside a tunnel that authenticates and encrypts, between two addresses which the tunnel
//! ties to the two peers' keys. Packets carry no proof of their origin; whoever can
//! write a datagram with the peer's inner source address controls the connection. Quinn ignores
//! datagrams of a connection that come from another address than the one it was made with, since
//! migration is off. [`quinn_proto::crypto::Session::peer_identity`] says nothing of the peer, whose
//! identity is the tunnel's key for that address: it gives the connection's [`Attachment`].
//!
//! # QUIC version and packets
//!
//! The QUIC version field is [`QUIC_VERSION`] (`0x776d0001`), so that a QUIC version 1 endpoint
//! answers with version negotiation instead of misreading us. Packets are those of QUIC version 1
//! with no header protection, no Retry and an AEAD that leaves the payload as it is; its tag is the
//! one byte [`PACKET_TAG`] (`0xff`), and a packet that ends in another is dropped. A key update
//! changes only the phase bit.
//!
//! The tag keeps packets and stateless resets apart (RFC 9000 section 10.3). A receiver looks for
//! the peer's reset token at the end of a packet before it opens it, and without the byte a packet
//! could end in a token: in a NEW_CONNECTION_ID frame, or in what an application sends. A node
//! issues only tokens whose last byte is below `0x80`. So no packet is ever taken for a reset, and
//! no reset, even one with a token that is no longer known, for a packet.
//!
//! # Handshake messages
//!
//! Integers are big-endian. Each message starts with
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version of this layout: 1 |
//! | 1 | message type |
//! | 2 | length of the body, at most 4,092 |
//!
//! and each is the only one of its direction in its packet number space; bytes after it are an
//! error, and so are a second copy, a message out of turn and any CRYPTO data after the handshake.
//!
//! | type | message | space | body |
//! |---|---|---|---|
//! | 1 | client hello | Initial | protocol names, transport parameters |
//! | 2 | server hello | Initial | early data, chosen protocol name |
//! | 3 | server parameters | Handshake | transport parameters |
//! | 4 | client finished | Handshake | empty |
//!
//! * *protocol names*: 1 byte count (1 to 32), then per name 1 byte length (1 to 255) and the name.
//!   The names are distinct, in the client's order of preference, and take at most 2,048 bytes
//!   with their length bytes.
//! * *early data*: 1 byte; 1 when the server reads the client's 0-RTT data, 0 when it discards it.
//! * *chosen protocol name*: 1 byte length (1 to 255) and one of the offered names.
//! * *transport parameters*: 2 bytes length (at most 1,024), then the encoding of RFC 9000 section
//!   18: id, length, value. At most 64, each id at most once, unknown ids ignored;
//!   `preferred_address` is an error, since a tunnel peer has one address. A sender sorts
//!   them by id, and leaves out reserved ids and `active_connection_id_limit` (so 2 applies:
//!   connections do not migrate).
//!
//! The server chooses the first name of *its* list that the client offers. When there is none it
//! closes the connection with `no_application_protocol` (QUIC error `0x178`) and a reason that
//! names what was offered; there is no server hello then. Other errors close with `0x10a` (message
//! out of turn, trailing bytes), `0x12f` (illegal value), `0x132` (cannot be decoded), `0x146` (layout
//! version), `0x8` (transport parameters) and `0xd` (message too long).
//!
//! # 0-RTT without tickets
//!
//! A client sends data in its first flight, under the fixed limits in [`assumed`], which every node
//! grants at least ([`CheckedTransport`] enforces it). The data belongs to the *first* name that
//! the client offers, so the server reads it only when it chooses that name. A client that offers
//! several names and has another one chosen sends its data again. The tunnel drops replayed
//! packets, so 0-RTT data cannot be replayed as TLS's can.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod assumed;
mod attachment;
mod carried;
mod client;
mod error;
mod keys;
mod message;
mod parameters;
mod protocols;
mod provider;
mod server;
#[cfg(test)]
mod session_tests;
mod transport;

pub use attachment::Attachment;
pub use carried::{Carried, carried};
pub use keys::{PACKET_TAG, ResetKey, long_enough_for_a_reset};
pub use message::{MESSAGE_LEN_MAX, PARAMETERS_LEN_MAX};
pub use protocols::{
    HandshakeData, InvalidProtocols, PROTOCOL_NAME_LEN_MAX, PROTOCOLS_LEN_MAX, PROTOCOLS_MAX,
};
pub use provider::{
    INCOMING_BUFFER_BYTES_MAX, INCOMING_BUFFER_TOTAL_BYTES_MAX, INCOMING_MAX, Provider,
    QUIC_VERSION,
};
pub use transport::{
    CheckedTransport, IDLE_TIMEOUT, INITIAL_MTU_BYTES, MAX_BIDI_STREAMS, MAX_UDP_PAYLOAD_BYTES,
    MAX_UNI_STREAMS, RECEIVE_WINDOW_BYTES, SEND_WINDOW_BYTES, STREAM_RECEIVE_WINDOW_BYTES,
    SettingOutOfRange, at_least_assumed, default_transport,
};

/// QUIC error of a connection without a common protocol: TLS alert `no_application_protocol`.
pub const NO_APPLICATION_PROTOCOL: u64 = 0x178;
