//! Messages on a stream, and datagrams at a rate: what both sides of `wiremesh bench` do alike.

use super::datagram::{Datagram, Kind};
use super::message::{Offer, Token};
use super::port::{From, Port};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use wiremesh::Node;

/// The protocol of both sides; another layout is another name.
pub const PROTOCOL: &str = "wiremesh-bench/1";

/// How often datagrams that are due are sent.
const PACE: Duration = Duration::from_millis(1);

/// Datagrams that are sent before others get their turn.
const BURST_MAX: u64 = 64;

/// Reads kind and body of a message; `None` at the end of the stream.
///
/// # Errors
///
/// The stream broke.
pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 2];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..]).await?;
    let mut body = vec![0; head[1].into()];
    reader.read_exact(&mut body).await?;
    Ok(Some((head[0], body)))
}

/// Sends what an offer says; how many, and in which time.
///
/// # Errors
///
/// The socket is closed.
pub async fn send_paced(
    port: &Port,
    to: From,
    token: &Token,
    test: u32,
    offer: Offer,
) -> io::Result<(u64, Duration)> {
    let mut bytes = vec![0; offer.size_bytes.into()];
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < offer.duration {
        let due = offer.due(begun.elapsed());
        let burst_end = due.min(sent + BURST_MAX);
        while sent < burst_end {
            let (kind, number) = (Kind::Count, sent);
            Datagram { kind, test, number }.emit(token, &mut bytes);
            port.send(&bytes, to.source, to.own).await?;
            sent += 1;
        }
        if sent < due {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(PACE).await;
        }
    }
    Ok((sent, begun.elapsed()))
}

/// Our address for traffic beside the tunnel: that of the node's own socket, with another port.
pub fn own_address(node: &Node, other: SocketAddr, port: u16) -> SocketAddr {
    let mut sockets = node.listen_addresses().into_iter();
    let same_family = sockets.find(|own| own.is_ipv4() == other.is_ipv4());
    let mut own = same_family.unwrap_or_else(|| {
        let any: IpAddr = match other {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, 0)
    });
    own.set_port(port);
    own
}

/// Where the other side is, without the disguise of an IPv4 address as an IPv6 one.
pub fn endpoint(connection: &wiremesh::Connection) -> Option<SocketAddr> {
    let endpoint = connection.path().endpoint?;
    match endpoint.ip().to_canonical() {
        ip @ IpAddr::V4(_) => Some(SocketAddr::new(ip, endpoint.port())),
        // With its scope.
        IpAddr::V6(_) => Some(endpoint),
    }
}

/// Draws a token.
///
/// # Errors
///
/// The system has no random numbers.
pub fn fresh_token() -> io::Result<Token> {
    let mut token = Token::default();
    getrandom::fill(&mut token).map_err(io::Error::other)?;
    Ok(token)
}
