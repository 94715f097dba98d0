//! What each fuzz target does with arbitrary bytes, and what must hold whatever they are.
//!
//! Owns one module per target with a function `run`, which panics when something does not hold.
//! Never reads a clock or randomness that could change what an input does: a crash is found again
//! from its file. `cargo xtask fuzz` builds the targets in `targets/` with coverage and runs them.

#![forbid(unsafe_code)]

pub mod config;
pub mod control_machine;
pub mod control_messages;
pub mod device;
pub mod gossip;
pub mod input;
pub mod ip;
pub mod message;
pub mod netadmin;
pub mod node;
pub mod quic_handshake;
pub mod simulation;
pub mod socks5;
pub mod text;
pub mod ticket;
pub mod uapi;
