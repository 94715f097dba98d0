//! Known security faults of the packages in our lock files, from the RustSec database.
//!
//! Owns where the database comes from and how an advisory is read. Without a network the check
//! does not run, and says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ci::OTHER_WORKSPACES;
use crate::dependencies::packages;
use crate::report::Outcome;
use crate::shell::{output, root};
use crate::version::{Version, meets};

const DATABASE: &str = "https://github.com/rustsec/advisory-db";

/// Names a folder with a copy of the database, where the network is no way to get it.
const VARIABLE: &str = "WIREMESH_ADVISORY_DB";

/// Advisories that do not concern us, each with the reason.
const IGNORED: [(&str, &str); 0] = [];

/// Looks up every package of every lock file.
pub fn check() -> Outcome {
    let folder = match database() {
        Ok(folder) => folder,
        Err(why) => {
            println!("{why}");
            return Outcome::skipped(why);
        }
    };
    if !folder.join("crates").is_dir() {
        return Outcome::failed(format!("{} is no advisory database", folder.display()));
    }
    let mut complaints = Vec::new();
    for workspace in [""].iter().chain(&OTHER_WORKSPACES) {
        let path = root().join(workspace).join("Cargo.lock");
        let lock = std::fs::read_to_string(&path).unwrap_or_default();
        let mut looked_up = 0;
        for (name, version) in packages(&lock) {
            looked_up += 1;
            for found in advisories_of(&folder, name, version) {
                match found {
                    Found::Fault(text) => complaints.push(format!("{}: {text}", path.display())),
                    Found::Note(text) => println!("note: {text}"),
                }
            }
        }
        println!("{}: {looked_up} packages looked up", path.display());
    }
    Outcome::of_complaints(&complaints)
}

/// The folder of the database, made or renewed.
fn database() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return Ok(folder.into());
    }
    let folder = root().join("target/advisory-db");
    let mut command = Command::new("git");
    // A name server that does not answer must not hold the tests up.
    command.args([
        "-c",
        "http.lowSpeedLimit=1000",
        "-c",
        "http.lowSpeedTime=30",
    ]);
    command.env("GIT_TERMINAL_PROMPT", "0");
    if folder.join(".git").is_dir() {
        command
            .arg("-C")
            .arg(&folder)
            .args(["pull", "--quiet", "--ff-only", "--depth", "1"]);
    } else {
        command
            .args(["clone", "--quiet", "--depth", "1", DATABASE])
            .arg(&folder);
    }
    match output(command) {
        Ok(_) => Ok(folder),
        Err(error) => Err(format!(
            "advisories were not checked: the database {DATABASE} cannot be reached ({error}); \
             {VARIABLE} may name a folder with a copy"
        )),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Fault(String),
    Note(String),
}

fn advisories_of(folder: &Path, name: &str, version: &str) -> Vec<Found> {
    let entries = std::fs::read_dir(folder.join("crates").join(name));
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let texts = paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    texts
        .filter_map(|text| judge(&text, name, version))
        .collect()
}

/// What an advisory says about this version; `None` if nothing.
fn judge(text: &str, name: &str, version: &str) -> Option<Found> {
    let (_, rest) = text.split_once("```toml")?;
    let (head, body) = rest.split_once("\n```")?;
    let id = strings(head, "id").pop()?;
    if IGNORED.iter().any(|(ignored, _)| *ignored == id) || !strings(head, "withdrawn").is_empty() {
        return None;
    }
    let parsed = Version::parse(version);
    let safe = ["patched", "unaffected"]
        .iter()
        .flat_map(|key| strings(head, key))
        // A requirement that cannot be read protects nothing.
        .any(|range| {
            parsed
                .as_ref()
                .and_then(|v| meets(v, &range))
                .unwrap_or(false)
        });
    if safe {
        return None;
    }
    let title = body
        .lines()
        .find_map(|line| line.strip_prefix("# "))
        .unwrap_or("");
    let text = format!("{id}: {name} {version}: {title}");
    match strings(head, "informational").first().map(String::as_str) {
        None | Some("unsound") => Some(Found::Fault(text)),
        Some(kind) => Some(Found::Note(format!("{text} ({kind})"))),
    }
}

/// The texts in the value of a key: of a string one, of a list all.
fn strings(head: &str, key: &str) -> Vec<String> {
    let mut lines = head.lines().skip_while(|line| {
        let value = line.strip_prefix(key).map(str::trim_start);
        !value.is_some_and(|value| value.starts_with('='))
    });
    let mut value = match lines.next().and_then(|line| line.split_once('=')) {
        Some((_, value)) => value.trim().to_owned(),
        None => return Vec::new(),
    };
    if value.starts_with('[') {
        while !value.contains(']') {
            match lines.next() {
                Some(line) => value.push_str(line.split('#').next().unwrap_or("")),
                None => break,
            }
        }
    }
    value
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(lines: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"R-1\"\npackage = \"a\"\n{lines}\n```\n\n# Bad\n\nText\n"
        )
    }

    #[test]
    fn version_outside_the_patched_ranges_is_a_fault() {
        let text = advisory("[versions]\npatched = [\"^0.9.5\", \">= 0.10.5\"]");
        assert_eq!(
            judge(&text, "a", "0.9.4"),
            Some(Found::Fault("R-1: a 0.9.4: Bad".to_owned()))
        );
        assert_eq!(judge(&text, "a", "0.9.6"), None);
        assert_eq!(judge(&text, "a", "0.11.0"), None);
        assert!(judge(&text, "a", "0.10.0").is_some());
    }

    #[test]
    fn lists_over_lines_and_unaffected_versions_are_read() {
        let lines = "[versions]\npatched = [\n  \">= 2\", # why\n]\nunaffected = [\"< 1.0.0\"]";
        let text = advisory(lines);
        assert_eq!(judge(&text, "a", "0.9.0"), None);
        assert!(judge(&text, "a", "1.5.0").is_some());
        assert_eq!(judge(&text, "a", "2.1.0"), None);
        assert!(judge(&advisory("[versions]\npatched = []"), "a", "1.0.0").is_some());
    }

    #[test]
    fn unmaintained_is_a_note_and_withdrawn_is_nothing() {
        let note = judge(&advisory("informational = \"unmaintained\""), "a", "1.0.0");
        assert!(matches!(note, Some(Found::Note(_))));
        let unsound = judge(&advisory("informational = \"unsound\""), "a", "1.0.0");
        assert!(matches!(unsound, Some(Found::Fault(_))));
        assert_eq!(
            judge(&advisory("withdrawn = \"2024-01-01\""), "a", "1.0.0"),
            None
        );
    }
}
