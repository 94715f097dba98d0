//! A node through which programs of this host reach the peers, without an interface.
//!
//! Owns what `proxy` and `forward` share: the node, the names of peers, and the way of bytes
//! between a program's connection and one inside the tunnel.

pub mod datagrams;
pub mod spec;

use crate::commands::{ping, up};
use crate::config::{self, Config};
use crate::control::Client;
use crate::failure::Failure;
use crate::node::{self, Signal};
use crate::{log, say};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream as LocalStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wiremesh::Node;
use wiremesh::address::overlay_address;
use wiremesh_tcp::{Tcp, TcpStream};

/// The domain under which a peer's key is a name.
const DOMAIN: &str = ".wiremesh.internal";

/// Connections of programs at a time, and as many of peers; further ones wait.
const CONNECTIONS_MAX: usize = 256;

/// Connections of one peer at a time, and as many UDP flows: no peer keeps the others out.
pub const PER_PEER_MAX: usize = 64;

/// Bytes read at a time, in each direction of a connection.
const COPY_BYTES: usize = 64 * 1024;

/// How long after a failed look-up the host name of a peer's endpoint is tried again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// A running node with its TCP.
#[derive(Clone, Debug)]
pub struct Access {
    /// The node.
    pub node: Node,
    /// Its TCP.
    pub tcp: Tcp,
    config: Arc<Config>,
    permits: Arc<Semaphore>,
    peer_permits: Arc<Semaphore>,
    shares: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of the connections that a peer may have; given back on drop.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Mutex<HashMap<IpAddr, usize>>>,
    owner: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shares.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.owner);
            }
        }
    }
}

impl Access {
    /// Starts a node from a configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, or keeps the node from starting.
    pub async fn start(config: &Option<PathBuf>) -> Result<Self, Failure> {
        let path = config.clone().map_or_else(config::default_path, Ok)?;
        let config = config::load(&path)?;
        for warning in &config.warnings {
            say::warn(warning);
        }
        log::start(config.log);
        let node = match node::from_config(&config).await {
            Ok(node) => node,
            Err(failure) => return Err(explain(failure, &config).await),
        };
        let tcp = Tcp::new(&node).map_err(|error| Failure::runtime(error.to_string()))?;
        Ok(Self {
            node,
            tcp,
            config: Arc::new(config),
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            peer_permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            shares: Arc::default(),
        })
    }

    /// The address inside the tunnel that a host name of a program means.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and the remedy.
    pub fn address_of(&self, host: &str) -> Result<IpAddr, (String, String)> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let lower = host.to_ascii_lowercase();
        match lower.strip_suffix(DOMAIN) {
            Some(name) => ping::address_of(&self.node, name),
            None => ping::address_of(&self.node, host),
        }
    }

    /// Waits until there is room for one more connection of a program.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Waits until there is room for one more connection of peers.
    pub async fn peer_permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.peer_permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// What a connection from this address takes of its peer's part; `None` if it has all of it.
    pub fn share(&self, from: IpAddr, permit: OwnedSemaphorePermit) -> Option<Share> {
        let owner = self.owner_of(from);
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let count = shares.entry(owner).or_default();
        if *count >= PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Share {
            shares: Arc::clone(&self.shares),
            owner,
            _permit: permit,
        })
    }

    /// One address for all that a peer has.
    pub fn owner_of(&self, address: IpAddr) -> IpAddr {
        let mut peers = self.config.peers.iter();
        let owner = peers.find(|peer| {
            peer.allowed_ips
                .iter()
                .any(|(net, _)| net.contains(address))
        });
        owner.map_or(address, |peer| overlay_address(&peer.node_id).into())
    }

    /// Runs `work` until it ends or the program is asked to stop, then closes the node.
    ///
    /// # Errors
    ///
    /// The user stopped it.
    pub async fn run(self, work: impl Future<Output = ()>) -> Result<(), Failure> {
        let signal = tokio::select! {
            signal = node::stopped_by_user_or_system() => signal,
            () = work => Signal::Terminate,
            () = self.resolve_endpoints() => Signal::Terminate,
        };
        self.node.close().await;
        match signal {
            Signal::Interrupt => Err(Failure::interrupted()),
            Signal::Terminate => Ok(()),
        }
    }

    /// Finds the endpoints of peers that have a host name, for as long as it takes.
    async fn resolve_endpoints(&self) {
        loop {
            let silent = self.config.peers.iter().filter(|peer| {
                let status = self.node.peer(peer.node_id).and_then(|peer| peer.status());
                status.is_some_and(|status| status.endpoint.is_none())
            });
            let silent = silent.map(|peer| (peer.node_id, &peer.endpoints[..]));
            if up::resolve_hosts(&self.node, silent).await.is_empty() {
                return std::future::pending().await;
            }
            tokio::time::sleep(RESOLVE_EVERY).await;
        }
    }
}

