//! Why a handshake fails, and the QUIC error that tells the peer so.
//!
//! Owns the mapping from our reasons to error codes (RFC 9000 section 20.1, RFC 9001 section 4.8).
//! Never holds application data or secrets.

use quinn_proto::{TransportError, TransportErrorCode};

/// TLS alert `unexpected_message`.
const UNEXPECTED_MESSAGE: u8 = 10;
/// TLS alert `illegal_parameter`.
const ILLEGAL_PARAMETER: u8 = 47;
/// TLS alert `decode_error`.
const DECODE_ERROR: u8 = 50;
/// TLS alert `protocol_version`.
const PROTOCOL_VERSION: u8 = 70;
/// TLS alert `no_application_protocol`.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// Offered names are cut after this many bytes in a reason, so that it fits an Initial packet.
const OFFERED_LEN_MAX: usize = 512;

/// A peer's handshake that cannot go on; each is the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The layout version is not ours.
    Version(u8),
    /// Another message than the one that is due.
    WrongMessage { expected: u8, found: u8 },
    /// Bytes behind the one message that a packet number space holds.
    TrailingBytes,
    /// CRYPTO data when none is due.
    OutOfTurn,
    /// More bytes than the message may have.
    TooLong,
    /// A body that does not follow the layout; names the field.
    Malformed(&'static str),
    /// A body that follows the layout with a value that is not allowed; names the rule.
    Illegal(&'static str),
    /// Transport parameters that are refused; names the rule.
    Parameters(&'static str),
    /// Transport parameters that quinn refuses.
    Quinn(TransportError),
    /// No offered protocol is ours.
    NoCommonProtocol { offered: Vec<Vec<u8>> },
}

impl From<HandshakeError> for TransportError {
    fn from(error: HandshakeError) -> Self {
        use HandshakeError as E;
        let (code, reason) = match error {
            E::Quinn(error) => return error,
            E::Version(found) => (
                TransportErrorCode::crypto(PROTOCOL_VERSION),
                format!("handshake version {found}, this node speaks 1"),
            ),
            E::WrongMessage { expected, found } => (
                TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
                format!("handshake message type {found}, expected {expected}"),
            ),
            E::TrailingBytes => (
                TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
                "bytes after the handshake message".into(),
            ),
            E::OutOfTurn => (
                TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
                "handshake bytes when none are due".into(),
            ),
            E::TooLong => (
                TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                "handshake message too long".into(),
            ),
            E::Malformed(field) => (
                TransportErrorCode::crypto(DECODE_ERROR),
                format!("malformed {field}"),
            ),
            E::Illegal(rule) => (TransportErrorCode::crypto(ILLEGAL_PARAMETER), rule.into()),
            E::Parameters(rule) => (TransportErrorCode::TRANSPORT_PARAMETER_ERROR, rule.into()),
            E::NoCommonProtocol { offered } => (
                TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL),
                format!("no common protocol; offered: {}", list(&offered)),
            ),
        };
        Self {
            code,
            frame: None,
            reason,
        }
    }
}

/// Joins names for a reason: printable, bounded, in the order of the offer.
fn list(names: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        let escaped = name.escape_ascii().to_string();
        if text.len() + escaped.len() > OFFERED_LEN_MAX {
            text.push_str(&format!("and {} more", names.len() - index));
            break;
        }
        text.push_str(&escaped);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_with_many_long_names_is_bounded() {
        let offered = vec![vec![0xff; 255]; 8];
        let error = TransportError::from(HandshakeError::NoCommonProtocol { offered });
        assert!(
            error.reason.len() < OFFERED_LEN_MAX + 64,
            "{}",
            error.reason.len()
        );
        assert!(error.reason.ends_with("and 8 more"), "{}", error.reason);
    }

    #[test]
    fn reason_names_each_offered_protocol() {
        let offered = vec![b"a/1".to_vec(), b"b\n".to_vec()];
        let error = TransportError::from(HandshakeError::NoCommonProtocol { offered });
        assert_eq!(error.reason, "no common protocol; offered: a/1, b\\n");
        assert_eq!(u64::from(error.code), crate::NO_APPLICATION_PROTOCOL);
    }
}
