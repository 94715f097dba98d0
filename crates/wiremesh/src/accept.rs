//! Incoming connections, up to the moment when the application takes them.
//!
//! Owns one task per connection that is being made, none per connection that is; and the count of
//! connections per peer, since each costs memory from its first packet on.

use crate::budget::Budget;
use crate::connection::Linked;
use crate::egress::flow_of;
use crate::port::lock;
use crate::topic::{self, Service};
use crate::tunnel::Tunnel;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::mpsc;
use wiremesh_quic::HandshakeData;
use wiremesh_wire::NodeId;
use wiremesh_wire::address::STREAM_PORT;

/// The QUIC application error of a connection that found the backlog full.
const BUSY: u32 = 0x77_6d01;
/// Incoming connections of one peer at a time; a further one is refused.
const CONNECTIONS_PER_PEER_MAX: u32 = 256;

/// A connection, its peer and its protocol.
pub(crate) struct Accepted {
    pub(crate) linked: Linked,
    pub(crate) peer: NodeId,
    pub(crate) protocol: String,
    pub(crate) permit: Arc<Permit>,
}

/// How many connections each peer has made to us.
#[derive(Debug, Default)]
struct Census(Mutex<HashMap<IpAddr, u32>>);

/// One connection of a peer, counted until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    census: Arc<Census>,
    peer: IpAddr,
}

impl Census {
    fn permit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Permit>> {
        let mut counts = lock(&self.0);
        let count = counts.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Arc::new(Permit {
            census: Arc::clone(self),
            peer,
        }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.census.0);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Takes incoming connections, each in its own task, so that a slow one holds up nobody.
pub(crate) async fn accept_all(
    endpoint: quinn::Endpoint,
    tunnel: Weak<Tunnel>,
    topics: Arc<Service>,
    budget: Arc<Budget>,
    accepted: mpsc::Sender<Accepted>,
) {
    let count = |refused: &AtomicU64| refused.fetch_add(1, Ordering::Relaxed);
    let census = Arc::new(Census::default());
    while let Some(incoming) = endpoint.accept().await {
        // Another user of the peer's host has no such port. In kernel mode nobody has looked before.
        if incoming.remote_address().port() != STREAM_PORT {
            incoming.ignore();
            continue;
        }
        if endpoint.open_connections() >= budget.connections_max {
            count(&budget.refused.connections_full);
            incoming.refuse();
            continue;
        }
        let Some(permit) = census.permit(incoming.remote_address().ip()) else {
            count(&budget.refused.connections_of_peer_full);
            incoming.refuse();
            continue;
        };
        let (tunnel, accepted, budget) = (tunnel.clone(), accepted.clone(), Arc::clone(&budget));
        let topics = Arc::clone(&topics);
        tokio::spawn(async move {
            let Some(ready) = accept_one(incoming, tunnel, permit).await else {
                return;
            };
            if ready.protocol == topic::PROTOCOL {
                return topics.accepted(ready);
            }
            if let Err(mpsc::error::TrySendError::Full(ready)) = accepted.try_send(ready) {
                count(&budget.refused.accept_backlog_full);
                let reason = b"busy: too many connections wait to be accepted";
                ready.linked.quinn.close(BUSY.into(), reason);
            }
        });
    }
}

async fn accept_one(
    incoming: quinn::Incoming,
    tunnel: Weak<Tunnel>,
    permit: Arc<Permit>,
) -> Option<Accepted> {
    let remote = incoming.remote_address().ip();
    let (connecting, flow) = flow_of(|| incoming.accept());
    let mut connecting = connecting.ok()?;
    let data = connecting
        .handshake_data()
        .await
        .ok()?
        .downcast::<HandshakeData>()
        .ok()?;
    let protocol = String::from_utf8_lossy(&data.protocol).into_owned();
    // The tunnel has authenticated the client already: its early data cannot be a repetition.
    let (quinn, _) = connecting.into_0rtt().ok()?;
    let peer = tunnel.upgrade()?.peek(|state, _| {
        let key = state.engine.peer_by_address(remote)?;
        let own = state.engine.overlay_address_of(key).map(IpAddr::V6);
        state.engine.node_id_of(key).filter(|_| own == Some(remote))
    })?;
    Some(Accepted {
        linked: Linked { quinn, flow },
        peer,
        protocol,
        permit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_peer_are_bounded_and_forgotten() {
        let census = Arc::new(Census::default());
        let [one, other] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let mut held: Vec<_> = (0..CONNECTIONS_PER_PEER_MAX)
            .map(|_| census.permit(one).expect("within the limit"))
            .collect();
        assert!(census.permit(one).is_none());
        assert!(census.permit(other).is_some(), "another peer has its own");
        held.pop();
        assert!(census.permit(one).is_some());
        drop(held);
        assert!(lock(&census.0).is_empty());
    }
}
