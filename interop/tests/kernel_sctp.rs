//! SCTP between our node and the real Linux kernel's, through the real kernel's WireGuard.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::arena::{Helpers, OurSide};
use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::sctp;
use wiremesh_interop::stock::Make;

// Built for this test; found beside the other programs.
const _: &str = env!("CARGO_BIN_EXE_sctp_node");

fn main() -> ExitCode {
    let suite = Suite {
        name: "kernel_sctp",
        make: Make::Kernel,
        effort: Effort::All,
        helpers: Helpers {
            load: env!("CARGO_BIN_EXE_udp_load"),
            embedded: env!("CARGO_BIN_EXE_embedded"),
        },
        // The node is in the program `sctp_node`.
        our_side: Some(OurSide::Embedded),
        scenarios: sctp::ALL,
    };
    suite.main()
}
