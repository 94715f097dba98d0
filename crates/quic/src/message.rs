//! The four handshake messages and the buffer that collects one (layout: crate documentation).
//!
//! Owns parsing and emitting. Never keeps more than one message, and never decides what one means.

use crate::error::HandshakeError;
use crate::protocols::{Protocols, emit_name, parse_name};

/// Longest handshake message in bytes, with its header; also the bound of the receive buffer.
pub const MESSAGE_LEN_MAX: usize = 4_096;
/// Longest encoded transport parameters in bytes; quinn's take about 120.
pub const PARAMETERS_LEN_MAX: usize = 1_024;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 4;

/// What a message is; the discriminant is the byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    ClientHello = 1,
    ServerHello = 2,
    ServerParameters = 3,
    ClientFinished = 4,
}

/// What a client opens with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientHello<'a> {
    pub(crate) protocols: Protocols,
    pub(crate) parameters: &'a [u8],
}

impl<'a> ClientHello<'a> {
    pub(crate) fn parse(mut body: &'a [u8]) -> Result<Self, HandshakeError> {
        let protocols = Protocols::parse(&mut body)?;
        let parameters = parse_parameters(body)?;
        Ok(Self {
            protocols,
            parameters,
        })
    }
}

/// Builds a client hello.
pub(crate) fn emit_client_hello(protocols: &Protocols, parameters: &[u8]) -> Vec<u8> {
    message(Kind::ClientHello, |body| {
        protocols.emit(body);
        emit_parameters(parameters, body);
    })
}

/// What a server answers in the Initial space.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerHello<'a> {
    pub(crate) early_data: bool,
    pub(crate) protocol: &'a [u8],
}

impl<'a> ServerHello<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, HandshakeError> {
        let (&early_data, mut body) = body
            .split_first()
            .ok_or(HandshakeError::Malformed("server hello"))?;
        let early_data = match early_data {
            0 => false,
            1 => true,
            _ => return Err(HandshakeError::Illegal("early data must be 0 or 1")),
        };
        let protocol = parse_name(&mut body)?;
        match body.is_empty() {
            true => Ok(Self {
                early_data,
                protocol,
            }),
            false => Err(HandshakeError::Malformed("server hello")),
        }
    }
}

/// Builds a server hello.
pub(crate) fn emit_server_hello(early_data: bool, protocol: &[u8]) -> Vec<u8> {
    message(Kind::ServerHello, |body| {
        body.push(u8::from(early_data));
        emit_name(protocol, body);
    })
}

/// Builds a server parameters message.
pub(crate) fn emit_server_parameters(parameters: &[u8]) -> Vec<u8> {
    message(Kind::ServerParameters, |body| {
        emit_parameters(parameters, body)
    })
}

/// Builds a client finished message.
pub(crate) fn emit_client_finished() -> Vec<u8> {
    message(Kind::ClientFinished, |_| ())
}

/// Reads a body that is exactly one length-prefixed parameter list.
pub(crate) fn parse_parameters(body: &[u8]) -> Result<&[u8], HandshakeError> {
    const MALFORMED: HandshakeError = HandshakeError::Malformed("transport parameters length");
    let (&len, rest) = body.split_first_chunk::<2>().ok_or(MALFORMED)?;
    match rest.len() == usize::from(u16::from_be_bytes(len)) {
        true => Ok(rest),
        false => Err(MALFORMED),
    }
}

fn emit_parameters(parameters: &[u8], body: &mut Vec<u8>) {
    let len = u16::try_from(parameters.len()).expect("our parameters take about 120 bytes");
    body.extend_from_slice(&len.to_be_bytes());
    body.extend_from_slice(parameters);
}

