//! Instructions of the operations that decide how fast a node is, beside the committed figures.
//!
//! Owns how they are counted and what change is let through. Times are noisy where CI runs; counts
//! are not, as long as three things are the same:
//!
//! - The processor. aws-lc, curve25519-dalek and glibc choose their code by CPUID, and valgrind has
//!   one of its own: on every host with AVX2 it is a Haswell, so AVX-512 and ADX are never counted
//!   (X25519 is then the version without ADX, slower than what runs outside). Without AVX2 on the
//!   host other code is chosen, and the step is skipped.
//! - The environment, which lies on the stack and moves what is behind it: it is emptied.
//! - The compiler and glibc, whose versions stand with the figures. With others a failure says so:
//!   the answer is `cargo xtask instructions --update`, and a look at what it changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::report::{Outcome, Report};
use crate::shell::{cargo, output, root, run};

/// Most that a count may differ from its figure, both ways, in percent.
const CHANGE_MAX: f64 = 3.0;

/// So many instructions are no change: the compiler moves them about when other code changes, and
/// an operation of a hundred would differ by more than 3 % for that.
const INSTRUCTIONS_MAX: u64 = 5;

const FIGURES: &str = "crates/core/examples/instructions.txt";

const HEAD: &str = "\
# Instructions of one operation under valgrind, by `cargo xtask instructions --update`.
# See xtask/src/instructions.rs for what makes them the same everywhere.
";

/// `cargo xtask instructions`.
pub fn command(update: bool) -> ExitCode {
    let mut report = Report::new();
    report.step("instructions", || match update {
        true => self::update(),
        false => check(),
    });
    report.finish()
}

/// Compares the counts with the figures.
pub fn check() -> Outcome {
    if let Some(why) = obstacle() {
        return Outcome::skipped(why);
    }
    let text = std::fs::read_to_string(root().join(FIGURES)).unwrap_or_default();
    let (tools, figures) = parse(&text);
    let counts = match count_all() {
        Ok(counts) => counts,
        Err(why) => return Outcome::failed(why),
    };
    let (table, bad) = compare(&figures, &counts);
    print!("{table}");
    let mut outcome = Outcome::default();
    if bad != 0 {
        let now = tools_now();
        let other = match tools == now {
            true => String::new(),
            false => format!(" (the figures are from {tools}, this is {now})"),
        };
        outcome = Outcome::failed(format!(
            "{bad} differ by more than {CHANGE_MAX} % from {FIGURES}{other}; \
             fix: find out why, then `cargo xtask instructions --update`"
        ));
    }
    (outcome.passed, outcome.failed) = ((counts.len() - bad.min(counts.len())) as u64, bad as u64);
    outcome
}

/// Writes the counts as the new figures, and shows what changed.
fn update() -> Outcome {
    if let Some(why) = obstacle() {
        return Outcome::failed(why);
    }
    let path = root().join(FIGURES);
    let (_, old) = parse(&std::fs::read_to_string(&path).unwrap_or_default());
    let counts = match count_all() {
        Ok(counts) => counts,
        Err(why) => return Outcome::failed(why),
    };
    print!("{}", compare(&old, &counts).0);
    let width = counts.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default();
    let lines = counts
        .iter()
        .map(|(name, count)| format!("{name:<width$} {count:>9}\n"));
    let text = format!("{HEAD}# {}\n{}", tools_now(), lines.collect::<String>());
    match std::fs::write(&path, text) {
        Ok(()) => Outcome::default(),
        Err(error) => Outcome::failed(format!("{}: {error}", path.display())),
    }
}

/// Why nothing can be counted here.
fn obstacle() -> Option<String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Some("the figures are of Linux on x86-64".to_owned());
    }
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") {
        return Some("the figures are of processors with AVX2".to_owned());
    }
    let mut valgrind = Command::new("valgrind");
    let there = valgrind.arg("--version").stdout(Stdio::null()).status();
    let missing = there.is_err();
    missing.then(|| "valgrind is not installed; fix: apt install valgrind".to_owned())
}

/// Compiler and C library, as the figures' file says them.
fn tools_now() -> String {
    let first_line = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument);
        let text = output(command).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let rustc = first_line("rustc", "--version");
    let libc = first_line("getconf", "GNU_LIBC_VERSION");
    let valgrind = first_line("valgrind", "--version");
    format!("{rustc}, {libc}, {valgrind}")
}

