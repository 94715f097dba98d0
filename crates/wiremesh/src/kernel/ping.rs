//! Echo requests through the kernel, without a privilege: Linux's datagram sockets for ICMP.
//!
//! Owns nothing but one socket for one ping. The host answers those of peers.

use crate::error::PingError;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Bytes of an ICMP header.
const HEADER_BYTES: usize = 8;

/// Sends one echo request through `interface` and waits for its reply.
pub(crate) async fn ping(
    interface: &str,
    address: IpAddr,
    seq: u16,
    data: &[u8],
    timeout: Duration,
) -> Result<Duration, PingError> {
    let socket = open(interface, address).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => PingError::NotPermitted,
        _ => PingError::NoSource(address),
    })?;
    let request_kind = if address.is_ipv6() { 128 } else { 8 };
    let reply_kind = if address.is_ipv6() { 129 } else { 0 };
    let [high, low] = seq.to_be_bytes();
    // Identifier and checksum are the kernel's matter.
    let packet = [&[request_kind, 0, 0, 0, 0, 0, high, low], data].concat();
    let sent_at = Instant::now();
    let answer = async {
        socket
            .send(&packet)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::AddrNotAvailable => PingError::NoSource(address),
                // Longer than 65,535 bytes.
                ErrorKind::InvalidInput => PingError::TooLong,
                _ => PingError::Timeout,
            })?;
        let mut reply = vec![0; HEADER_BYTES + data.len()];
        loop {
            // An error reports the fate of the request; then no reply comes.
            let Ok(len) = socket.recv(&mut reply).await else {
                return std::future::pending().await;
            };
            let matches = len == packet.len()
                && reply[0] == reply_kind
                && reply[6..HEADER_BYTES] == [high, low]
                && reply[HEADER_BYTES..] == *data;
            if matches {
                return Ok(sent_at.elapsed());
            }
        }
    };
    let answered = tokio::time::timeout(timeout, answer).await;
    answered.unwrap_or(Err(PingError::Timeout))
}

fn open(interface: &str, address: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.connect(&SockAddr::from(SocketAddr::new(address, 0)))?;
    UdpSocket::from_std(socket.into())
}
