//! Tickets: what parses is written in one form, which parses to the same.

use wiremesh_wire::Ticket;
use wiremesh_wire::ticket::{ENDPOINTS_MAX, RELAYS_MAX};

/// Reads a ticket out of text and writes it again.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<Ticket>() {
        Ok(ticket) => {
            assert!(ticket.endpoints.len() <= ENDPOINTS_MAX && ticket.relays.len() <= RELAYS_MAX);
            let written = ticket.to_string();
            assert_eq!(written.parse(), Ok(ticket));
            let visible: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert!(
                visible.eq_ignore_ascii_case(&written),
                "one ticket has two forms"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
