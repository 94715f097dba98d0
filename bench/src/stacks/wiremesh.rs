//! wiremesh: WireGuard on the wire, QUIC without cryptography of its own inside.
//!
//! A peer is a key, so the modes `connect` and `idle` make a new node for every connection: each
//! pays for its own WireGuard session. [`WarmDialer`] keeps one node and its session.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wiremesh::address::overlay_address;
use wiremesh::{Admission, Connection, Node, NodeBuilder, NodeId, PeerConfig, Ticket};

use super::{Dialer, PROTOCOL, StreamConnection, datagram_bytes, loopback, pin};
use crate::load::{self, Metrics, Mode, Workload};
use crate::serve::serve_connection;
use crate::system;

/// Header and tag of a WireGuard transport message.
const WIREGUARD_BYTES: u16 = 32;
/// Headers of IPv6 and UDP inside the tunnel, of packets that have them.
const INNER_HEADER_BYTES: u16 = 48;

/// Unknown peers that the server lets in.
const PEERS_MAX: u32 = 100_000;

/// How many times more peers are configured in `idle-peer` than are idle in the other modes.
const CONFIGURED_FACTOR: usize = 10;

/// How long a ping may take that brings a session up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until the process ends; announces a ticket.
pub async fn serve(announce: impl FnOnce(String)) -> Result<()> {
    let admission = Admission::AllowAll {
        provisional_max: PEERS_MAX,
    };
    let node = builder().admission(admission).bind().await?;
    announce(node.ticket().to_string());
    while let Some(connection) = node.accept().await {
        tokio::spawn(serve_connection(OwnedConnection {
            connection,
            node: None,
        }));
    }
    Ok(())
}

/// Runs a workload, including those that only wiremesh has.
pub async fn load(target: &str, workload: &Workload) -> Result<Metrics> {
    match workload.mode {
        Mode::IdleSession => idle_session(parse(target)?, workload.idle_peers).await,
        Mode::IdlePeer => idle_peer(workload.idle_peers * CONFIGURED_FACTOR).await,
        _ => {
            load::run(
                ColdDialer {
                    ticket: parse(target)?,
                },
                workload,
            )
            .await
        }
    }
}

/// Dials from a new node each time.
struct ColdDialer {
    ticket: Ticket,
}

impl Dialer for ColdDialer {
    type Connection = OwnedConnection;

    async fn dial(&self) -> Result<(OwnedConnection, Instant)> {
        let node = builder().bind().await?;
        let start = Instant::now();
        let connection = node.connect(&self.ticket, protocol()).await?;
        Ok((
            OwnedConnection {
                connection,
                node: Some(node),
            },
            start,
        ))
    }
}

/// Dials from one node whose session is up.
pub struct WarmDialer {
    node: Node,
    ticket: Ticket,
}

impl WarmDialer {
    /// Binds the node and brings its session up.
    pub async fn bind(target: &str) -> Result<Self> {
        let dialer = Self {
            node: builder().bind().await?,
            ticket: parse(target)?,
        };
        dialer.dial().await?.0.close();
        Ok(dialer)
    }
}

impl Dialer for WarmDialer {
    type Connection = OwnedConnection;

    async fn dial(&self) -> Result<(OwnedConnection, Instant)> {
        let start = Instant::now();
        let connection = self.node.connect(&self.ticket, protocol()).await?;
        Ok((
            OwnedConnection {
                connection,
                node: None,
            },
            start,
        ))
    }
}

/// A connection, and the node if it was made for this connection alone.
#[derive(Clone)]
pub struct OwnedConnection {
    connection: Connection,
    node: Option<Node>,
}

impl StreamConnection for OwnedConnection {
    type Send = quinn::SendStream;
    type Recv = quinn::RecvStream;

    async fn open(&self) -> Result<(Self::Send, Self::Recv)> {
        Ok(self.connection.open_bi().await?)
    }

    async fn accept(&self) -> Result<(Self::Send, Self::Recv)> {
        Ok(self.connection.accept_bi().await?)
    }

    fn close(&self) {
        StreamConnection::close(&*self.connection);
        if let Some(node) = self.node.clone() {
            tokio::spawn(async move { node.close().await });
        }
    }
}

/// The server's memory per peer that has a session and nothing else.
async fn idle_session(ticket: Ticket, peers: usize) -> Result<Metrics> {
    let (observer, _) = ColdDialer {
        ticket: ticket.clone(),
    }
    .dial()
    .await?;
    load::request(&observer).await?;
    let before = load::status(&observer).await?;
    let address = overlay_address(&ticket.node_id).into();
    let mut nodes = Vec::with_capacity(peers);
    for _ in 0..peers {
        let node = builder().bind().await?;
        let endpoints = ticket.endpoints.clone();
        node.add_peer(PeerConfig {
            endpoints,
            ..PeerConfig::new(ticket.node_id)
        })?;
        // A ping brings the session up and opens no connection.
        node.ping(address, 0, PING_TIMEOUT).await?;
        nodes.push(node);
    }
    let [kib, cpu_percent] = load::settle(&observer, before, peers).await?;
    Ok(load::metrics([
        ("server_kib", kib),
        ("server_cpu_percent", cpu_percent),
        ("count", peers as f64),
    ]))
}

/// A node's memory per configured peer that has never been heard of.
async fn idle_peer(peers: usize) -> Result<Metrics> {
    let node = builder().bind().await?;
    // Keys are made first: they are the caller's memory, not the node's.
    let ids: Vec<NodeId> = node_ids().take(peers).collect();
    let before = system::resident_bytes();
    for id in &ids {
        node.add_peer(PeerConfig::new(*id))?;
    }
    let watched = Duration::from_secs(2);
    tokio::time::sleep(watched).await;
    let used_bytes = system::resident_bytes().saturating_sub(before);
    let cpu_before = system::cpu_time();
    tokio::time::sleep(watched).await;
    let cpu = system::cpu_time() - cpu_before;
    ensure!(
        node.status().peers.len() == peers,
        "the node dropped a configured peer"
    );
    Ok(load::metrics([
        ("server_kib", used_bytes as f64 / 1024.0 / peers as f64),
        (
            "server_cpu_percent",
            cpu.as_secs_f64() / watched.as_secs_f64() * 100.0,
        ),
        ("count", peers as f64),
    ]))
}

/// The library's own defaults, except for what is equal in every column.
fn builder() -> NodeBuilder {
    let mut transport = wiremesh::default_transport();
    let mtu = datagram_bytes() - WIREGUARD_BYTES;
    pin(&mut transport, mtu - INNER_HEADER_BYTES);
    // Both ends leave the inner headers away once they have agreed to, which is found out as a
    // larger MTU.
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    transport.mtu_discovery_config(Some(discovery));
    Node::builder()
        .mtu(mtu)
        .listen(loopback())
        .protocol(protocol())
        .transport(transport)
        // The other columns have no budget over all connections.
        .unread_max(32 << 30)
        // A proof of address would add a round trip; the other columns have no such test.
        .handshakes_per_second_max(u32::MAX)
}

/// Public keys whose secrets nobody knows: every other number is the coordinate of a point.
fn node_ids() -> impl Iterator<Item = NodeId> {
    (0u64..).filter_map(|n| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes[8..16].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        NodeId::from_bytes(&bytes).ok()
    })
}

fn protocol() -> &'static str {
    std::str::from_utf8(PROTOCOL).expect("the protocol name is text")
}

fn parse(target: &str) -> Result<Ticket> {
    target
        .parse()
        .with_context(|| format!("not a ticket: {target}"))
}
