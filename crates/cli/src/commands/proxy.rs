//! `wiremesh proxy`: SOCKS 5 in front of a node.
//!
//! Owns what becomes of a request; the bytes of the protocol are [`crate::socks5`]'s.

use crate::access::datagrams::DATAGRAM_MAX;
use crate::access::{Access, bind_failure, check_local, join};
use crate::args::ProxyArgs;
use crate::failure::Failure;
use crate::say;
use crate::socks5::{
    Command, Host, Reply, Request, RequestError, emit_datagram_header, emit_reply, parse_datagram,
    read_greeting, read_request,
};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use wiremesh_tcp::ConnectError;

/// How long a client may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long no connection is accepted after the system refused to give one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Names that one UDP relay remembers.
const NAMES_MAX: usize = 64;

pub async fn run(args: ProxyArgs) -> Result<(), Failure> {
    let field = "--socks5";
    check_local(args.socks5, args.allow_remote, field)?;
    let listener = TcpListener::bind(args.socks5).await;
    let listener = listener.map_err(|error| bind_failure(args.socks5, &error, field))?;
    let address = listener.local_addr().unwrap_or(args.socks5);
    let access = Access::start(&args.config).await?;
    say::note(format!("address  {}", access.node.address()));
    say::note(format!("socks5   {address}"));
    say::note("ready; Ctrl-C stops");
    let serving = serve(access.clone(), listener);
    access.run(serving).await
}

async fn serve(access: Access, listener: TcpListener) {
    loop {
        let permit = access.permit().await;
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let access = access.clone();
        tokio::spawn(async move {
            if let Err(error) = handle(&access, client).await {
                tracing::debug!(%error, "a client of the proxy left");
            }
            drop(permit);
        });
    }
}

async fn handle(access: &Access, mut client: TcpStream) -> io::Result<()> {
    let request = tokio::time::timeout(REQUEST_TIMEOUT, negotiate(&mut client));
    let Some(request) = request.await?? else {
        return Ok(());
    };
    match request.command {
        Command::Connect => connect(access, client, &request).await,
        Command::UdpAssociate => associate(access, client).await,
    }
}

/// Greets and reads the request; `None` if the client was refused.
async fn negotiate(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let (answer, go_on) = read_greeting(client).await?;
    client.write_all(&answer).await?;
    if !go_on {
        return Ok(None);
    }
    match read_request(client).await {
        Ok(request) => Ok(Some(request)),
        Err(RequestError::Io(error)) => Err(error),
        Err(RequestError::Refused(reply)) => {
            refuse(client, reply).await?;
            Ok(None)
        }
    }
}

async fn refuse(client: &mut TcpStream, reply: Reply) -> io::Result<()> {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    client.write_all(&emit_reply(reply, nowhere)).await
}

fn address_of(access: &Access, host: &Host) -> Result<IpAddr, Reply> {
    match host {
        Host::Ip(ip) => Ok(*ip),
        Host::Name(name) => access.address_of(name).map_err(|(what, fix)| {
            tracing::info!(%what, %fix, "the proxy knows the name of no such peer");
            Reply::HostUnreachable
        }),
    }
}

async fn connect(access: &Access, mut client: TcpStream, request: &Request) -> io::Result<()> {
    let opened = async {
        let to = SocketAddr::new(address_of(access, &request.host)?, request.port);
        access.tcp.connect(to).await.map_err(|error| {
            tracing::info!(%error, "the proxy cannot connect");
            reply_for(&error)
        })
    };
    match opened.await {
        Ok(overlay) => {
            let bound = overlay.local_addr();
            client
                .write_all(&emit_reply(Reply::Succeeded, bound))
                .await?;
            join(client, overlay).await;
            Ok(())
        }
        Err(reply) => refuse(&mut client, reply).await,
    }
}

fn reply_for(error: &ConnectError) -> Reply {
    match error {
        ConnectError::NoRoute(_) | ConnectError::NoSource(_) => Reply::NetworkUnreachable,
        ConnectError::Refused(_) => Reply::ConnectionRefused,
        ConnectError::TimedOut { .. } => Reply::HostUnreachable,
        _ => Reply::GeneralFailure,
    }
}

/// Relays datagrams for as long as the client's connection is open (RFC 1928, section 7).
async fn associate(access: &Access, mut client: TcpStream) -> io::Result<()> {
    let (ours, theirs) = (client.local_addr()?, client.peer_addr()?);
    let local = UdpSocket::bind(SocketAddr::new(ours.ip(), 0)).await?;
    let Ok(overlay) = access.node.udp_socket(0) else {
        return refuse(&mut client, Reply::GeneralFailure).await;
    };
    let bound = local.local_addr()?;
    client
        .write_all(&emit_reply(Reply::Succeeded, bound))
        .await?;
    let mut relay = Relay {
        access,
        overlay,
        client_ip: theirs.ip(),
        client: None,
        names: HashMap::new(),
    };
    let (mut out, mut back) = (vec![0; DATAGRAM_MAX], vec![0; DATAGRAM_MAX]);
    let mut byte = [0];
    loop {
        tokio::select! {
            received = local.recv_from(&mut out) => if let Ok((len, from)) = received {
                relay.send(from, &out[..len]).await;
            },
            received = relay.overlay.recv_from(&mut back) => {
                let (len, from) = received?;
                if let Some(client) = relay.client {
                    let mut datagram = emit_datagram_header(from);
                    datagram.extend_from_slice(&back[..len]);
                    // Lost, as on any network.
                    let _ = local.send_to(&datagram, client).await;
                }
            },
            read = client.read(&mut byte) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

/// The datagrams of one client.
struct Relay<'a> {
    access: &'a Access,
    overlay: wiremesh::UdpSocket,
    /// Only from here datagrams are taken: from the host that asked, and from its first port.
    client_ip: IpAddr,
    client: Option<SocketAddr>,
    names: HashMap<String, IpAddr>,
}

impl Relay<'_> {
    async fn send(&mut self, from: SocketAddr, datagram: &[u8]) {
        if from.ip() != self.client_ip || self.client.is_some_and(|client| client != from) {
            return;
        }
        let Some((host, port, payload)) = parse_datagram(datagram) else {
            return;
        };
        self.client = Some(from);
        let Some(ip) = self.address_of(host) else {
            return;
        };
        let sent = self.overlay.send_to(payload, SocketAddr::new(ip, port));
        if let Err(error) = sent.await {
            tracing::debug!(%error, "the proxy lost a datagram");
        }
    }

    fn address_of(&mut self, host: Host) -> Option<IpAddr> {
        let name = match host {
            Host::Ip(ip) => return Some(ip),
            Host::Name(name) => name,
        };
        if let Some(ip) = self.names.get(&name) {
            return Some(*ip);
        }
        let ip = self.access.address_of(&name).ok()?;
        if self.names.len() < NAMES_MAX {
            self.names.insert(name, ip);
        }
        Some(ip)
    }
}
