//! Linux's network configuration over netlink, never by tools.
//!
//! Layer 3. It owns the bytes of the requests. It knows no protocol of Wiremesh and keeps
//! neither state nor keys.

#![cfg(target_os = "linux")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod interface;
mod message;
pub mod nftables;
pub mod qdisc;
pub mod wireguard;
