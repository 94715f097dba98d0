//! Runs other programs, mostly cargo, shows what they print, and counts the tests in it.
//!
//! Owns the root folder and how results of test programs are recognised.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::report::Outcome;

/// The root of the repository.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .expect("xtask is a folder of the repository")
        .to_owned()
}

/// The cargo that runs us, in the root folder, with these arguments.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root()).args(arguments);
    // What cargo set for us is not meant for the packages that it builds next.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program and shows what it prints; its end decides.
pub fn run(mut command: Command) -> Outcome {
    println!("$ {}", shown(&command));
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Outcome::default(),
        Ok(status) => Outcome::failed(format!("{} ended with {status}", shown(&command))),
        Err(error) => Outcome::failed(format!("{} does not start: {error}", shown(&command))),
    }
}

/// Runs a program and gives what it writes to standard output.
///
/// # Errors
///
/// What went wrong, for a person.
pub fn output(mut command: Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|error| format!("{} does not start: {error}", shown(&command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", shown(&command), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs tests, shows what they print and counts their results.
pub fn test(mut command: Command) -> Outcome {
    println!("$ {}", shown(&command));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            return Outcome::failed(format!("{} does not start: {error}", shown(&command)));
        }
    };
    let mut outcome = Outcome::default();
    if let Some(stdout) = child.stdout.take() {
        tally(stdout, std::io::stdout(), &mut outcome);
    }
    let failure = match child.wait() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{} ended with {status}", shown(&command))),
        Err(error) => Some(format!("{} is lost: {error}", shown(&command))),
    };
    outcome.failure = failure;
    outcome
}

fn tally(stdout: impl Read, mut shown: impl Write, outcome: &mut Outcome) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        // A closed standard output is no reason to stop the tests.
        let _ = shown.write_all(&line);
        count(String::from_utf8_lossy(&line).trim_end(), outcome);
        line.clear();
    }
}

/// Counts one line: `test result: ok. 3 passed; 0 failed; ...` of libtest, `NAME: 3 passed,
/// 1 skipped, 0 failed` of the interoperation tests, and the reasons of what was skipped.
fn count(line: &str, outcome: &mut Outcome) {
    let number_before = |word: &str| {
        let before = line.split(word).next()?;
        let number = before
            .trim_end()
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?;
        number.parse::<u64>().ok()
    };
    let is_total = line.starts_with("test result:")
        || (line.contains(" passed, ") && line.ends_with(" failed"));
    if is_total
        && let (Some(passed), Some(failed)) = (number_before(" passed"), number_before(" failed"))
    {
        outcome.passed += passed;
        outcome.failed += failed;
    }
    let skipped = line.strip_prefix("  skipped  ");
    if let Some(why) = skipped.or(line.contains(" scenarios skipped: ").then_some(line)) {
        outcome.skipped.push(why.to_owned());
    }
    // libtest: `test name ... ignored, reason`
    if let Some((name, reason)) = line.split_once(" ... ignored") {
        let name = name.trim_start_matches("test ");
        let reason = reason.trim_start_matches(", ");
        let reason = if reason.is_empty() {
            "it is marked `ignore`"
        } else {
            reason
        };
        outcome.skipped.push(format!("{name}: {reason}"));
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// The file names in a folder that end so, sorted, without the ending.
pub fn names(folder: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::tally;
    use crate::report::Outcome;

    #[test]
    fn results_of_both_kinds_of_tests_are_counted() {
        let text = "running 3 tests\n\
            test a ... ok\n\
            test slow ... ignored, takes an hour\n\
            test c ... ignored\n\
            test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out\n\
            \x20 skipped  rekey: only in the full run\n\
            wireguard_go: 7 passed, 1 skipped, 2 failed\n\
            kernel: all 9 scenarios skipped: no guest\n\
            5 passed through, nothing failed here\n";
        let mut outcome = Outcome::default();
        let mut shown = Vec::new();
        tally(text.as_bytes(), &mut shown, &mut outcome);
        assert_eq!(shown, text.as_bytes());
        assert_eq!((outcome.passed, outcome.failed), (19, 3));
        assert_eq!(
            outcome.skipped,
            [
                "slow: takes an hour",
                "c: it is marked `ignore`",
                "rekey: only in the full run",
                "kernel: all 9 scenarios skipped: no guest",
            ]
        );
    }
}
