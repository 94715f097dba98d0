//! How the traffic with a peer is protected, and waiting until it is protected as demanded.
//!
//! Owns nothing that decides: the engine's gate lets application data pass or not. What is here
//! raises the gate, looks at it, and remembers since when it was reached.

use crate::connection::Connection;
use crate::node::Node;
use crate::peer::Peer;
use crate::status::Refusal;
use crate::tunnel::{State, Tunnel};
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use wiremesh_control::{Level, SuiteId, WaitReason};
use wiremesh_core::{PeerKey, PeerSecurity};
use wiremesh_wire::{NodeId, Now};

/// How often somebody who waits looks by itself: a refusal alone wakes nobody.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(100);

/// What protects the traffic with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Security {
    /// What the session in use is made from; `None` while there is none.
    pub suite: Option<SuiteId>,
    /// The level of the session in use; while there is none, the one that it must have. No
    /// application data travels below it, in either direction.
    pub level: Level,
    /// Epoch of the preshared key that made the session in use: it rises with each rotation. 0 is
    /// the configured key, or none.
    pub psk_epoch: u32,
    /// Since when the level is reached, without a break.
    pub since: Option<SystemTime>,
    /// The level that application data needs now.
    pub required: Level,
}

/// Why a level was not reached. It stays demanded: no application data flows below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecurityError {
    /// There is no such peer.
    UnknownPeer(NodeId),
    /// The operator named the peer as stock WireGuard, which is L1. Nothing was changed.
    StockPeer(NodeId),
    /// This node's own policy offers nothing as good. Nothing was changed.
    NotOffered {
        /// What was demanded.
        wanted: Level,
        /// The best that the policy offers.
        best: Level,
    },
    /// One of the two nodes says no.
    Refused(WaitReason),
    /// It was not reached in time.
    Timeout {
        /// What it waits for; `None` when the peer does not answer at all.
        reason: Option<WaitReason>,
        /// For how long it was tried.
        waited: Duration,
    },
    /// The node was closed.
    Closed,
}

impl fmt::Display for SecurityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPeer(id) => write!(f, "{id} is no peer of this node"),
            Self::StockPeer(id) => {
                write!(
                    f,
                    "{id} is marked as stock WireGuard, which reaches L1 only"
                )
            }
            Self::NotOffered { wanted, best } => write!(
                f,
                "this node's own policy offers {best} at best, {wanted} is demanded: change the \
                 policy"
            ),
            Self::Refused(reason) => write!(f, "the level is not reached: {reason}"),
            Self::Timeout {
                reason: Some(reason),
                waited,
            } => write!(
                f,
                "the level is not reached after {} s: {reason}",
                waited.as_secs()
            ),
            Self::Timeout {
                reason: None,
                waited,
            } => write!(f, "the peer does not answer for {} s", waited.as_secs()),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for SecurityError {}

/// Since when each peer has what it has now.
#[derive(Default)]
pub(crate) struct Reached(HashMap<NodeId, (SuiteId, SystemTime)>);

impl Reached {
    pub(crate) fn since(&self, id: &NodeId) -> Option<SystemTime> {
        self.0.get(id).map(|(_, since)| *since)
    }

    pub(crate) fn forget(&mut self, id: &NodeId) {
        self.0.remove(id);
    }

    fn note(&mut self, id: NodeId, suite: Option<SuiteId>) {
        match suite {
            Some(suite) if self.0.get(&id).is_none_or(|(known, _)| *known != suite) => {
                self.0.insert(id, (suite, SystemTime::now()));
            }
            Some(_) => {}
            None => self.forget(&id),
        }
    }
}

pub(crate) fn wall_time(unix_secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_secs)
}

/// The level at which application data travels; `None` while it cannot.
pub(crate) fn open_level(security: &PeerSecurity) -> Option<Level> {
    security
        .level
        .filter(|level| Some(*level) >= security.required)
}

