//! `wiremesh up`: a node with the peers of a configuration file, until it is stopped.
//!
//! Owns the services around the node: control socket, UDP echo, host names of peers, and the log
//! of peers that come and go.

use super::{pin, ping, policy, suites};
use crate::args::{Mode, UpArgs};
use crate::config::{self, Config};
use crate::control::{Answer, Request, Server};
use crate::failure::Failure;
use crate::node::Signal;
use crate::security::policy_line;
use crate::status::Status;
use crate::uapi::running;
use crate::{interface, log, node, say, units};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use wiremesh::{Endpoint, Level, Node, NodeId, PeerState, PeerStatus, UdpSocket, WaitReason};

/// How often the peers are looked at for the log.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long after a failed look-up a host name is tried again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Longest time that a control request may make the node wait for a reply.
const PING_PATIENCE_MAX: Duration = Duration::from_secs(24 * 3600);

pub async fn run(args: UpArgs) -> Result<(), Failure> {
    let path = args.config.clone().map_or_else(config::default_path, Ok)?;
    let mut config = config::load(&path)?;
    if let Some(rate) = args.egress_rate {
        config.egress.rate_bits = Some(rate.0);
    }
    for warning in &config.warnings {
        say::warn(warning);
    }
    if args.check {
        let peers = units::count(config.peers.len() as u64, "peer", "peers");
        return say::print(format!("{}: good, {peers}\n", path.display()));
    }
    log::start(config.log);
    let server = Server::bind(&config.control_socket).await?;
    loop {
        let ended = run_once(&args, &path, &config, &server).await?;
        match ended {
            Ended::Signal(Signal::Interrupt) => return Err(Failure::interrupted()),
            Ended::Signal(Signal::Terminate) => return Ok(()),
            Ended::InterfaceLost => {
                tracing::warn!("the helper was started again: the node starts again too");
            }
        }
    }
}

/// Why a node was stopped.
enum Ended {
    Signal(Signal),
    InterfaceLost,
}

async fn run_once(
    args: &UpArgs,
    path: &Path,
    config: &Config,
    server: &Server,
) -> Result<Ended, Failure> {
    let wanted = || interface::wanted(config, &args.interface, &args.helper);
    let node = node::from_config_with(config, |builder| match args.mode {
        Mode::Rootless => builder,
        Mode::Tun => builder.tun(wanted()),
        Mode::Kernel => builder.kernel(wanted()),
    })
    .await?;
    let echo = match config.udp_echo_port {
        Some(port) => Some(node.udp_socket(port).map_err(|error| {
            Failure::input(format!("[echo] udp-port: {error}")).at(path.display())
        })?),
        None => None,
    };
    announce(&node, config);
    let ended = tokio::select! {
        signal = node::stopped_by_user_or_system() => Ended::Signal(signal),
        () = node.interface_lost() => Ended::InterfaceLost,
        () = serve(server, &node, config) => Ended::Signal(Signal::Terminate),
        () = running::serve(&node, config) => Ended::Signal(Signal::Terminate),
        () = resolve_until_all(&node, config) => Ended::Signal(Signal::Terminate),
        () = log_changes(&node, config) => Ended::Signal(Signal::Terminate),
        () = echo_all(echo) => Ended::Signal(Signal::Terminate),
    };
    tracing::info!("stopping");
    node.close().await;
    Ok(ended)
}

fn announce(node: &Node, config: &Config) {
    let ticket = node::make_ticket(node, &config.advertise, None);
    say::note(format!("node     {}", node.id()));
    say::note(format!("address  {}", node.address()));
    for address in node.listen_addresses() {
        say::note(format!("listen   {address}"));
    }
    let status = node.status();
    if let Some(interface) = status.device {
        say::note(format!("device   {interface}, in {} mode", status.mode));
    }
    say::note(format!("ticket   {ticket}"));
    let admission = match config.admission {
        config::Admission::AllowList => "only the peers of the configuration may connect",
        config::Admission::AllowAll { .. } => "everybody who knows the node id may connect",
    };
    say::note(format!("policy   {}", policy_line(&node.policy())));
    let peers = units::count(config.peers.len() as u64, "peer", "peers");
    say::note(format!("up with {peers}; {admission}; Ctrl-C stops"));
}

async fn serve(server: &Server, node: &Node, config: &Config) {
    let (node, advertise, begun) = (node.clone(), config.advertise.clone(), Instant::now());
    server
        .serve(move |request| {
            let (node, advertise) = (node.clone(), advertise.clone());
            async move { answer(&node, &advertise, begun, request).await }
        })
        .await;
}

