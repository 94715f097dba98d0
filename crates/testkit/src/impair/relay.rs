//! The relay: real sockets around two [`Impairment`]s per client.
//!
//! Owns the listening socket, one socket toward the target per client, and one task for each. All
//! decisions are the impairments'; here is only the clock and the I/O.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::config::{ConfigError, ImpairConfig, LinkConfig};
use super::link::{Impairment, LinkStats};
use super::random::Random;

/// Most clients of one relay; datagrams of further ones are dropped and counted.
pub const CLIENTS_MAX: usize = 1024;

/// Kernel buffers asked for, so that the relay itself loses nothing.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Datagrams taken from a socket before other tasks get a turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// Why a relay did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImpairError {
    /// A setting is out of range.
    Config(ConfigError),
    /// There is no tokio runtime around the caller.
    NoRuntime,
    /// The address to listen on cannot be bound.
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
}

impl std::fmt::Display for ImpairError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImpairError::Config(error) => error.fmt(f),
            ImpairError::NoRuntime => f.write_str("the relay needs a running tokio runtime"),
            ImpairError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}")
            }
        }
    }
}

impl std::error::Error for ImpairError {}

impl From<ConfigError> for ImpairError {
    fn from(error: ConfigError) -> Self {
        ImpairError::Config(error)
    }
}

/// What a relay did, over all clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImpairStats {
    /// Clients seen so far.
    pub clients: u64,
    /// The direction from the clients to the target.
    pub to_target: LinkStats,
    /// The direction from the target to the clients.
    pub to_client: LinkStats,
    /// Datagrams of clients over [`CLIENTS_MAX`], or for which no socket could be opened.
    pub refused: u64,
    /// Sends and receives on which the operating system reported an error, such as a target that
    /// does not listen.
    pub socket_errors: u64,
}

/// A running relay; dropping it stops it.
#[derive(Debug)]
pub struct Impair {
    shared: Arc<Shared>,
    listener: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    listen: UdpSocket,
    local_addr: SocketAddr,
    target: SocketAddr,
    seed: u64,
    started: Instant,
    runtime: Handle,
    state: Mutex<State>,
    refused: AtomicU64,
    socket_errors: AtomicU64,
}

#[derive(Debug)]
struct State {
    to_target: LinkConfig,
    to_client: LinkConfig,
    flows: HashMap<SocketAddr, Arc<Flow>>,
    tasks: Vec<AbortHandle>,
}

/// One client.
#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    links: Mutex<Links>,
    /// The socket toward the target, replaced by a rebind.
    upstream: watch::Sender<Arc<UdpSocket>>,
    /// Something entered a link or its settings changed.
    changed: Notify,
}

#[derive(Debug)]
struct Links {
    to_target: Impairment,
    to_client: Impairment,
}

impl Impair {
    /// Starts a relay; must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`ImpairError`].
    pub fn start(config: ImpairConfig) -> Result<Impair, ImpairError> {
        config.to_target.validate()?;
        config.to_client.validate()?;
        let runtime = Handle::try_current().map_err(|_| ImpairError::NoRuntime)?;
        let listen_error = |error| ImpairError::Listen {
            address: config.listen,
            error,
        };
        let listen = open(config.listen).map_err(listen_error)?;
        let local_addr = listen.local_addr().map_err(listen_error)?;
        let shared = Arc::new(Shared {
            listen,
            local_addr,
            target: config.target,
            seed: config.seed,
            started: Instant::now(),
            runtime: runtime.clone(),
            state: Mutex::new(State {
                to_target: config.to_target,
                to_client: config.to_client,
                flows: HashMap::new(),
                tasks: Vec::new(),
            }),
            refused: AtomicU64::new(0),
            socket_errors: AtomicU64::new(0),
        });
        let listener = runtime.spawn(listen_loop(shared.clone())).abort_handle();
        Ok(Impair { shared, listener })
    }

    /// Gives the address to which clients send.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Gives the statistics so far.
    pub fn stats(&self) -> ImpairStats {
        let state = lock(&self.shared.state);
        let mut stats = ImpairStats {
            clients: state.flows.len() as u64,
            refused: self.shared.refused.load(Relaxed),
            socket_errors: self.shared.socket_errors.load(Relaxed),
            ..ImpairStats::default()
        };
        for flow in state.flows.values() {
            let links = lock(&flow.links);
            stats.to_target.add(&links.to_target.stats());
            stats.to_client.add(&links.to_client.stats());
        }
        stats
    }

    /// Changes both directions for datagrams that arrive from now on.
    ///
    /// # Errors
    ///
    /// A setting is out of range; nothing changes then.
    pub fn set_config(
        &self,
        to_target: LinkConfig,
        to_client: LinkConfig,
    ) -> Result<(), ConfigError> {
        to_target.validate()?;
        to_client.validate()?;
        let mut state = lock(&self.shared.state);
        for flow in state.flows.values() {
            let mut links = lock(&flow.links);
            links.to_target.set_config(to_target.clone());
            links.to_client.set_config(to_client.clone());
        }
        state.to_target = to_target;
        state.to_client = to_client;
        Ok(())
    }

    /// Gives every client a new socket toward the target, as a NAT does that lost its table: the
    /// target sees another port, and what it sends to the old one is lost.
    ///
    /// # Errors
    ///
    /// No further socket can be opened; clients without a new one keep the old one.
    pub fn rebind_upstream(&self) -> io::Result<()> {
        let _runtime = self.shared.runtime.enter();
        for flow in lock(&self.shared.state).flows.values() {
            // The old socket stays open until the new one is bound, so that the ports differ.
            let fresh = open_upstream(self.shared.target)?;
            flow.upstream.send_replace(Arc::new(fresh));
        }
        Ok(())
    }

