//! The `impair` program as a person or a script meets it.

use std::process::{Command, Output};

fn impair(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_impair"))
        .args(arguments)
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_shows_examples() {
    let output = impair(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    assert!(
        help.contains("impair --listen 127.0.0.1:6000 --target 127.0.0.1:5000"),
        "{help}"
    );
}

#[test]
fn bad_arguments_exit_with_2_and_name_the_option() {
    let cases: [(&[&str], &str); 4] = [
        (&["--target", "127.0.0.1:5", "--loss", "120"], "--loss"),
        (&["--target", "nowhere"], "--target"),
        (&[], "--target"),
        (
            &["--target", "127.0.0.1:5", "--burst-length", "0"],
            "burst_datagrams",
        ),
    ];
    for (arguments, named) in cases {
        let output = impair(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(named),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_taken_address_exits_with_1() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback binds");
    let address = taken
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let output = impair(&["--listen", &address, "--target", "127.0.0.1:5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains(&address),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_summary_goes_to_standard_output_and_no_status_to_a_pipe() {
    let output = impair(&["--target", "127.0.0.1:5", "--duration", "0"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("datagrams in"));
    assert!(!text(&output.stderr).contains("Mbit/s"));
}
