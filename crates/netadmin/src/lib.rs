//! The privileged helper of Wiremesh: what it can be asked, and how a node asks.
//!
//! Layer 3. It owns the verbs ([`verbs`]) and a blocking client ([`client`]); the program
//! `wiremesh-netadmin` beside it (feature `helper`) is the only part of Wiremesh that runs with a
//! capability. The helper knows no protocol, and keeps no key: it gives them to the kernel's
//! WireGuard and never tells one.

#![cfg(target_os = "linux")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod client;
pub mod verbs;

/// Where the helper listens when nothing else is said.
pub const SOCKET: &str = "/run/wiremesh/netadmin.sock";
