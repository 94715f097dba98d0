//! Nodes in kernel mode: the agreement on a security level, with the real kernel's WireGuard as the
//! data plane (docs/spec.md section 7.3, "safe with the kernel").
//!
//! The node is the program `kernel_node`; opposite is our engine, or another of its kind in a second
//! network namespace of the guest.

use crate::runner::{Scenario, busy, waits};

pub mod node;
pub mod pairs;
mod tests;

/// All scenarios.
pub const ALL: &[Scenario] = &[
    busy("a_kernel_node_and_our_engine_reach_l2", tests::with_engine),
    busy("two_kernel_nodes_reach_l2", tests::two_kernels),
    busy("kill_9_of_either_node_heals", tests::killed),
    waits("rotation_loses_no_ping", tests::rotation),
];
