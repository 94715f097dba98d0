//! iroh with a direct address: no relay, no discovery, mutual raw public keys in TLS 1.3 (ring).
//!
//! Its QUIC settings are its own defaults except for the datagram size and the stream limits,
//! which are those of every column.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use iroh::endpoint::{
    Builder, Connection, QuicTransportConfig, RecvStream, RelayMode, SendStream, presets,
};
use iroh::{Endpoint, EndpointAddr, SecretKey};

use super::{Dialer, PROTOCOL, STREAMS_MAX, StreamConnection, datagram_bytes, loopback};
use crate::serve::serve_connection;

/// The server's key; the client derives its identity from it.
const SERVER_KEY: [u8; 32] = [7; 32];

/// Serves until the process ends; announces the socket address.
pub async fn serve(announce: impl FnOnce(String)) -> Result<()> {
    let endpoint = builder()?
        .secret_key(SecretKey::from_bytes(&SERVER_KEY))
        .alpns(vec![PROTOCOL.to_vec()])
        .bind()
        .await?;
    let address = endpoint
        .bound_sockets()
        .into_iter()
        .next()
        .context("no socket is bound")?;
    announce(address.to_string());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(accepting) = incoming.accept() else {
                return;
            };
            if let Ok(connection) = accepting.await {
                serve_connection(connection).await;
            }
        });
    }
    Ok(())
}

/// The client side.
pub struct IrohDialer {
    endpoint: Endpoint,
    server: EndpointAddr,
}

impl IrohDialer {
    /// Binds a client endpoint for the server at `target`, a socket address.
    pub async fn bind(target: &str) -> Result<Self> {
        let address: SocketAddr = target
            .parse()
            .with_context(|| format!("not a socket address: {target}"))?;
        let server_id = SecretKey::from_bytes(&SERVER_KEY).public();
        let endpoint = builder()?.bind().await?;
        Ok(Self {
            endpoint,
            server: EndpointAddr::new(server_id).with_ip_addr(address),
        })
    }
}

impl Dialer for IrohDialer {
    type Connection = Connection;

    async fn dial(&self) -> Result<(Connection, Instant)> {
        let start = Instant::now();
        Ok((
            self.endpoint.connect(self.server.clone(), PROTOCOL).await?,
            start,
        ))
    }
}

impl StreamConnection for Connection {
    type Send = SendStream;
    type Recv = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.open_bi().await?)
    }

    async fn accept(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.accept_bi().await?)
    }

    fn close(&self) {
        Connection::close(self, 0u32.into(), b"");
    }
}

fn builder() -> Result<Builder> {
    let transport = QuicTransportConfig::builder()
        .initial_mtu(datagram_bytes())
        .min_mtu(datagram_bytes())
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .build();
    Ok(Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(loopback())?
        .transport_config(transport))
}
