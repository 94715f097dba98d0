//! Whom to connect to, and where that is.
//!
//! Owns the translation between tickets, host names and addresses; connects nothing.

use crate::error::ConnectError;
use crate::peer::Peer;
use std::net::{IpAddr, SocketAddr};
use wiremesh_wire::{Endpoint, NodeId, Ticket};

/// Whom to connect to: made from a node id, a [`Peer`] or a [`Ticket`].
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) whom: Whom,
    pub(crate) proof: Option<Vec<u8>>,
}

/// The node meant.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    /// A peer that the node knows.
    Id(NodeId),
    /// A ticket; its node is added as a peer if it is not one yet.
    Ticket(Box<Ticket>),
}

impl Target {
    /// The same, with a proof that is shown to the peer before it lets anything in; at most 4,096
    /// bytes. It takes the place of [`crate::PeerConfig::proof`] for good.
    #[must_use]
    pub fn with_proof(self, proof: impl Into<Vec<u8>>) -> Self {
        Self {
            proof: Some(proof.into()),
            ..self
        }
    }
}

impl From<Whom> for Target {
    fn from(whom: Whom) -> Self {
        Self { whom, proof: None }
    }
}

impl From<NodeId> for Target {
    fn from(id: NodeId) -> Self {
        Whom::Id(id).into()
    }
}

impl From<&Peer> for Target {
    fn from(peer: &Peer) -> Self {
        Whom::Id(peer.node_id()).into()
    }
}

impl From<Ticket> for Target {
    fn from(ticket: Ticket) -> Self {
        Whom::Ticket(Box::new(ticket)).into()
    }
}

impl From<&Ticket> for Target {
    fn from(ticket: &Ticket) -> Self {
        ticket.clone().into()
    }
}

/// The addresses at which others reach sockets that listen there: a wildcard stands for every
/// address of the host, loopback only if there is no other.
pub(crate) fn reachable(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let interfaces: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(|i| i.ip())
        .collect();
    let useful = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    let outside = interfaces.iter().any(|ip| !ip.is_loopback() && useful(ip));
    let mut found = Vec::new();
    for address in listen {
        if !address.ip().is_unspecified() {
            found.push(*address);
            continue;
        }
        let same_family = interfaces
            .iter()
            .filter(|ip| ip.is_ipv4() == address.is_ipv4() && useful(ip))
            .filter(|ip| !outside || !ip.is_loopback());
        found.extend(same_family.map(|ip| SocketAddr::new(*ip, address.port())));
    }
    found
}

pub(crate) async fn resolve(endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut found = Vec::new();
    let mut failure = None;
    for endpoint in endpoints {
        match endpoint {
            Endpoint::Address(address) => found.push(*address),
            Endpoint::Host(host, port) => {
                match tokio::net::lookup_host((host.as_str(), *port)).await {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => {
                        failure = Some(ConnectError::Resolve {
                            host: host.as_str().into(),
                            error,
                        });
                    }
                }
            }
        }
    }
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ => Ok(found),
    }
}
