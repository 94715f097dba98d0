//! Suites of scenarios that have no form in common: a name and a function each.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::netns::clean_up_after_dead_runs;
use crate::outcome::{Outcome, Stop};

/// A scenario and its name.
pub type Named = (&'static str, fn() -> Outcome);

/// A scenario with what it needs in it.
pub struct Case {
    /// Its name: the behaviour that it proves.
    pub name: String,
    /// What it does.
    pub run: Box<dyn Fn() -> Outcome + Send + Sync>,
}

/// Runs the scenarios that the command line names, or all; `prepare` says what is missing first.
pub fn main(suite: &str, scenarios: &[Named], prepare: impl FnOnce() -> Outcome) -> ExitCode {
    let cases: Vec<Case> = scenarios
        .iter()
        .map(|(name, run)| Case {
            name: (*name).to_owned(),
            run: Box::new(*run),
        })
        .collect();
    main_of(suite, &cases, 1, prepare)
}

/// The same, with this many scenarios at a time.
pub fn main_of(
    suite: &str,
    cases: &[Case],
    at_once: usize,
    prepare: impl FnOnce() -> Outcome,
) -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if std::env::args().any(|word| word == "--list") {
        cases
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    match prepare() {
        Ok(()) => clean_up_after_dead_runs(),
        Err(Stop::Skipped(reason)) => {
            println!("{suite}: all {} scenarios skipped: {reason}", cases.len());
            return ExitCode::SUCCESS;
        }
        Err(Stop::Failed(reason)) => {
            println!("{suite}: FAILED before the first scenario: {reason}");
            return ExitCode::FAILURE;
        }
    }
    println!("{suite}: {} scenarios", cases.len());
    let chosen = |case: &&Case| {
        words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str()))
    };
    let chosen: Vec<&Case> = cases.iter().filter(chosen).collect();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new([0; 3]));
    let work = || {
        while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let index = run(case);
            counts.lock().expect("nobody panics with it")[index] += 1;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    let [passed, skipped, failed] = counts.into_inner().expect("nobody panics with it");
    println!("{suite}: {passed} passed, {skipped} skipped, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs one and says how it ended: 0 well, 1 skipped, 2 failed.
fn run(case: &Case) -> usize {
    let start = Instant::now();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(&case.run))
        .unwrap_or_else(|_| Err(Stop::Failed("it panicked, see above".to_owned())));
    let (name, seconds) = (&case.name, start.elapsed().as_secs_f32());
    match outcome {
        Ok(()) => {
            println!("  ok       {name} ({seconds:.1} s)");
            0
        }
        Err(Stop::Skipped(reason)) => {
            println!("  skipped  {name}: {reason}");
            1
        }
        Err(Stop::Failed(reason)) => {
            println!("  FAILED   {name} ({seconds:.1} s): {reason}");
            2
        }
    }
}
