//! Rules about source files that no other tool checks.
//!
//! Owns: the length of files and of the privileged helper, `mod.rs`, and that layers 0 to 2 and the
//! simulator use no clock, no thread, no randomness of the system, and no order of a hash map.

use std::path::{Path, PathBuf};

use crate::report::Outcome;
use crate::shell::root;

const LINES_WARN: usize = 500;
const LINES_MAX: usize = 800;

/// Folders with sources.
const FOLDERS: [&str; 5] = ["crates", "interop", "xtask", "fuzz", "bench"];

/// Lines of the helper that run with its capability stay below this.
const HELPER_LINES_MAX: usize = 1000;

/// Crates of layers 0 to 2: `no_std`.
const NO_STD: [&str; 5] = ["wire", "noise", "control", "gossip", "core"];

/// What neither those nor the simulator may name, and what to use.
const FORBIDDEN: [(&str, &str); 13] = [
    ("Instant::now", "time is the argument `now`"),
    ("SystemTime", "time is the argument `now`"),
    ("std::thread", "a pure layer has no threads"),
    ("thread::spawn", "a pure layer has no threads"),
    (
        "std::time::Instant",
        "`wiremesh_wire::Instant` is the time of pure layers",
    ),
    ("UdpSocket", "a pure layer has no sockets"),
    ("std::fs", "a pure layer has no files"),
    ("std::env", "a pure layer has no environment"),
    ("getrandom", "randomness is an argument"),
    ("rand::", "randomness is an argument"),
    ("SystemRandom", "randomness is an argument"),
    ("RandomState", "its order and cost differ from run to run"),
    ("async fn", "a pure layer has no async"),
];

/// Ways to go through a hash map, after its name.
const ITERATIONS: [&str; 10] = [
    ".iter()",
    ".iter_mut()",
    ".keys()",
    ".values()",
    ".values_mut()",
    ".into_iter()",
    ".into_values()",
    ".drain(",
    ".retain(",
    ".extract_if(",
];

/// Checks all rules.
pub fn check() -> Outcome {
    let mut complaints = Vec::new();
    for file in FOLDERS
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
    {
        let Ok(text) = std::fs::read_to_string(&file) else {
            complaints.push(format!("{}: cannot be read", file.display()));
            continue;
        };
        let shown = file
            .strip_prefix(root())
            .unwrap_or(&file)
            .display()
            .to_string();
        let lines = text.lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{shown}: {lines} lines; {LINES_MAX} is the limit"));
        } else if lines > LINES_WARN {
            println!("note: {shown}: {lines} lines; aim for {LINES_WARN}");
        }
        if file.ends_with("mod.rs") {
            complaints.push(format!("{shown}: name it after its folder instead"));
        }
        complaints.extend(complaints_of(&shown, &text));
    }
    for name in NO_STD {
        let path = root().join(format!("crates/{name}/src/lib.rs"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            if !text.lines().any(|line| line == attribute) {
                complaints.push(format!("{}: {attribute} is missing", path.display()));
            }
        }
    }
    complaints.extend(helper_complaint());
    Outcome::of_complaints(&complaints)
}

/// The program and the verbs that it reads, without their client, comments, blank lines and tests.
fn helper_complaint() -> Option<String> {
    let folder = root().join("crates/netadmin/src");
    let client = [folder.join("client.rs"), folder.join("client")];
    let files = rust_files(&folder).into_iter();
    let files = files.filter(|file| !client.iter().any(|part| file.starts_with(part)));
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let lines: usize = texts.map(|text| lines_of_code(&text)).sum();
    let shown = format!("crates/netadmin/src without its client: {lines} lines of code");
    println!("note: {shown}");
    let fits = (1..HELPER_LINES_MAX).contains(&lines);
    (!fits).then(|| format!("{shown}; it stays below {HELPER_LINES_MAX}"))
}

