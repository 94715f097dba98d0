//! Many seeds on two threads.

use std::sync::atomic::{AtomicU64, Ordering};
use wiremesh_sim::{Failure, Options, Report, Simulation};

pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs the seeds below `count`.
pub fn run_all(count: u64, options: &Options) -> (Vec<Report>, Vec<Failure>) {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut reports, mut failures) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return (reports, failures);
            }
            match Simulation::run(seed, options) {
                Ok(report) => reports.push(report),
                Err(failure) => failures.push(*failure),
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let (mut reports, mut failures) = work();
        let (more, worse) = other.join().expect("a seed does not panic");
        reports.extend(more);
        failures.extend(worse);
        (reports, failures)
    })
}
