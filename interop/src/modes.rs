//! One suite for the three modes: its scenarios are written once, for a node in any of them.
//!
//! Opposite is a node without root, unless a scenario says otherwise. In kernel mode it runs in the
//! guest, where the kernel has WireGuard; the other modes run in namespaces of this host.

pub mod attacks;
pub mod host;
pub mod life;
pub mod limited;
pub mod mixed;
pub mod ordinary;
pub mod privilege;
pub mod switching;

use crate::named::Case;
use crate::outcome::Outcome;

/// Set for the program when it runs in the guest, whose kernel must have everything.
pub const IN_GUEST: &str = "WIREMESH_INTEROP_IN_GUEST";

/// Who runs WireGuard for the node under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its process; no interface.
    Rootless,
    /// Its process, with an interface.
    Tun,
    /// The kernel.
    Kernel,
}

impl Mode {
    /// As `wiremesh up --mode` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rootless => "rootless",
            Self::Tun => "tun",
            Self::Kernel => "kernel",
        }
    }
}

/// A scenario for a node in a mode.
type ForMode = (&'static str, fn(Mode) -> Outcome);

/// What holds in every mode.
const EVERY: &[ForMode] = &[
    ("streams_and_pings_go_both_ways", life::streams_and_pings),
    ("either_side_restarts", life::restarts),
    ("a_killed_node_leaves_nothing_behind", life::killed),
    ("a_node_that_moves_is_followed", life::moves),
    ("the_psk_changes_at_run_time", life::psk),
    ("a_removed_peer_is_out", life::removed),
    ("a_port_that_is_taken_is_refused", life::port_taken),
    ("nobody_holds_more_than_he_needs", privilege::least),
];

/// What is about the interface.
const WITH_INTERFACE: &[ForMode] = &[
    ("a_name_that_is_taken_is_refused", life::name_taken),
    ("a_helper_that_ends_is_survived", life::helper_killed),
    ("ordinary_programs_talk", ordinary::programs),
    (
        "a_peer_below_the_level_reaches_nothing",
        attacks::below_the_level,
    ),
    ("nobody_sends_to_our_streams_as_a_peer", attacks::as_a_peer),
    ("nobody_dials_streams_as_the_node", attacks::as_the_node),
];

/// What only the kernel does.
const OF_THE_KERNEL: &[ForMode] = &[("a_rate_is_kept_and_urgent_goes_first", limited::rate)];

/// The scenarios of some modes, and those with several modes at once where these are among them.
pub fn cases(modes: &[Mode]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &mode in modes {
        let with = match mode {
            Mode::Rootless => &[],
            Mode::Tun | Mode::Kernel => WITH_INTERFACE,
        };
        let own = match mode {
            Mode::Rootless | Mode::Tun => &[],
            Mode::Kernel => OF_THE_KERNEL,
        };
        for &(name, run) in EVERY.iter().chain(with).chain(own) {
            cases.push(Case {
                name: format!("{}::{name}", mode.word()),
                run: Box::new(move || run(mode)),
            });
        }
    }
    let with_kernel = modes.contains(&Mode::Kernel);
    cases.push(Case {
        name: "all_kinds_of_nodes_reach_each_other".to_owned(),
        run: Box::new(move || mixed::all_reach_all(with_kernel)),
    });
    cases.push(Case {
        name: "another_mode_is_the_same_node".to_owned(),
        run: Box::new(move || switching::same_node(with_kernel)),
    });
    cases
}
