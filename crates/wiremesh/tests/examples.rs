//! The examples run: each shows both sides on loopback and checks itself.
//!
//! A whole `cargo test -p wiremesh` builds them before; a run of this test alone does not.

use std::path::PathBuf;
use std::process::Command;

/// Cargo puts the examples beside the directory of the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let target = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    target.join("examples").join(file)
}

fn run(name: &str, expected: &[&str]) {
    run_with(name, &[], expected);
}

fn run_with(name: &str, arguments: &[&str], expected: &[&str]) {
    let path = example(name);
    let output = Command::new(&path)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    for part in expected {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn echo() {
    run("echo", &["client: hello through the tunnel"]);
}

#[test]
fn broadcast_32() {
    let expected = ["8 nodes, 300 objects", "each object exactly once"];
    run_with("broadcast_32", &["8", "300"], &expected);
}

#[test]
fn file() {
    run("file", &["3000000 bytes sent", "the copy is the original"]);
}

#[test]
fn two_protocols() {
    run(
        "two_protocols",
        &["five ticks", "ONE TUNNEL", "lower/1: refused"],
    );
}

#[test]
fn udp_wrapper() {
    run("udp_wrapper", &["datagram echoed", "a second QUIC stack"]);
}

#[test]
fn shared_secret() {
    let expected = [
        "friend: is this the club? (L2)",
        "thief: the peer is there, but",
    ];
    run("shared_secret", &expected);
}

#[test]
fn invitation() {
    let expected = [
        "newcomer: I am in (L2)",
        "gatecrasher: the peer is there, but",
        "too late: the peer is there, but",
        "nobody: the peer is there, but",
        "it did not admit us",
    ];
    run("invitation", &expected);
}
