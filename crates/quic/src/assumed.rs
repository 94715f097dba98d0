//! The transport parameters that a client assumes of every server until it has the real ones.
//!
//! Owns the constants; they are part of the wire protocol, because a node that grants less breaks
//! 0-RTT with every peer (quinn closes such a connection). Lowering one needs a new
//! [`crate::QUIC_VERSION`]; raising one too. Never holds what a node prefers:
//! [`crate::default_transport`] does.
//!
//! They are small because a first flight is small: the congestion window of a new connection
//! lets about 12 kB out. A receiver with little memory can grant them; an application that
//! writes more waits one round trip for the real limits.

use quinn_proto::Side;
use quinn_proto::transport_parameters::TransportParameters;

use crate::parameters::{self, emit_integer, id};

/// `initial_max_data`: bytes over all streams.
pub const INITIAL_MAX_DATA_BYTES: u64 = 131_072;
/// `initial_max_stream_data_*` of all three kinds: bytes per stream.
pub const INITIAL_MAX_STREAM_DATA_BYTES: u64 = 65_536;
/// `initial_max_streams_bidi`.
pub const INITIAL_MAX_STREAMS_BIDI: u64 = 16;
/// `initial_max_streams_uni`.
pub const INITIAL_MAX_STREAMS_UNI: u64 = 16;
/// `max_datagram_frame_size`: a datagram of the first flight fits a packet of 1,200 bytes anyway.
pub const MAX_DATAGRAM_FRAME_SIZE_BYTES: u64 = 1_200;
/// `max_udp_payload_size`: the smallest that QUIC allows, so every inner MTU from 1,280 grants it.
pub const MAX_UDP_PAYLOAD_SIZE_BYTES: u64 = 1_200;
/// `max_idle_timeout` in milliseconds.
pub const MAX_IDLE_TIMEOUT_MS: u64 = 60_000;

/// The assumed set in the form that quinn takes.
pub(crate) fn assumed_parameters() -> TransportParameters {
    let mut bytes = Vec::new();
    for (id, value) in [
        (id::MAX_IDLE_TIMEOUT, MAX_IDLE_TIMEOUT_MS),
        (id::MAX_UDP_PAYLOAD_SIZE, MAX_UDP_PAYLOAD_SIZE_BYTES),
        (id::INITIAL_MAX_DATA, INITIAL_MAX_DATA_BYTES),
        (
            id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
            INITIAL_MAX_STREAM_DATA_BYTES,
        ),
        (
            id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
            INITIAL_MAX_STREAM_DATA_BYTES,
        ),
        (
            id::INITIAL_MAX_STREAM_DATA_UNI,
            INITIAL_MAX_STREAM_DATA_BYTES,
        ),
        (id::INITIAL_MAX_STREAMS_BIDI, INITIAL_MAX_STREAMS_BIDI),
        (id::INITIAL_MAX_STREAMS_UNI, INITIAL_MAX_STREAMS_UNI),
        (id::MAX_DATAGRAM_FRAME_SIZE, MAX_DATAGRAM_FRAME_SIZE_BYTES),
    ] {
        emit_integer(id, value, &mut bytes);
    }
    parameters::parse(Side::Client, &bytes).expect("the constants are legal parameters")
}
