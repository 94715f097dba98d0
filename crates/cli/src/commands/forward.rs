//! `wiremesh forward`: single ports between this host and the peers.
//!
//! Owns the ports; everything is bound before the node starts, and said before bytes flow.

use crate::access::datagrams::{self, Socket};
use crate::access::spec::{FromPeers, ToPeer};
use crate::access::{Access, bind_failure, check_local, join};
use crate::args::ForwardArgs;
use crate::failure::Failure;
use crate::say;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How long no connection is accepted after the system refused to give one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a program of this host may take to accept a connection.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be forwarded, checked, with the ports of this host taken.
struct Forwards {
    tcp: Vec<(ToPeer, TcpListener)>,
    udp: Vec<(ToPeer, UdpSocket)>,
    listen: Vec<FromPeers>,
    listen_udp: Vec<(FromPeers, SocketAddr)>,
}

pub async fn run(args: ForwardArgs) -> Result<(), Failure> {
    let forwards = Forwards::prepare(&args).await?;
    let access = Access::start(&args.config).await?;
    say::note(format!("address  {}", access.node.address()));
    let mut tasks = match forwards.start(&access) {
        Ok(tasks) => tasks,
        Err(failure) => {
            access.node.close().await;
            return Err(failure);
        }
    };
    say::note("ready; Ctrl-C stops");
    // A forward that ends has said why; the others go on.
    access
        .run(async { while tasks.join_next().await.is_some() {} })
        .await
}

impl Forwards {
    async fn prepare(args: &ForwardArgs) -> Result<Self, Failure> {
        let all = [&args.tcp, &args.udp, &args.listen, &args.listen_udp];
        if all.iter().all(|list| list.is_empty()) {
            return Err(Failure::input("there is nothing to forward")
                .fix("name a port: 8080:laptop:80, or --listen 8080:127.0.0.1:80"));
        }
        let to_peer = |text: &String, field: &str| {
            let spec = ToPeer::parse(text, field)?;
            check_local(spec.listen, args.allow_remote, &format!("{field} {text}"))?;
            Ok::<_, Failure>(spec)
        };
        let mut forwards = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            listen: Vec::new(),
            listen_udp: Vec::new(),
        };
        for text in &args.listen {
            forwards.listen.push(FromPeers::parse(text, "--listen")?);
        }
        for text in &args.listen_udp {
            let spec = FromPeers::parse(text, "--listen-udp")?;
            let target = look_up(&spec, text).await?;
            forwards.listen_udp.push((spec, target));
        }
        for text in &args.tcp {
            let spec = to_peer(text, "the argument")?;
            let listener = TcpListener::bind(spec.listen).await;
            let failure =
                |error| bind_failure(spec.listen, &error, &format!("the argument {text}"));
            forwards
                .tcp
                .push((spec.clone(), listener.map_err(failure)?));
        }
        for text in &args.udp {
            let spec = to_peer(text, "--udp")?;
            let socket = UdpSocket::bind(spec.listen).await;
            let failure = |error| bind_failure(spec.listen, &error, &format!("--udp {text}"));
            forwards.udp.push((spec.clone(), socket.map_err(failure)?));
        }
        Ok(forwards)
    }

    /// Starts a task for each; nothing is started if one cannot be.
    fn start(self, access: &Access) -> Result<JoinSet<()>, Failure> {
        let target = |spec: &ToPeer| {
            let found = access.address_of(&spec.peer);
            let found = found.and_then(|ip| reachable(access, ip));
            let failure = |(what, fix): (String, String)| {
                Failure::input(what)
                    .at(format!("the peer {}", spec.peer))
                    .fix(fix)
            };
            Ok::<_, Failure>(SocketAddr::new(found.map_err(failure)?, spec.port))
        };
        let mut tasks = JoinSet::new();
        for (spec, listener) in self.tcp {
            let to = target(&spec)?;
            say::note(format!("tcp      {} -> {} ({to})", spec.listen, spec.peer));
            tasks.spawn(to_peer(access.clone(), listener, to));
        }
        for (spec, socket) in self.udp {
            let to = target(&spec)?;
            say::note(format!("udp      {} -> {} ({to})", spec.listen, spec.peer));
            let access = access.clone();
            tasks
                .spawn(async move { datagrams::forward(&access, Socket::Local(socket), to).await });
        }
        for spec in self.listen {
            let listener = access.tcp.listen(spec.port).map_err(|error| {
                Failure::input(error.to_string()).at(format!("--listen {}", spec.port))
            })?;
            let (port, host, to) = (spec.port, &spec.host, spec.host_port);
            say::note(format!(
                "listen   port {port} for every peer -> {host} port {to}"
            ));
            tasks.spawn(from_peers(access.clone(), listener, spec));
        }
        for (spec, to) in self.listen_udp {
            let socket = access.node.udp_socket(spec.port).map_err(|error| {
                Failure::input(error.to_string()).at(format!("--listen-udp {}", spec.port))
            })?;
            let port = spec.port;
            say::note(format!("listen   UDP port {port} for every peer -> {to}"));
            let access = access.clone();
            tasks.spawn(async move {
                datagrams::forward(&access, Socket::Overlay(socket), to).await;
            });
        }
        Ok(tasks)
    }
}

/// Refuses an address that leads to no peer.
fn reachable(access: &Access, ip: std::net::IpAddr) -> Result<std::net::IpAddr, (String, String)> {
    match access.tcp.can_reach(ip) {
        Ok(()) => Ok(ip),
        Err(error) => Err((
            error.to_string(),
            "name a peer, or an address among a peer's allowed IPs".to_owned(),
        )),
    }
}

async fn look_up(spec: &FromPeers, text: &str) -> Result<SocketAddr, Failure> {
    let found = tokio::net::lookup_host((spec.host.as_str(), spec.host_port)).await;
    let found = found.ok().and_then(|mut found| found.next());
    found.ok_or_else(|| {
        Failure::input(format!("{} is no address and no known name", spec.host))
            .at(format!("--listen-udp {text}"))
            .fix("write an address, such as 127.0.0.1")
    })
}

async fn to_peer(access: Access, listener: TcpListener, to: SocketAddr) {
    loop {
        let permit = access.permit().await;
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let access = access.clone();
        tokio::spawn(async move {
            match access.tcp.connect(to).await {
                Ok(overlay) => join(client, overlay).await,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not forwarded");
                    // A reset tells the program that nothing was delivered.
                    let _ = client.set_zero_linger();
                }
            }
            drop(permit);
        });
    }
}

async fn from_peers(access: Access, listener: wiremesh_tcp::TcpListener, spec: FromPeers) {
    loop {
        let permit = access.peer_permit().await;
        let Ok(overlay) = listener.accept().await else {
            return;
        };
        let peer = overlay.peer_addr();
        let Some(share) = access.share(peer.ip(), permit) else {
            tracing::debug!(%peer, "a connection too many of one peer");
            overlay.reset();
            continue;
        };
        let (host, port) = (spec.host.clone(), spec.host_port);
        tokio::spawn(async move {
            let local = TcpStream::connect((host.as_str(), port));
            match tokio::time::timeout(LOCAL_TIMEOUT, local).await {
                Ok(Ok(local)) => join(local, overlay).await,
                failed => {
                    let error = failed.err().map_or("refused", |_| "no answer");
                    tracing::warn!(%host, port, %peer, error, "a connection was not forwarded");
                    overlay.reset();
                }
            }
            drop(share);
        });
    }
}
