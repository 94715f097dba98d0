//! quinn without any security: no keys, no cipher, nobody authenticated. What is left of a stack
//! that costs nothing else, so the bound for the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use quinn::{Endpoint, TokioRuntime};
use wiremesh_quic::{Provider, at_least_assumed, default_transport};

use super::{Dialer, PROTOCOL, datagram_bytes, pin, serve_all, udp_socket};

/// Serves until the process ends; announces the socket address.
pub async fn serve(announce: impl FnOnce(String)) -> Result<()> {
    let (endpoint, _) = endpoint(true)?;
    serve_all(endpoint, announce).await
}

/// A client endpoint for the server at `target`, a socket address.
pub fn dialer(target: &str) -> Result<PlainDialer> {
    let (endpoint, provider) = endpoint(false)?;
    let server = target
        .parse()
        .with_context(|| format!("not a socket address: {target}"))?;
    Ok(PlainDialer {
        endpoint,
        provider,
        server,
    })
}

fn endpoint(is_server: bool) -> Result<(Endpoint, Provider)> {
    let mut transport = default_transport();
    pin(&mut transport, datagram_bytes());
    let provider = Provider::new([u8::from(is_server); 32], at_least_assumed(transport)?);
    let config = is_server
        .then(|| provider.server_config(&[PROTOCOL]))
        .transpose()?;
    let mut shared = provider.endpoint_config();
    shared.max_udp_payload_size(datagram_bytes())?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(shared, config, udp_socket()?, runtime)?;
    Ok((endpoint, provider))
}

/// The client side.
pub struct PlainDialer {
    endpoint: Endpoint,
    provider: Provider,
    server: SocketAddr,
}

impl Dialer for PlainDialer {
    type Connection = quinn::Connection;

    async fn dial(&self) -> Result<(quinn::Connection, Instant)> {
        let start = Instant::now();
        let config = self.provider.client_config(&[PROTOCOL])?;
        let connecting = self
            .endpoint
            .connect_with(config, self.server, "localhost")?;
        Ok((connecting.await?, start))
    }
}
