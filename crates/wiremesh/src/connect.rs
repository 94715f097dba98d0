//! Connecting to a peer.
//!
//! Owns the way from a key or ticket to a connection: which addresses to try, and what to do when
//! a peer was restarted and the session that we have with it leads nowhere.

use crate::connection::{Connection, Linked};
use crate::egress::flow_of;
use crate::error::ConnectError;
use crate::node::Node;
use crate::peer::{AddPeerError, PeerConfig};
use crate::status::PeerStatus;
use crate::target::{Target, Whom, resolve};
use crate::tunnel::{State, Tunnel};
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;
use wiremesh_control::Level;
use wiremesh_control::message::PROOF_MAX;
use wiremesh_core::PeerKey;
use wiremesh_wire::address::{STREAM_PORT, overlay_address};
use wiremesh_wire::{Endpoint, NodeId, Now, Ticket};

/// How long an answer may take on a session that was there before. After that a new handshake
/// runs beside it: a peer that was restarted does not know the session, and cannot say so.
///
/// Shorter than the second after which QUIC repeats its first packet, so that the repetition
/// travels in the new session.
const SESSION_DOUBTED_AFTER: Duration = Duration::from_millis(500);

impl Node {
    /// Connects to a peer and agrees on a protocol.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], after [`crate::NodeBuilder::connect_timeout`] at the latest.
    pub async fn connect(
        &self,
        target: impl Into<Target>,
        protocol: &str,
    ) -> Result<Connection, ConnectError> {
        let ((mut connecting, flow), peer) = self.begin(target.into(), protocol).await?;
        let waited = self.connect_timeout();
        let doubted = SESSION_DOUBTED_AFTER.min(waited);
        let mut result = tokio::time::timeout(doubted, &mut connecting).await;
        if result.is_err() {
            doubt_session(self.tunnel(), &peer, doubted);
            result = tokio::time::timeout(waited - doubted, connecting).await;
        }
        match result {
            Ok(Ok(quinn)) => {
                let linked = Linked { quinn, flow };
                Ok(self.connection(linked, peer, protocol.to_owned(), None))
            }
            Ok(Err(error)) => Err(ConnectError::Streams(error)),
            Err(_) => Err(self.no_connection(&peer, waited)),
        }
    }

    /// Why a connection was not made in time.
    pub(crate) fn no_connection(&self, peer: &NodeId, waited: Duration) -> ConnectError {
        let status = self.peer_status(peer);
        let below = |peer: &&PeerStatus| peer.session_age.is_some() && peer.level.is_none();
        if let Some(peer) = status.as_ref().filter(below) {
            return ConnectError::Security {
                required: peer.required.unwrap_or(Level::PostQuantum),
                reason: peer.waiting.map(|(reason, _)| reason),
                waited,
            };
        }
        let endpoint = status.and_then(|peer| peer.endpoint);
        ConnectError::NoAnswer { endpoint, waited }
    }

    /// Connects without waiting for the peer: data sent at once travels with the first packet
    /// (0-RTT; the tunnel underneath keeps it secret and unrepeatable). If the peer does not
    /// speak the protocol, the connection is closed and nothing of the data is delivered.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] for what is known before an answer.
    pub async fn connect_early(
        &self,
        target: impl Into<Target>,
        protocol: &str,
    ) -> Result<Connection, ConnectError> {
        let ((connecting, flow), peer) = self.begin(target.into(), protocol).await?;
        let Ok((quinn, answered)) = connecting.into_0rtt() else {
            return Err(ConnectError::Closed);
        };
        let tunnel: Weak<Tunnel> = self.tunnel().me.clone();
        tokio::spawn(async move {
            let in_time = tokio::time::timeout(SESSION_DOUBTED_AFTER, answered).await;
            if let (Err(_), Some(tunnel)) = (in_time, tunnel.upgrade()) {
                doubt_session(&tunnel, &peer, SESSION_DOUBTED_AFTER);
            }
        });
        let linked = Linked { quinn, flow };
        Ok(self.connection(linked, peer, protocol.to_owned(), None))
    }

