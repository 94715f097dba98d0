//! The checks of this repository: `cargo xtask quick`, `ci`, `fuzz` and `instructions`.
//!
//! Owns which checks there are, in which order, and how their results are told. It needs only a
//! Rust tool chain, a C++ compiler to fuzz, and valgrind to count; it never installs anything.

#![forbid(unsafe_code)]

mod advisories;
mod ci;
mod dependencies;
mod fuzz;
mod instructions;
mod licence;
mod report;
mod shell;
mod slow;
mod source;
mod version;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask quick            format, lints and unit tests: before each commit
       cargo xtask ci [--fast] [WORD]...
                                    everything, or the steps with a word in their names; --fast
                                    (or WIREMESH_CI_FAST=1) fuzzes 10 s per target instead of 60 s
       cargo xtask fuzz [--seconds N] [TARGET]...
                                    fuzzes all targets, or these, for N s each (default 60)
       cargo xtask fuzz TARGET --input FILE
                                    runs one target once, on the input of a crash
       cargo xtask instructions [--update]
                                    counts the instructions of what decides about speed, and
                                    compares with the committed figures, or replaces them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["quick"] => ci::quick(),
        ["ci", "--fast", steps @ ..] => ci::full(true, steps),
        ["ci", steps @ ..] if !steps.iter().any(|step| step.starts_with('-')) => {
            let fast = std::env::var_os("WIREMESH_CI_FAST");
            ci::full(fast.is_some_and(|set| !set.is_empty() && set != "0"), steps)
        }
        ["fuzz", target, "--input", file] => fuzz::again(target, file),
        ["fuzz", rest @ ..] => match fuzz_arguments(rest) {
            Some((seconds, targets)) => fuzz::command(seconds, &targets),
            None => usage(),
        },
        ["instructions"] => instructions::command(false),
        ["instructions", "--update"] => instructions::command(true),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn fuzz_arguments<'a>(words: &[&'a str]) -> Option<(u32, Vec<&'a str>)> {
    let (mut seconds, mut targets) = (fuzz::SECONDS, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => seconds = words.next()?.parse().ok().filter(|n| *n > 0)?,
            word if word.starts_with('-') => return None,
            target => targets.push(target),
        }
    }
    Some((seconds, targets))
}

#[cfg(test)]
mod tests {
    use super::fuzz_arguments;

    #[test]
    fn fuzz_takes_a_time_and_targets() {
        assert_eq!(fuzz_arguments(&[]), Some((60, vec![])));
        assert_eq!(
            fuzz_arguments(&["a", "--seconds", "5", "b"]),
            Some((5, vec!["a", "b"]))
        );
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--minutes", "1"]] {
            assert_eq!(fuzz_arguments(wrong), None, "{wrong:?}");
        }
    }
}
