//! The real kernel's WireGuard: the tests of `crates/netlink` and `crates/netadmin` in the guest.
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
    told(in_the_guest("wiremesh-netlink", "wireguard", &[]));
}

#[test]
fn helper_drives_the_kernels_wireguard() {
    told(in_the_guest(
        "wiremesh-netadmin",
        "namespace",
        &["wireguard::"],
    ));
}

fn told(outcome: Outcome) {
    match outcome {
        Ok(()) => {}
        Err(Stop::Skipped(reason)) => println!("skipped: {reason}"),
        Err(Stop::Failed(reason)) => panic!("{reason}"),
    }
}

/// Runs a test of a package there, of which nothing may be skipped for want of WireGuard.
fn in_the_guest(package: &str, test: &str, arguments: &[&str]) -> Outcome {
    if Effort::from_environment().map_err(Stop::Failed)? == Effort::Quick {
        return skip("the guest is booted with WIREMESH_INTEROP=all only");
    }
    programs::check_basics()?;
    let test = test_program(package, test)?;
    clean_up_after_dead_runs();
    let namespace = Namespace::new()?;
    let guest = Guest::boot(&namespace)?;
    let program = test.to_string_lossy();
    let mut words = vec!["env", "WIREMESH_KERNEL_WIREGUARD=required", &program];
    words.extend(arguments);
    let output = guest.command(400, &words).output()?;
    let text = text_of(&output);
    let passed = text.contains("test result: ok") && !text.contains(" 0 passed");
    println!("{text}");
    ensure(output.status.success() && passed, text)
}

/// Builds it, and asks cargo where it is.
fn test_program(package: &str, test: &str) -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "-q", "-p", package, "--test", test]);
    command.args(["--no-run", "--message-format", "json"]);
    let messages = run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"].as_bool()?;
        let program = message["executable"].as_str().filter(|_| is_test)?;
        Some(PathBuf::from(program))
    });
    match programs.next() {
        Some(program) => Ok(program),
        None => fail("cargo names no program"),
    }
}
