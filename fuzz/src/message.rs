//! WireGuard messages: what parses is emitted as the same bytes.

use wiremesh_wire::{Message, TransportDataHeader};

/// Parses a datagram and writes it again.
pub fn run(bytes: &[u8]) {
    match Message::parse(bytes) {
        Ok(Message::Initiation(message)) => assert_eq!(bytes, message.emit()),
        Ok(Message::Response(message)) => assert_eq!(bytes, message.emit()),
        Ok(Message::CookieReply(message)) => assert_eq!(bytes, message.emit()),
        Ok(Message::TransportData(header)) => {
            assert!(bytes.len() >= 32, "transport data without a tag");
            assert_eq!(bytes[..TransportDataHeader::LEN], header.emit());
        }
        Err(_) => {
            let word = bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
            let right = match word {
                Some(1) => bytes.len() == 148,
                Some(2) => bytes.len() == 92,
                Some(3) => bytes.len() == 64,
                Some(4) => bytes.len() >= 32,
                _ => false,
            };
            assert!(!right, "a message of the right type and length is refused");
        }
    }
}
