//! The lists of steps.
//!
//! Owns what is checked before a commit and what the full test is; `.ci/run` and the README call
//! the same full test.

use std::process::{Command, ExitCode};

use crate::report::{Outcome, Report};
use crate::shell::{cargo, root, run, test};
use crate::{advisories, dependencies, fuzz, instructions, slow, source};

/// Seconds of fuzzing per target: the whole is to stay well below half an hour on two cores. `cargo
/// xtask fuzz` searches longer.
const FUZZ_SECONDS: u32 = 20;
/// The same when time is short.
const FAST_SECONDS: u32 = 5;

/// Workspaces beside the main one, each with a lock file of its own.
pub const OTHER_WORKSPACES: [&str; 3] = ["bench", "fuzz", "xtask/no-std"];

/// What takes seconds when little has changed.
pub fn quick() -> ExitCode {
    let mut report = Report::new();
    report.step("format", format);
    report.step("source rules", source::check);
    report.step("clippy", clippy);
    report.step("unit tests", || {
        let arguments = ["test", "--workspace", "--lib", "--bins", "--locked"];
        test(cargo(&arguments))
    });
    report.finish()
}

/// Everything, or the steps whose names contain one of `words`.
pub fn full(fast: bool, words: &[&str]) -> ExitCode {
    let mut report = Report::only(words);
    report.step("format", format);
    report.step("source rules", source::check);
    report.step("dependencies", dependencies::check);
    report.step("advisories", advisories::check);
    report.step("layers 0-2 without std", no_std);
    report.step("clippy", clippy);
    report.step("tests", tests);
    report.step("slow tests", slow::run);
    report.step("protocol models", models);
    report.step("documentation", documentation);
    report.step("interoperation", || {
        test(cargo(&[
            "test",
            "-p",
            "wiremesh-interop",
            "--locked",
            "--no-fail-fast",
        ]))
    });
    report.step("instructions", instructions::check);
    report.step("fuzz: build and lint", fuzz::build_and_lint);
    report.step("fuzz: committed inputs", fuzz::replay);
    let seconds = if fast { FAST_SECONDS } else { FUZZ_SECONDS };
    report.step("fuzz: new inputs", || fuzz::search(seconds, &[]));
    report.finish()
}

fn format() -> Outcome {
    let mut outcome = run(cargo(&["fmt", "--all", "--check"]));
    for workspace in OTHER_WORKSPACES {
        let manifest = root().join(workspace).join("Cargo.toml");
        if manifest.exists() {
            let mut command = cargo(&["fmt", "--check", "--manifest-path"]);
            command.arg(manifest);
            outcome = outcome.and(run(command));
        }
    }
    outcome
}

fn clippy() -> Outcome {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    run(cargo(&arguments))
}

/// All but those with real WireGuard programs. What is ignored here is run in a later step, or
/// named as not run.
fn tests() -> Outcome {
    let mut command = cargo(&["test", "--workspace", "--exclude", "wiremesh-interop"]);
    command.args(["--locked", "--no-fail-fast"]);
    let mut outcome = test(command);
    outcome.skipped.retain(|line| !slow::covers(line));
    outcome
}

/// The explicit-state search over the control protocol; needs Python and nothing else.
fn models() -> Outcome {
    let mut command = Command::new("python3");
    command.arg("docs/proofs/search.py").current_dir(root());
    run(command)
}

fn documentation() -> Outcome {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(command)
}

/// See the package for how this works without another target.
fn no_std() -> Outcome {
    run(no_std_command())
}

fn no_std_command() -> Command {
    let mut command = cargo(&["check"]);
    command.current_dir(root().join("xtask/no-std"));
    command.env("CARGO_TARGET_DIR", root().join("target/no-std"));
    command
}
