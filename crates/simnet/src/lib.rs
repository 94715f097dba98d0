//! Real nodes (the engine, quinn's streams, the driver: all of `wiremesh`) in virtual time, on a
//! network in memory, in one thread, from a seed.
//!
//! Owns the runtime, the hosts and their keys, the traffic and how its delays are taken. Never looks
//! at a real clock and never opens a socket.

#![forbid(unsafe_code)]

pub mod delays;
pub mod message;
pub mod priority;
pub mod traffic;
pub mod world;

pub use delays::Delays;
pub use wiremesh_udp::memory::{LinkConfig, LinkCounters, LinkId, Network};
pub use world::{World, run};
