//! Our node and the real wireguard-go.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::arena::Helpers;
use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::scenarios;
use wiremesh_interop::stock::Make;

fn main() -> ExitCode {
    let suite = Suite {
        name: "wireguard_go",
        make: Make::WireguardGo,
        effort: Effort::Quick,
        helpers: Helpers {
            load: env!("CARGO_BIN_EXE_udp_load"),
            embedded: env!("CARGO_BIN_EXE_embedded"),
        },
        our_side: None,
        scenarios: scenarios::ALL,
    };
    suite.main()
}
