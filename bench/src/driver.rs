//! Runs every stack as two child processes, a server on one core and a client on another.
//!
//! Rounds are interleaved (A B C, A B C), so that a slow minute of the machine hits all stacks
//! alike. It owns the children and ends each of them; it computes nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::load::{Metrics, Mode};
use crate::stacks::{Stack, datagram_bytes};
use crate::system::Noise;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The stacks, in the order of the tables.
    pub stacks: Vec<Stack>,
    /// The modes, in the order of the tables.
    pub modes: Vec<Mode>,
    /// Seconds per measurement.
    pub secs: u64,
    /// How often everything is repeated.
    pub rounds: usize,
    /// Idle peers in the memory modes.
    pub idle_peers: usize,
    /// The core of the server.
    pub server_core: usize,
    /// The core of the client.
    pub client_core: usize,
}

/// The outcome of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Round, from 1.
    pub round: usize,
    /// Mode by name.
    pub mode: String,
    /// Stack by name.
    pub stack: String,
    /// The figures; empty when the run failed.
    pub metrics: Metrics,
    /// Cores that other processes kept busy meanwhile.
    pub others_cores: f64,
    /// Cores that the hypervisor took away meanwhile.
    pub stolen_cores: f64,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Runs the plan with progress on standard error. A failed measurement does not stop the others.
pub async fn run(plan: &Plan) -> Vec<Run> {
    let pairs: Vec<(Mode, Stack)> = plan
        .modes
        .iter()
        .flat_map(|&mode| plan.stacks.iter().map(move |&stack| (mode, stack)))
        .filter(|&(mode, stack)| stack.has(mode))
        .collect();
    let total = plan.rounds * pairs.len();
    let mut runs = Vec::with_capacity(total);
    let start = Instant::now();
    for round in 1..=plan.rounds {
        for &(mode, stack) in &pairs {
            let number = runs.len() + 1;
            let elapsed = start.elapsed().as_secs();
            let (mode_name, stack_name) = (mode.name(), stack.name());
            eprint!("[{number}/{total}, {elapsed} s] round {round} {mode_name} {stack_name} ... ");
            let run = measure(plan, round, mode, stack).await;
            eprintln!("{}", run.error.as_deref().unwrap_or("ok"));
            runs.push(run);
        }
    }
    runs
}

async fn measure(plan: &Plan, round: usize, mode: Mode, stack: Stack) -> Run {
    let before = Noise::sample();
    let result = serve_and_load(plan, mode, stack).await;
    let after = Noise::sample();
    let (metrics, error) = match result {
        Ok(metrics) => (metrics, None),
        Err(error) => (Metrics::new(), Some(format!("{error:#}"))),
    };
    Run {
        round,
        mode: mode.name(),
        stack: stack.name(),
        metrics,
        others_cores: after.others_cores_since(&before),
        stolen_cores: after.stolen_cores_since(&before),
        error,
    }
}

async fn serve_and_load(plan: &Plan, mode: Mode, stack: Stack) -> Result<Metrics> {
    let mut server = spawn("serve", stack, plan.server_core, &[])?;
    // The server ends when this end closes, also if the driver is killed.
    let _keep_alive = server.stdin.take();
    let target = timeout(Duration::from_secs(20), first_line(&mut server))
        .await
        .context("the server does not start")??;
    let result = load(plan, mode, stack, &target).await;
    server.kill().await.context("cannot end the server")?;
    result
}

async fn load(plan: &Plan, mode: Mode, stack: Stack, target: &str) -> Result<Metrics> {
    let (secs, peers, mode) = (
        plan.secs.to_string(),
        plan.idle_peers.to_string(),
        mode.name(),
    );
    let arguments = [
        "--target",
        target,
        "--mode",
        &mode,
        "--secs",
        &secs,
        "--idle-peers",
        &peers,
    ];
    let client = spawn("load", stack, plan.client_core, &arguments)?;
    // Generous: opening the idle connections takes the slowest stack a few milliseconds each.
    let limit = Duration::from_secs(60 + 4 * plan.secs + plan.idle_peers as u64 / 20);
    let output = timeout(limit, client.wait_with_output())
        .await
        .with_context(|| format!("the client does not finish within {} s", limit.as_secs()))??;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "client: {}", last_line(&stderr));
    serde_json::from_slice(&output.stdout).context("the client's answer is not understood")
}

fn spawn(role: &str, stack: Stack, core: usize, arguments: &[&str]) -> Result<Child> {
    Command::new(std::env::current_exe().context("cannot find the own program")?)
        .args([role, "--stack", &stack.name(), "--core", &core.to_string()])
        .args(["--datagram", &datagram_bytes().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start the child process {role}"))
}

/// The first line the server prints: what a client needs to reach it.
async fn first_line(server: &mut Child) -> Result<String> {
    let stdout = server.stdout.as_mut().expect("standard output is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    if !line.is_empty() {
        return Ok(line.trim().to_owned());
    }
    let mut text = String::new();
    let stderr = server.stderr.as_mut().expect("standard error is piped");
    stderr.read_to_string(&mut text).await?;
    Err(anyhow!("server: {}", last_line(&text)))
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("ended without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_skips_blank_ones() {
        assert_eq!(last_line("a\nb\n\n"), "b");
        assert_eq!(last_line(""), "ended without a message");
    }
}
