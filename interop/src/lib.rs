//! The laboratory in which Wiremesh meets real WireGuard programs: wireguard-go, boringtun and the
//! Linux kernel.
//!
//! It owns network namespaces, the links between them, the programs it starts there and a capture
//! of what they say. It never touches a namespace, an interface or a process that it did not make,
//! and every wait in it has an end. It needs root; without it the tests say so and do nothing.
//! What they prove is the interoperation part of `docs/spec.md`: WireGuard v1 byte for byte.

#![forbid(unsafe_code)]

pub mod arena;
pub mod capture;
pub mod facts;
pub mod guest;
pub mod kernel_mode;
pub mod keys;
pub mod modes;
pub mod named;
pub mod netns;
pub mod node;
pub mod outcome;
pub mod pair;
pub mod place;
pub mod process;
pub mod programs;
pub mod runner;
pub mod scenarios;
pub mod sctp;
pub mod stock;
pub mod uapi;
