//! Test kit for programs with real UDP sockets.
//!
//! Owns [`impair`], a relay that stands between two programs and treats their datagrams as a bad
//! network does. It knows no protocol and is no part of any product: tests, benchmarks and people
//! use it. It never touches the system's configuration and needs no privilege.

#![forbid(unsafe_code)]

pub mod impair;
