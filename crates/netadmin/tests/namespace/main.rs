//! The helper in real network namespaces: what it makes, what it refuses, and what it leaves.
//!
//! Needs root, to make the namespaces and to become other users. The helper itself never runs as
//! root, and neither do its clients where that matters. What needs the kernel's WireGuard is skipped
//! where the kernel has none; `interop` runs it in its guest.
#![cfg(target_os = "linux")]

mod host;
mod misuse;
mod tun;
mod wireguard;