async fn answer(node: &Node, advertise: &[Endpoint], begun: Instant, request: Request) -> Answer {
    match request {
        Request::Status => {
            let ticket = node::make_ticket(node, advertise, None).to_string();
            Answer::Status(Box::new(Status::new(
                &node.status(),
                ticket,
                begun.elapsed(),
            )))
        }
        Request::Ping {
            target,
            payload_bytes,
            timeout_ms,
        } => {
            let timeout = Duration::from_millis(timeout_ms).min(PING_PATIENCE_MAX);
            ping::once(node, &target, payload_bytes, timeout).await
        }
        Request::Policy => policy::current(node),
        Request::SetPolicy(change) => policy::change(node, &change),
        Request::Suites => suites::answer(node),
        Request::Pins { peer } => pin::answer(node, peer.as_deref()),
        Request::LowerPin { peer, to } => pin::answer_lower(node, &peer, &to),
    }
}

/// Sends every datagram back; without a socket it waits for ever.
async fn echo_all(socket: Option<UdpSocket>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let mut buffer = vec![0; 65_536];
    while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
        // A datagram that cannot go back is lost, as UDP loses them.
        let _ = socket.send_to(&buffer[..length], source).await;
    }
    std::future::pending().await
}

/// Looks up the host names among the endpoints of peers and sets what is found; gives the peers
/// that have no address yet.
pub async fn resolve_hosts<'a>(
    node: &Node,
    peers: impl IntoIterator<Item = (NodeId, &'a [Endpoint])>,
) -> Vec<NodeId> {
    let mut left = Vec::new();
    for (id, endpoints) in peers {
        if endpoints.is_empty() || endpoints.iter().any(|e| matches!(e, Endpoint::Address(_))) {
            continue;
        }
        match look_up(endpoints).await {
            Some(address) => {
                if let Some(peer) = node.peer(id) {
                    peer.set_endpoint(address);
                }
            }
            None => left.push(id),
        }
    }
    left
}

async fn look_up(endpoints: &[Endpoint]) -> Option<SocketAddr> {
    for endpoint in endpoints {
        let Endpoint::Host(host, port) = endpoint else {
            continue;
        };
        match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(mut found) => {
                if let Some(address) = found.next() {
                    return Some(address);
                }
            }
            Err(error) => tracing::warn!(host = host.as_str(), %error, "host name not found"),
        }
    }
    None
}

/// Looks up host names among the endpoints of peers until every peer has an address; never ends.
pub async fn resolve_until_all(node: &Node, config: &Config) {
    loop {
        let silent = |id: &NodeId| {
            node.peer(*id)
                .and_then(|peer| peer.status())
                .is_some_and(|s| s.endpoint.is_none())
        };
        let open = config.peers.iter().filter(|peer| silent(&peer.node_id));
        let open = open.map(|peer| (peer.node_id, &peer.endpoints[..]));
        if resolve_hosts(node, open).await.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep(RESOLVE_EVERY).await;
    }
}

/// Logs each change of a peer's state.
async fn log_changes(node: &Node, config: &Config) {
    if config.log < config::Log::Info {
        return std::future::pending().await;
    }
    let mut before: HashMap<NodeId, Seen> = HashMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let peers = node.status().peers;
        let mut now = HashMap::with_capacity(peers.len());
        for peer in &peers {
            let seen = Seen {
                state: peer.state,
                level: peer.level,
                waiting: peer.waiting.map(|(reason, _)| reason),
            };
            now.insert(peer.node_id, seen);
            let was = before.get(&peer.node_id).copied().unwrap_or_default();
            if was != seen {
                log_change(peer, was);
            }
        }
        before = now;
    }
}

/// What was logged of a peer.
#[derive(Clone, Copy, PartialEq)]
struct Seen {
    state: PeerState,
    level: Option<Level>,
    waiting: Option<WaitReason>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            state: PeerState::Idle,
            level: None,
            waiting: None,
        }
    }
}

fn log_change(peer: &PeerStatus, was: Seen) {
    let name = peer.name.clone();
    let name = name.unwrap_or_else(|| peer.node_id.to_string());
    let endpoint = peer
        .endpoint
        .map_or("-".to_owned(), |endpoint| endpoint.to_string());
    let reason = peer.reason.as_deref().unwrap_or("-");
    match (peer.state, peer.level, peer.waiting) {
        (PeerState::Connected, Some(level), _) => {
            tracing::info!(%name, %endpoint, %level, "connected");
        }
        // While the two agree there is nothing to say: it takes four round trips.
        (PeerState::Connected, None, Some((WaitReason::Exchanging, _))) => {
            tracing::debug!(%name, %endpoint, reason, "waiting");
        }
        (PeerState::Connected, None, Some((reason, _))) if was.waiting != Some(reason) => {
            tracing::warn!(%name, %endpoint, %reason, "no data flows");
        }
        (PeerState::Silent | PeerState::NoAnswer, ..) if was.state != peer.state => {
            tracing::info!(%name, %endpoint, reason, "not reached");
        }
        (state, ..) => tracing::debug!(%name, %endpoint, ?state),
    }
}