/// Whether waiting longer makes no sense: a policy of one of the two would have to change.
fn is_refusal(reason: &WaitReason) -> bool {
    match reason {
        WaitReason::Exchanging | WaitReason::NoControlAnswer => false,
        // STALE_RECORD and BUSY mend themselves.
        WaitReason::PeerRefused { code, .. } => !matches!(code, 3 | 4),
        _ => true,
    }
}

impl Tunnel {
    /// Notes what changed about a peer, and wakes those who wait for it.
    pub(crate) fn on_security_changed(&self, state: &mut State, now: Now, peer: PeerKey) {
        let known = state.engine.node_id_of(peer);
        if let (Some(id), Some(security)) = (known, state.engine.security(now, peer)) {
            let open = open_level(&security);
            state
                .reached
                .note(id, security.suite.filter(|_| open.is_some()));
            if open.is_some() {
                self.repeat_last_words(state, now, peer);
            }
            note_refusal(state, now, (id, peer), &security);
        }
        self.security_changed.notify_waiters();
    }
}

/// A stranger with which no level is reached is gone soon, and its status with it: what remains is
/// a refusal.
fn note_refusal(state: &mut State, now: Now, (id, key): (NodeId, PeerKey), peer: &PeerSecurity) {
    let Some((reason, _)) = peer.waiting.filter(|(reason, _)| is_refusal(reason)) else {
        return;
    };
    // What the application refused is noted with its own words.
    let asked = matches!(reason, WaitReason::NotAdmitted);
    if asked || !state.is_stranger(now, &id) {
        return;
    }
    if let Some(path) = state.engine.path_of(key) {
        state.refusals.add(Refusal {
            node_id: id,
            source: path.remote,
            time: SystemTime::now(),
            reason: reason.to_string(),
        });
    }
}

/// What one look at a peer gives to somebody who demands a level.
enum Look {
    Reached(Security),
    Waiting(Option<WaitReason>),
    Failed(SecurityError),
}

