//! Bytes over a stream, the same over one of the tunnel and over plain TCP.
//!
//! Owns both sides of each job: what goes to and fro, and who holds the watch. The receiver does,
//! from its first byte to its last, since what is written is not yet sent.

use super::message::{DURATION_MAX, JOB_LEN, Job, PIECE_LEN};
use super::summary::Pings;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

/// How long a stream may stay without its job.
pub const JOB_PATIENCE: Duration = Duration::from_secs(10);

/// How long what was written may take to arrive after the end of a measurement.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes written and read at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// Round trips of one measurement.
pub const PINGS_MAX: usize = 200_000;

/// Bytes, and the time that they took to come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    bytes: u64,
    took: Duration,
}

impl Moved {
    /// The rate; `None` if there was too little to tell.
    pub fn bits_per_second(&self) -> Option<f64> {
        let measured = self.bytes > 0 && !self.took.is_zero();
        measured.then(|| self.bytes as f64 * 8.0 / self.took.as_secs_f64())
    }
}

/// The server's side of a stream, whose job is yet to come.
///
/// # Errors
///
/// The stream broke, took too long, or asked for what there is not.
pub async fn serve(
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut job = [0; JOB_LEN];
    timeout(JOB_PATIENCE, reader.read_exact(&mut job)).await??;
    let job = Job::decode(job).map_err(|_| io::ErrorKind::InvalidData)?;
    timeout(DURATION_MAX + DRAIN_PATIENCE, work(job, reader, writer)).await?
}

async fn work(
    job: Job,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    match job {
        Job::Echo => {
            let mut piece = [0; PIECE_LEN];
            while reader.read_exact(&mut piece).await.is_ok() {
                writer.write_all(&piece).await?;
                writer.flush().await?;
            }
        }
        Job::Up => {
            let Moved { bytes, took } = drain(&mut reader).await?;
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            writer.write_all(&bytes.to_be_bytes()).await?;
            writer.write_all(&nanos.to_be_bytes()).await?;
        }
        Job::Down(duration) => fill(&mut writer, duration).await?,
    }
    writer.shutdown().await
}

/// Sends for so long; what the other side has received of it.
///
/// # Errors
///
/// The stream broke.
pub async fn up(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    duration: Duration,
) -> io::Result<Moved> {
    writer.write_all(&Job::Up.encode()).await?;
    fill(&mut writer, duration).await?;
    writer.shutdown().await?;
    let answer = async {
        Ok(Moved {
            bytes: reader.read_u64().await?,
            took: Duration::from_nanos(reader.read_u64().await?),
        })
    };
    timeout(DRAIN_PATIENCE, answer).await?
}

/// Receives for so long.
///
/// # Errors
///
/// The stream broke.
pub async fn down(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    duration: Duration,
) -> io::Result<Moved> {
    writer.write_all(&Job::Down(duration).encode()).await?;
    writer.flush().await?;
    timeout(duration + DRAIN_PATIENCE, drain(&mut reader)).await?
}

/// Sends small pieces to and fro.
///
/// # Errors
///
/// The stream broke.
pub async fn ping(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    duration: Duration,
) -> io::Result<Pings> {
    writer.write_all(&Job::Echo.encode()).await?;
    let begun = Instant::now();
    let mut pings = Pings::default();
    let mut piece = [0; PIECE_LEN];
    while begun.elapsed() < duration && pings.times.len() < PINGS_MAX {
        let sent = Instant::now();
        writer.write_all(&piece).await?;
        writer.flush().await?;
        timeout(DRAIN_PATIENCE, reader.read_exact(&mut piece)).await??;
        pings.times.push(sent.elapsed());
    }
    writer.shutdown().await?;
    Ok(pings)
}

async fn fill(writer: &mut (impl AsyncWrite + Unpin), duration: Duration) -> io::Result<()> {
    let end = tokio::time::Instant::now() + duration;
    let chunk = vec![0; CHUNK_BYTES];
    loop {
        match timeout_at(end, writer.write(&chunk)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => drop(written?),
            Err(_) => return Ok(()),
        }
        // A write that is always ready would never let the time be looked at.
        if tokio::time::Instant::now() >= end {
            return Ok(());
        }
    }
}

async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Moved> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut begun = None;
    let mut moved = Moved::default();
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(moved);
        }
        // The bytes that start the watch are not of the time that it measures.
        match begun {
            None => begun = Some(Instant::now()),
            Some(begun) => {
                moved.bytes += count as u64;
                moved.took = begun.elapsed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex, split};

    fn served() -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let (reader, writer) = split(theirs);
        tokio::spawn(serve(reader, writer));
        ours
    }

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn each_job_is_done() {
        let (reader, writer) = split(served());
        let moved = up(reader, writer, SHORT).await.expect("sent");
        assert!(moved.bits_per_second().is_some(), "{moved:?}");
        let (reader, writer) = split(served());
        let moved = down(reader, writer, SHORT).await.expect("received");
        assert!(moved.bits_per_second().is_some(), "{moved:?}");
        let (reader, writer) = split(served());
        let pings = ping(reader, writer, SHORT).await.expect("to and fro");
        assert!(!pings.times.is_empty());
    }

    #[tokio::test]
    async fn a_job_that_there_is_not_is_not_answered() {
        let mut stream = served();
        stream.write_all(&[9, 0, 0, 0, 0]).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("ended");
        assert!(answer.is_empty(), "{answer:?}");
    }
}
