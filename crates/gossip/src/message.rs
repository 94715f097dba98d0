//! What two neighbours say to each other: the layouts of all messages.
//!
//! Owns parsing and emitting, and the limits of lists. Bytes that a writer would not write are
//! refused. Never does: look at state. docs/spec.md section 8.3.

use alloc::vec::Vec;
use core::fmt;

use wiremesh_wire::{NodeId, Priority};

use crate::header::{CHUNK_LEN, CHUNKS_MAX, HEADER_LEN, Header};
use crate::id::ObjectId;

/// Most bytes of a message: the header of an object of 64 MiB.
pub const MESSAGE_MAX: usize = 1 + HEADER_LEN + CHUNKS_MAX * 32;
/// Most bytes of the addresses of a contact.
pub const ADDRESSES_MAX: usize = 64;
/// Most contacts in a shuffle.
pub const CONTACTS_MAX: usize = 8;
/// Most ids in one IHAVE, GRAFT or LACK.
pub const IDS_MAX: usize = 256;
/// Most ranges in one HAVE or WANT.
pub const RANGES_MAX: usize = 64;
/// Most hops of a walk through the network.
pub const HOPS_MAX: u8 = 16;

const _: () = assert!(1 + 34 + CHUNK_LEN <= MESSAGE_MAX);

/// A node, and what a link to it needs; the addresses mean nothing to this layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who it is.
    pub node: NodeId,
    /// Where it is, at most [`ADDRESSES_MAX`] bytes. Not verified by anybody.
    pub addresses: Vec<u8>,
}

/// Chunks `start..start + count` of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub start: u16,
    /// How many, at least one; the end is within [`CHUNKS_MAX`].
    pub count: u16,
}