/// Two nodes with one key and one state directory get into each other's way.
async fn explain(failure: Failure, config: &Config) -> Failure {
    match Client::try_connect(&config.control_socket).await {
        Ok(Some(_)) => failure.fix(
            "a node runs already (wiremesh up) and this would be another one: stop that one; or \
             give this one a key, a state-dir and a port of its own, with --config FILE",
        ),
        _ => failure,
    }
}

/// Refuses an address that other hosts reach, unless that is wanted.
///
/// # Errors
///
/// The refusal, with the reason.
pub fn check_local(address: SocketAddr, allow_remote: bool, field: &str) -> Result<(), Failure> {
    if allow_remote || address.ip().is_loopback() {
        return Ok(());
    }
    let port = address.port();
    Err(Failure::input(format!(
        "{address} is reached from other hosts, and there is no password: whoever connects acts in \
         the overlay as this node"
    ))
    .at(field)
    .fix(format!(
        "listen on 127.0.0.1:{port}; or add --allow-remote if others are to get in"
    )))
}

/// What to say about a port of this host that cannot be bound.
pub fn bind_failure(address: SocketAddr, error: &std::io::Error, field: &str) -> Failure {
    let failure = Failure::runtime(format!("cannot listen on {address}: {error}")).at(field);
    match error.kind() {
        ErrorKind::AddrInUse => failure.fix("another program has the port: take another one"),
        ErrorKind::PermissionDenied => failure.fix("take a port from 1024 on"),
        _ => failure,
    }
}

/// Carries bytes both ways until both sides have closed. Each side learns how the other ended: a
/// close is passed on as a close, a reset as a reset.
pub async fn join(mut local: LocalStream, mut overlay: TcpStream) {
    // Each side batches by itself already.
    let _ = local.set_nodelay(true);
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut local, &mut overlay, COPY_BYTES, COPY_BYTES);
    if let Err(error) = copied.await {
        tracing::debug!(peer = %overlay.peer_addr(), %error, "a connection was cut off");
        // Without it a cut-off transfer looks complete.
        let _ = local.set_zero_linger();
        overlay.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_local() {
        for (address, good) in [
            ("127.0.0.1:1080", true),
            ("127.1.2.3:1", true),
            ("[::1]:1080", true),
            ("0.0.0.0:1080", false),
            ("[::]:1080", false),
            ("192.0.2.1:1080", false),
        ] {
            let address = address.parse().expect("an address");
            let checked = check_local(address, false, "--socks5");
            assert_eq!(checked.is_ok(), good, "{address}");
            assert!(check_local(address, true, "--socks5").is_ok());
        }
        let failure = check_local("0.0.0.0:1080".parse().expect("one"), false, "--socks5");
        let text = failure.expect_err("refused").to_string();
        assert!(
            text.contains("no password") && text.contains("--allow-remote"),
            "{text}"
        );
    }
}
