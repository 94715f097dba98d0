//! Five hundred networks whose nodes agree on suites, each from its seed, under a spy.
//! `WIREMESH_SIM_CONTROL_SEED=N` runs one seed alone, with its trace on standard output;
//! `WIREMESH_SIM_CONTROL_SEEDS=N` runs so many instead of five hundred. Ten thousand in release:
//! `cargo run -p wiremesh-sim --release -- --control --seeds 10000`.
#![allow(clippy::unwrap_used)]

#[path = "support/seeds.rs"]
mod support;

use support::{number, run_all};
use wiremesh_sim::{Mutation, Options, Report, Rule, Simulation};

fn control() -> Options {
    Options {
        control: true,
        ..Options::default()
    }
}

#[test]
fn nothing_leaves_below_its_level_and_all_reach_it_for_five_hundred_seeds() {
    if let Some(seed) = number("WIREMESH_SIM_CONTROL_SEED") {
        let options = Options {
            trace: true,
            ..control()
        };
        if let Err(failure) = Simulation::run(seed, &options) {
            panic!("{failure}");
        }
        return;
    }
    let count = number("WIREMESH_SIM_CONTROL_SEEDS").unwrap_or(500);
    let (reports, failures) = run_all(count, &control());
    failures.iter().for_each(|failure| println!("{failure}"));
    assert!(
        failures.is_empty(),
        "{} of {count} seeds failed",
        failures.len()
    );
    // The runs are worth something: exchanges end, policies change, and there are pairs at every
    // level and some that must not talk.
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(total(|report| report.agreements) > 8 * count);
    assert!(total(|report| report.policy_changes) > count);
    for level in 0..3 {
        let pairs: u64 = reports.iter().map(|report| report.levels[level]).sum();
        assert!(pairs > count / 4, "{pairs} at L{}", level + 1);
    }
    assert!(total(|report| report.closed) > count / 4);
}

#[test]
fn the_same_control_seed_gives_the_same_trace() {
    for seed in (0..100).step_by(10) {
        let first = Simulation::run(seed, &control()).unwrap();
        let again = Simulation::run(seed, &control()).unwrap();
        assert_eq!(first, again);
    }
}

#[test]
fn each_control_canary_fails_under_its_rule() {
    const CANARY_SEED: u64 = 7;
    Simulation::run(CANARY_SEED, &control()).unwrap();
    for (mutation, rule) in Mutation::CONTROL {
        let options = Options {
            mutation: Some(mutation),
            ..control()
        };
        let failure = Simulation::run(CANARY_SEED, &options).expect_err("a canary that sings");
        assert_eq!(failure.rule, rule, "{mutation:?}: {failure}");
        assert!(failure.to_string().contains("--control --seed 7 --trace"));
    }
    assert_eq!(Mutation::CONTROL[0].1, Rule::NothingBelowLevel);
}
