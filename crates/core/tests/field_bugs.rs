//! Bugs that other implementations had in the field, each as a test, and the timers of the
//! WireGuard paper (section 6). Every test runs whole nodes in memory under virtual time.
#![allow(clippy::unwrap_used)]

#[path = "field_bugs/clocks.rs"]
mod clocks;
#[path = "field_bugs/data.rs"]
mod data;
#[path = "field_bugs/handshakes.rs"]
mod handshakes;
#[path = "field_bugs/load.rs"]
mod load;
#[path = "support/net.rs"]
mod net;
#[path = "field_bugs/sources.rs"]
mod sources;
#[path = "field_bugs/strangers.rs"]
mod strangers;
#[path = "field_bugs/timers.rs"]
mod timers;
