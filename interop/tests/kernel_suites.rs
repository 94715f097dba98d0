//! Nodes in kernel mode on the real Linux kernel's WireGuard: they agree on a security level with
//! our engine and with each other.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::arena::{Helpers, OurSide};
use wiremesh_interop::kernel_mode;
use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::stock::Make;

// Built for this test; found beside the other programs.
const _: &str = env!("CARGO_BIN_EXE_kernel_node");

fn main() -> ExitCode {
    // With wireguard-go in the kernel's place, which `wg` drives in the same way, mistakes of the
    // laboratory are found in a fraction of the time.
    let stand_in = std::env::var("WIREMESH_INTEROP_KERNEL").is_ok_and(|word| word == "stand-in");
    let suite = Suite {
        name: "kernel_suites",
        make: if stand_in {
            Make::WireguardGo
        } else {
            Make::Kernel
        },
        effort: Effort::All,
        helpers: Helpers {
            load: env!("CARGO_BIN_EXE_udp_load"),
            embedded: env!("CARGO_BIN_EXE_embedded"),
        },
        our_side: Some(OurSide::Command),
        scenarios: kernel_mode::ALL,
    };
    suite.main()
}
