//! The `wiremesh` command.
//!
//! Layer 5. It owns what a person sees: arguments, configuration files, messages, progress, and
//! the file transfer. It holds no logic of the tunnel protocol.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod config;
pub mod failure;
pub mod folders;
pub mod keys;
pub mod suggest;
pub mod transfer;
