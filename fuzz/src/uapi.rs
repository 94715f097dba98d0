//! The configuration protocol of `wg`: what parses has a form that says the same, and a refusal
//! gives a reason that shows no secret.

use std::fmt::Write as _;

use wiremesh_cli::uapi::parse::{AllowedIp, Change, Parser, PeerChange, parse};

/// Keys whose values a reason may show.
const PUBLIC: [&str; 11] = [
    "listen_port",
    "fwmark",
    "replace_peers",
    "remove",
    "update_only",
    "endpoint",
    "persistent_keepalive_interval",
    "replace_allowed_ips",
    "allowed_ip",
    "protocol_version",
    "errno",
];
/// A value that a reason can have by chance is shorter than this: it has words.
const TELLING_LEN: usize = 12;

/// Reads an operation line by line and as a whole.
pub fn run(bytes: &[u8]) {
    let mut parser = Parser::default();
    let lines = bytes.split(|byte| *byte == b'\n');
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Err(refused) = parser.line(line) {
            assert!(!refused.why.is_empty());
            assert_eq!(parse(bytes), Err(refused.clone()), "two opinions");
            check_reason(line, &refused.why);
            return;
        }
    }
    let change = parser.finish();
    assert_eq!(parse(bytes).as_ref(), Ok(&change), "two opinions");
    let text = text_of(&change);
    assert_eq!(parse(text.as_bytes()).as_ref(), Ok(&change), "{text}");
}

/// Only the values of keys that are no secret are shown; what has no known key may be one.
fn check_reason(line: &[u8], why: &str) {
    let Ok(line) = std::str::from_utf8(line) else {
        return;
    };
    let (key, value) = line.split_once('=').unwrap_or(("", line));
    let is_telling = value.len() >= TELLING_LEN && value.chars().all(char::is_alphanumeric);
    let rest = why.replacen(&format!("{key:?}"), "", 1);
    assert!(
        PUBLIC.contains(&key) || !is_telling || !rest.contains(value),
        "a secret in {why:?}"
    );
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// The same once more, as `wg` writes it.
fn text_of(change: &Change) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(text, "{key}={value}").expect("a string takes all");
        }
    };
    let yes = |set: bool| set.then(|| "true".to_owned());
    let secret = change.private_key.as_ref();
    line("private_key", secret.map(|key| hex(key.as_bytes())));
    line("listen_port", change.listen_port.map(|n| n.to_string()));
    line("fwmark", change.fwmark.map(|n| n.to_string()));
    line("replace_peers", yes(change.replace_peers));
    for peer in &change.peers {
        let PeerChange {
            public_key,
            remove,
            update_only,
            preshared_key,
            endpoint,
            keepalive,
            replace_allowed_ips,
            allowed_ips,
        } = peer;
        line("public_key", Some(hex(&public_key.0)));
        line("remove", yes(*remove));
        line("update_only", yes(*update_only));
        let secret = preshared_key.as_ref().map(|key| hex(key.as_bytes()));
        line("preshared_key", secret);
        line("endpoint", endpoint.map(|at| at.to_string()));
        let seconds = keepalive.map(|n| n.to_string());
        line("persistent_keepalive_interval", seconds);
        line("replace_allowed_ips", yes(*replace_allowed_ips));
        for AllowedIp { net, remove } in allowed_ips {
            let sign = if *remove { "-" } else { "" };
            line("allowed_ip", Some(format!("{sign}{net}")));
        }
    }
    text
}
