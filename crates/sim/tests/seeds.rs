//! A thousand networks, each from its seed. `WIREMESH_SIM_SEED=N` runs one seed alone, with its
//! trace on standard output; `WIREMESH_SIM_SEEDS=N` runs so many instead of a thousand.
#![allow(clippy::unwrap_used)]

#[path = "support/seeds.rs"]
mod support;

use support::{number, run_all};
use wiremesh_sim::{Mutation, Options, Report, Rule, Simulation};

#[test]
fn every_invariant_holds_for_a_thousand_seeds() {
    if let Some(seed) = number("WIREMESH_SIM_SEED") {
        let options = Options {
            trace: true,
            ..Options::default()
        };
        if let Err(failure) = Simulation::run(seed, &options) {
            panic!("{failure}");
        }
        return;
    }
    let count = number("WIREMESH_SIM_SEEDS").unwrap_or(1_000);
    let (reports, failures) = run_all(count, &Options::default());
    failures.iter().for_each(|failure| println!("{failure}"));
    assert!(
        failures.is_empty(),
        "{} of {count} seeds failed",
        failures.len()
    );
    // The runs are worth something: packets flow, things go wrong, attacks happen.
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>() / count;
    assert!(total(|report| report.delivered) > 500);
    assert!(total(|report| report.handshakes) > 20);
    assert!(total(|report| report.faults) > 5);
    assert!(total(|report| report.attacks) > 20);
    let nodes: Vec<u64> = (2..=5)
        .map(|n| reports.iter().filter(|r| r.nodes == n).count() as u64)
        .collect();
    assert!(nodes.iter().all(|n| *n >= count / 10), "{nodes:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
    let mut seen = Vec::new();
    for seed in (0..1_000).step_by(25) {
        let first = Simulation::run(seed, &Options::default()).unwrap();
        let again = Simulation::run(seed, &Options::default()).unwrap();
        assert_eq!(first, again);
        seen.push(first.trace_hash);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 40);
}

#[test]
fn a_script_steers_the_run() {
    let run = |script: &[u8]| {
        let options = Options {
            script: script.to_vec(),
            ..Options::default()
        };
        Simulation::run(1, &options).unwrap().trace_hash
    };
    assert_eq!(run(&[1, 2, 3, 4]), run(&[1, 2, 3, 4]));
    assert_ne!(run(&[1, 2, 3, 4]), run(&[1, 2, 3, 5]));
}

/// Runs the canary seed with a fault of the simulator itself, which must be noticed.
fn caught(mutation: Mutation) -> Rule {
    const CANARY_SEED: u64 = 7;
    let fine = Simulation::run(CANARY_SEED, &Options::default());
    assert!(fine.is_ok(), "the canary seed holds without the fault");
    let options = Options {
        mutation: Some(mutation),
        ..Options::default()
    };
    let failure = Simulation::run(CANARY_SEED, &options).expect_err("a canary that sings");
    let text = failure.to_string();
    assert!(text.contains("--seed 7 --trace"), "{text}");
    assert!(text.contains("WIREMESH_SIM_SEED=7"), "{text}");
    failure.rule
}

#[test]
fn each_canary_fails_under_its_rule() {
    for (mutation, rule) in Mutation::ALL {
        assert_eq!(caught(mutation), rule, "{mutation:?}");
    }
}
