//! The `wiremesh` command.
//!
//! Layer 5. It owns what a person sees: arguments, configuration files, messages, progress, and
//! the file transfer. It holds no logic of the tunnel protocol.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod access;
pub mod args;
pub mod commands;
pub mod config;
pub mod control;
pub mod failure;
pub mod folders;
pub mod interface;
pub mod keys;
pub mod log;
pub mod node;
pub mod progress;
pub mod qr;
pub mod say;
pub mod security;
pub mod socks5;
pub mod status;
pub mod suggest;
pub mod table;
pub mod term;
pub mod transfer;
pub mod uapi;
pub mod units;
