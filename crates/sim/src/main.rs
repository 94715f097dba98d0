//! Runs seeds of the simulator, or the upgrade of a whole network.
//!
//! `cargo run -p wiremesh-sim -- --seed N --trace` shows one seed,
//! `cargo run -p wiremesh-sim --release -- --control --seeds 10000` runs many, and
//! `cargo run -p wiremesh-sim --release -- --upgrade docs/upgrade.svg` draws the upgrade.

use std::process::ExitCode;
use wiremesh_sim::lab::Slowest;
use wiremesh_sim::upgrade::{self, Sample, UpgradeOptions, UpgradeReport};
use wiremesh_sim::{Failure, Options, Report, Simulation, plot};

const USAGE: &str = "usage: wiremesh-sim [--control] [--seed N] [--seeds N] [--trace]
       wiremesh-sim --upgrade FILE [--nodes N] [--seed N]
  --control       with the control protocol, under a spy
  --seed N        the first seed (default 0, for an upgrade 1)
  --seeds N       how many seeds from there (default 1)
  --trace         print everything that happens
  --upgrade FILE  upgrade a network from L1 to L2 and write a plot of it (SVG)
  --nodes N       of that network (default 2000)";

/// More seeds than this get one line in all.
const LINES_MAX: u64 = 100;

#[derive(Default)]
struct Arguments {
    first: Option<u64>,
    count: Option<u64>,
    nodes: Option<usize>,
    upgrade: Option<String>,
    options: Options,
}

fn parse() -> Option<Arguments> {
    let mut parsed = Arguments::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => parsed.first = Some(arguments.next()?.parse().ok()?),
            "--seeds" => parsed.count = Some(arguments.next()?.parse().ok()?),
            "--nodes" => parsed.nodes = Some(arguments.next()?.parse().ok()?),
            "--upgrade" => parsed.upgrade = Some(arguments.next()?),
            "--trace" => parsed.options.trace = true,
            "--control" => parsed.options.control = true,
            _ => return None,
        }
    }
    Some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = parse().filter(|parsed| parsed.nodes.is_none_or(|n| n > 2)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match &arguments.upgrade {
        Some(file) => run_upgrade(&arguments, file),
        None => run_seeds(&arguments),
    }
}

fn run_seeds(arguments: &Arguments) -> ExitCode {
    let (first, count) = (arguments.first.unwrap_or(0), arguments.count.unwrap_or(1));
    let (mut total, mut failed) = (Report::default(), 0);
    for seed in first..first.saturating_add(count) {
        match Simulation::run(seed, &arguments.options) {
            Ok(report) => {
                if count <= LINES_MAX {
                    println!(
                        "seed {seed}: {} {}",
                        short(&report.trace_hash),
                        told(&report)
                    );
                }
                add(&mut total, &report);
            }
            Err(failure) => {
                println!("{failure}");
                failed += 1;
            }
        }
    }
    if count > LINES_MAX {
        println!("{count} seeds: {}", told(&total));
    }
    println!("{failed} of {count} seeds failed");
    ExitCode::from(u8::from(failed > 0))
}

fn short(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add(total: &mut Report, report: &Report) {
    total.nodes += report.nodes;
    total.virtual_time += report.virtual_time;
    total.sent += report.sent;
    total.delivered += report.delivered;
    total.datagrams += report.datagrams;
    total.attacks += report.attacks;
    total.faults += report.faults;
    total.handshakes += report.handshakes;
    total.policy_changes += report.policy_changes;
    total.agreements += report.agreements;
    total.closed += report.closed;
    for (sum, pairs) in total.levels.iter_mut().zip(report.levels) {
        *sum += pairs;
    }
}

fn told(report: &Report) -> String {
    let mut text = format!(
        "nodes {} time {:.0?} packets {}/{} datagrams {} handshakes {} faults {} attacks {}",
        report.nodes,
        report.virtual_time,
        report.delivered,
        report.sent,
        report.datagrams,
        report.handshakes,
        report.faults,
        report.attacks
    );
    let [l1, l2, l3] = report.levels;
    if l1 + l2 + l3 + report.closed > 0 {
        text += &format!(
            " policies {} agreements {} pairs at L1 {l1}, L2 {l2}, L3 {l3}, none {}",
            report.policy_changes, report.agreements, report.closed
        );
    }
    text
}

fn run_upgrade(arguments: &Arguments, file: &str) -> ExitCode {
    let mut options = UpgradeOptions::default();
    options.seed = arguments.first.unwrap_or(options.seed);
    options.nodes = arguments.nodes.unwrap_or(options.nodes);
    let report = match upgrade::run(&options) {
        Ok(report) => report,
        Err(failure) => {
            println!("{}", plain(&failure));
            return ExitCode::FAILURE;
        }
    };
    print(&report);
    if let Err(error) = std::fs::write(file, plot::svg(&report)) {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    println!("plot: {file}");
    ExitCode::from(u8::from(report.lost + report.refused > 0))
}

fn plain(failure: &Failure) -> String {
    let at = failure.at.as_secs_f64();
    format!("{:?} broken at {at:.3} s: {}", failure.rule, failure.detail)
}

fn print(report: &UpgradeReport) {
    println!("   time   old only   both  new only  down  links L1      L2  without");
    for sample in report.samples.iter().step_by(6) {
        let Sample { at, nodes, links } = sample;
        println!(
            "{:>5} s {:>10} {:>6} {:>9} {:>5} {:>9} {:>7} {:>8}",
            at.as_secs(),
            nodes[0],
            nodes[1],
            nodes[2],
            nodes[3],
            links[0],
            links[1],
            links[2]
        );
    }
    let UpgradeReport {
        rolled_back,
        killed,
        links,
        sent,
        lost,
        lost_with_killed,
        refused,
        slowest,
        ..
    } = report;
    println!("node {rolled_back} went back once, node {killed} was killed for 30 s");
    println!("links {links}, of them below the level that they demand, at any time: 0");
    println!("messages {sent}: lost {lost}, refused {refused}");
    if let Some(Slowest {
        from,
        to,
        sent_at,
        took,
    }) = slowest
    {
        println!("longest delay {took:.0?}: from node {from} to node {to} at {sent_at:.3?}");
    }
    println!("messages lost from and to the killed node: {lost_with_killed}");
}
