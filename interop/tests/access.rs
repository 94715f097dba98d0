//! `wiremesh proxy` and `wiremesh forward` as an ordinary user runs them, with ordinary programs.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::arena::{Helpers, OurSide};
use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::scenarios::access;
use wiremesh_interop::stock::Make;

fn main() -> ExitCode {
    let suite = Suite {
        name: "access",
        make: Make::WireguardGo,
        effort: Effort::Quick,
        helpers: Helpers {
            load: env!("CARGO_BIN_EXE_udp_load"),
            embedded: env!("CARGO_BIN_EXE_embedded"),
        },
        our_side: Some(OurSide::Command),
        scenarios: access::ALL,
    };
    suite.main()
}
