//! The client's half of the workloads and what is measured in each.
//!
//! It owns the definition of every figure; the stacks only give it connections. What goes over a
//! stream is written in [`crate::serve`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::serve::{CHUNK_BYTES, MESSAGE_BYTES, Report};
use crate::stacks::{Dialer, StreamConnection};
use crate::system;

/// Figures by name; the units are part of the name.
pub type Metrics = BTreeMap<String, f64>;

/// Bytes after which bulk stops even when its time is not over.
const BULK_BYTES_MAX: u64 = 64 << 30;

/// Connections opened and closed before set-up is measured.
const WARM_UP_CONNECTIONS: usize = 20;

/// Requests answered before request/response is measured.
const WARM_UP_REQUESTS: usize = 200;

/// Tasks that connect at the same time in the second half of the connect mode.
const PARALLEL_DIALS: usize = 32;

/// Connections that one of those tasks makes at most; it bounds ephemeral ports.
const DIALS_PER_TASK_MAX: usize = 200;

/// How long memory settles before it is read, and how long idle CPU time is watched.
const SETTLE: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One stream, client to server, as fast as it goes.
    Bulk,
    /// 64-byte request and response, each on a new stream, one in flight.
    Rr1,
    /// The same with 64 in flight.
    Rr64,
    /// From dialling to the first response, one after another, then 32 at a time.
    Connect,
    /// Server memory and CPU per open connection that does nothing.
    Idle,
    /// wiremesh only: server memory per peer with a live session and no connection.
    IdleSession,
    /// wiremesh only: memory per configured peer without a session.
    IdlePeer,
}

impl Mode {
    /// The name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no mode is skipped");
        value.get_name().to_owned()
    }

    /// Whether rivals have nothing to compare with.
    pub fn is_wiremesh_only(self) -> bool {
        matches!(self, Self::IdleSession | Self::IdlePeer)
    }
}

/// One workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// What to measure.
    pub mode: Mode,
    /// How long to measure (bulk, request/response, connect).
    pub duration: Duration,
    /// How many peers are idle in the memory modes.
    pub idle_peers: usize,
}

/// Runs a workload over connections of `dialer`.
pub async fn run<D: Dialer>(dialer: D, workload: &Workload) -> Result<Metrics> {
    match workload.mode {
        Mode::Bulk => bulk(&dialer, workload.duration).await,
        Mode::Rr1 => request_response(&dialer, 1, workload.duration).await,
        Mode::Rr64 => request_response(&dialer, 64, workload.duration).await,
        Mode::Connect => connect(Arc::new(dialer), workload.duration).await,
        Mode::Idle => idle(&dialer, workload.idle_peers).await,
        Mode::IdleSession | Mode::IdlePeer => bail!("this stack has no such mode"),
    }
}

async fn bulk<D: Dialer>(dialer: &D, duration: Duration) -> Result<Metrics> {
    let (connection, _) = dialer.dial().await?;
    request(&connection).await?;
    let (mut send, mut recv) = connection.open().await?;
    let chunk = vec![b'B'; CHUNK_BYTES];
    let cpu_start = system::cpu_time();
    let start = Instant::now();
    let mut sent_bytes = 0;
    while sent_bytes < BULK_BYTES_MAX && start.elapsed() < duration {
        send.write_all(&chunk).await?;
        sent_bytes += chunk.len() as u64;
    }
    send.shutdown().await?;
    let report = read_report(&mut recv).await?;
    let seconds = start.elapsed().as_secs_f64();
    let client_cpu = system::cpu_time() - cpu_start;
    let received_bytes = report.bytes;
    ensure!(
        received_bytes == sent_bytes,
        "server got {received_bytes} of {sent_bytes} bytes"
    );
    connection.close();
    let gib = sent_bytes as f64 / f64::from(1u32 << 30);
    Ok(metrics([
        ("gbit_per_s", sent_bytes as f64 * 8.0 / seconds / 1e9),
        ("client_cpu_s_per_gib", client_cpu.as_secs_f64() / gib),
        ("server_cpu_s_per_gib", report.cpu_ns as f64 / 1e9 / gib),
    ]))
}

