//! Incoming connections, up to the moment when the application takes them.
//!
//! Owns one task per connection that is being made, none per connection that is.

use crate::tunnel::Tunnel;
use std::sync::Weak;
use tokio::sync::mpsc;
use wiremesh_quic::HandshakeData;
use wiremesh_wire::NodeId;

/// The QUIC application error of a connection that found the backlog full.
const BUSY: u32 = 0x77_6d01;

/// A connection, its peer and its protocol.
pub(crate) type Accepted = (quinn::Connection, NodeId, String);

/// Takes incoming connections, each in its own task, so that a slow one holds up nobody.
pub(crate) async fn accept_all(
    endpoint: quinn::Endpoint,
    tunnel: Weak<Tunnel>,
    accepted: mpsc::Sender<Accepted>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let (tunnel, accepted) = (tunnel.clone(), accepted.clone());
        tokio::spawn(async move {
            let Some(ready) = accept_one(incoming, tunnel).await else {
                return;
            };
            if let Err(mpsc::error::TrySendError::Full((connection, ..))) = accepted.try_send(ready)
            {
                connection.close(
                    BUSY.into(),
                    b"busy: too many connections wait to be accepted",
                );
            }
        });
    }
}

async fn accept_one(incoming: quinn::Incoming, tunnel: Weak<Tunnel>) -> Option<Accepted> {
    let remote = incoming.remote_address().ip();
    let mut connecting = incoming.accept().ok()?;
    let data = connecting
        .handshake_data()
        .await
        .ok()?
        .downcast::<HandshakeData>()
        .ok()?;
    let protocol = String::from_utf8_lossy(&data.protocol).into_owned();
    // The tunnel has authenticated the client already: its early data cannot be a repetition.
    let (connection, _) = connecting.into_0rtt().ok()?;
    let peer = tunnel.upgrade()?.peek(|state, _| {
        let key = state.engine.peer_by_address(remote)?;
        state.engine.node_id_of(key)
    })?;
    Some((connection, peer, protocol))
}
