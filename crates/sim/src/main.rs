//! Runs single seeds of the simulator: `cargo run -p wiremesh-sim -- --seed N --trace`.

use std::process::ExitCode;
use wiremesh_sim::{Options, Simulation};

const USAGE: &str = "usage: wiremesh-sim [--control] [--seed N] [--seeds N] [--trace]
  --control   with the control protocol, under a spy
  --seed N    the first seed (default 0)
  --seeds N   how many seeds from there (default 1)
  --trace     print everything that happens";

fn parse() -> Option<(u64, u64, Options)> {
    let (mut seed, mut count, mut options) = (0, 1, Options::default());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => seed = arguments.next()?.parse().ok()?,
            "--seeds" => count = arguments.next()?.parse().ok()?,
            "--trace" => options.trace = true,
            "--control" => options.control = true,
            _ => return None,
        }
    }
    Some((seed, count, options))
}

fn main() -> ExitCode {
    let Some((first, count, options)) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0;
    for seed in first..first.saturating_add(count) {
        match Simulation::run(seed, &options) {
            Ok(report) => {
                let hash: String = report.trace_hash[..8]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                println!(
                    "seed {seed}: {hash} nodes {} time {:.0?} packets {}/{} datagrams {} \
                     handshakes {} faults {} attacks {}",
                    report.nodes,
                    report.virtual_time,
                    report.delivered,
                    report.sent,
                    report.datagrams,
                    report.handshakes,
                    report.faults,
                    report.attacks
                );
            }
            Err(failure) => {
                println!("{failure}");
                failed += 1;
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} of {count} seeds failed");
        ExitCode::FAILURE
    }
}
