//! What the agreement on a security level takes for granted about stock WireGuard, on the real
//! wireguard-go and the real Linux kernel.
//!
//! See `interop/README.md` for what it needs and docs/decisions/wireguard-facts.md for the outcome.

use std::process::ExitCode;

use wiremesh_interop::arena::{Helpers, OurSide};
use wiremesh_interop::facts;
use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::stock::Make;

fn main() -> ExitCode {
    let suite = |name, make, effort| Suite {
        name,
        make,
        effort,
        helpers: Helpers {
            load: env!("CARGO_BIN_EXE_udp_load"),
            embedded: env!("CARGO_BIN_EXE_embedded"),
        },
        // Our own node has no part in it.
        our_side: Some(OurSide::StandIn),
        scenarios: facts::ALL,
    };
    let go = suite("facts_wireguard_go", Make::WireguardGo, Effort::Quick).main();
    let kernel = suite("facts_kernel", Make::Kernel, Effort::All).main();
    if go == ExitCode::SUCCESS { kernel } else { go }
}
