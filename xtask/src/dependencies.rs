//! What the packages below us are: their licences, and where they come from.
//!
//! Owns the lists of licences that may be in the tree. `deny.toml` says the same to `cargo deny`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::ci::OTHER_WORKSPACES;
use crate::licence;
use crate::report::Outcome;
use crate::shell::{cargo, output, root};

/// Licences of what users link: permissive, for every purpose.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Further ones in tools that are not shipped: libFuzzer's, and the root certificates of a rival.
const ALLOWED_IN_TOOLS: [(&str, &[&str]); 2] = [
    ("fuzz", &["NCSA"]),
    ("bench", &["CDLA-Permissive-2.0", "OpenSSL"]),
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks the main workspace and the others.
pub fn check() -> Outcome {
    let mut complaints = Vec::new();
    for workspace in [""].iter().chain(&OTHER_WORKSPACES) {
        let folder = root().join(workspace);
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let extra = ALLOWED_IN_TOOLS.iter().find(|(name, _)| name == workspace);
        let mut allowed = ALLOWED.to_vec();
        allowed.extend(extra.iter().flat_map(|(_, more)| more.iter()));
        let name = if workspace.is_empty() {
            "the main workspace"
        } else {
            workspace
        };
        match licences(&folder) {
            Ok(packages) => {
                println!("{name}: {} packages", packages.len());
                complaints.extend(refused(&packages, &allowed));
            }
            Err(error) => complaints.push(error),
        }
        let lock = std::fs::read_to_string(folder.join("Cargo.lock")).unwrap_or_default();
        complaints.extend(foreign(&lock).map(|line| format!("{name}: {line}: not crates.io")));
        if workspace.is_empty() {
            for (package, versions) in repeated(&lock) {
                println!("note: {package} is there in {versions} versions");
            }
        }
    }
    Outcome::of_complaints(&complaints)
}

/// Packages on any platform, with their licences.
fn licences(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut command = cargo(&["tree", "--workspace", "--target", "all"]);
    command.args([
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}\t{l}",
    ]);
    command.current_dir(folder);
    let text = output(command)?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let packages = lines.map(|(package, licence)| {
        let package: Vec<&str> = package.split_whitespace().take(2).collect();
        (
            package.join(" "),
            licence.trim_end_matches(" (*)").to_owned(),
        )
    });
    Ok(packages.collect())
}

fn refused<'a>(
    packages: &'a BTreeMap<String, String>,
    allowed: &'a [&str],
) -> impl Iterator<Item = String> + 'a {
    let bad = packages
        .iter()
        .filter(|(_, licence)| !licence::is_met(licence, allowed));
    bad.map(|(package, licence)| format!("{package}: licence {licence:?} is not on the list"))
}

fn foreign(lock: &str) -> impl Iterator<Item = &str> {
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    sources.filter(|line| !line.contains(REGISTRY))
}

fn repeated(lock: &str) -> Vec<(String, usize)> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in packages(lock) {
        versions.entry(name).or_default().insert(version);
    }
    let many = versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1);
    many.map(|(name, versions)| (name.to_owned(), versions.len()))
        .collect()
}

/// Names and versions in a lock file.
pub fn packages(lock: &str) -> impl Iterator<Item = (&str, &str)> {
    let value = |line: &'_ str, key: &str| -> Option<(usize, usize)> {
        let rest = line.strip_prefix(key)?.strip_suffix('"')?;
        Some((key.len(), key.len() + rest.len()))
    };
    let lines: Vec<&str> = lock.lines().collect();
    let pairs: Vec<(&str, &str)> = lines
        .windows(2)
        .filter_map(|pair| {
            let name = value(pair[0], "name = \"")?;
            let version = value(pair[1], "version = \"")?;
            Some((&pair[0][name.0..name.1], &pair[1][version.0..version.1]))
        })
        .collect();
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\n\
        [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"git+https://example.com/a\"\n\n\
        [[package]]\nname = \"b\"\nversion = \"1.0.0\"\n";

    #[test]
    fn lock_file_gives_packages_repeats_and_foreign_sources() {
        let all: Vec<_> = packages(LOCK).collect();
        assert_eq!(all, [("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")]);
        assert_eq!(repeated(LOCK), [("a".to_owned(), 2)]);
        assert_eq!(foreign(LOCK).count(), 1);
    }

    #[test]
    fn package_without_a_known_licence_is_refused() {
        let packages = [("a 1", "MIT"), ("b 1", "AGPL-3.0"), ("c 1", "")];
        let packages = packages.map(|(p, l)| (p.to_owned(), l.to_owned())).into();
        assert_eq!(refused(&packages, &ALLOWED).count(), 2);
    }
}
