//! Fuzzing with libFuzzer and the stable compiler.
//!
//! Owns the compiler flags, where inputs lie, and the table of results. The flags are those that
//! `cargo fuzz` passes, less the sanitizer, which only a nightly compiler has; our code forbids
//! `unsafe`, so there is little for one to find.
//!
//! `fuzz/corpus/TARGET` is committed; what a search finds is kept in `fuzz/target/corpus`, and a
//! crash in `fuzz/artifacts/TARGET`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use crate::report::{Outcome, Report};
use crate::shell::{cargo, names, output, root, run};

/// Seconds for each target, unless told otherwise.
pub const SECONDS: u32 = 60;

/// LLVM counts edges and shows the operands of comparisons to libFuzzer.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// libFuzzer's settings: inputs longer than this say nothing new about our formats, and one that
/// takes a minute or 2 GiB is a bug.
const SETTINGS: [&str; 4] = [
    "-max_len=2000",
    "-timeout=60",
    "-rss_limit_mb=2048",
    "-len_control=20",
];

/// `cargo xtask fuzz`.
pub fn command(seconds: u32, targets: &[&str]) -> ExitCode {
    let known = targets_there();
    if let Some(unknown) = targets.iter().find(|t| !known.iter().any(|k| k == *t)) {
        eprintln!(
            "there is no fuzz target {unknown}; there are: {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    }
    let mut report = Report::new();
    let mut built = false;
    report.step("build", || {
        let outcome = run(build_command("build", &[]));
        built = outcome.failure.is_none();
        outcome
    });
    if built {
        report.step("new inputs", || search(seconds, targets));
    }
    report.finish()
}

/// `cargo xtask fuzz TARGET --input FILE`: one input, with everything that it prints.
pub fn again(target: &str, file: &str) -> ExitCode {
    let outcome = run(build_command("build", &[])).and({
        let mut command = Command::new(program(target));
        command.arg(file);
        run(command)
    });
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds all targets and lints them, under the same flags so that it is one build.
pub fn build_and_lint() -> Outcome {
    let outcome = run(build_command("build", &[]));
    outcome.and(run(build_command("clippy", &["--", "-D", "warnings"])))
}

/// Runs the committed inputs of each target once.
pub fn replay() -> Outcome {
    let mut outcome = Outcome::default();
    for target in targets_there() {
        let corpus = root().join("fuzz/corpus").join(&target);
        let inputs = names(&corpus, "");
        if inputs.is_empty() {
            outcome = outcome.and(Outcome::failed(format!("{target} has no committed inputs")));
            continue;
        }
        let mut command = Command::new(program(&target));
        let artifacts = artifacts_of(&target);
        command
            .args(SETTINGS)
            .arg(artifacts)
            .args(inputs.iter().map(|name| corpus.join(name)));
        let log = log_of(&target, "replay");
        let ended = run_into(command, &log);
        match ended {
            Ok(true) => {
                println!("{target}: {} inputs", inputs.len());
                outcome.passed += 1;
            }
            ended => {
                outcome.failed += 1;
                show_failure(&target, &log);
                let why = ended
                    .err()
                    .unwrap_or_else(|| "a committed input fails".to_owned());
                outcome = outcome.and(Outcome::failed(format!("{target}: {why}")));
            }
        }
    }
    outcome
}

/// Searches for `seconds` per target, on all processors; no names mean all targets.
pub fn search(seconds: u32, targets: &[&str]) -> Outcome {
    let mut waiting: Vec<String> = match targets {
        [] => targets_there(),
        some => some.iter().map(|target| (*target).to_owned()).collect(),
    };
    waiting.reverse();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(waiting.len());
    let waiting = Mutex::new(waiting);
    let rows = Mutex::new(Vec::new());
    println!(
        "{} targets, {seconds} s each, {workers} at a time",
        lock(&waiting).len()
    );
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = { lock(&waiting).pop() } {
                    let row = search_one(&target, seconds);
                    lock(&rows).push(row);
                }
            });
        }
    });
    let mut rows = rows
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by(|a, b| a.target.cmp(&b.target));
    let head = ["target", "runs", "per s", "edges", "inputs"];
    println!(
        "{:<16} {:>12} {:>9} {:>7} {:>7}  result",
        head[0], head[1], head[2], head[3], head[4]
    );
    let mut outcome = Outcome::default();
    for row in &rows {
        println!(
            "{:<16} {:>12} {:>9} {:>7} {:>7}  {}",
            row.target,
            row.runs,
            row.runs / u64::from(seconds),
            row.edges,
            row.inputs,
            row.failure.as_deref().unwrap_or("ok")
        );
        match &row.failure {
            None => outcome.passed += 1,
            Some(why) => {
                outcome.failed += 1;
                outcome = outcome.and(Outcome::failed(format!("{}: {why}", row.target)));
            }
        }
    }
    outcome
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    target: String,
    runs: u64,
    edges: u64,
    inputs: u64,
    failure: Option<String>,
}

