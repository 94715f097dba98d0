//! Batched UDP for the layers above: many datagrams per system call, both ways.
//!
//! Owns the operating system's UDP sockets (usually one IPv4 and one IPv6-only on the same port),
//! their offloads (GSO out, GRO and `recvmmsg` in), path-MTU mode (datagrams are never fragmented),
//! source pinning, and the judgement which socket errors matter. It never looks into a datagram:
//! no protocol knowledge lives here. Layer 3 of the architecture.
//!
//! # Receiving
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let sockets = wiremesh_udp::UdpSockets::bind_any(0)?;
//! let mut batch = wiremesh_udp::RecvBatch::default();
//! loop {
//!     sockets.recv(&mut batch).await?;
//!     for datagram in batch.datagrams_mut() {
//!         println!("{} bytes from {}", datagram.data.len(), datagram.source);
//!     }
//! }
//! # }
//! ```
//!
//! # Errors
//!
//! A datagram that cannot be delivered is no reason to stop: [`SendError::Dropped`] concerns one
//! destination and is counted by [`DropReason`]. Only [`SendError::Fatal`] and an error from
//! receiving concern the socket itself; the answer to both is [`UdpSockets::rebind`].

#![forbid(unsafe_code)]

mod batch;
mod bind;
mod counters;
mod errors;
#[cfg(feature = "virtual")]
#[doc(hidden)]
pub mod memory;
mod receive;
mod send;
mod socket;
mod sockets;
mod wakers;
mod watch;

pub use batch::{BUFFER_BYTES, BUFFERS_DEFAULT, Datagram, RecvBatch, RecvBuffer};
pub use bind::{BindError, SOCKETS_MAX, UdpConfig};
pub use counters::UdpCounters;
pub use errors::DropReason;
pub use send::{SendError, Sent, Transmit};
pub use socket::BufferSizes;
pub use sockets::{Rebound, UdpSockets};
pub use watch::{AddressChange, AddressWatch, local_address_towards};