fn lines_of_code(text: &str) -> usize {
    let code = code_of(text);
    code.iter()
        .filter(|(_, line)| !line.trim().is_empty())
        .count()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The pure layer that a file belongs to, if any. The simulator's program may read its arguments.
fn is_pure(file: &str) -> (bool, bool) {
    let no_std = NO_STD
        .iter()
        .any(|name| file.starts_with(&format!("crates/{name}/src/")));
    let sim = file.starts_with("crates/sim/src/") && !file.ends_with("/main.rs");
    (no_std || sim, no_std)
}

fn complaints_of(file: &str, text: &str) -> Vec<String> {
    let (pure, no_std) = is_pure(file);
    if !pure {
        return Vec::new();
    }
    let code = code_of(text);
    let maps = hash_maps(&code);
    let mut complaints = Vec::new();
    for (number, line) in &code {
        let mut complain = |what: &str, why: &str| {
            complaints.push(format!("{file}:{number}: `{what}`: {why}"));
        };
        for (word, why) in FORBIDDEN {
            if names(line, word) {
                complain(word, why);
            }
        }
        if no_std && names(line, "std::") {
            complain("std::", "use `core` or `alloc`");
        }
        let looped = line.trim_start().starts_with("for ");
        for map in &maps {
            let how = ITERATIONS
                .iter()
                .find(|how| names(line, &format!("{map}{how}")));
            let direct = [format!("in &{map}"), format!("in &mut {map}")];
            let own = |line: &str| {
                let line = line.replace("self.", "").replace("shared.", "");
                direct.iter().any(|text| line.contains(&format!("{text} ")))
            };
            if how.is_some() || (looped && own(line)) {
                complain(map, "a hash map has no order that is the same twice");
            }
        }
    }
    complaints
}

/// Whether `line` has `word`, not as the end of a longer name.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Lines with their numbers, without comments, texts and the tests at the end.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            match lines.peek() {
                Some((_, next)) if next.trim_end().ends_with('{') => break,
                _ => {
                    lines.next();
                    continue;
                }
            }
        }
        code.push((index + 1, without_texts(line)));
    }
    code
}

fn without_texts(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if inside => {
                characters.next();
            }
            '"' => inside = !inside,
            '/' if !inside && characters.peek() == Some(&'/') => break,
            _ if inside => {}
            _ => out.push(character),
        }
    }
    out
}

/// Names of fields and variables that are declared as hash maps or sets.
fn hash_maps(code: &[(usize, String)]) -> Vec<String> {
    let mut maps = Vec::new();
    for (_, line) in code {
        let hash = line.contains("HashMap<") || line.contains("HashSet<");
        let made = line.contains("HashMap::") || line.contains("HashSet::");
        let head = match (hash, made) {
            (true, _) => line.split(':').next(),
            (_, true) => line.split(['=', ':']).next(),
            _ => None,
        };
        let name = head
            .and_then(|head| head.split_whitespace().last())
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        maps.extend(name.map(str::to_owned));
    }
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "crates/core/src/x.rs";

    fn count(file: &str, text: &str) -> usize {
        complaints_of(file, text).len()
    }

    #[test]
    fn clocks_threads_and_std_are_found_in_pure_layers_only() {
        assert_eq!(count(CORE, "let now = Instant::now();"), 1);
        assert_eq!(count("crates/udp/src/x.rs", "let now = Instant::now();"), 0);
        assert_eq!(count(CORE, "use std::vec::Vec;"), 1);
        assert_eq!(count("crates/sim/src/x.rs", "use std::vec::Vec;"), 0);
        assert_eq!(count("crates/sim/src/x.rs", "std::thread::yield_now();"), 1);
    }

    #[test]
    fn comments_texts_and_tests_may_say_anything() {
        let text = "// std::fs\nlet a = \"std::\\\"fs std::\"; // Instant::now\n\
            #[cfg(test)]\nmod a;\nfn b() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n}\n";
        assert_eq!(count(CORE, text), 0);
        assert_eq!(count(CORE, "#[cfg(test)]\nmod a;\nuse std::fs;"), 2);
    }

    #[test]
    fn lines_of_code_are_those_that_do_something() {
        let text = "//! What.\n\n/// Why.\nfn a() {\n    // How.\n    b(\"//\"); // So.\n}\n\n\
            #[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
        assert_eq!(lines_of_code(text), 3);
    }

    #[test]
    fn going_through_a_hash_map_is_found() {
        let field = "struct A {\n indices: HashMap<u32, B>,\n}\n";
        for (way, found) in [
            ("self.indices.iter().count()", 1),
            ("self.indices.retain(|_, b| b.live)", 1),
            ("for (k, v) in &self.indices {", 1),
            ("self.indices.get(&7)", 0),
            ("other_indices.iter()", 0),
        ] {
            assert_eq!(count(CORE, &format!("{field}{way}")), found, "{way}");
        }
        assert_eq!(
            count(CORE, "let mut m = HashMap::new();\nm.values().sum()"),
            1
        );
    }
}