    async fn begin(
        &self,
        target: Target,
        protocol: &str,
    ) -> Result<((quinn::Connecting, u64), NodeId), ConnectError> {
        let config = self
            .provider()
            .client_config(&[protocol])
            .map_err(ConnectError::Protocol)?;
        let Target { whom, proof } = target;
        if let Some(proof) = proof.as_ref().filter(|proof| proof.len() > PROOF_MAX) {
            return Err(ConnectError::ProofTooLong(proof.len()));
        }
        let id = match whom {
            Whom::Id(id) => id,
            Whom::Ticket(ticket) => self.add_ticket(*ticket, proof.clone()).await?,
        };
        self.check_target(id).await?;
        let most = self.budget().connections_max;
        if self.endpoint().open_connections() >= most {
            return Err(ConnectError::TooManyConnections(most));
        }
        self.with_peer(&id, |state, now, key| {
            if proof.is_some() {
                show_proof(state, now, key, proof);
            }
            state.engine.connect(now, key)
        });
        // Nothing holds packets back until the kernel may send them.
        let patience = self.connect_timeout();
        if self.tunnel().plane.kernel.is_some() && !self.opens_within(&id, patience).await {
            return Err(self.no_connection(&id, patience));
        }
        let address = SocketAddr::new(overlay_address(&id).into(), STREAM_PORT);
        let connect = || self.endpoint().connect_with(config, address, "wiremesh");
        let (connecting, flow) = flow_of(connect);
        let connecting = connecting.map_err(|_| ConnectError::Closed)?;
        Ok(((connecting, flow), id))
    }

    /// Whether the peer can be connected to; looks its host names up if nothing else is known.
    async fn check_target(&self, id: NodeId) -> Result<(), ConnectError> {
        if id == self.id() {
            return Err(ConnectError::OwnKey);
        }
        let peer = self.peer_status(&id).ok_or(ConnectError::NoEndpoint(id))?;
        if !self
            .tunnel()
            .peek(|state, _| state.names.speaks_streams(&id))
        {
            return Err(ConnectError::StockPeer(id));
        }
        if peer.endpoint.is_some() {
            return Ok(());
        }
        let hosts = self.tunnel().peek(|state, _| state.names.of(&id).hosts);
        let addresses = resolve(&hosts).await?;
        if addresses.is_empty() {
            return Err(ConnectError::NoEndpoint(id));
        }
        self.with_peer(&id, |state, _, key| {
            state.engine.set_candidates(key, &addresses)
        });
        Ok(())
    }

    async fn add_ticket(
        &self,
        ticket: Ticket,
        proof: Option<Vec<u8>>,
    ) -> Result<NodeId, ConnectError> {
        let id = ticket.node_id;
        if id == self.id() {
            return Err(ConnectError::OwnKey);
        }
        if ticket.network != self.network_id() {
            return Err(ConnectError::OtherNetwork {
                ticket: ticket.network,
                ours: self.network_id(),
            });
        }
        let addresses = resolve(&ticket.endpoints).await?;
        let mut config = PeerConfig::new(id);
        config.endpoints = addresses.iter().copied().map(Endpoint::Address).collect();
        config.proof = proof;
        match self.add_peer(config) {
            Ok(_) => {}
            Err(AddPeerError::Exists) => {
                // It may have come in as a stranger: from now on it is one of ours.
                self.with_peer(&id, |state, now, key| {
                    state.engine.set_candidates(key, &addresses);
                    if state.is_stranger(now, &id) && state.engine.keep_peer(key) {
                        state.save_pin_of(now, id);
                    }
                });
            }
            Err(error) => return Err(ConnectError::Peer(error)),
        }
        Ok(id)
    }
}

/// What is shown to the peer from now on.
fn show_proof(state: &mut State, now: Now, key: PeerKey, proof: Option<Vec<u8>>) {
    let mut settings = state.engine.peer_settings(key).unwrap_or_default();
    if settings.proof != proof {
        settings.proof = proof;
        state.engine.set_peer_settings(now, key, settings);
    }
}

/// Starts a handshake beside a session that is older than the attempt, which had no answer on it.
fn doubt_session(tunnel: &Tunnel, peer: &NodeId, attempt: Duration) {
    tunnel.with(|state, now| {
        let Some(key) = state.engine.peer_by_id(peer) else {
            return;
        };
        let age = state
            .engine
            .status(now, key)
            .and_then(|status| status.session_age);
        if age.is_some_and(|age| age >= attempt) {
            state.engine.rekey(now, key);
        }
    });
}
