//! Protocol names: what a client offers and a server answers with (the role of ALPN, RFC 7301).
//!
//! Owns the list type with its limits, its encoding and the choice. Never knows transport
//! parameters or quinn.

use std::fmt;

use crate::error::HandshakeError;

/// Most names in one list.
pub const PROTOCOLS_MAX: usize = 32;
/// Longest name in bytes.
pub const PROTOCOL_NAME_LEN_MAX: usize = 255;
/// Most bytes of all names of one list together with their length bytes.
pub const PROTOCOLS_LEN_MAX: usize = 2_048;

/// What the handshake negotiated; [`quinn_proto::crypto::Session::handshake_data`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeData {
    /// The protocol that both sides speak on this connection, 1 to 255 bytes.
    pub protocol: Vec<u8>,
}

/// A list of protocol names that cannot be used; the caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidProtocols {
    /// A client must offer at least one protocol.
    Empty,
    /// More than [`PROTOCOLS_MAX`] names.
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A name is empty or longer than [`PROTOCOL_NAME_LEN_MAX`].
    NameLength {
        /// Position of the name in the list, from 0.
        index: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// A name appears twice.
    Duplicate {
        /// Position of the second copy, from 0.
        index: usize,
    },
    /// All names together exceed [`PROTOCOLS_LEN_MAX`].
    TooLong {
        /// Their length in bytes, with one length byte each.
        len: usize,
    },
}

impl fmt::Display for InvalidProtocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no protocol name given; a client offers at least one"),
            Self::TooMany { count } => {
                write!(
                    f,
                    "{count} protocol names, at most {PROTOCOLS_MAX} are allowed"
                )
            }
            Self::NameLength { index, len } => write!(
                f,
                "protocol name {index} has {len} bytes, must have 1 to {PROTOCOL_NAME_LEN_MAX}"
            ),
            Self::Duplicate { index } => write!(f, "protocol name {index} is given twice"),
            Self::TooLong { len } => write!(
                f,
                "protocol names take {len} bytes together, at most {PROTOCOLS_LEN_MAX} are allowed"
            ),
        }
    }
}

impl std::error::Error for InvalidProtocols {}

/// Distinct names within the limits, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocols(Vec<Vec<u8>>);

impl Protocols {
    /// Checks a list; it may be empty (a server that serves nothing).
    pub(crate) fn new<P: AsRef<[u8]>>(names: &[P]) -> Result<Self, InvalidProtocols> {
        if names.len() > PROTOCOLS_MAX {
            return Err(InvalidProtocols::TooMany { count: names.len() });
        }
        let mut list: Vec<Vec<u8>> = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let name = name.as_ref();
            if name.is_empty() || name.len() > PROTOCOL_NAME_LEN_MAX {
                return Err(InvalidProtocols::NameLength {
                    index,
                    len: name.len(),
                });
            }
            if list.iter().any(|known| known == name) {
                return Err(InvalidProtocols::Duplicate { index });
            }
            list.push(name.to_vec());
        }
        let len = list.iter().map(|name| 1 + name.len()).sum();
        if len > PROTOCOLS_LEN_MAX {
            return Err(InvalidProtocols::TooLong { len });
        }
        Ok(Self(list))
    }

    /// Checks a list that must not be empty (a client's offer).
    pub(crate) fn offer<P: AsRef<[u8]>>(names: &[P]) -> Result<Self, InvalidProtocols> {
        match names.is_empty() {
            true => Err(InvalidProtocols::Empty),
            false => Self::new(names),
        }
    }

    /// The names in order.
    pub(crate) fn names(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Position of `name`, if it is in the list.
    pub(crate) fn position(&self, name: &[u8]) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }

    /// The first of our names that `offered` holds, and its position there.
    pub(crate) fn choose<'a>(&'a self, offered: &Self) -> Option<(&'a [u8], usize)> {
        self.0
            .iter()
            .find_map(|name| Some((name.as_slice(), offered.position(name)?)))
    }

    /// Appends the encoding: count, then length and bytes of each name.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.0.len()).expect("a list has at most 32 names"));
        for name in &self.0 {
            emit_name(name, out);
        }
    }

    /// Takes an encoded list from the front of `bytes`.
    pub(crate) fn parse(bytes: &mut &[u8]) -> Result<Self, HandshakeError> {
        let (&count, rest) = bytes.split_first().ok_or(MALFORMED)?;
        *bytes = rest;
        // Checked before the loop, so that a hostile count costs nothing.
        if count == 0 || usize::from(count) > PROTOCOLS_MAX {
            return Err(HandshakeError::Illegal(
                "client hello must offer 1 to 32 protocols",
            ));
        }
        let names = (0..count)
            .map(|_| parse_name(bytes))
            .collect::<Result<Vec<&[u8]>, HandshakeError>>()?;
        Self::new(&names).map_err(|error| match error {
            InvalidProtocols::Duplicate { .. } => {
                HandshakeError::Illegal("client hello offers a protocol twice")
            }
            _ => HandshakeError::Illegal("client hello offers protocols beyond the limits"),
        })
    }
}

const MALFORMED: HandshakeError = HandshakeError::Malformed("protocol names");

/// Appends one length-prefixed name.
pub(crate) fn emit_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    out.extend_from_slice(name);
}

/// Takes one length-prefixed name from the front of `bytes`.
pub(crate) fn parse_name<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], HandshakeError> {
    let (&len, rest) = bytes.split_first().ok_or(MALFORMED)?;
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(MALFORMED)?;
    *bytes = rest;
    match name.is_empty() {
        true => Err(HandshakeError::Illegal("empty protocol name")),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked_at_their_edges() {
        let numbered = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>();
        assert!(Protocols::new(&numbered(32)).is_ok());
        assert_eq!(
            Protocols::new(&numbered(33)).expect_err("refused"),
            InvalidProtocols::TooMany { count: 33 }
        );
        assert!(Protocols::new(&[[b'x'; 255]]).is_ok());
        let long = InvalidProtocols::NameLength { index: 0, len: 256 };
        assert_eq!(Protocols::new(&[[b'x'; 256]]).expect_err("refused"), long);
        let empty = InvalidProtocols::NameLength { index: 1, len: 0 };
        assert_eq!(Protocols::new(&["a", ""]).expect_err("refused"), empty);
        assert_eq!(
            Protocols::offer::<&str>(&[]).expect_err("refused"),
            InvalidProtocols::Empty
        );
        assert!(Protocols::new::<&str>(&[]).is_ok());
        let twice = InvalidProtocols::Duplicate { index: 2 };
        assert_eq!(
            Protocols::new(&["a", "b", "a"]).expect_err("refused"),
            twice
        );
    }

    #[test]
    fn total_length_is_checked_at_its_edge() {
        let full = (0..8u8).map(|n| vec![n; 255]).collect::<Vec<_>>();
        assert!(Protocols::new(&full).is_ok());
        let mut over = full;
        over.push(vec![9]);
        assert_eq!(
            Protocols::new(&over).expect_err("refused"),
            InvalidProtocols::TooLong { len: 2_050 }
        );
    }

    #[test]
    fn server_order_decides() {
        let server = Protocols::new(&["x/2", "x/1"]).expect("valid");
        let client = Protocols::new(&["x/0", "x/1", "x/2"]).expect("valid");
        assert_eq!(server.choose(&client), Some((b"x/2".as_slice(), 2)));
        let stranger = Protocols::new(&["y"]).expect("valid");
        assert_eq!(server.choose(&stranger), None);
    }
}
