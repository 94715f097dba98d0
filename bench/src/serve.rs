//! The server's half of the workloads: one operation per bidirectional stream.
//!
//! The first byte of a stream names the operation; the client finishes its half:
//!
//! - `B` and data: read to the end, answer a [`Report`] (bytes seen, CPU time of the operation);
//! - `R` and 63 bytes: answer 64 bytes;
//! - `S`: answer a [`Report`] (resident bytes, CPU time so far).

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::stacks::StreamConnection;
use crate::system;

/// Bytes of a request and of its response.
pub const MESSAGE_BYTES: usize = 64;

/// Bytes moved per read or write in bulk.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Two numbers that the server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes received, or bytes of resident memory.
    pub bytes: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
}

impl Report {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// Encodes the report.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8..].copy_from_slice(&self.cpu_ns.to_le_bytes());
        out
    }

    /// Decodes a report.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let (first, second) = bytes.split_at(8);
        let number = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
        Self {
            bytes: number(first),
            cpu_ns: number(second),
        }
    }
}

/// Serves the streams of one connection until it closes.
pub async fn serve_connection<C: StreamConnection>(connection: C) {
    while let Ok((send, recv)) = connection.accept().await {
        tokio::spawn(async move {
            // A stream that the client gives up is its own affair: the client reports failures.
            let _ = serve_stream(send, recv).await;
        });
    }
}

async fn serve_stream<S, R>(mut send: S, mut recv: R) -> Result<()>
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    match recv.read_u8().await? {
        b'R' => {
            let mut message = [b'R'; MESSAGE_BYTES];
            recv.read_exact(&mut message[1..]).await?;
            send.write_all(&message).await?;
        }
        b'B' => send.write_all(&drain(&mut recv).await?.emit()).await?,
        b'S' => {
            let report = Report {
                bytes: system::resident_bytes(),
                cpu_ns: cpu_ns(),
            };
            send.write_all(&report.emit()).await?;
        }
        other => bail!("unknown operation {other}"),
    }
    send.shutdown().await?;
    Ok(())
}

async fn drain<R: AsyncRead + Unpin>(recv: &mut R) -> Result<Report> {
    let cpu_start = cpu_ns();
    let mut bytes = 1; // the operation byte belongs to the data
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match recv.read(&mut buffer).await? {
            0 => {
                return Ok(Report {
                    bytes,
                    cpu_ns: cpu_ns() - cpu_start,
                });
            }
            n => bytes += n as u64,
        }
    }
}

fn cpu_ns() -> u64 {
    u64::try_from(system::cpu_time().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_survives_the_wire() {
        let report = Report {
            bytes: u64::MAX,
            cpu_ns: 7,
        };
        assert_eq!(Report::parse(&report.emit()), report);
    }

    #[tokio::test]
    async fn request_is_answered_with_its_own_bytes() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (recv, send) = tokio::io::split(server);
        let request = [b'R'; MESSAGE_BYTES];
        client.write_all(&request).await.expect("room");
        serve_stream(send, recv).await.expect("served");
        let mut response = [0; MESSAGE_BYTES];
        client.read_exact(&mut response).await.expect("answered");
        assert_eq!(response, request);
    }

    #[tokio::test]
    async fn unknown_operation_is_refused() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (recv, send) = tokio::io::split(server);
        client.write_all(b"?").await.expect("room");
        assert!(serve_stream(send, recv).await.is_err());
    }
}
