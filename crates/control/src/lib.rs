//! How two nodes agree on a security level: suites, signed records, pins, and the PSK exchange.
//!
//! Owns the protocol between control addresses and its state per peer. Never does: I/O, clocks,
//! randomness of its own (all are arguments), transport keys. Source: docs/spec.md section 7.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod exchange;
pub mod frame;
pub mod kem;
pub mod kernel;
pub mod local;
pub mod machine;
pub mod message;
pub mod pin;
pub mod policy;
pub mod record;
pub mod schedule;
pub mod sign;
pub mod suite;

pub use kem::{InvalidKemKey, KemSecret, encapsulate};
pub use local::{Local, LocalConfig, Plane};
pub use machine::{Machine, MachineStatus, PeerSettings, Phase, WaitReason};
pub use pin::Pin;
pub use policy::{Policy, PolicyError, Stage, required_level};
pub use record::{Field, Record, RecordError, SignedRecord};
pub use sign::{InvalidSignature, SIGNATURE_LEN, Signer};
pub use suite::{Level, SuiteId, Suites, SuitesError, choose};

/// A source of random bytes, given from outside.
pub trait Random {
    /// Fills `out` with fresh random bytes.
    fn fill(&mut self, out: &mut [u8]);
}
