//! Nodes as the short commands use them: made from arguments, with errors for a person.
//!
//! Owns the transport settings for bulk transfer, and what each error of the library means to
//! somebody at a terminal.

use crate::args::NodeArgs;
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::keys;
use std::time::Duration;
use wiremesh::quinn::{ConnectionError, TransportConfig, VarInt};
use wiremesh::{
    Admission, BindError, ConnectError, Endpoint, InterfaceError, Node, NodeBuilder, PeerConfig,
    StateError, Ticket, TicketSecret,
};

/// Strangers at a time at a node that prints a ticket with a secret.
const GUESTS_MAX: u32 = 64;

/// Bytes on their way in one stream: 335 Mbit/s at a round trip of 100 ms. Much more than the
/// socket buffers hold would be lost whenever a busy host reads late.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// How often an idle connection says that it is alive, so that a lost one is noticed.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// The TLS alert "no application protocol", as QUIC carries it: the peer does not speak it.
const NO_PROTOCOL: u64 = 0x100 + 120;

/// A node for a transfer or a pipe.
pub fn builder(args: &NodeArgs) -> Result<NodeBuilder, Failure> {
    let mut builder = Node::builder()
        .network(args.network.clone())
        .transport(transport());
    if let Some(path) = &args.key {
        builder = builder.secret_key(keys::read(path)?);
    }
    for address in &args.listen {
        builder = builder.listen(*address);
    }
    Ok(builder)
}

/// Lets whoever has the ticket in; the secret in it is asked for inside the tunnel.
pub fn with_guests(builder: NodeBuilder, protocol: &str) -> NodeBuilder {
    builder.protocol(protocol).admission(Admission::AllowAll {
        provisional_max: GUESTS_MAX,
    })
}

/// Streams for bulk data: large windows, and a lost peer is noticed.
fn transport() -> TransportConfig {
    let mut transport = wiremesh::default_transport();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(2 * WINDOW_BYTES))
        .send_window(2 * u64::from(WINDOW_BYTES))
        .keep_alive_interval(Some(ALIVE_EVERY));
    transport
}

/// A node as a configuration describes it, with its peers.
pub async fn from_config(config: &Config) -> Result<Node, Failure> {
    from_config_with(config, |builder| builder).await
}

