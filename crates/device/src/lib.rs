//! A TUN device with offloads: up to 64 KiB of one flow per system call, both ways.
//!
//! Owns the device's descriptor, cutting super-packets of the host into IP packets ([`Arrival`])
//! and joining packets for the host into super-packets ([`Departures`]). It looks into IP, TCP and
//! UDP headers for that and for nothing else: whose packet it is and where it goes is decided
//! above. Layer 3 of the architecture; Linux only, empty elsewhere.
//!
//! ```no_run
//! # #[cfg(target_os = "linux")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wiremesh_device::{Arrival, Departures, Tun};
//!
//! let tun = Tun::create(Some("wm0"))?;
//! tun.set_mtu(1420)?;
//! tun.up()?;
//! let mut arrival = Arrival::default();
//! let mut departures = Departures::default();
//! loop {
//!     tun.readable().await?;
//!     while tun.try_recv(&mut arrival).is_ok() {
//!         for segment in arrival.segments() {
//!             let mut packet = vec![0; segment.len()];
//!             segment.write(&mut packet);
//!             departures.push(&packet);
//!         }
//!     }
//!     departures.flush(&tun);
//! }
//! # }
//! ```
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod arrival;
mod departures;
mod error;
mod flow;
mod kernel;
mod tun;
mod vnet;

#[cfg(test)]
mod properties;

pub use arrival::{Arrival, Segment, Segments};
pub use departures::{Departures, Flushed};
pub use error::TunError;
pub use kernel::watch;
pub use tun::{Offloads, Tun};
