//! The transitions that the model of the control protocol allows.
//!
//! Owns the comparison with `docs/proofs/transitions.txt`, which the search over the model writes:
//! a line is `role from event to`.

use wiremesh_control::Phase;
use wiremesh_control::exchange::Role;

const ALLOWED: &str = include_str!("../../../docs/proofs/transitions.txt");

/// A transition as the model writes it.
pub(crate) fn line(role: Role, from: Phase, event: &str, to: Phase) -> String {
    format!("{role:?} {from:?} {event} {to:?}")
}

/// Whether the model allows it.
pub(crate) fn allows(role: Role, from: Phase, event: &str, to: Phase) -> bool {
    let wanted = line(role, from, event, to);
    ALLOWED.lines().any(|allowed| allowed.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_model_does_is_allowed() {
        assert!(allows(Role::A, Phase::Boot, "session-boot", Phase::Offered));
        assert!(!allows(
            Role::B,
            Phase::Boot,
            "session-boot",
            Phase::Offered
        ));
        assert!(!allows(Role::A, Phase::Boot, "session-boot", Phase::Set));
        assert!(!allows(Role::A, Phase::Boot, "no such event", Phase::Boot));
    }
}
