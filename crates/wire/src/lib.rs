//! Byte layouts of everything Wiremesh sends or shows: WireGuard messages, IP packets, keys,
//! addresses and tickets; and the time types of the pure layers.
//!
//! Layer 0. It turns untrusted bytes and text into types that cannot hold invalid values, and
//! such types back into bytes. It never does I/O, never reads a clock or randomness, holds no
//! protocol state and, apart from [`ticket`], [`net`] and [`address`] (text that people type),
//! allocates nothing while it parses.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod base32;
pub mod message;
pub mod node_id;
pub mod secret;
pub mod text;
pub mod time;

pub use message::{
    CookieReply, HandshakeInitiation, HandshakeResponse, Message, MessageError, TransportDataHeader,
};
pub use node_id::{InvalidNodeId, NodeId, ParseNodeIdError};
pub use secret::{PresharedKey, SecretKey};
pub use text::KeyTextError;
pub use time::{Instant, Now, Tai64n, UnixTime};
