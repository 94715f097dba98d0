//! One WireGuard node as a state machine: peers, sessions, timers, admission and dispatch.
//!
//! Owns: everything between a UDP datagram and an IP packet. Never does: I/O, clocks, operating
//! system randomness, iteration over hash maps. Source: the WireGuard paper, sections 5 and 6.
//!
//! # How to drive a [`Node`]
//!
//! 1. Feed it: [`Node::handle_datagram`], [`Node::handle_packet`], [`Node::handle_timeout`] and
//!    the commands.
//! 2. Drain it, in this order: [`Node::poll_event`] until `None` (a reservation of timestamps must
//!    be on disk before the datagrams that use it leave), then [`Node::poll_transmit`] until
//!    `None` or the socket is full, then ask [`Node::poll_timeout`] when to come back.
//!
//! Received packets are decrypted in place and returned by [`Node::handle_datagram`] itself, so no
//! buffer is copied or queued on the way in; [`Node::seal_packet`] is its mirror on the way out.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
extern crate alloc;

mod agreeing;
mod allowed_ips;
mod clock;
mod config;
mod counters;
mod drbg;
mod egress;
mod event;
mod kernel;
mod load;
mod node;
mod peer;
mod prefixes;
mod psk_slots;
mod remote;
mod sessions;
mod staged;
mod status;
mod timers;
mod wheel;

pub use allowed_ips::{AllowedIps, Overlap};
pub use config::{
    AddPeerError, Admission, ControlConfig, Limits, NewNodeError, NodeConfig, Path, PeerConfig,
    Routing,
};
pub use counters::{Counters, DropReason};
pub use egress::{
    ClassDelays, Delays, Demand, Departure, Egress, EgressConfig, InvalidEgress, Ledger, RATE_MAX,
    RATE_MIN,
};
pub use event::{Event, HandshakeFailure};
pub use kernel::{KERNEL_PEERS_MAX, KernelFigures, KernelNode, KernelPeerChange, KernelTask};
pub use node::{
    GATE_CLOSED, GATE_OPEN, Node, NotReady, Received, Rejected, Transmit, Usage, sealed_stream_len,
};
pub use peer::PeerKey;
pub use status::{PeerSecurity, PeerState, PeerStatus};