    /// Gives each client with the address under which the target knows it, ordered by client.
    pub fn upstream_addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let state = lock(&self.shared.state);
        let mut addresses: Vec<_> = state
            .flows
            .values()
            .filter_map(|flow| Some((flow.client, flow.upstream.borrow().local_addr().ok()?)))
            .collect();
        addresses.sort_unstable();
        addresses
    }
}

impl Drop for Impair {
    fn drop(&mut self) {
        self.listener.abort();
        for task in &lock(&self.shared.state).tasks {
            task.abort();
        }
    }
}

/// A poisoned lock guards plain data that stays usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // What the system refuses to grant only makes the relay lossier under load.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Opens a socket that hears only the target.
fn open_upstream(target: SocketAddr) -> io::Result<UdpSocket> {
    let ip: IpAddr = match (target.ip(), target.ip().is_loopback()) {
        (IpAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
        (IpAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = open(SocketAddr::new(ip, 0))?;
    // On a connected socket the kernel filters; connecting a UDP socket never waits.
    socket2::SockRef::from(&socket).connect(&target.into())?;
    Ok(socket)
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn on_socket_error(&self) {
        self.socket_errors.fetch_add(1, Relaxed);
    }

    /// Gives the flow of a client, and makes one for a new client.
    fn flow(self: &Arc<Self>, client: SocketAddr) -> Option<Arc<Flow>> {
        let mut state = lock(&self.state);
        if let Some(flow) = state.flows.get(&client) {
            return Some(flow.clone());
        }
        if state.flows.len() >= CLIENTS_MAX {
            return None;
        }
        let upstream = open_upstream(self.target).ok()?;
        let header_bytes = if self.target.is_ipv4() { 28 } else { 48 };
        let index = state.flows.len() as u64 * 2;
        let link = |config: &LinkConfig, index| {
            Impairment::new(
                config.clone(),
                Random::derive(self.seed, index),
                header_bytes,
            )
        };
        let flow = Arc::new(Flow {
            client,
            links: Mutex::new(Links {
                to_target: link(&state.to_target, index),
                to_client: link(&state.to_client, index + 1),
            }),
            upstream: watch::Sender::new(Arc::new(upstream)),
            changed: Notify::new(),
        });
        let task = self.runtime.spawn(flow_loop(self.clone(), flow.clone()));
        state.tasks.push(task.abort_handle());
        state.flows.insert(client, flow.clone());
        Some(flow)
    }

    fn on_client_datagram(self: &Arc<Self>, client: SocketAddr, data: &[u8]) {
        let Some(flow) = self.flow(client) else {
            self.refused.fetch_add(1, Relaxed);
            return;
        };
        lock(&flow.links)
            .to_target
            .handle_datagram(self.now(), data);
        flow.changed.notify_one();
    }
}

async fn listen_loop(shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        match shared.listen.recv_from(&mut buffer).await {
            Ok((length, client)) => shared.on_client_datagram(client, &buffer[..length]),
            Err(_) => shared.on_socket_error(),
        }
        for _ in 1..DATAGRAMS_PER_TURN {
            let Ok((length, client)) = shared.listen.try_recv_from(&mut buffer) else {
                break;
            };
            shared.on_client_datagram(client, &buffer[..length]);
        }
        tokio::task::yield_now().await;
    }
}

async fn flow_loop(shared: Arc<Shared>, flow: Arc<Flow>) {
    let mut rebinds = flow.upstream.subscribe();
    let mut buffer = vec![0; 65_536];
    loop {
        let upstream = rebinds.borrow_and_update().clone();
        flush(&shared, &flow, &upstream).await;
        let next = next_deadline(&flow).map(|due| shared.started + due);
        tokio::select! {
            received = upstream.recv(&mut buffer) => match received {
                Ok(length) => on_target_datagrams(&shared, &flow, &upstream, &mut buffer, length),
                Err(_) => shared.on_socket_error(),
            },
            _ = rebinds.changed() => {}
            () = flow.changed.notified() => {}
            () = tokio::time::sleep_until(next.unwrap_or(shared.started)), if next.is_some() => {}
        }
    }
}

fn on_target_datagrams(
    shared: &Shared,
    flow: &Flow,
    upstream: &UdpSocket,
    buffer: &mut [u8],
    first: usize,
) {
    let mut links = lock(&flow.links);
    links
        .to_client
        .handle_datagram(shared.now(), &buffer[..first]);
    for _ in 1..DATAGRAMS_PER_TURN {
        let Ok(length) = upstream.try_recv(buffer) else {
            break;
        };
        links
            .to_client
            .handle_datagram(shared.now(), &buffer[..length]);
    }
}

fn next_deadline(flow: &Flow) -> Option<Duration> {
    let links = lock(&flow.links);
    let deadlines = [
        links.to_target.poll_timeout(),
        links.to_client.poll_timeout(),
    ];
    deadlines.into_iter().flatten().min()
}

/// Sends what has arrived at the far end of its link.
async fn flush(shared: &Shared, flow: &Flow, upstream: &UdpSocket) {
    for _ in 0..DATAGRAMS_PER_TURN {
        let now = shared.now();
        let (forward, backward) = {
            let mut links = lock(&flow.links);
            (
                links.to_target.poll_datagram(now),
                links.to_client.poll_datagram(now),
            )
        };
        if forward.is_none() && backward.is_none() {
            return;
        }
        if let Some(data) = forward
            && upstream.send(&data).await.is_err()
        {
            shared.on_socket_error();
        }
        if let Some(data) = backward
            && shared.listen.send_to(&data, flow.client).await.is_err()
        {
            shared.on_socket_error();
        }
    }
}
