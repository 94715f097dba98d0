//! Ping through the tunnel.
//!
//! Owns the echo request and the wait for its reply; peers' requests are answered elsewhere: by
//! `inbound.rs`, or by the host where the node has an interface.

use crate::error::PingError;
use crate::kernel;
use crate::node::Node;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
use wiremesh_core::Rejected;
use wiremesh_wire::ip;

impl Node {
    /// Sends an ICMP echo request through the tunnel and gives the time until the reply. Works
    /// with a stock WireGuard peer, for an address among its allowed IPs.
    ///
    /// # Errors
    ///
    /// [`PingError`].
    pub async fn ping(
        &self,
        address: IpAddr,
        payload_bytes: usize,
        timeout: Duration,
    ) -> Result<Duration, PingError> {
        let tunnel = self.tunnel();
        let number = self.next_ping();
        let (ident, seq) = ((number >> 16) as u16, number as u16);
        let data: Vec<u8> = (0..payload_bytes).map(|n| n as u8).collect();
        if let Some(plane) = &tunnel.plane.kernel {
            if tunnel.peek(|state, _| state.engine.peer_by_address(address).is_none()) {
                return Err(PingError::NoRoute(address));
            }
            return kernel::ping(plane.name(), address, seq, &data, timeout).await;
        }
        let source = tunnel
            .addresses
            .source_for(address)
            .ok_or(PingError::NoSource(address))?;
        let len = ip::echo_len(&source, payload_bytes);
        if len > tunnel.mtu_bytes {
            return Err(PingError::TooLong);
        }
        let mut packet = vec![0; len];
        ip::emit_echo(&mut packet, true, source, address, ident, seq, &data);
        let mut pong = tunnel.ports.expect_pong((address, ident, seq));
        let sent_at = Instant::now();
        let sent = tunnel.with(|state, now| Some(state.engine.own()?.handle_packet(now, packet)));
        if matches!(sent, Some(Err(Rejected::NoRoute(_)))) {
            return Err(PingError::NoRoute(address));
        }
        match tokio::time::timeout(timeout, &mut pong.receiver).await {
            Ok(Ok(())) => Ok(sent_at.elapsed()),
            _ => Err(PingError::Timeout),
        }
    }
}
