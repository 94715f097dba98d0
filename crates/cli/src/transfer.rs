//! File transfer over one bidirectional stream: `wiremesh send` and `wiremesh receive`.
//!
//! Owns the transfer protocol, the checks of what a sender may name, and the rules that keep a
//! half file from ever having its final name. It is generic over the stream, so it never knows
//! of nodes, tunnels or tickets; the 16-byte secret of the ticket is an argument.
//!
//! The conversation (all numbers little-endian, each message a frame, see [`frame`]):
//!
//! ```text
//! receiver                                   sender
//! HELLO version, secret            ->
//!                                  <-        ENTRIES ... ENTRIES_END      (or REFUSED)
//! WANT file, offset, prefix hash   ->                                     (many in flight)
//!                                  <-        FILE offset, DATA ..., DONE hash   (or FAILED)
//! WANT_END                         ->
//! BYE                              ->
//!                                  <-        end of stream
//! ```
//!
//! Resuming: the receiver keeps `.NAME.wiremesh-part` and beside it a small state file that says
//! for which size and time it is and how many bytes are safe on the disk. It asks for the rest and
//! names the BLAKE3 hash of what it has; a sender whose file begins differently starts at zero.
//! BLAKE3 over the whole file decides at the end, and only then does the file get its name.

mod disk;
pub mod error;
pub mod frame;
pub mod manifest;
pub mod meter;
pub mod names;
pub mod part;
pub mod plan;
pub mod prefix;
pub mod receive;
pub mod send;
mod store;
pub mod walk;

pub use error::{Refusal, TransferError};
pub use manifest::{Entry, Kind, Manifest, Modified};
pub use meter::Meter;
pub use plan::{Answer, Overwrite};
pub use receive::{Options, Received, receive};
pub use send::{Sent, serve};
pub use walk::{Source, Walked, walk};

/// The protocol name that both sides negotiate for a transfer.
pub const PROTOCOL: &str = "wiremesh-file/1";

/// Length of the secret that a ticket carries.
pub const SECRET_LEN: usize = 16;

/// Bytes of a file in one frame.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Frames that wait between the stream and the disk, on either side.
pub(crate) const QUEUE_FRAMES: usize = 8;

/// Files that a receiver asks for ahead of the one that arrives.
pub(crate) const AHEAD_FILES: usize = 64;
