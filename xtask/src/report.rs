//! Runs steps and tells what came of them.
//!
//! Owns the order, the times, the table at the end and the closing line. A step that was skipped,
//! wholly or in part, is in the table with its reason.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why it failed.
    pub failure: Option<String>,
    /// Why it, or parts of it, did not run.
    pub skipped: Vec<String>,
    /// Tests inside it that passed.
    pub passed: u64,
    /// Tests inside it that failed.
    pub failed: u64,
}

impl Outcome {
    /// It failed.
    pub fn failed(why: impl Into<String>) -> Self {
        Self {
            failure: Some(why.into()),
            ..Self::default()
        }
    }

    /// It did not run.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self {
            skipped: vec![why.into()],
            ..Self::default()
        }
    }

    /// Passed if there is nothing to complain about; what there is has been printed.
    pub fn of_complaints(complaints: &[String]) -> Self {
        complaints.iter().for_each(|line| println!("{line}"));
        match complaints.len() {
            0 => Self::default(),
            n => Self::failed(format!("{n} found, see above")),
        }
    }

    /// Both, one after the other.
    pub fn and(mut self, other: Self) -> Self {
        self.failure = self.failure.or(other.failure);
        self.skipped.extend(other.skipped);
        self.passed += other.passed;
        self.failed += other.failed;
        self
    }
}

/// The steps that were run so far.
pub struct Report {
    began: Instant,
    only: Vec<String>,
    steps: Vec<(&'static str, Duration, Outcome)>,
}

impl Report {
    /// No steps yet.
    pub fn new() -> Self {
        Self::only(&[])
    }

    /// No steps yet, and later only those whose names contain one of these words; none mean all.
    pub fn only(words: &[&str]) -> Self {
        Self {
            began: Instant::now(),
            only: words.iter().map(|word| (*word).to_owned()).collect(),
            steps: Vec::new(),
        }
    }

    /// Runs one step.
    pub fn step(&mut self, name: &'static str, run: impl FnOnce() -> Outcome) {
        if !self.only.is_empty() && !self.only.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        println!("\n== {name}");
        let began = Instant::now();
        let outcome = run();
        let time = began.elapsed();
        println!(
            "-- {name}: {} ({:.1} s)",
            word(&outcome),
            time.as_secs_f32()
        );
        if let Some(why) = &outcome.failure {
            println!("   {why}");
        }
        self.steps.push((name, time, outcome));
    }

    /// Prints the table and the closing line.
    pub fn finish(&self) -> ExitCode {
        println!("\n{:<24} {:>9} {:>14}  result", "step", "time", "tests");
        for (name, time, outcome) in &self.steps {
            let tests = match outcome.passed + outcome.failed {
                0 => String::new(),
                all => format!("{} of {all}", outcome.passed),
            };
            let seconds = time.as_secs_f32();
            println!("{name:<24} {seconds:>7.1} s {tests:>14}  {}", word(outcome));
            for why in &outcome.skipped {
                println!("{:<24} not run: {why}", "");
            }
            if let Some(why) = &outcome.failure {
                println!("{:<24} failed: {why}", "");
            }
        }
        let (passed, failed) = self.totals();
        if !self.only.is_empty() {
            println!("\nonly steps with: {}", self.only.join(", "));
        }
        let minutes = self.began.elapsed().as_secs_f32() / 60.0;
        println!("\nSteps and the tests in them, {minutes:.1} minutes:");
        println!("{passed} passed, {failed} failed");
        match (self.steps.len(), failed) {
            (1.., 0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    fn totals(&self) -> (u64, u64) {
        let (mut passed, mut failed) = (0, 0);
        for (_, _, outcome) in &self.steps {
            passed += outcome.passed;
            failed += outcome.failed;
            match word(outcome) {
                "ok" => passed += 1,
                "FAILED" => failed += 1,
                _ => {}
            }
        }
        (passed, failed)
    }
}

fn word(outcome: &Outcome) -> &'static str {
    let ran = outcome.passed + outcome.failed > 0;
    match (&outcome.failure, outcome.skipped.is_empty() || ran) {
        (Some(_), _) => "FAILED",
        (None, true) => "ok",
        (None, false) => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Report};
    use std::process::ExitCode;

    #[test]
    fn steps_and_tests_are_counted_and_skips_are_not() {
        let mut report = Report::new();
        report.step("a", Outcome::default);
        report.step("b", || Outcome {
            passed: 5,
            skipped: vec!["a part".to_owned()],
            ..Outcome::default()
        });
        report.step("c", || Outcome::skipped("no network"));
        assert_eq!(report.totals(), (7, 0));
        assert_eq!(
            format!("{:?}", report.finish()),
            format!("{:?}", ExitCode::SUCCESS)
        );
        report.step("d", || Outcome {
            passed: 1,
            failed: 2,
            ..Outcome::failed("tests")
        });
        assert_eq!(report.totals(), (8, 3));
        assert_eq!(
            format!("{:?}", report.finish()),
            format!("{:?}", ExitCode::FAILURE)
        );
    }

    #[test]
    fn only_chosen_steps_run_and_none_is_a_failure() {
        let mut report = Report::only(&["fuzz"]);
        report.step("format", || Outcome::failed("it must not run"));
        assert_eq!(
            format!("{:?}", report.finish()),
            format!("{:?}", ExitCode::FAILURE)
        );
        report.step("fuzz: build", Outcome::default);
        assert_eq!(report.totals(), (1, 0));
    }

    #[test]
    fn complaints_fail() {
        assert!(Outcome::of_complaints(&[]).failure.is_none());
        assert!(Outcome::of_complaints(&["x".to_owned()]).failure.is_some());
    }
}