fn message(kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![VERSION, kind as u8, 0, 0];
    fill(&mut out);
    let len = u16::try_from(out.len() - HEADER_LEN).expect("bodies stay below 4,092 bytes");
    out[2..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    out
}

/// Collects the bytes of the one message that is due.
#[derive(Default)]
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    /// Adds bytes; returns the body once the message is complete.
    ///
    /// The header is checked as soon as it is there, so a peer cannot make us wait for, or store, a
    /// message that is refused anyway.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        due: Kind,
    ) -> Result<Option<Vec<u8>>, HandshakeError> {
        if self.0.len() + bytes.len() > MESSAGE_LEN_MAX {
            return Err(HandshakeError::TooLong);
        }
        self.0.extend_from_slice(bytes);
        let Some(&[version, kind, high, low]) = self.0.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(HandshakeError::Version(version));
        }
        if kind != due as u8 {
            return Err(HandshakeError::WrongMessage {
                expected: due as u8,
                found: kind,
            });
        }
        let len = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
        if len > MESSAGE_LEN_MAX {
            return Err(HandshakeError::TooLong);
        }
        match self.0.len() {
            found if found < len => Ok(None),
            found if found > len => Err(HandshakeError::TrailingBytes),
            _ => Ok(Some(std::mem::take(&mut self.0).split_off(HEADER_LEN))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(bytes: &[u8], due: Kind) -> Result<Option<Vec<u8>>, HandshakeError> {
        Inbox::default().push(bytes, due)
    }

    #[test]
    fn client_hello_has_the_documented_bytes() {
        let protocols = Protocols::new(&["a/1", "b"]).expect("valid");
        let hello = emit_client_hello(&protocols, &[4, 1, 9]);
        let expected = [
            1, 1, 0, 12, // version, type, body length
            2, 3, b'a', b'/', b'1', 1, b'b', // two names
            0, 3, 4, 1, 9, // transport parameters
        ];
        assert_eq!(hello, expected);
        let body = collect(&hello, Kind::ClientHello)
            .expect("valid")
            .expect("complete");
        let parsed = ClientHello::parse(&body).expect("valid");
        assert_eq!(
            parsed,
            ClientHello {
                protocols,
                parameters: &[4, 1, 9]
            }
        );
    }

    #[test]
    fn other_messages_have_the_documented_bytes() {
        assert_eq!(emit_server_hello(true, b"b"), [1, 2, 0, 3, 1, 1, b'b']);
        assert_eq!(
            emit_server_parameters(&[4, 1, 9]),
            [1, 3, 0, 5, 0, 3, 4, 1, 9]
        );
        assert_eq!(emit_client_finished(), [1, 4, 0, 0]);
        let parsed = ServerHello::parse(&[0, 1, b'b']).expect("valid");
        assert_eq!(
            parsed,
            ServerHello {
                early_data: false,
                protocol: b"b"
            }
        );
    }

    #[test]
    fn message_in_pieces_is_collected() {
        let hello = emit_server_hello(true, b"name");
        let mut inbox = Inbox::default();
        for byte in &hello[..hello.len() - 1] {
            assert_eq!(inbox.push(&[*byte], Kind::ServerHello), Ok(None));
        }
        let body = inbox.push(&hello[hello.len() - 1..], Kind::ServerHello);
        assert_eq!(body, Ok(Some(hello[4..].to_vec())));
    }

    #[test]
    fn header_is_checked_before_the_body_arrives() {
        let due = Kind::ServerHello;
        assert_eq!(collect(&[2, 2, 0, 3], due), Err(HandshakeError::Version(2)));
        let wrong = HandshakeError::WrongMessage {
            expected: 2,
            found: 3,
        };
        assert_eq!(collect(&[1, 3, 0, 3], due), Err(wrong));
        assert_eq!(collect(&[1, 2, 0x0f, 0xfc], due), Ok(None));
        assert_eq!(
            collect(&[1, 2, 0x0f, 0xfd], due),
            Err(HandshakeError::TooLong)
        );
        assert_eq!(
            collect(&[1, 4, 0, 0, 0], Kind::ClientFinished),
            Err(HandshakeError::TrailingBytes)
        );
    }

    #[test]
    fn buffer_is_bounded() {
        let mut inbox = Inbox::default();
        let header = [1, 2, 0x0f, 0xfc];
        assert_eq!(inbox.push(&header, Kind::ServerHello), Ok(None));
        assert_eq!(inbox.push(&[0; 4_091], Kind::ServerHello), Ok(None));
        assert_eq!(
            inbox.push(&[0; 2], Kind::ServerHello),
            Err(HandshakeError::TooLong)
        );
    }

    #[test]
    fn bodies_with_other_lengths_are_refused() {
        for body in [&[][..], &[0], &[0, 1], &[0, 1, 1, 1], &[0, 0, 1]] {
            assert!(parse_parameters(body).is_err(), "{body:?}");
        }
        for body in [
            &[][..],
            &[0],
            &[2, 1, 1],
            &[0, 0],
            &[0, 2, 1],
            &[0, 1, 1, 1],
        ] {
            assert!(ServerHello::parse(body).is_err(), "{body:?}");
        }
        for body in [
            &[][..],
            &[0],
            &[33],
            &[1, 0, 0, 0],
            &[2, 1, 7, 1, 7, 0, 0],
            &[1, 1, 7],
        ] {
            assert!(ClientHello::parse(body).is_err(), "{body:?}");
        }
    }
}