impl Node {
    /// Demands a level of a peer, and waits until its traffic has it: handshakes and agrees with
    /// the peer as far as needed. From now on, whatever comes of it, no application data of this
    /// peer flows below that level; [`Peer::set_minimum`] takes it back.
    ///
    /// # Errors
    ///
    /// [`SecurityError`], after [`crate::NodeBuilder::connect_timeout`] at the latest.
    pub async fn require(&self, id: NodeId, level: Level) -> Result<Security, SecurityError> {
        let before = self.demand(id, level)?;
        let waited = self.connect_timeout();
        let began = Instant::now();
        loop {
            // Registered before looking, so that nothing is missed in between.
            let changed = self.tunnel().security_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let reason = match self.look(&id, level) {
                Look::Reached(security) => return Ok(security),
                Look::Failed(error) => return Err(error),
                // A refusal from before says nothing about the level demanded now.
                Look::Waiting(Some(reason)) if is_refusal(&reason) && before != Some(reason) => {
                    return Err(SecurityError::Refused(reason));
                }
                Look::Waiting(now) => now,
            };
            let left = waited.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(SecurityError::Timeout { reason, waited });
            }
            // Either is a reason to look again.
            let _ = tokio::time::timeout(left.min(LOOKED_AT_EVERY), changed).await;
        }
    }

    /// Waits until application data flows with a peer; `false` if it does not in time.
    pub(crate) async fn opens_within(&self, id: &NodeId, patience: Duration) -> bool {
        let opened = async {
            loop {
                let changed = self.tunnel().security_changed.notified();
                let look = self.look(id, Level::Classical);
                match look {
                    Look::Reached(_) => return true,
                    Look::Failed(_) => return false,
                    Look::Waiting(_) => {
                        let _ = tokio::time::timeout(LOOKED_AT_EVERY, changed).await;
                    }
                }
            }
        };
        tokio::time::timeout(patience, opened).await == Ok(true)
    }

    /// Raises the peer's minimum for good and begins what is missing; gives what it waited for
    /// until now.
    fn demand(&self, id: NodeId, level: Level) -> Result<Option<WaitReason>, SecurityError> {
        let offered = self.policy().suites().ok();
        let best = offered.and_then(|suites| suites.best_level());
        let best = best.unwrap_or(Level::Classical);
        if best < level {
            let wanted = level;
            return Err(SecurityError::NotOffered { wanted, best });
        }
        let demanded = self.with_peer(&id, |state, now, key| {
            if state.names.is_stock(&id) && level > Level::Classical {
                return Err(SecurityError::StockPeer(id));
            }
            let security = state.engine.security(now, key);
            let mut settings = state.engine.peer_settings(key).unwrap_or_default();
            if settings.minimum < Some(level) {
                settings.minimum = Some(level);
                state.engine.set_peer_settings(now, key, settings);
            }
            state.engine.connect(now, key);
            let waiting = security.and_then(|security| security.waiting);
            Ok(waiting.map(|(reason, _)| reason))
        });
        demanded.unwrap_or(Err(SecurityError::UnknownPeer(id)))
    }

    fn look(&self, id: &NodeId, level: Level) -> Look {
        self.tunnel().peek(|state, now| {
            if state.closed {
                return Look::Failed(SecurityError::Closed);
            }
            let key = state.engine.peer_by_id(id);
            let Some(peer) = key.and_then(|key| state.engine.security(now, key)) else {
                return Look::Failed(SecurityError::UnknownPeer(*id));
            };
            match open_level(&peer) {
                Some(open) if open >= level => Look::Reached(security_of(state, id, &peer)),
                _ => Look::Waiting(peer.waiting.map(|(reason, _)| reason)),
            }
        })
    }

    pub(crate) fn security_of(&self, id: &NodeId) -> Option<Security> {
        self.tunnel().peek(|state, now| {
            let key = state.engine.peer_by_id(id)?;
            let peer = state.engine.security(now, key)?;
            Some(security_of(state, id, &peer))
        })
    }
}

fn security_of(state: &State, id: &NodeId, peer: &PeerSecurity) -> Security {
    let required = peer.required.unwrap_or(Level::PostQuantum);
    let open = open_level(peer);
    Security {
        suite: peer.suite.filter(|_| open.is_some()),
        level: open.unwrap_or(required),
        psk_epoch: peer.psk_epoch.unwrap_or(0),
        since: state.reached.since(id),
        required,
    }
}

impl Peer {
    /// As [`Node::require`], for this peer.
    ///
    /// # Errors
    ///
    /// As [`Node::require`].
    pub async fn require(&self, level: Level) -> Result<Security, SecurityError> {
        self.node().require(self.node_id(), level).await
    }

    /// What protects the traffic with it now; `None` once the peer was removed.
    pub fn security(&self) -> Option<Security> {
        self.node().security_of(&self.node_id())
    }

    /// Sets or ends the level that this peer must reach when it is above the node's minimum.
    pub fn set_minimum(&self, minimum: Option<Level>) {
        self.node().with_peer(&self.node_id(), |state, now, key| {
            let mut settings = state.engine.peer_settings(key).unwrap_or_default();
            settings.minimum = minimum;
            state.engine.set_peer_settings(now, key, settings)
        });
    }
}

impl Connection {
    /// What protects it now.
    pub fn security(&self) -> Security {
        let security = self.node().security_of(&self.peer());
        security.unwrap_or(Security {
            // The peer was removed: nothing travels.
            suite: None,
            level: Level::Classical,
            psk_epoch: 0,
            since: None,
            required: Level::Classical,
        })
    }

    /// As [`Node::require`], for the peer of this connection.
    ///
    /// # Errors
    ///
    /// As [`Node::require`].
    pub async fn require(&self, level: Level) -> Result<Security, SecurityError> {
        self.node().require(self.peer(), level).await
    }
}
