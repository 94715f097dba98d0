//! Byte layouts of everything Wiremesh sends or shows: WireGuard messages, IP packets, keys,
//! addresses and tickets; and the time types of the pure layers.
//!
//! Layer 0. It turns untrusted bytes and text into types that cannot hold invalid values, and
//! such types back into bytes. It never does I/O, never reads a clock or randomness, holds no
//! protocol state and, apart from [`ticket`] and [`endpoint`] (text that
//! people type, with stated limits), allocates nothing while it parses.

//!
//! ```
//! use wiremesh_wire::{NodeId, Ticket, address};
//!
//! // The public key as `wg pubkey` prints it.
//! let node_id: NodeId = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".parse()?;
//! assert!(address::OVERLAY_NET.contains(address::overlay_address(&node_id).into()));
//!
//! let mut ticket = Ticket::new(node_id);
//! ticket.endpoints.push("host.example:51820".parse()?);
//! assert_eq!(ticket.to_string().parse(), Ok(ticket));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod address;
mod base32;
pub mod content;
pub mod endpoint;
pub mod ip;
pub mod message;
pub mod net;
pub mod node_id;
mod priority;
pub mod secret;
pub mod text;
pub mod ticket;
pub mod time;

pub use address::{NetworkId, network_id};
pub use content::Content;
pub use endpoint::{Endpoint, EndpointError, HostName};
pub use message::{
    CookieReply, HandshakeInitiation, HandshakeResponse, Message, MessageError, TransportDataHeader,
};
pub use net::{IpNet, IpNetError};
pub use node_id::{InvalidNodeId, NodeId, ParseNodeIdError};
pub use priority::{Priority, UnknownPriority};
pub use secret::{PresharedKey, SecretKey};
pub use text::KeyTextError;
pub use ticket::{Ticket, TicketError, TicketSecret};
pub use time::{Instant, Now, Tai64n, UnixTime};
