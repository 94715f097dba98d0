//! A deterministic simulator: whole networks of nodes under virtual time, from one seed.
//!
//! Owns links, clocks, faults, an attacker, application traffic, and the checks. Never does: use a
//! thread, a clock, or randomness of the operating system, so that a seed is a run and a failure is
//! a number. The engine under test is `wiremesh-core` as it is, not a model of it.
//!
//! A run has four phases: chaos (bad links, faults, attacks, traffic), healing (all of that off but
//! traffic), a window in which each packet must arrive, and quiet, after which nothing may be left.
//!
//! ```
//! use wiremesh_sim::{Options, Simulation};
//! let report = Simulation::run(7, &Options::default()).expect("every invariant holds");
//! assert!(report.delivered > 0);
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod attacker;
mod check;
mod disk;
mod fault;
mod host;
pub mod lab;
mod levels;
mod link;
mod options;
pub mod plot;
mod random;
mod setup;
mod spy;
mod suite_fault;
mod suites;
mod trace;
mod traffic;
mod transitions;
pub mod upgrade;
mod watch;
mod world;

pub use options::{Failure, Mutation, Options, Report, Rule};
pub use world::Simulation;
