//! Suites of scenarios that have no form in common: a name and a function each.

use std::process::ExitCode;
use std::time::Instant;

use crate::netns::clean_up_after_dead_runs;
use crate::outcome::{Outcome, Stop};

/// A scenario and its name.
pub type Named = (&'static str, fn() -> Outcome);

/// Runs the scenarios that the command line names, or all; `prepare` says what is missing first.
pub fn main(suite: &str, scenarios: &[Named], prepare: impl FnOnce() -> Outcome) -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if std::env::args().any(|word| word == "--list") {
        scenarios
            .iter()
            .for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    match prepare() {
        Ok(()) => clean_up_after_dead_runs(),
        Err(Stop::Skipped(reason)) => {
            println!(
                "{suite}: all {} scenarios skipped: {reason}",
                scenarios.len()
            );
            return ExitCode::SUCCESS;
        }
        Err(Stop::Failed(reason)) => {
            println!("{suite}: FAILED before the first scenario: {reason}");
            return ExitCode::FAILURE;
        }
    }
    println!("{suite}: {} scenarios", scenarios.len());
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let [mut passed, mut skipped, mut failed] = [0; 3];
    for (name, run) in scenarios.iter().filter(|(name, _)| chosen(name)) {
        let start = Instant::now();
        let outcome = run();
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("  ok       {name} ({seconds:.1} s)");
            }
            Err(Stop::Skipped(reason)) => {
                skipped += 1;
                println!("  skipped  {name}: {reason}");
            }
            Err(Stop::Failed(reason)) => {
                failed += 1;
                println!("  FAILED   {name} ({seconds:.1} s): {reason}");
            }
        }
    }
    println!("{suite}: {passed} passed, {skipped} skipped, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
