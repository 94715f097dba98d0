//! The privileged helper of Wiremesh: what it can be asked, and how a node asks.
//!
//! Layer 5. It owns the verbs ([`verbs`]) and a blocking client ([`client`]); the program
//! `wiremesh-netadmin` beside it is the only part of Wiremesh that runs with a capability. The
//! helper knows no keys and no protocol.

#![cfg(target_os = "linux")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod client;
pub mod verbs;

/// Where the helper listens when nothing else is said.
pub const SOCKET: &str = "/run/wiremesh/netadmin.sock";
