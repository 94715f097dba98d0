//! Measures wiremesh streams side by side with quinn + rustls and iroh, on loopback.
//!
//! Without a subcommand this program is the driver: it starts itself again as server and client
//! of each stack, pinned to one core each, and prints tables.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::json;

mod driver;
mod load;
mod report;
mod serve;
mod stacks;
mod system;

use driver::{Plan, Run};
use load::{Mode, Workload};
use stacks::{DATAGRAM_BYTES_DEFAULT, STREAMS_MAX, Stack, datagram_bytes, set_datagram_bytes};

const EXAMPLES: &str = "\
Examples:
  cargo run --release                                  everything, about 7 minutes
  cargo run --release -- --secs 1 --rounds 1 --idle-peers 200
                                                       a look at everything, about a minute
  cargo run --release -- --modes bulk --rounds 10      one mode, more rounds
  cargo run --release -- --stacks quinn-rustls-ring,iroh --modes rr1,rr64
  cargo run --release -- --datagram 8952 --modes bulk  a path with an MTU of 9,000
  cargo run --release -- --json > result.json          every run and the summary, for programs";

/// Measures wiremesh streams next to quinn + rustls and iroh on loopback, all in the same run.
///
/// Every stack runs as a server process on one core and a client process on another, one thread
/// each, with the same datagram size and the same stream limits. Rounds are interleaved; tables
/// show the median and the median of the ratios to the reference stack in the same round.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Stacks to measure, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_enum, hide_default_value = true)]
    stacks: Vec<Stack>,
    /// Modes to measure, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_enum, hide_default_value = true)]
    modes: Vec<Mode>,
    /// Seconds per measurement; the memory modes take as long as they need
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    secs: u64,
    /// How often everything is repeated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Idle peers in the memory modes; ten times as many in idle-peer
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    idle_peers: u64,
    /// The stack that ratios refer to
    #[arg(long, value_enum, default_value = "quinn-rustls-ring")]
    reference: Stack,
    /// The core of the server processes
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The core of the client processes
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// The largest UDP payload on the wire, in bytes, for every stack
    #[arg(long, default_value_t = DATAGRAM_BYTES_DEFAULT, value_parser = datagrams())]
    datagram: u16,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The server child process
    #[command(hide = true)]
    Serve {
        #[arg(long, value_enum)]
        stack: Stack,
        #[arg(long)]
        core: usize,
        #[arg(long)]
        datagram: u16,
    },
    /// The client child process
    #[command(hide = true)]
    Load {
        #[arg(long, value_enum)]
        stack: Stack,
        #[arg(long)]
        core: usize,
        #[arg(long)]
        datagram: u16,
        #[arg(long)]
        target: String,
        #[arg(long, value_enum)]
        mode: Mode,
        #[arg(long)]
        secs: u64,
        #[arg(long)]
        idle_peers: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        Some(Role::Serve {
            stack,
            core,
            datagram,
        }) => {
            set_datagram_bytes(datagram);
            serve(stack, core)
        }
        Some(Role::Load {
            stack,
            core,
            datagram,
            target,
            mode,
            secs,
            idle_peers,
        }) => {
            set_datagram_bytes(datagram);
            let duration = Duration::from_secs(secs);
            load(
                stack,
                core,
                &target,
                &Workload {
                    mode,
                    duration,
                    idle_peers,
                },
            )
        }
        None => {
            set_datagram_bytes(cli.options.datagram);
            drive(&cli.options)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// QUIC's least, and what fits an IP packet with every header around it.
fn datagrams() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1_280..=65_000)
}

fn serve(stack: Stack, core: usize) -> Result<ExitCode> {
    prepare(core)?;
    // The driver holds the other end: its death ends this process too.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime()?.block_on(stack.serve(|target| println!("{target}")))?;
    Ok(ExitCode::SUCCESS)
}

