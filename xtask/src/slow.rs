//! Tests that are marked `ignore` for a reason that the full test can meet.
//!
//! Owns which they are: one that waits for real timers, and those that need a network of their
//! own, which an unprivileged namespace gives them.

use std::process::{Command, Stdio};

use crate::report::Outcome;
use crate::shell::{cargo, root, test};

/// A test: its package, its file, its name.
type Test = (&'static str, &'static str, &'static str);

/// Tests that wait.
const WAIT: [Test; 1] = [(
    "wiremesh-cli",
    "command",
    "killed_sender_has_the_same_ticket_again_and_the_receiver_goes_on",
)];

/// Tests whose send buffer must fill up, which it does in front of a silent neighbour.
const SILENT_NEIGHBOUR: [Test; 2] = [
    (
        "wiremesh-udp",
        "full_buffer",
        "a_full_buffer_is_reported_and_its_end_as_well",
    ),
    (
        "wiremesh",
        "full_socket",
        "a_full_socket_is_waited_for_and_holds_up_nothing_else",
    ),
];

/// Whether an ignored test, in a line that begins with its name, is run here.
pub fn covers(line: &str) -> bool {
    let mut tests = WAIT.iter().chain(&SILENT_NEIGHBOUR);
    tests.any(|(_, _, name)| line.split(':').next() == Some(name))
}

const NETWORK: &str = "ip link add v0 type veth peer v1 && ip addr add 192.0.2.1/24 dev v0 \
    && ip link set v0 up && ip link set v1 up && ip link set lo up && exec \"$@\"";

/// Runs them all.
pub fn run() -> Outcome {
    let mut outcome = Outcome::default();
    for one in WAIT {
        outcome = outcome.and(one_test(one, ignored(one)));
    }
    if let Err(why) = can_isolate() {
        println!("{why}");
        return outcome.and(Outcome::skipped(why));
    }
    for one in SILENT_NEIGHBOUR {
        let inner = ignored(one);
        let mut command = isolated(NETWORK);
        command.arg(inner.get_program()).args(inner.get_args());
        command.env("WIREMESH_SILENT_NEIGHBOUR", "192.0.2.2");
        outcome = outcome.and(one_test(one, command));
    }
    outcome
}

/// A test that was renamed would be no test, and pass.
fn one_test((_, file, name): Test, command: Command) -> Outcome {
    let outcome = test(command);
    match (outcome.passed + outcome.failed, &outcome.failure) {
        (0, None) => Outcome::failed(format!("{file} has no test {name}")),
        _ => outcome,
    }
}

/// The namespace has no network to fetch anything; by now everything is built.
fn ignored((package, file, name): Test) -> Command {
    let mut command = cargo(&[
        "test",
        "--offline",
        "--locked",
        "-p",
        package,
        "--test",
        file,
    ]);
    command.args(["--", "--ignored", "--exact", name]);
    command
}

/// A shell in a network namespace of its own; arguments that follow are `$@`.
fn isolated(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command.current_dir(root());
    command
}

fn can_isolate() -> Result<(), String> {
    let mut command = isolated(NETWORK);
    let ended = command.arg("true").stdin(Stdio::null()).output();
    let why = match ended {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let names: Vec<&str> = SILENT_NEIGHBOUR.iter().map(|(_, _, name)| *name).collect();
    Err(format!(
        "{}: no network namespace without root here: {why}",
        names.join(", ")
    ))
}
