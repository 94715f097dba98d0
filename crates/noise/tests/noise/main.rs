//! Tests of the handshake and session cryptography: published vectors, recorded exchanges,
//! tables and properties. No clock, no socket, no randomness but proptest's own.

mod cookies;
mod handshake;
mod primitives;
mod recorded;
mod replay;
mod session;
mod support;
mod vectors;