fn search_one(target: &str, seconds: u32) -> Row {
    let found = root().join("fuzz/target/corpus").join(target);
    let log = log_of(target, "search");
    let mut row = Row {
        target: target.to_owned(),
        ..Row::default()
    };
    if let Err(error) = std::fs::create_dir_all(&found) {
        row.failure = Some(format!("{}: {error}", found.display()));
        return row;
    }
    let mut command = Command::new(program(target));
    command.args(SETTINGS).arg(artifacts_of(target));
    command.args([
        format!("-max_total_time={seconds}"),
        "-print_final_stats=1".to_owned(),
    ]);
    let dictionary = root().join(format!("fuzz/dictionaries/{target}.dict"));
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // The first folder takes what is new.
    command
        .arg(found)
        .arg(root().join("fuzz/corpus").join(target));
    let ended = run_into(command, &log);
    let text = std::fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    row = Row {
        failure: None,
        ..read_log(row, &text)
    };
    match ended {
        Ok(true) => {}
        Ok(false) => {
            show_failure(target, &log);
            let file = text
                .lines()
                .find_map(|line| line.split_once("Test unit written to "));
            row.failure = Some(match file {
                Some((_, file)) => {
                    format!("again: cargo xtask fuzz {target} --input {}", file.trim())
                }
                None => format!("it ended early, see {}", log.display()),
            });
        }
        Err(why) => row.failure = Some(why),
    }
    row
}

/// Takes the figures out of what libFuzzer prints.
fn read_log(mut row: Row, text: &str) -> Row {
    for line in text.lines() {
        if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
            row.runs = runs.trim().parse().unwrap_or_default();
        }
        let after = |key: &str| -> Option<u64> {
            let (_, rest) = line.split_once(key)?;
            rest.split([' ', '/']).next()?.parse().ok()
        };
        if let (true, Some(edges), Some(inputs)) =
            (line.starts_with('#'), after(" cov: "), after(" corp: "))
        {
            (row.edges, row.inputs) = (edges, inputs);
        }
    }
    row
}

/// Runs a program with everything it prints in a file; whether it ended well.
fn run_into(mut command: Command, log: &Path) -> Result<bool, String> {
    let open = || -> std::io::Result<(File, File)> {
        std::fs::create_dir_all(log.parent().unwrap_or(Path::new(".")))?;
        let file = File::create(log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().map_err(|error| format!("{}: {error}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status();
    let name = command.get_program().to_string_lossy().into_owned();
    let status = status.map_err(|error| format!("{name} does not start: {error}"))?;
    Ok(status.success())
}

/// Shows where a panic happened, and the end of what was printed.
fn show_failure(target: &str, log: &Path) {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let start = panic.unwrap_or(lines.len().saturating_sub(30));
    println!("-- {target} failed; from {}:", log.display());
    lines
        .iter()
        .skip(start)
        .take(40)
        .for_each(|line| println!("   {line}"));
}

fn targets_there() -> Vec<String> {
    names(&root().join("fuzz/targets"), ".rs")
}

fn log_of(target: &str, what: &str) -> PathBuf {
    root().join(format!("fuzz/target/logs/{target}.{what}.log"))
}

fn artifacts_of(target: &str) -> String {
    let folder = root().join("fuzz/artifacts").join(target);
    // libFuzzer says where it would have written; a missing folder costs only the file.
    let _ = std::fs::create_dir_all(&folder);
    format!("-artifact_prefix={}/", folder.display())
}

fn program(target: &str) -> PathBuf {
    let name = format!("{target}{}", std::env::consts::EXE_SUFFIX);
    root()
        .join("fuzz/target")
        .join(host())
        .join("release")
        .join(name)
}

/// Naming the platform keeps the flags away from build scripts and macros.
fn build_command(what: &str, more: &[&str]) -> Command {
    // Not `--locked`: a dependency that a crate of ours gains would ask for a commit here too.
    let mut command = cargo(&[what, "--release", "--target"]);
    command.arg(host()).args(more);
    command.current_dir(root().join("fuzz"));
    command.env("CARGO_TARGET_DIR", root().join("fuzz/target"));
    command.env("RUSTFLAGS", FLAGS);
    command
}

fn host() -> String {
    let mut command = Command::new("rustc");
    command.args(["--version", "--verbose"]);
    let text = output(command).unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap_or("x86_64-unknown-linux-gnu").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Row, read_log};

    #[test]
    fn figures_come_from_the_last_lines() {
        let text = "#24\tNEW    cov: 13 ft: 13 corp: 2/5b lim: 4\n\
            #64\tDONE   cov: 33 ft: 33 corp: 10/357b lim: 4096\n\
            stat::number_of_executed_units: 6432041\n";
        let row = read_log(Row::default(), text);
        assert_eq!((row.runs, row.edges, row.inputs), (6_432_041, 33, 10));
    }
}
