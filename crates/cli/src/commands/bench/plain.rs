//! The ports for traffic beside the tunnel, on the side that serves.
//!
//! Owns who gets in: the address of the tunnel's other end, with the token. Everybody else gets
//! not a byte, so the ports are no use as a reflector.

use super::message::{Answer, TOKEN_LEN, Token};
use super::port::Port;
use super::server::{Lane, STREAMS_MAX};
use super::{stream, talk};
use crate::say;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wiremesh::{Connection, Node};

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 16;

/// What could be opened.
pub struct Plain {
    /// UDP.
    pub udp: Option<Lane>,
    tcp: Option<Arc<TcpListener>>,
    admitted: IpAddr,
    token: Token,
}

impl Plain {
    /// Opens both ports where the node listens; what fails is told here and to the client.
    pub fn open(node: &Node, connection: &Connection, port: u16, token: Token) -> Self {
        let other = talk::endpoint(connection);
        let other = other.unwrap_or_else(|| (std::net::Ipv6Addr::UNSPECIFIED, 0).into());
        let own = talk::own_address(node, other, port);
        let admitted = other.ip();
        let told = |name: &str, error: &io::Error| {
            say::warn(format!(
                "cannot open {name} {own} for the comparison: {error}"
            ));
        };
        let udp = Port::plain(own).inspect_err(|error| told("UDP", error));
        let tcp = listen(own).inspect_err(|error| told("TCP", error));
        Self {
            udp: udp.ok().map(|port| Lane::new(port, admitted, token)),
            tcp: tcp.ok().map(Arc::new),
            admitted,
            token,
        }
    }

    /// What the client is told.
    pub fn answer(&self) -> Answer {
        let tcp = self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let udp = self.udp.as_ref().and_then(|udp| udp.port.number().ok());
        Answer::Plain {
            tcp: tcp.map_or(0, |address| address.port()),
            udp: udp.unwrap_or(0),
        }
    }

    /// Serves both for as long as the tasks live.
    pub fn serve(&self, tasks: &mut JoinSet<()>) {
        if let Some(lane) = &self.udp {
            tasks.spawn(lane.clone().answer_all());
        }
        if let Some(tcp) = &self.tcp {
            tasks.spawn(accept_all(Arc::clone(tcp), self.admitted, self.token));
        }
    }
}

fn listen(own: SocketAddr) -> io::Result<TcpListener> {
    let socket = match own {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A port that the user names is to be free again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(own)?;
    socket.listen(BACKLOG)
}

async fn accept_all(tcp: Arc<TcpListener>, admitted: IpAddr, token: Token) {
    let turns = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut streams = JoinSet::new();
    loop {
        let turn = Arc::clone(&turns).acquire_owned().await;
        let accepted = tcp.accept().await;
        while streams.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) if from.ip().to_canonical() == admitted => {
                streams.spawn(async move {
                    // The asking side sees what went wrong.
                    let _ = serve(stream, token).await;
                    drop(turn);
                });
            }
            Ok(_) => {}
            // Out of file descriptors, or the like: it may pass.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, token: Token) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut theirs = [0; TOKEN_LEN];
    tokio::time::timeout(stream::JOB_PATIENCE, stream.read_exact(&mut theirs)).await??;
    if !bool::from(theirs.ct_eq(&token)) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, writer) = stream.into_split();
    stream::serve(reader, writer).await
}
