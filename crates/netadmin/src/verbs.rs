//! The verbs of the helper and its replies, byte by byte.
//!
//! Owns what a client may ask for: names, sizes, address ranges. A request that parses is within
//! these bounds, and has exactly one form. It never does I/O and keeps no state; no reply has a
//! place for a secret.
//!
//! One message is one packet of a Unix `SOCK_SEQPACKET` socket; numbers are little-endian:
//!
//! ```text
//! message         version = 1 | kind u8 | length u16 | ...
//! make TUN        1 | name 16 | mtu u16 | addresses u8 | routes u8 | prefix 18 ...
//! make WireGuard  2 | secret key 32 | port u16 | as make TUN
//! set peer        3 | key 32 | flags u8 | preshared key 32 | endpoint 23 | keepalive u16 | prefix 18 ...
//! remove peer     4 | key 32
//! read figures    5 | from u16
//! made            0 | index u32
//! done            1
//! figures         2 | port u16 | left u16 | figures 83 ...
//! refused         3 | reason u8 | text
//! figures         key 32 | endpoint 23 | seconds u64 | nanoseconds u32 | received u64 | sent u64
//! endpoint        address 17 | port u16 | scope u32
//! prefix          address 17 | bits u8
//! address         family u8 (4, 6; 0 is none) | 16 (IPv4: 4 and zeros)
//! ```

mod interface;
mod peer;
mod refusal;

pub use interface::{
    ADDRESSES_MAX, Interface, MTU_BYTES_MIN, NAME_PREFIX, Name, Prefix, ROUTES_MAX,
};
pub use peer::{ALLOWED_IPS_MAX, FIGURES_MAX, Figures, Key, PEERS_MAX, PeerChange, PeerFigures};
pub use refusal::{DETAIL_BYTES_MAX, Reason, Refusal};

use interface::PREFIX_BYTES;
use peer::{FIGURES_BYTES, PEER_BYTES};
use std::fmt;
use zeroize::Zeroizing;

/// The version of this format.
pub const VERSION: u8 = 1;
/// Bytes of the longest request.
pub const REQUEST_BYTES_MAX: usize = 4 + PEER_BYTES + ALLOWED_IPS_MAX * PREFIX_BYTES;
/// Bytes of the longest reply.
pub const REPLY_BYTES_MAX: usize = 8 + FIGURES_MAX * FIGURES_BYTES;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Make a TUN device, with the filter table, and pass its descriptor. It goes with the
    /// connection.
    MakeTun(Interface),
    /// Make an interface of the kernel's WireGuard, with the filter table. It goes with the
    /// connection.
    MakeWireguard {
        /// The interface.
        interface: Interface,
        /// Its secret key.
        private_key: Zeroizing<Key>,
        /// Its UDP port; 0 is any free one. Those below 1024 are the system's.
        listen_port: u16,
    },
    /// Change a peer of the connection's interface, or make it.
    SetPeer(PeerChange),
    /// Remove a peer of the connection's interface; none is none.
    RemovePeer(Key),
    /// Tell the figures of the peers from this one on, as they were when the first were told.
    ReadFigures {
        /// How many have been told.
        from: u16,
    },
}

/// Without what is in it: there may be keys.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakeTun(_) => "MakeTun",
            Self::MakeWireguard { .. } => "MakeWireguard",
            Self::SetPeer(_) => "SetPeer",
            Self::RemovePeer(_) => "RemovePeer",
            Self::ReadFigures { .. } => "ReadFigures",
        })
    }
}

