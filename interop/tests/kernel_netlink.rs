//! Our netlink messages and the real kernel's WireGuard: the test of `crates/netlink` in the guest.
//!
//! See `interop/README.md` for what it needs.

use std::path::PathBuf;
use std::process::Command;

use wiremesh_interop::guest::Guest;
use wiremesh_interop::netns::{Namespace, clean_up_after_dead_runs};
use wiremesh_interop::outcome::{Outcome, Stop, ensure, fail, skip};
use wiremesh_interop::process::{run, text_of};
use wiremesh_interop::programs;
use wiremesh_interop::runner::Effort;

#[test]
fn kernel_takes_what_is_set_and_shows_it() {
    match in_the_guest() {
        Ok(()) => {}
        Err(Stop::Skipped(reason)) => println!("skipped: {reason}"),
        Err(Stop::Failed(reason)) => panic!("{reason}"),
    }
}

fn in_the_guest() -> Outcome {
    if Effort::from_environment().map_err(Stop::Failed)? == Effort::Quick {
        return skip("the guest is booted with WIREMESH_INTEROP=all only");
    }
    programs::check_basics()?;
    let test = test_program()?;
    clean_up_after_dead_runs();
    let namespace = Namespace::new()?;
    let guest = Guest::boot(&namespace)?;
    let program = test.to_string_lossy();
    let words = ["env", "WIREMESH_KERNEL_WIREGUARD=required", &program];
    let output = guest.command(60, &words).output()?;
    let text = text_of(&output);
    ensure(output.status.success() && text.contains("1 passed"), text)
}

/// Builds it, and asks cargo where it is.
fn test_program() -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "test",
        "-q",
        "-p",
        "wiremesh-netlink",
        "--test",
        "wireguard",
    ]);
    command.args(["--no-run", "--message-format", "json"]);
    let messages = run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    match programs.next() {
        Some(program) => Ok(program),
        None => fail("cargo names no program"),
    }
}