/// Instructions of one operation of each case, in the order of the program.
fn count_all() -> Result<Vec<(String, u64)>, String> {
    let program = build()?;
    let mut list = Command::new(&program);
    list.arg("--list");
    let list = output(list)?;
    let mut counts = Vec::new();
    for line in list.lines() {
        let (name, operations) = line.split_once(' ').ok_or("a list of names and numbers")?;
        let operations: u64 = operations.parse().map_err(|_| "a number of operations")?;
        let prepared = count(&program, &[name])?;
        let done = count(&program, &[name, "run"])?;
        let each = done.saturating_sub(prepared) / operations.max(1);
        counts.push((name.to_owned(), each));
    }
    Ok(counts)
}

fn build() -> Result<PathBuf, String> {
    let mut build = cargo(&["build", "--release", "--locked", "-p", "wiremesh-core"]);
    build.args(["--example", "instructions"]);
    // Flags of one's own would make other code.
    build
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), |folder| root().join(folder));
    match run(build).failure {
        Some(why) => Err(why),
        None => Ok(target.join("release/examples/instructions")),
    }
}

/// Instructions of a whole run.
fn count(program: &Path, arguments: &[&str]) -> Result<u64, String> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let ended = command.output();
    let ended = ended.map_err(|error| format!("valgrind does not start: {error}"))?;
    let text = String::from_utf8_lossy(&ended.stderr);
    let counted = text.lines().find_map(|line| line.split_once("Collected :"));
    let counted = counted.and_then(|(_, number)| number.trim().parse().ok());
    match counted.filter(|_| ended.status.success()) {
        Some(count) => Ok(count),
        None => Err(format!("{}: {}\n{text}", arguments.join(" "), ended.status)),
    }
}

/// The tools and the figures of a file.
fn parse(text: &str) -> (String, BTreeMap<String, u64>) {
    let (comments, lines): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('#'));
    let tools = comments.last().map(|line| line.trim_start_matches("# "));
    let figure = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    let figures = lines.into_iter().filter_map(figure).collect();
    (tools.unwrap_or_default().to_owned(), figures)
}

/// A table, and how many changed too much. One that only one side knows has changed.
fn compare(figures: &BTreeMap<String, u64>, counts: &[(String, u64)]) -> (String, usize) {
    let names = counts.iter().map(|(name, _)| name);
    let gone = figures
        .keys()
        .filter(|known| !counts.iter().any(|(name, _)| name == *known));
    let names: Vec<&String> = names.chain(gone).collect();
    let width = names.iter().map(|name| name.len()).max();
    let width = width.unwrap_or_default();
    let mut table = format!("{:<width$}   figure        now   change\n", "operation");
    let mut bad = 0;
    for name in names {
        let figure = figures.get(name).copied();
        let count = counts.iter().find(|(known, _)| known == name);
        let count = count.map(|(_, count)| *count);
        let shown = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        let change = figure.zip(count).map(|(figure, count)| {
            let percent = (count as f64 - figure as f64) * 100.0 / figure.max(1) as f64;
            (percent, figure.abs_diff(count))
        });
        let is_bad = change.is_none_or(|(percent, difference)| {
            percent.abs() > CHANGE_MAX && difference > INSTRUCTIONS_MAX
        });
        bad += usize::from(is_bad);
        let change = change.map(|(percent, _)| format!("{percent:+.1} %"));
        let change = change.unwrap_or("new or gone".to_owned());
        let mark = if is_bad { "  <--" } else { "" };
        let (figure, count) = (shown(figure), shown(count));
        table += &format!("{name:<width$} {figure:>8}   {count:>8}  {change:>7}{mark}\n");
    }
    (table, bad)
}

#[cfg(test)]
mod tests {
    use super::{compare, parse};

    const TEXT: &str = "# about\n# rustc 1.95.0, glibc 2.36\nseal    1000\nopen   100\n";

    #[test]
    fn figures_are_read_with_their_tools() {
        let (tools, figures) = parse(TEXT);
        assert_eq!(tools, "rustc 1.95.0, glibc 2.36");
        assert_eq!(figures["seal"], 1000);
        assert_eq!(figures.len(), 2);
    }

    #[test]
    fn three_percent_or_five_instructions_pass_and_more_does_not() {
        let (_, figures) = parse(TEXT);
        let bad = |seal, open| {
            let counts = [("seal".to_owned(), seal), ("open".to_owned(), open)];
            compare(&figures, &counts).1
        };
        assert_eq!(bad(1_030, 105), 0);
        assert_eq!(bad(1_031, 100), 1);
        assert_eq!(bad(1_031, 106), 2);
        assert_eq!(bad(969, 94), 2, "less is a change too");
        let one = [("seal".to_owned(), 1_000)];
        assert_eq!(compare(&figures, &one).1, 1, "one is gone");
        assert_eq!(compare(&Default::default(), &one).1, 1, "one is new");
    }
}
