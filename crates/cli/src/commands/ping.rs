//! `wiremesh ping`: through the running node, or through a node of its own.
//!
//! Owns what a target may be, and the lines that are printed.

use crate::args::PingArgs;
use crate::config::{self, Config};
use crate::control::{Answer, Client, Request};
use crate::failure::Failure;
use crate::{folders, node, say, units};
use std::net::IpAddr;
use std::time::Duration;
use wiremesh::address::overlay_address;
use wiremesh::{Node, NodeId, PeerStatus, PingError, Ticket};

pub async fn run(args: PingArgs) -> Result<(), Failure> {
    if args.config.is_none() {
        let socket = args
            .socket
            .clone()
            .map_or_else(folders::control_socket, Ok)?;
        // With a ticket we can be a node of our own; only a node that knows the peer is better.
        if let Some(client) = Client::try_connect(&socket).await? {
            return Pings::new(&args).through_running(client).await;
        }
        if args.socket.is_some() {
            Client::connect(&socket).await?;
        }
    }
    let node = match args.peer.parse::<Ticket>() {
        Ok(ticket) if args.config.is_none() => guest(&ticket).await?,
        _ => configured(&args).await?,
    };
    let result = Pings::new(&args).through_own(&node).await;
    node.close().await;
    result
}

/// A node with a fresh key that knows one peer: works when that one admits strangers.
async fn guest(ticket: &Ticket) -> Result<Node, Failure> {
    let node = node::bind(Node::builder()).await?;
    let mut peer = wiremesh::PeerConfig::new(ticket.node_id);
    peer.endpoints = ticket.endpoints.clone();
    node.add_peer(peer)
        .map_err(|error| Failure::input(error.to_string()))?;
    super::up::resolve_hosts(&node, [(ticket.node_id, &ticket.endpoints[..])]).await;
    Ok(node)
}

async fn configured(args: &PingArgs) -> Result<Node, Failure> {
    let path = args.config.clone().map_or_else(config::default_path, Ok)?;
    let config: Config = config::load(&path).map_err(|failure| {
        if args.config.is_some() || path.exists() {
            return failure;
        }
        Failure::input("no node is running, and there is no configuration to start one from")
            .at(path.display())
            .fix("wiremesh up, in another terminal; or --config FILE; or give a ticket")
    })?;
    let node = node::from_config(&config).await?;
    let hosts = config
        .peers
        .iter()
        .map(|peer| (peer.node_id, &peer.endpoints[..]));
    super::up::resolve_hosts(&node, hosts).await;
    Ok(node)
}

/// Finds the address that a target means.
///
/// # Errors
///
/// What is wrong with it, and the remedy.
pub fn address_of(node: &Node, target: &str) -> Result<IpAddr, (String, String)> {
    if let Ok(address) = target.parse::<IpAddr>() {
        return Ok(address);
    }
    let id = id_of(target);
    let peers = node.status().peers;
    let found = peers.iter().find(|peer| match id {
        Some(id) => peer.node_id == id,
        None => peer.name.as_deref() == Some(target),
    });
    match found {
        Some(peer) => address_of_peer(peer),
        None => {
            let names: Vec<&str> = peers
                .iter()
                .filter_map(|peer| peer.name.as_deref())
                .collect();
            Err((
                format!("no peer is {target:?}"),
                crate::suggest::remedy(target, &names),
            ))
        }
    }
}

/// The node that a ticket or the text of a key names.
pub fn id_of(text: &str) -> Option<NodeId> {
    match text.parse::<Ticket>() {
        Ok(ticket) => Some(ticket.node_id),
        Err(_) => text.parse().or_else(|_| NodeId::from_base32(text)).ok(),
    }
}

/// A stock peer has no overlay address: a prefix of a single address stands for it.
fn address_of_peer(peer: &PeerStatus) -> Result<IpAddr, (String, String)> {
    if !peer.stock {
        return Ok(overlay_address(&peer.node_id).into());
    }
    let host_bits = |net: &&wiremesh::IpNet| match net.addr() {
        IpAddr::V4(_) => 32 - net.prefix(),
        IpAddr::V6(_) => 128 - net.prefix(),
    };
    if let Some(net) = peer.allowed_ips.iter().find(|net| host_bits(net) == 0) {
        return Ok(net.addr());
    }
    let nets: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    Err((
        "this stock WireGuard peer has no single address".to_owned(),
        format!(
            "ping an address inside its allowed IPs: {}",
            nets.join(", ")
        ),
    ))
}

