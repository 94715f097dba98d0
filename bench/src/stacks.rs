//! The stacks under test: one name, one way to serve and one way to dial each.
//!
//! It owns what must be equal in every column (datagram size, stream limits). A stack is a module
//! that implements [`StreamConnection`] and [`Dialer`]; it never measures anything itself.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::load::{self, Metrics, Mode, Workload};
use crate::serve::serve_connection;

mod iroh;
mod quinn_plain;
mod quinn_rustls;
mod wiremesh;

/// The default of [`datagram_bytes`]: what is left of a 1,500-byte path under IPv6.
pub const DATAGRAM_BYTES_DEFAULT: u16 = 1_452;

static DATAGRAM_BYTES: AtomicU16 = AtomicU16::new(DATAGRAM_BYTES_DEFAULT);

/// The UDP payload every stack may put on the wire, in bytes.
pub fn datagram_bytes() -> u16 {
    DATAGRAM_BYTES.load(Ordering::Relaxed)
}

/// Sets it for this process, before anything else is done.
pub fn set_datagram_bytes(bytes: u16) {
    DATAGRAM_BYTES.store(bytes, Ordering::Relaxed);
}

/// Streams a peer may have open at once, in each direction and of each kind (bidi, uni).
pub const STREAMS_MAX: u32 = 100;

/// The protocol name negotiated by every stack.
const PROTOCOL: &[u8] = b"bench/1";

/// Kernel buffer asked for by the stacks whose socket is ours to make, in bytes.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A stack that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stack {
    /// wiremesh; every connection of the modes `connect` and `idle` comes from a new node.
    Wiremesh,
    /// wiremesh with its session already up, so that only the QUIC connection is new.
    WiremeshWarm,
    /// quinn without any security: the bound.
    QuinnPlain,
    /// quinn with rustls on ring.
    QuinnRustlsRing,
    /// quinn with rustls on aws-lc-rs.
    QuinnRustlsAwsLcRs,
    /// quinn with rustls on aws-lc-rs, with the cipher of WireGuard (ChaCha20-Poly1305).
    QuinnRustlsChacha,
    /// iroh, direct address, no relay, no discovery.
    Iroh,
}

impl Stack {
    /// The name on the command line and in the tables.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no stack is skipped");
        value.get_name().to_owned()
    }

    /// Whether `mode` says something about this stack.
    pub fn has(self, mode: Mode) -> bool {
        match self {
            Self::Wiremesh => true,
            Self::WiremeshWarm => mode == Mode::Connect,
            _ => !mode.is_wiremesh_only(),
        }
    }

    /// Serves connections until the process ends, after a call of `announce` with the text that
    /// [`Stack::load`] needs to reach this server.
    pub async fn serve(self, announce: impl FnOnce(String)) -> Result<()> {
        match self {
            Self::Wiremesh | Self::WiremeshWarm => wiremesh::serve(announce).await,
            Self::QuinnPlain => quinn_plain::serve(announce).await,
            Self::QuinnRustlsRing => quinn_rustls::serve(quinn_rustls::ring(), announce).await,
            Self::QuinnRustlsAwsLcRs => {
                quinn_rustls::serve(quinn_rustls::aws_lc_rs(), announce).await
            }
            Self::QuinnRustlsChacha => {
                quinn_rustls::serve(quinn_rustls::aws_lc_rs_chacha(), announce).await
            }
            Self::Iroh => iroh::serve(announce).await,
        }
    }

    /// Runs one workload against the server that announced `target`.
    pub async fn load(self, target: &str, workload: &Workload) -> Result<Metrics> {
        match self {
            Self::Wiremesh => wiremesh::load(target, workload).await,
            Self::WiremeshWarm => {
                load::run(wiremesh::WarmDialer::bind(target).await?, workload).await
            }
            Self::QuinnPlain => load::run(quinn_plain::dialer(target)?, workload).await,
            Self::QuinnRustlsRing => {
                load::run(
                    quinn_rustls::dialer(quinn_rustls::ring(), target)?,
                    workload,
                )
                .await
            }
            Self::QuinnRustlsAwsLcRs => {
                load::run(
                    quinn_rustls::dialer(quinn_rustls::aws_lc_rs(), target)?,
                    workload,
                )
                .await
            }
            Self::QuinnRustlsChacha => {
                load::run(
                    quinn_rustls::dialer(quinn_rustls::aws_lc_rs_chacha(), target)?,
                    workload,
                )
                .await
            }
            Self::Iroh => load::run(iroh::IrohDialer::bind(target).await?, workload).await,
        }
    }
}

/// A connection that carries bidirectional byte streams.
pub trait StreamConnection: Clone + Send + Sync + 'static {
    /// The sending half of a stream.
    type Send: AsyncWrite + Unpin + Send + 'static;
    /// The receiving half of a stream.
    type Recv: AsyncRead + Unpin + Send + 'static;

    /// Opens a stream.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;

    /// Waits for a stream of the peer.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;

    /// Closes the connection without waiting.
    fn close(&self);
}

/// The client side of a stack.
pub trait Dialer: Send + Sync + 'static {
    /// What a dial gives.
    type Connection: StreamConnection;

    /// Connects, and tells when dialling began, so that preparation (binding a socket, making a
    /// key) is left out.
    fn dial(&self) -> impl Future<Output = Result<(Self::Connection, Instant)>> + Send;
}

// quinn's connection is that of two stacks: quinn with rustls, and wiremesh, which re-exports it.
impl StreamConnection for quinn::Connection {
    type Send = quinn::SendStream;
    type Recv = quinn::RecvStream;

    async fn open(&self) -> Result<(Self::Send, Self::Recv)> {
        Ok(self.open_bi().await?)
    }

    async fn accept(&self) -> Result<(Self::Send, Self::Recv)> {
        Ok(self.accept_bi().await?)
    }

    fn close(&self) {
        quinn::Connection::close(self, 0u32.into(), b"");
    }
}

/// Makes equal what has to be in every column that has quinn; `datagram_bytes` is its UDP payload.
fn pin(transport: &mut quinn::TransportConfig, datagram_bytes: u16) {
    transport
        .initial_mtu(datagram_bytes)
        .min_mtu(datagram_bytes)
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into());
}

/// Announces a server of quinn's and serves until the process ends.
async fn serve_all(endpoint: quinn::Endpoint, announce: impl FnOnce(String)) -> Result<()> {
    announce(endpoint.local_addr()?.to_string());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve_connection(connection).await;
            }
        });
    }
    Ok(())
}

/// A UDP socket on a free loopback port, with large kernel buffers as far as the system lets us.
fn udp_socket() -> Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("cannot make a socket")?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&loopback().into())
        .context("cannot bind a loopback socket")?;
    Ok(socket.into())
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
