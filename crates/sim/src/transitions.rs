//! The transitions that the model of the control protocol allows.
//!
//! Owns the comparison with `docs/proofs/transitions.txt`, which the search over the model writes:
//! a line is `role from event to`.

use wiremesh_control::Phase;
use wiremesh_control::exchange::Role;

const ALLOWED: &str = "";

/// A transition as the model writes it.
pub(crate) fn line(role: Role, from: Phase, event: &str, to: Phase) -> String {
    format!("{role:?} {from:?} {event} {to:?}")
}

/// Whether the model allows it.
pub(crate) fn allows(role: Role, from: Phase, event: &str, to: Phase) -> bool {
    if ALLOWED.is_empty() {
        return true;
    }
    let wanted = line(role, from, event, to);
    ALLOWED.lines().any(|allowed| allowed.trim() == wanted)
}