fn load(stack: Stack, core: usize, target: &str, workload: &Workload) -> Result<ExitCode> {
    prepare(core)?;
    let metrics = runtime()?.block_on(stack.load(target, workload))?;
    println!("{}", serde_json::to_string(&metrics)?);
    // Not a return: tearing down thousands of connections would only cost time.
    std::io::stdout().flush()?;
    std::process::exit(0);
}

fn prepare(core: usize) -> Result<()> {
    system::raise_file_limit();
    if system::core_count() > 1 {
        system::pin_to_core(core)
    } else {
        Ok(())
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn drive(options: &Options) -> Result<ExitCode> {
    if system::core_count() < 2 {
        eprintln!("bench: only one core is available; server and client share it");
    }
    let plan = plan(options)?;
    let noise = system::Noise::sample();
    let runs = runtime()?.block_on(driver::run(&plan));
    let others_cores = system::Noise::sample().others_cores_since(&noise);
    let summaries = report::summarize(&plan, &runs, options.reference);
    if options.json {
        let document = json!({
            "setup": setup(&plan),
            "machine": system::machine(),
            "outer_datagram_bytes": datagram_bytes(),
            "streams_max_bidi": STREAMS_MAX,
            "streams_max_uni": STREAMS_MAX,
            "reference": options.reference.name(),
            "others_cores": others_cores,
            "summary": summaries,
            "runs": runs,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("{}", text(&plan, &runs, &summaries, options, others_cores));
    }
    let failed = runs.iter().any(|r| r.error.is_some());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn plan(options: &Options) -> Result<Plan> {
    let all_stacks = || Stack::value_variants().to_vec();
    let all_modes = || Mode::value_variants().to_vec();
    let plan = Plan {
        stacks: if options.stacks.is_empty() {
            all_stacks()
        } else {
            options.stacks.clone()
        },
        modes: if options.modes.is_empty() {
            all_modes()
        } else {
            options.modes.clone()
        },
        secs: options.secs,
        rounds: usize::try_from(options.rounds)?,
        idle_peers: usize::try_from(options.idle_peers)?,
        server_core: options.server_core,
        client_core: options.client_core,
    };
    let any = plan
        .modes
        .iter()
        .any(|mode| plan.stacks.iter().any(|stack| stack.has(*mode)));
    if !any {
        let message = "none of these stacks has any of these modes; leave out --stacks or --modes";
        Cli::command()
            .error(ErrorKind::ArgumentConflict, message)
            .exit();
    }
    Ok(plan)
}

fn setup(plan: &Plan) -> String {
    format!(
        "loopback, server on core {}, client on core {}, one thread each; every stack sends UDP \
         payloads of at most {} bytes; stream limits {STREAMS_MAX} bidi / {STREAMS_MAX} uni; \
         {} rounds of {} s, interleaved",
        plan.server_core,
        plan.client_core,
        datagram_bytes(),
        plan.rounds,
        plan.secs
    )
}

fn text(
    plan: &Plan,
    runs: &[Run],
    summaries: &[report::Summary],
    options: &Options,
    others_cores: f64,
) -> String {
    let reference = options.reference;
    let mut out = format!("{}\n{}\n", system::machine(), setup(plan));
    out += &format!(
        "Medians; ratio is to {} in the same round. Others busy: cores used by other processes \
         or taken by the hypervisor, worst round; above 0.1 the figures are not to be trusted.\n",
        reference.name()
    );
    out += &report::tables(plan, runs, summaries, reference);
    let targets = report::targets(summaries, "wiremesh");
    if !targets.is_empty() {
        out += &format!("\nTargets\n\n{targets}");
    }
    if others_cores > 0.1 {
        out += &format!("\nThe machine was not quiet: others used {others_cores:.2} cores.\n");
    }
    for run in runs {
        if let Some(error) = &run.error {
            out += &format!(
                "\nfailed: {} {} round {}: {error}",
                run.stack, run.mode, run.round
            );
        }
    }
    out + "\n"
}
