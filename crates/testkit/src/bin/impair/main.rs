//! `impair`: the relay of the test kit for people and scripts.
//!
//! Owns the command line, the status line and the summary. Exit codes: 0 stopped as asked, 1 the
//! system refused, 2 bad arguments.

#![forbid(unsafe_code)]

mod args;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use wiremesh_testkit::impair::{Impair, ImpairError, ImpairStats, LinkStats};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("impair: {error}");
            match error {
                ImpairError::Config(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(args: &args::Args) -> Result<(), ImpairError> {
    let config = args.config();
    let target = config.target;
    let relay = Impair::start(config)?;
    let started = Instant::now();
    eprintln!(
        "impair: listening on {}, forwarding to {target}",
        relay.local_addr()
    );
    let is_terminal = std::io::stderr().is_terminal();
    let mut status = every(Duration::from_secs(1));
    let mut rebind = args
        .rebind_every
        .map(|seconds| every(Duration::from_secs(seconds)));
    let mut last = ImpairStats::default();
    let stop = stopped(args.duration);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = status.tick() => if is_terminal {
                let stats = relay.stats();
                // Rewrites the line; what it says is for the eye only.
                eprint!("\r\x1b[2K{}", status_line(&stats, &last));
                let _ = std::io::stderr().flush();
                last = stats;
            },
            () = tick(&mut rebind) => if let Err(error) = relay.rebind_upstream() {
                eprintln!("impair: no new port toward the target: {error}");
            },
        }
    }
    if is_terminal {
        eprintln!();
    }
    // A closed pipe is no reason to fail after the work is done.
    let _ = std::io::stdout().write_all(summary(&relay.stats(), started.elapsed()).as_bytes());
    Ok(())
}

/// Ticks with this period, first after one period.
fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Ends on Ctrl-C, on a request to terminate, or after the asked time.
async fn stopped(seconds: Option<u64>) {
    let time_up = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time_up => {}
        () = terminated() => {}
        result = tokio::signal::ctrl_c() => if result.is_err() {
            // Without a handler the default action of Ctrl-C still ends the program.
            std::future::pending::<()>().await;
        },
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

fn status_line(now: &ImpairStats, last: &ImpairStats) -> String {
    let direction = |name: &str, now: &LinkStats, last: &LinkStats| {
        let megabits = now.delivered_bytes.saturating_sub(last.delivered_bytes) as f64 * 8.0 / 1e6;
        let datagrams = now
            .delivered_datagrams
            .saturating_sub(last.delivered_datagrams);
        let dropped = now.dropped().saturating_sub(last.dropped());
        format!("{name} {megabits:.1} Mbit/s, {datagrams}/s, {dropped}/s dropped")
    };
    format!(
        "{} | {} | clients {}",
        direction("to target", &now.to_target, &last.to_target),
        direction("to client", &now.to_client, &last.to_client),
        now.clients
    )
}

fn summary(stats: &ImpairStats, elapsed: Duration) -> String {
    let mut text = format!("{:<22}{:>14}{:>14}\n", "", "to target", "to client");
    type Column = fn(&LinkStats) -> u64;
    let rows: [(&str, Column); 11] = [
        ("datagrams in", |link| link.received_datagrams),
        ("bytes in", |link| link.received_bytes),
        ("datagrams out", |link| link.delivered_datagrams),
        ("bytes out", |link| link.delivered_bytes),
        ("lost", |link| link.lost),
        ("lost in bursts", |link| link.lost_in_bursts),
        ("over the MTU", |link| link.too_large),
        ("queue full", |link| link.queue_full),
        ("duplicated", |link| link.duplicated),
        ("corrupted", |link| link.corrupted),
        ("reordered", |link| link.reordered),
    ];
    for (name, column) in rows {
        let (to_target, to_client) = (column(&stats.to_target), column(&stats.to_client));
        text += &format!("{name:<22}{to_target:>14}{to_client:>14}\n");
    }
    text += &format!(
        "{} clients in {:.1} s; {} datagrams refused, {} socket errors\n",
        stats.clients,
        elapsed.as_secs_f64(),
        stats.refused,
        stats.socket_errors
    );
    text
}