/// Why a node wants to be a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It has room. Low priority of HyParView.
    Low,
    /// It has too few neighbours, and is not refused. High priority of HyParView.
    High,
    /// The two are near each other: the round trip, in tenths of a millisecond.
    Near(u16),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A newcomer asks to be let into the network. HyParView.
    Join {
        /// Where the newcomer is.
        addresses: &'a [u8],
    },
    /// A newcomer's walk. HyParView.
    ForwardJoin {
        /// Hops that are left.
        hops: u8,
        /// The newcomer.
        contact: Contact,
    },
    /// Asks to be taken into the active view. HyParView.
    Neighbor {
        /// Why.
        wish: Wish,
        /// Where who asks is.
        addresses: &'a [u8],
    },
    /// Answers JOIN and NEIGHBOR.
    NeighborReply {
        /// Whether who asked is in the active view now.
        accepted: bool,
    },
    /// Who sends it is no neighbour any more. HyParView.
    Disconnect,
    /// A walk that exchanges contacts. HyParView.
    Shuffle {
        /// Hops that are left.
        hops: u8,
        /// Leads the answer back.
        nonce: u64,
        /// Of the passive view of who began it, itself first.
        contacts: Vec<Contact>,
    },
    /// Goes the way of a shuffle back.
    ShuffleReply {
        /// That of the shuffle.
        nonce: u64,
        /// Of the passive view of the last node.
        contacts: Vec<Contact>,
    },
    /// Asks for a [`Message::Pong`].
    Ping {
        /// Comes back.
        token: u64,
    },
    /// Answers a [`Message::Ping`].
    Pong {
        /// That of the ping.
        token: u64,
    },
    /// An object: GOSSIP of Plumtree.
    Object {
        /// Its header.
        header: Header,
        /// Its content, or the hashes of its chunks.
        body: &'a [u8],
    },
    /// Objects that who sends it has. Plumtree.
    IHave {
        /// Their class.
        priority: Priority,
        /// At least one.
        ids: Vec<ObjectId>,
    },
    /// Asks for objects, and perhaps to be sent all others of the class too. Plumtree.
    Graft {
        /// The class.
        priority: Priority,
        /// Send what comes, and do not just announce it.
        push: bool,
        /// None only if `push`.
        ids: Vec<ObjectId>,
    },
    /// Announce objects of the class, and do not send them. Plumtree.
    Prune {
        /// The class.
        priority: Priority,
    },
    /// Answers a GRAFT or WANT for objects that are not there.
    Lack {
        /// At least one.
        ids: Vec<ObjectId>,
    },
    /// Chunks that who sends it has.
    Have {
        /// Of this object.
        id: ObjectId,
        /// At least one.
        ranges: Vec<Range>,
    },
    /// Asks for chunks.
    Want {
        /// Of this object.
        id: ObjectId,
        /// At least one.
        ranges: Vec<Range>,
    },
    /// A chunk.
    Chunk {
        /// Of this object.
        id: ObjectId,
        /// Which one.
        index: u16,
        /// 1 to [`CHUNK_LEN`] bytes.
        bytes: &'a [u8],
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MESSAGE_MAX`].
    TooLong,
    /// A type that is not defined.
    UnknownType(u8),
    /// Not as a writer would write a message of the type.
    Malformed(u8),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MESSAGE_MAX} bytes"),
            Self::UnknownType(kind) => write!(f, "message type {kind} is unknown"),
            Self::Malformed(kind) => write!(f, "a message of type {kind} does not look like this"),
        }
    }
}

impl core::error::Error for MessageError {}

impl<'a> Message<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    ///
    /// What is wrong with it. The sender is at fault, or a newer version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(MessageError::TooLong);
        }
        let (&kind, rest) = bytes.split_first().ok_or(MessageError::Malformed(0))?;
        if !(1..=17).contains(&kind) {
            return Err(MessageError::UnknownType(kind));
        }
        let mut reader = Reader(rest);
        let message = reader.message(kind);
        let message = message.filter(|_| reader.0.is_empty());
        message.ok_or(MessageError::Malformed(kind))
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(self.kind());
        match self {
            Self::Join { addresses } => push_addresses(&mut out, addresses),
            Self::ForwardJoin { hops, contact } => {
                out.push(*hops);
                push_contact(&mut out, contact);
            }
            Self::Neighbor { wish, addresses } => {
                match wish {
                    Wish::Low => out.push(0),
                    Wish::High => out.push(1),
                    Wish::Near(trip) => {
                        out.push(2);
                        out.extend_from_slice(&trip.to_be_bytes());
                    }
                }
                push_addresses(&mut out, addresses);
            }
            Self::NeighborReply { accepted } => out.push(u8::from(*accepted)),
            Self::Disconnect => {}
            Self::Shuffle {
                hops,
                nonce,
                contacts,
            } => {
                out.push(*hops);
                push_contacts(&mut out, *nonce, contacts);
            }
            Self::ShuffleReply { nonce, contacts } => push_contacts(&mut out, *nonce, contacts),
            Self::Ping { token } | Self::Pong { token } => {
                out.extend_from_slice(&token.to_be_bytes());
            }
            Self::Object { header, body } => return emit_object(header, body),
            Self::IHave { priority, ids } => {
                out.push(*priority as u8);
                push_ids(&mut out, ids);
            }
            Self::Graft {
                priority,
                push,
                ids,
            } => {
                out.extend_from_slice(&[*priority as u8, u8::from(*push)]);
                push_ids(&mut out, ids);
            }
            Self::Prune { priority } => out.push(*priority as u8),
            Self::Lack { ids } => push_ids(&mut out, ids),
            Self::Have { id, ranges } | Self::Want { id, ranges } => {
                out.extend_from_slice(id.as_bytes());
                for range in ranges {
                    out.extend_from_slice(&range.start.to_be_bytes());
                    out.extend_from_slice(&range.count.to_be_bytes());
                }
            }
            Self::Chunk { id, index, bytes } => return emit_chunk(id, *index, bytes),
        }
        out
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Join { .. } => 1,
            Self::ForwardJoin { .. } => 2,
            Self::Neighbor { .. } => 3,
            Self::NeighborReply { .. } => 4,
            Self::Disconnect => 5,
            Self::Shuffle { .. } => 6,
            Self::ShuffleReply { .. } => 7,
            Self::Ping { .. } => 8,
            Self::Pong { .. } => 9,
            Self::Object { .. } => 10,
            Self::IHave { .. } => 11,
            Self::Graft { .. } => 12,
            Self::Prune { .. } => 13,
            Self::Lack { .. } => 14,
            Self::Have { .. } => 15,
            Self::Want { .. } => 16,
            Self::Chunk { .. } => 17,
        }
    }
}

/// [`Message::Object`], with one allocation.
pub(crate) fn emit_object(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + HEADER_LEN + body.len());
    out.push(10);
    out.extend_from_slice(&header.emit());
    out.extend_from_slice(body);
    out
}

/// [`Message::Chunk`], with one allocation.
pub(crate) fn emit_chunk(id: &ObjectId, index: u16, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(35 + bytes.len());
    out.push(17);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

fn push_addresses(out: &mut Vec<u8>, addresses: &[u8]) {
    debug_assert!(addresses.len() <= ADDRESSES_MAX);
    out.push(addresses.len() as u8);
    out.extend_from_slice(addresses);
}

fn push_contact(out: &mut Vec<u8>, contact: &Contact) {
    out.extend_from_slice(contact.node.as_bytes());
    push_addresses(out, &contact.addresses);
}

fn push_contacts(out: &mut Vec<u8>, nonce: u64, contacts: &[Contact]) {
    debug_assert!(contacts.len() <= CONTACTS_MAX);
    out.extend_from_slice(&nonce.to_be_bytes());
    for contact in contacts {
        push_contact(out, contact);
    }
}

fn push_ids(out: &mut Vec<u8>, ids: &[ObjectId]) {
    debug_assert!(ids.len() <= IDS_MAX);
    for id in ids {
        out.extend_from_slice(id.as_bytes());
    }
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn message(&mut self, kind: u8) -> Option<Message<'a>> {
        Some(match kind {
            1 => Message::Join {
                addresses: self.addresses()?,
            },
            2 => Message::ForwardJoin {
                hops: self.hops()?,
                contact: self.contact()?,
            },
            3 => Message::Neighbor {
                wish: self.wish()?,
                addresses: self.addresses()?,
            },
            4 => Message::NeighborReply {
                accepted: self.flag()?,
            },
            5 => Message::Disconnect,
            6 => Message::Shuffle {
                hops: self.hops()?,
                nonce: self.word()?,
                contacts: self.contacts()?,
            },
            7 => Message::ShuffleReply {
                nonce: self.word()?,
                contacts: self.contacts()?,
            },
            8 => Message::Ping {
                token: self.word()?,
            },
            9 => Message::Pong {
                token: self.word()?,
            },
            _ => return self.broadcast(kind),
        })
    }

    fn broadcast(&mut self, kind: u8) -> Option<Message<'a>> {
        Some(match kind {
            10 => {
                let (header, body) = Header::parse(self.0)?;
                self.0 = &[];
                (body.len() == header.body_len()).then_some(Message::Object { header, body })?
            }
            11 => Message::IHave {
                priority: self.priority()?,
                ids: self.ids(1)?,
            },
            12 => {
                let (priority, push) = (self.priority()?, self.flag()?);
                let ids = self.ids(usize::from(!push))?;
                Message::Graft {
                    priority,
                    push,
                    ids,
                }
            }
            13 => Message::Prune {
                priority: self.priority()?,
            },
            14 => Message::Lack { ids: self.ids(1)? },
            15 => Message::Have {
                id: self.id()?,
                ranges: self.ranges()?,
            },
            16 => Message::Want {
                id: self.id()?,
                ranges: self.ranges()?,
            },
            _ => {
                let id = self.id()?;
                let [high, low] = self.array()?;
                let bytes = core::mem::take(&mut self.0);
                let index = u16::from_be_bytes([high, low]);
                let fits = (1..=CHUNK_LEN).contains(&bytes.len());
                (fits && usize::from(index) < CHUNKS_MAX).then_some(Message::Chunk {
                    id,
                    index,
                    bytes,
                })?
            }
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn wish(&mut self) -> Option<Wish> {
        match self.byte()? {
            0 => Some(Wish::Low),
            1 => Some(Wish::High),
            2 => self
                .array()
                .map(|trip| Wish::Near(u16::from_be_bytes(trip))),
            _ => None,
        }
    }

    fn hops(&mut self) -> Option<u8> {
        self.byte().filter(|hops| *hops <= HOPS_MAX)
    }

    fn priority(&mut self) -> Option<Priority> {
        Priority::from_byte(self.byte()?)
    }

    fn id(&mut self) -> Option<ObjectId> {
        self.array().map(ObjectId::from_bytes)
    }

    fn addresses(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.byte()?);
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        (len <= ADDRESSES_MAX).then_some(front)
    }

    fn contact(&mut self) -> Option<Contact> {
        let node = NodeId::from_bytes(&self.array()?).ok()?;
        let addresses = self.addresses()?.to_vec();
        Some(Contact { node, addresses })
    }

    fn contacts(&mut self) -> Option<Vec<Contact>> {
        let mut contacts = Vec::new();
        while !self.0.is_empty() {
            if contacts.len() == CONTACTS_MAX {
                return None;
            }
            contacts.push(self.contact()?);
        }
        Some(contacts)
    }

    fn ids(&mut self, least: usize) -> Option<Vec<ObjectId>> {
        let (ids, rest) = self.0.as_chunks::<{ ObjectId::LEN }>();
        self.0 = rest;
        let fits = (least..=IDS_MAX).contains(&ids.len());
        fits.then(|| ids.iter().copied().map(ObjectId::from_bytes).collect())
    }

    fn ranges(&mut self) -> Option<Vec<Range>> {
        let (ranges, rest) = self.0.as_chunks::<4>();
        self.0 = rest;
        let parse = |&[a, b, c, d]: &[u8; 4]| {
            let range = Range {
                start: u16::from_be_bytes([a, b]),
                count: u16::from_be_bytes([c, d]),
            };
            let end = usize::from(range.start) + usize::from(range.count);
            (range.count > 0 && end <= CHUNKS_MAX).then_some(range)
        };
        let fits = (1..=RANGES_MAX).contains(&ranges.len());
        fits.then(|| ranges.iter().map(parse).collect())?
    }
}
