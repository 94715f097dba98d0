//! What `wiremesh install --systemd` writes, started by a real systemd in the guest.
//!
//! See `interop/README.md` for what it needs.

use wiremesh_interop::guest::Guest;
use wiremesh_interop::netns::{Namespace, clean_up_after_dead_runs};
use wiremesh_interop::outcome::{Outcome, Stop, ensure, skip};
use wiremesh_interop::process::{find_program, text_of};
use wiremesh_interop::programs;
use wiremesh_interop::runner::Effort;

/// In this order among the lines that the script prints.
const EXPECTED: &[&str] = &[
    "helper CapPrm:\t0000000000001000",
    "helper CapEff:\t0000000000001000",
    "helper CapBnd:\t0000000000001000",
    "helper CapAmb:\t0000000000000000",
    "helper NoNewPrivs:\t1",
    "helper Seccomp:\t2",
    "socket wiremesh:wiremesh 660",
    "uapi folder root:wiremesh 3770",
    "tun up: interface wm0",
    "tun back after a restart of the unit",
    "tun gone after kill -9",
    "kernel up: interface wm0",
    "kernel back after a restart of the unit",
    "kernel gone after kill -9",
];

#[test]
fn systemd_starts_the_helper_and_nodes_of_its_group_use_it() {
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
    if find_program("systemd-sysusers").is_none() {
        return skip("no systemd; apt-get install -y systemd");
    }
    let (wiremesh, netadmin) = (programs::wiremesh()?, programs::netadmin()?);
    clean_up_after_dead_runs();
    let namespace = Namespace::new()?;
    let guest = Guest::boot(&namespace)?;
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/lab");
    let (boot, script) = (format!("{lab}/systemd.sh"), format!("{lab}/unit-files.sh"));
    let (wiremesh, netadmin) = (wiremesh.to_string_lossy(), netadmin.to_string_lossy());
    let words = ["bash", &boot, "bash", &script, &wiremesh, &netadmin];
    let output = guest.command(400, &words).output()?;
    let text = text_of(&output);
    println!("{text}");
    ensure(output.status.success(), &text)?;
    let mut lines = text.lines();
    for expected in EXPECTED {
        let found = lines.any(|line| line == *expected);
        ensure(
            found,
            format!("no line {expected:?} where it belongs:\n{text}"),
        )?;
    }
    for mode in ["tun", "kernel"] {
        let refusal = format!("{mode} refused: error: ");
        let told = text.lines().any(|line| line.starts_with(&refusal));
        ensure(
            told,
            format!("who is not in the group is not told so:\n{text}"),
        )?;
    }
    Ok(())
}
