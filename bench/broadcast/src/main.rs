//! Measures broadcast in Wiremesh side by side with iroh-gossip and libp2p gossipsub: one simulated
//! network, three protocols, in virtual time.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

mod journal;
mod net;
mod plot;
mod protocols;
mod random;
mod report;
mod run;
mod time;
mod transport;
mod world;

use protocols::Protocol;
use report::{Document, Report};
use run::{Case, Load, Outcome, Senders, Setting, run};
use transport::Transport;

const EXAMPLES: &str = "\
Examples:
  cargo run --release                                  everything with 1,000 nodes, an hour
  cargo run --release -- --nodes 100 --seeds 1         a look at everything, two minutes
  cargo run --release -- --protocols wiremesh,iroh --loads idle --senders random
  cargo run --release -- --nodes 300 --loads idle,objects
                                                       bulk objects broadcast by the protocols
  cargo run --release -- --plot broadcast.svg --json > broadcast.json
  cargo run --release -- --with broadcast.json --no-runs
                                                       the table of those runs";

/// Measures broadcast in Wiremesh next to iroh-gossip and libp2p gossipsub on one simulated network.
///
/// Nodes stand in 24 regions of a published table of latencies; each has one slow uplink, and
/// packets get lost. Urgent objects are published one after another, alone and beside bulk that
/// saturates half of the uplinks. Virtual time: the machine's speed changes nothing but the wait.
#[derive(Debug, Parser)]
#[command(name = "broadcast", version, after_help = EXAMPLES)]
struct Cli {
    /// Protocols to measure, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_enum, hide_default_value = true)]
    protocols: Vec<Protocol>,
    /// Transports to measure: `classes` and `paced` for wiremesh, `fifo` and `paced` for the others
    /// unless they are named here; without a load only the first, since nothing waits then
    #[arg(long, value_delimiter = ',', value_enum, hide_default_value = true)]
    transports: Vec<Transport>,
    /// Loads, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "idle,streams"
    )]
    loads: Vec<Load>,
    /// Who publishes, separated by commas
    #[arg(long, value_delimiter = ',', value_enum, default_value = "one,random")]
    senders: Vec<Senders>,
    /// Nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    nodes: u32,
    /// How many seeds, each another network
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Urgent objects that count, per seed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    objects: u32,
    /// The length of an urgent object in bytes
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=16_000))]
    object_bytes: u32,
    /// Milliseconds between two of them
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    interval_ms: u64,
    /// Seconds between the last node that joins and the first object
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    settle_secs: u64,
    /// Each node's uplink in Mbit/s
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate_mbit: u64,
    /// Packets lost, in percent
    #[arg(long, default_value_t = 1.0)]
    loss_percent: f64,
    /// Streams of each loaded node in the load `streams`
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    bulk_streams: u32,
    /// The length of an object in KiB, in the load `objects`
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(32..=4096))]
    bulk_kib: u32,
    /// Nodes that publish those
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    bulk_senders: u32,
    /// Runs at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Print one JSON document, with every run, instead of a table
    #[arg(long)]
    json: bool,
    /// Add the runs of an earlier `--json` with the same network; may be repeated
    #[arg(long, value_name = "FILE.json")]
    with: Vec<PathBuf>,
    /// Run nothing: report on what `--with` gives
    #[arg(long, requires = "with")]
    no_runs: bool,
    /// Write a plot of all cases to this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl Cli {
    fn setting(&self) -> Setting {
        Setting {
            nodes: self.nodes as usize,
            settle_secs: self.settle_secs,
            rate: self.rate_mbit * 1_000_000,
            loss: self.loss_percent / 100.0,
            objects: self.objects as usize,
            object_bytes: self.object_bytes as usize,
            interval_ms: self.interval_ms,
            bulk_bytes: self.bulk_kib as usize * 1024,
            bulk_senders: self.bulk_senders as usize,
            bulk_streams: self.bulk_streams as usize,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let protocols = if self.protocols.is_empty() {
            Protocol::ALL.to_vec()
        } else {
            self.protocols.clone()
        };
        for protocol in protocols {
            let mut first = true;
            let transports = match (self.transports.as_slice(), protocol) {
                ([], Protocol::Wiremesh) => vec![Transport::Classes, Transport::Paced],
                ([], _) => vec![Transport::Fifo, Transport::Paced],
                (named, _) => named.to_vec(),
            };
            for transport in transports {
                for senders in &self.senders {
                    let loads = self.loads.iter().copied();
                    let loads = loads.filter(|load| first || *load != Load::Idle);
                    cases.extend(loads.map(|load| Case {
                        protocol,
                        transport,
                        senders: *senders,
                        load,
                    }));
                }
                first = false;
            }
        }
        cases
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match measure(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<()> {
    ensure!(
        (0.0..50.0).contains(&cli.loss_percent),
        "--loss-percent {} makes no network; fix: from 0 to below 50",
        cli.loss_percent
    );
    let setting = cli.setting();
    let seeds = cli.first_seed..cli.first_seed + cli.seeds;
    let cases = if cli.no_runs { Vec::new() } else { cli.cases() };
    let runs: Vec<(Case, u64)> = seeds
        .flat_map(|seed| cases.iter().map(move |case| (*case, seed)))
        .collect();
    let mut outcomes = Vec::new();
    for path in &cli.with {
        outcomes.extend(earlier(path, &setting)?);
    }
    outcomes.extend(run_all(&setting, &runs, cli.jobs as usize));
    let report = Report::new(&setting, &outcomes);
    if let Some(path) = &cli.plot {
        std::fs::write(path, plot::svg(&report))
            .with_context(|| format!("cannot write {}; fix: name a file", path.display()))?;
    }
    let text = if cli.json {
        report.json(&outcomes)?
    } else {
        report.table()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// The runs in a document that `--json` made.
fn earlier(path: &Path, setting: &Setting) -> Result<Vec<Outcome>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; fix: name a file", path.display()))?;
    let document: Document = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report; fix: make it with --json", path.display()))?;
    ensure!(
        document.setting == *setting,
        "{} is of another network; fix: give the same options as for it",
        path.display()
    );
    Ok(document.runs)
}

/// Runs everything, `jobs` at a time; the outcomes come in the order of the runs.
fn run_all(setting: &Setting, runs: &[(Case, u64)], jobs: usize) -> Vec<Outcome> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let begin = Instant::now();
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((case, seed)) = runs.get(place) else {
                return done;
            };
            let started = Instant::now();
            let outcome = run(setting, *case, *seed);
            progress(place, runs.len(), &outcome, started, begin);
            done.push((place, outcome));
        }
    };
    let mut all: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.expect("a run ends")).collect()
    });
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

fn progress(place: usize, all: usize, outcome: &Outcome, started: Instant, begin: Instant) {
    let mut err = std::io::stderr();
    let dim = if err.is_terminal() {
        ("\u{1b}[2m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    let text = report::line(outcome);
    // Nobody listening is no reason to stop.
    let _ = writeln!(
        err,
        "{}run {:>3} of {all}: {text} ({:.0} s; {:.0} s in all){}",
        dim.0,
        place + 1,
        started.elapsed().as_secs_f64(),
        begin.elapsed().as_secs_f64(),
        dim.1
    );
}