/// The same with more settings.
pub async fn from_config_with(
    config: &Config,
    more: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> Result<Node, Failure> {
    let admission = match config.admission {
        crate::config::Admission::AllowList => Admission::AllowList,
        crate::config::Admission::AllowAll { provisional_max } => {
            Admission::AllowAll { provisional_max }
        }
    };
    let mut builder = Node::builder()
        .secret_key(config.secret_key.clone())
        .network(config.network.clone())
        .admission(admission)
        .mtu(config.mtu_bytes)
        .security(config.policy)
        .egress(config.egress)
        .state_dir(&config.state_dir);
    for address in &config.listen {
        builder = builder.listen(*address);
    }
    for (address, net) in &config.addresses {
        builder = builder.address(*address, *net);
    }
    let node = bind(more(builder)).await?;
    for peer in &config.peers {
        let peer_config = PeerConfig {
            name: peer.name.clone(),
            endpoints: peer.endpoints.clone(),
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().map(|(net, _)| *net).collect(),
            persistent_keepalive: peer.keepalive,
            stock: peer.stock,
            streams: false,
            minimum: peer.minimum,
            ..PeerConfig::new(peer.node_id)
        };
        node.add_peer(peer_config).map_err(|error| {
            Failure::input(format!("peer {}: {error}", peer.label())).at(&peer.place)
        })?;
    }
    Ok(node)
}

/// Starts a node.
pub async fn bind(builder: NodeBuilder) -> Result<Node, Failure> {
    builder.bind().await.map_err(|error| {
        let what = format!("the node cannot start: {error}");
        match &error {
            BindError::Key(_) | BindError::Mtu(_) | BindError::Protocols(_) => Failure::input(what),
            BindError::Interface(error) => {
                let failure = match error {
                    InterfaceError::Name(_) => Failure::input(what).at("the option --interface"),
                    _ => Failure::runtime(what),
                };
                failure.fix(error.fix())
            }
            BindError::State(StateError::InUse(_)) => Failure::runtime(what).fix(
                "stop that node, or ask it: its control socket is the option --socket; else set \
                 another state-dir in the [node] section",
            ),
            BindError::Sockets(_) => Failure::runtime(what)
                .fix("another program may have the port: name another one, or stop that program"),
            _ => Failure::runtime(what),
        }
    })
}

/// Reads a ticket; the error shows nothing of it.
pub fn parse_ticket(text: &str) -> Result<Ticket, Failure> {
    text.parse().map_err(|error: wiremesh::TicketError| {
        Failure::input(error.to_string())
            .at("the argument TICKET")
            .fix("copy the whole ticket again; it begins with wm and has letters and digits only")
    })
}

/// The secret of a ticket for a transfer or a pipe.
pub fn ticket_secret(ticket: &Ticket, made_by: &str) -> Result<TicketSecret, Failure> {
    ticket.secret.clone().ok_or_else(|| {
        Failure::input("this ticket names a node, but nothing to fetch from it")
            .at("the argument TICKET")
            .fix(format!("use the ticket that `{made_by}` printed"))
    })
}

/// A node's ticket with a secret and with endpoints that the user names first.
pub fn make_ticket(node: &Node, advertise: &[Endpoint], secret: Option<TicketSecret>) -> Ticket {
    let mut ticket = node.ticket();
    let found = std::mem::take(&mut ticket.endpoints);
    ticket.endpoints = advertise.to_vec();
    ticket.endpoints.extend(
        found
            .into_iter()
            .filter(|endpoint| !advertise.contains(endpoint)),
    );
    ticket.endpoints.truncate(wiremesh::ticket::ENDPOINTS_MAX);
    ticket.secret = secret;
    ticket
}

/// Draws a ticket's secret.
pub fn fresh_secret() -> Result<TicketSecret, Failure> {
    let mut bytes = zeroize::Zeroizing::new([0; 16]);
    keys::random(&mut *bytes)?;
    Ok(TicketSecret::from_bytes(*bytes))
}

/// What a failed connection means. `made_by` is the command whose ticket fits.
pub fn connect_failure(error: &ConnectError, made_by: &str) -> Failure {
    let what = format!("cannot connect: {error}");
    match error {
        ConnectError::OwnKey => {
            Failure::input(what).fix("run the two commands with different keys")
        }
        ConnectError::OtherNetwork { .. } => {
            Failure::input(what).fix("name the network of the other side: --network NAME")
        }
        ConnectError::NoEndpoint(_) | ConnectError::StockPeer(_) => Failure::input(what),
        ConnectError::Streams(error) if is_other_protocol(error) => {
            Failure::input("the node of this ticket is there, but it does not offer this")
                .at("the argument TICKET")
                .fix(format!("use the ticket that `{made_by}` printed"))
        }
        ConnectError::Security { .. } => Failure::runtime(what).fix(
            "if both sides run this version, it is an upgrade under way or somebody in between: ask \
             the other side what `wiremesh policy` says there",
        ),
        ConnectError::NoAnswer { .. } => Failure::runtime(what).fix(format!(
            "check that `{made_by}` still runs there, and that UDP to its port gets through; \
             behind a NAT forward a port and name it with --listen and --advertise"
        )),
        _ => Failure {
            exit: Exit::Runtime,
            ..Failure::runtime(what)
        },
    }
}

fn is_other_protocol(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) == NO_PROTOCOL,
        ConnectionError::TransportError(error) => u64::from(error.code) == NO_PROTOCOL,
        _ => false,
    }
}

/// Ready when the user or the system asks the program to stop.
pub async fn interrupted() {
    stopped_by_user_or_system().await;
}

/// The signal that asked the program to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A termination signal, as of a service manager.
    Terminate,
}

/// Waits for a signal to stop.
pub async fn stopped_by_user_or_system() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => match interrupt {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        },
        () = terminate => Signal::Terminate,
    }
}