/// Asks the peer once. The answer is the same for the control socket and for our own node.
pub async fn once(node: &Node, target: &str, payload_bytes: u16, timeout: Duration) -> Answer {
    let address = match address_of(node, target) {
        Ok(address) => address,
        Err((message, fix)) => {
            return Answer::Error {
                message,
                fix: Some(fix),
            };
        }
    };
    match node
        .ping(address, usize::from(payload_bytes), timeout)
        .await
    {
        Ok(time) => Answer::Pong {
            address,
            round_trip_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        },
        Err(PingError::Timeout) => Answer::NoReply {
            address,
            reason: reason(node, address),
        },
        Err(error) => {
            let fix = match error {
                PingError::TooLong => Some("ask for less with --size".to_owned()),
                PingError::NoRoute(_) => Some(
                    "add the address to a peer's allowed IPs, or ping a peer's name".to_owned(),
                ),
                _ => None,
            };
            Answer::Error {
                message: error.to_string(),
                fix,
            }
        }
    }
}

/// Why a peer may be silent.
fn reason(node: &Node, address: IpAddr) -> Option<String> {
    let owner = node.status().peers.into_iter().find(|peer| {
        IpAddr::V6(peer.address) == address
            || peer.allowed_ips.iter().any(|net| net.contains(address))
    })?;
    owner.reason
}

/// A series of pings.
struct Pings<'a> {
    args: &'a PingArgs,
    sent: u32,
    times: Vec<Duration>,
    /// Nobody reads what is printed any more.
    unread: bool,
}

impl<'a> Pings<'a> {
    fn new(args: &'a PingArgs) -> Self {
        Self {
            args,
            sent: 0,
            times: Vec::new(),
            unread: false,
        }
    }

    async fn through_running(mut self, mut client: Client) -> Result<(), Failure> {
        let request = Request::Ping {
            target: self.args.peer.clone(),
            payload_bytes: self.args.size,
            timeout_ms: u64::try_from(self.args.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        while self.wants_more() {
            tokio::select! {
                answer = client.ask(&request) => self.take(answer?)?,
                () = node::interrupted() => break,
            }
            if !self.pause().await {
                break;
            }
        }
        self.summary()
    }

    async fn through_own(mut self, node: &Node) -> Result<(), Failure> {
        while self.wants_more() {
            let (size, timeout) = (self.args.size, self.args.timeout);
            tokio::select! {
                answer = once(node, &self.args.peer, size, timeout) => self.take(answer)?,
                () = node::interrupted() => break,
            }
            if !self.pause().await {
                break;
            }
        }
        self.summary()
    }

    fn wants_more(&self) -> bool {
        !self.unread && self.args.count.is_none_or(|count| self.sent < count)
    }

    /// Whether to go on after the pause.
    async fn pause(&self) -> bool {
        if !self.wants_more() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(self.args.interval) => true,
            () = node::interrupted() => false,
        }
    }

    fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        self.sent += 1;
        let number = self.sent;
        let line = match answer {
            Answer::Pong {
                address,
                round_trip_us,
            } => {
                let time = Duration::from_micros(round_trip_us);
                self.times.push(time);
                let bytes = self.args.size;
                let time = units::span(time);
                format!("{bytes} bytes from {address}: seq={number} time={time}\n")
            }
            Answer::NoReply { address, reason } => {
                let reason = reason
                    .map(|reason| format!(": {reason}"))
                    .unwrap_or_default();
                format!("no reply from {address}: seq={number}{reason}\n")
            }
            other => return Err(other.into_failure().at("the argument PEER")),
        };
        self.unread = !say::print_more(line)?;
        Ok(())
    }

    fn summary(&self) -> Result<(), Failure> {
        let received = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        let mut text = format!("{} sent, {received} received", self.sent);
        if let (Some(least), Some(most)) = (self.times.iter().min(), self.times.iter().max()) {
            let mean = self.times.iter().sum::<Duration>() / received.max(1);
            let [least, mean, most] = [*least, mean, *most].map(units::span);
            text += &format!("; round trip least {least}, mean {mean}, most {most}");
        }
        say::print(text + "\n")?;
        if received > 0 {
            return Ok(());
        }
        Err(
            Failure::runtime(format!("{} does not answer", self.args.peer))
                .fix("wiremesh status tells what is known of the peer"),
        )
    }
}