impl Request {
    /// The bytes of the request.
    ///
    /// # Errors
    ///
    /// What the helper would refuse it for without looking at the host.
    pub fn emit(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        // Room for the longest, so that no key stays behind where a shorter one was.
        let mut out = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES_MAX));
        out.extend([VERSION, 0, 0, 0]);
        out[1] = match self {
            Self::MakeTun(interface) => {
                interface.emit(&mut out)?;
                1
            }
            Self::MakeWireguard {
                interface,
                private_key,
                listen_port,
            } => {
                if (1..1024).contains(listen_port) {
                    return Err(Refusal::with(Reason::Port, listen_port));
                }
                out.extend(private_key.iter());
                out.extend(listen_port.to_le_bytes());
                interface.emit(&mut out)?;
                2
            }
            Self::SetPeer(change) => {
                change.emit(&mut out)?;
                3
            }
            Self::RemovePeer(key) => {
                out.extend(key);
                4
            }
            Self::ReadFigures { from } => {
                out.extend(from.to_le_bytes());
                5
            }
        };
        write_length(&mut out);
        Ok(out)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`Reason::Version`], [`Reason::Malformed`], or what is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.first().is_some_and(|&version| version != VERSION) {
            return Err(Reason::Version.into());
        }
        let mut reader = Reader(bytes);
        let [_, verb, _, _] = reader.take()?;
        let request = match verb {
            1 => Self::MakeTun(Interface::read(&mut reader)?),
            2 => Self::MakeWireguard {
                private_key: Zeroizing::new(reader.take()?),
                listen_port: u16::from_le_bytes(reader.take()?),
                interface: Interface::read(&mut reader)?,
            },
            3 => Self::SetPeer(PeerChange::read(&mut reader)?),
            4 => Self::RemovePeer(reader.take()?),
            5 => Self::ReadFigures {
                from: u16::from_le_bytes(reader.take()?),
            },
            _ => return Err(Reason::Malformed.into()),
        };
        // One request has one form: whatever else is in the bytes does not come back.
        match request.emit()?[..] == *bytes {
            true => Ok(request),
            false => Err(Reason::Malformed.into()),
        }
    }
}

/// The helper's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The interface with this index is there. With a TUN device, its descriptor is beside this.
    Made(u32),
    /// It is done.
    Done,
    /// Figures of at most [`FIGURES_MAX`] peers.
    Figures {
        /// These.
        figures: Figures,
        /// How many peers come after them.
        left: u16,
    },
    /// Nothing was done.
    Refused(Refusal),
}

impl Reply {
    /// The bytes of the reply.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0];
        out[1] = match self {
            Self::Made(index) => {
                out.extend(index.to_le_bytes());
                0
            }
            Self::Done => 1,
            Self::Figures { figures, left } => {
                out.extend(figures.listen_port.to_le_bytes());
                out.extend(left.to_le_bytes());
                figures.peers.iter().for_each(|peer| peer.emit(&mut out));
                2
            }
            Self::Refused(refusal) => {
                out.push(refusal.reason as u8);
                out.extend(refusal.detail.bytes());
                3
            }
        };
        write_length(&mut out);
        out
    }

    /// Reads a reply; `None` is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let [_, kind, _, _] = reader.take().ok()?;
        let reply = match kind {
            0 => Self::Made(u32::from_le_bytes(reader.take().ok()?)),
            1 => Self::Done,
            2 => {
                let listen_port = u16::from_le_bytes(reader.take().ok()?);
                let left = u16::from_le_bytes(reader.take().ok()?);
                let peers = reader.all(FIGURES_MAX, PeerFigures::read).ok()?;
                let figures = Figures { listen_port, peers };
                Self::Figures { figures, left }
            }
            3 => Self::Refused(Refusal::read(&mut reader)?),
            _ => return None,
        };
        (reply.emit() == bytes).then_some(reply)
    }
}

fn write_length(message: &mut [u8]) {
    let length = message.len() as u16;
    message[2..4].copy_from_slice(&length.to_le_bytes());
}

/// What is left to read of a message.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Reason::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// As many as there are, up to a limit.
    fn all<T>(
        &mut self,
        max: usize,
        read: impl Fn(&mut Self) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let mut all = Vec::new();
        while !self.0.is_empty() && all.len() < max {
            all.push(read(self)?);
        }
        Ok(all)
    }
}
