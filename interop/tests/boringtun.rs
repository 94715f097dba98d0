//! Our node and the real boringtun-cli.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::runner::{Effort, Suite};
use wiremesh_interop::scenarios;
use wiremesh_interop::stock::Make;

fn main() -> ExitCode {
    let suite = Suite {
        name: "boringtun",
        make: Make::Boringtun,
        effort: Effort::All,
        load_program: env!("CARGO_BIN_EXE_udp_load"),
        scenarios: scenarios::ALL,
    };
    suite.main()
}
