//! One suite for the three modes of a node: rootless and tun here, kernel in the guest.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::process::ExitCode;

use wiremesh_interop::guest::Guest;
use wiremesh_interop::modes::{self, IN_GUEST, Mode};
use wiremesh_interop::named;
use wiremesh_interop::netns::{Namespace, clean_up_after_dead_runs};
use wiremesh_interop::outcome::{Outcome, Stop, ensure, skip};
use wiremesh_interop::process::find_program;
use wiremesh_interop::programs;
use wiremesh_interop::runner::Effort;

// Built for this test; found beside the other programs.
const _: &str = env!("CARGO_BIN_EXE_mode_node");

/// How many scenarios run at a time: most of them wait most of the time.
const AT_ONCE: usize = 6;
/// How long the guest may take for its scenarios.
const GUEST_SECONDS: u32 = 1_500;

fn main() -> ExitCode {
    if std::env::var_os(IN_GUEST).is_some() {
        let cases = modes::cases(&[Mode::Kernel]);
        return named::main_of("modes in the guest", &cases, 3, prepare);
    }
    let cases = modes::cases(&[Mode::Rootless, Mode::Tun]);
    let here = match std::env::var_os("WIREMESH_MODES").is_some_and(|word| word == "kernel") {
        true => ExitCode::SUCCESS,
        false => named::main_of("modes", &cases, AT_ONCE, prepare),
    };
    if here != ExitCode::SUCCESS || std::env::args().any(|word| word == "--list") {
        return here;
    }
    match in_the_guest() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Skipped(reason)) => {
            println!("modes: all kernel scenarios skipped: {reason}");
            ExitCode::SUCCESS
        }
        Err(Stop::Failed(reason)) => {
            println!("modes: FAILED: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> Outcome {
    programs::check_basics()?;
    for program in ["setpriv", "python3", "nft", "iperf3", "socat", "ss"] {
        if find_program(program).is_none() {
            return skip(format!(
                "no {program}; apt-get install -y util-linux python3 nftables iperf3 socat iproute2"
            ));
        }
    }
    programs::wireguard_go()?;
    programs::wiremesh()?;
    programs::netadmin().map(drop)
}

/// Runs this program there, for the kernel mode.
fn in_the_guest() -> Outcome {
    if Effort::from_environment().map_err(Stop::Failed)? == Effort::Quick {
        return skip("only on request, because it takes minutes: set WIREMESH_INTEROP=all");
    }
    programs::check_basics()?;
    clean_up_after_dead_runs();
    let namespace = Namespace::new()?;
    // It installs what is missing.
    let guest = Guest::boot(&namespace)?;
    prepare()?;
    let test = std::env::current_exe()?;
    let (wiremesh, netadmin) = (programs::wiremesh()?, programs::netadmin()?);
    let variables = [
        format!("{IN_GUEST}=1"),
        "TMPDIR=/run/tmp".to_owned(),
        format!("WIREMESH_BIN={}", wiremesh.display()),
        format!("WIREMESH_NETADMIN_BIN={}", netadmin.display()),
        test.to_string_lossy().into_owned(),
    ];
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let mut words = vec!["env"];
    words.extend(variables.iter().chain(&chosen).map(String::as_str));
    let status = guest.command(GUEST_SECONDS, &words).status()?;
    ensure(status.success(), "in the guest, see above")
}