async fn request_response<D: Dialer>(
    dialer: &D,
    in_flight: usize,
    duration: Duration,
) -> Result<Metrics> {
    let (connection, _) = dialer.dial().await?;
    for _ in 0..WARM_UP_REQUESTS {
        request(&connection).await?;
    }
    let server_start = status(&connection).await?;
    let cpu_start = system::cpu_time();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let connection = connection.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < duration {
                let sent = Instant::now();
                request(&connection).await?;
                latencies.push(micros(sent.elapsed()));
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        latencies.extend(finished??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let client_cpu = system::cpu_time() - cpu_start;
    let server_cpu_ns = status(&connection).await?.cpu_ns - server_start.cpu_ns;
    connection.close();
    let count = latencies.len() as f64;
    latencies.sort_by(f64::total_cmp);
    Ok(metrics([
        ("requests_per_s", count / seconds),
        ("p50_us", percentile(&latencies, 0.50)),
        ("p99_us", percentile(&latencies, 0.99)),
        ("client_cpu_us", micros(client_cpu) / count),
        ("server_cpu_us", server_cpu_ns as f64 / 1e3 / count),
    ]))
}

async fn connect<D: Dialer>(dialer: Arc<D>, duration: Duration) -> Result<Metrics> {
    for _ in 0..WARM_UP_CONNECTIONS {
        first_response(&*dialer).await?;
    }
    let (observer, _) = dialer.dial().await?;
    let server_start = status(&observer).await?;
    let cpu_start = system::cpu_time();
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < duration {
        latencies.push(micros(first_response(&*dialer).await?));
    }
    let client_cpu = system::cpu_time() - cpu_start;
    let server_cpu_ns = status(&observer).await?.cpu_ns - server_start.cpu_ns;
    let parallel_per_s = connect_in_parallel(&dialer, duration).await?;
    observer.close();
    let count = latencies.len() as f64;
    latencies.sort_by(f64::total_cmp);
    Ok(metrics([
        ("p50_us", percentile(&latencies, 0.50)),
        ("p99_us", percentile(&latencies, 0.99)),
        ("client_cpu_us", micros(client_cpu) / count),
        ("server_cpu_us", server_cpu_ns as f64 / 1e3 / count),
        ("parallel_per_s", parallel_per_s),
    ]))
}

async fn connect_in_parallel<D: Dialer>(dialer: &Arc<D>, duration: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..PARALLEL_DIALS {
        let dialer = dialer.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while start.elapsed() < duration && count < DIALS_PER_TASK_MAX {
                first_response(&*dialer).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(finished) = tasks.join_next().await {
        count += finished??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn idle<D: Dialer>(dialer: &D, peers: usize) -> Result<Metrics> {
    let (observer, _) = dialer.dial().await?;
    request(&observer).await?;
    let before = status(&observer).await?;
    let own_before = system::resident_bytes();
    let mut connections = Vec::with_capacity(peers);
    for _ in 0..peers {
        let (connection, _) = dialer.dial().await?;
        request(&connection).await?;
        connections.push(connection);
    }
    let [server_kib, server_cpu] = settle(&observer, before, peers).await?;
    let own_bytes = system::resident_bytes() as f64 - own_before as f64;
    connections.iter().for_each(StreamConnection::close);
    Ok(metrics([
        ("server_kib", server_kib),
        ("client_kib", own_bytes / 1024.0 / peers as f64),
        ("server_cpu_percent", server_cpu),
        ("count", peers as f64),
    ]))
}

/// Waits until memory has settled; gives the server's KiB per peer since `before`, and the percent
/// of a core that the server uses while all of them are idle.
pub async fn settle<C: StreamConnection>(
    observer: &C,
    before: Report,
    peers: usize,
) -> Result<[f64; 2]> {
    tokio::time::sleep(SETTLE).await;
    let settled = status(observer).await?;
    let start = Instant::now();
    tokio::time::sleep(SETTLE).await;
    let cpu_ns = status(observer).await?.cpu_ns - settled.cpu_ns;
    let kib = (settled.bytes as f64 - before.bytes as f64) / 1024.0 / peers as f64;
    Ok([
        kib,
        cpu_ns as f64 / start.elapsed().as_nanos() as f64 * 100.0,
    ])
}

/// Connects, waits for one response and closes; gives the time that took without the close.
async fn first_response<D: Dialer>(dialer: &D) -> Result<Duration> {
    let (connection, start) = dialer.dial().await?;
    request(&connection).await?;
    let elapsed = start.elapsed();
    connection.close();
    Ok(elapsed)
}

/// Sends one request on a new stream and waits for the response.
pub async fn request<C: StreamConnection>(connection: &C) -> Result<()> {
    let (mut send, mut recv) = connection.open().await?;
    send.write_all(&[b'R'; MESSAGE_BYTES]).await?;
    send.shutdown().await?;
    let mut response = [0; MESSAGE_BYTES];
    recv.read_exact(&mut response).await?;
    Ok(())
}

/// Asks the server for its memory and CPU time.
pub async fn status<C: StreamConnection>(connection: &C) -> Result<Report> {
    let (mut send, mut recv) = connection.open().await?;
    send.write_all(b"S").await?;
    send.shutdown().await?;
    read_report(&mut recv).await
}

async fn read_report<R: tokio::io::AsyncRead + Unpin>(recv: &mut R) -> Result<Report> {
    let mut bytes = [0; Report::LEN];
    recv.read_exact(&mut bytes).await?;
    Ok(Report::parse(&bytes))
}

/// Collects named figures.
pub fn metrics<const N: usize>(pairs: [(&str, f64); N]) -> Metrics {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The value below which the fraction `p` of the sorted values lies; not a number when empty.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    sorted[(last as f64 * p).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_has_the_right_edges() {
        assert!(percentile(&[], 0.5).is_nan());
        assert_eq!(percentile(&[3.0], 0.99), 3.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 0.0), 1.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 1.0), 3.0);
    }
}
