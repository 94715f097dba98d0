//! `publish` and `subscribe` as a person runs them: real processes on loopback.

#[path = "support/home.rs"]
mod home;

use home::{Home, Running};
use std::io::{BufRead, Read};

const LOOPBACK: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Starts `subscribe`; gives it with its ticket.
fn subscriber(home: &Home, arguments: &[&str]) -> (Running, String) {
    let arguments = [&["subscribe", "t"], &LOOPBACK[..], arguments].concat();
    let mut running = home.start(&arguments);
    for line in running.stderr().lines() {
        let line = line.expect("it is text");
        if let Some(ticket) = line.strip_prefix("others join with: --peer ") {
            return (running, ticket.to_owned());
        }
    }
    panic!("no ticket");
}

fn publish(home: &Home, peer: &str, more: &[&str]) -> String {
    let arguments = [&["publish", "t"], more, &["--peer", peer], &LOOPBACK[..]].concat();
    home.good(&arguments).trim().to_owned()
}

#[test]
fn an_object_goes_to_a_file_as_json_and_to_standard_output() {
    let home = Home::new();
    home.write("small", "hello, everybody");
    let large = "0123456789".repeat(50_000);
    home.write("large", &large);
    let (mut first, ticket) = subscriber(&home, &["--count", "2", "--output", "got"]);
    let (mut second, _) = subscriber(&home, &["--count", "2", "--json", "--peer", &ticket]);
    let (mut third, _) = subscriber(&home, &["--count", "1", "--peer", &ticket]);

    let small = publish(&home, &ticket, &["small", "--priority", "urgent"]);
    let large_id = publish(
        &home,
        &ticket,
        &["large", "--priority", "bulk", "--expires", "5m"],
    );
    assert_eq!((small.len(), large_id.len()), (64, 64));

    let mut names = String::new();
    first.stdout().read_to_string(&mut names).expect("read");
    assert_eq!(first.code(), Some(0));
    assert_eq!(names, format!("got/{small}\ngot/{large_id}\n"));
    let got = |id: &str| std::fs::read_to_string(home.path().join("got").join(id));
    assert_eq!(got(&small).expect("a file"), "hello, everybody");
    assert!(got(&large_id).expect("a file") == large);

    let mut lines = String::new();
    second.stdout().read_to_string(&mut lines).expect("read");
    assert_eq!(second.code(), Some(0));
    let objects: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&objects[0]["id"], &objects[1]["id"]),
        (&small.into(), &large_id.into())
    );
    assert_eq!(objects[0]["text"], "hello, everybody");
    assert_eq!(objects[0]["priority"], "urgent");
    assert_eq!(objects[1]["bytes"], large.len());

    let mut text = String::new();
    third.stdout().read_to_string(&mut text).expect("read");
    assert_eq!((third.code(), text.as_str()), (Some(0), "hello, everybody"));
}

#[test]
fn wrong_input_has_exit_code_2_and_says_how_to_fix_it() {
    let home = Home::new();
    home.write("empty", "");
    home.write("x", "x");
    let long = "t".repeat(256);
    for (arguments, what) in [
        (&["publish", "t", "missing"][..], "cannot read missing"),
        (&["publish", "t", "empty"], "at least one byte"),
        (&["publish", "t"], "FILE"),
        (&["publish", "", "x"], "1 to 255 bytes"),
        (&["publish", &long, "x"], "1 to 255 bytes"),
        (
            &["publish", "t", "x", "--priority", "high"],
            "urgent, normal or bulk",
        ),
        (&["publish", "t", "x", "--expires", "2h"], "from 1ms to 1h"),
        (&["publish", "t", "x", "--peer", "nonsense"], "--peer"),
        (&["subscribe", ""], "1 to 255 bytes"),
        (&["subscribe", "t", "--count", "0"], "--count"),
        (&["subscribe", "t", "--output", "x/y"], "--output"),
        (
            &["subscribe", "t", "--peer", "nonsense"],
            "copy the whole ticket",
        ),
    ] {
        let shown = home.bad(arguments, 2);
        assert!(shown.contains(what), "{arguments:?}: {shown}");
    }
}
