//! Who may come in unasked.
//!
//! Owns the question that the application is asked. A request that is dropped without an answer
//! is a refusal; a refused node gets silence and leaves no state.

use crate::status::Refusal;
use crate::tunnel::Tunnel;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use wiremesh_wire::NodeId;

/// The application's callback.
pub(crate) type Decide = Arc<dyn Fn(AdmissionRequest) + Send + Sync>;

/// Who may open a tunnel to this node without having been added as a peer.
#[derive(Clone, Default)]
pub enum Admission {
    /// Only peers that were added, or to which this node connects. The default.
    #[default]
    AllowList,
    /// Every node, at most this many strangers at a time.
    AllowAll {
        /// Strangers at a time; a further one gets no answer.
        provisional_max: u32,
    },
    /// The application decides; make it with [`Admission::ask`].
    Ask(AskFn),
}

/// The callback of [`Admission::Ask`].
#[derive(Clone)]
pub struct AskFn(pub(crate) Decide);

impl Admission {
    /// Calls `decide` for each stranger, with its key authenticated.
    ///
    /// `decide` runs in a task of its own and must not block it; it may keep the request and answer
    /// from anywhere within 10 s. At most 256 questions are open at a time.
    pub fn ask(decide: impl Fn(AdmissionRequest) + Send + Sync + 'static) -> Self {
        Self::Ask(AskFn(Arc::new(decide)))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowList => f.write_str("AllowList"),
            Self::AllowAll { provisional_max } => write!(f, "AllowAll({provisional_max})"),
            Self::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

/// A stranger at the door.
pub struct AdmissionRequest {
    tunnel: Weak<Tunnel>,
    node_id: NodeId,
    source: SocketAddr,
    answered: bool,
}

impl AdmissionRequest {
    pub(crate) fn new(tunnel: Weak<Tunnel>, node_id: NodeId, source: SocketAddr) -> Self {
        Self {
            tunnel,
            node_id,
            source,
            answered: false,
        }
    }

    /// Its key.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Where it asks from.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Lets it in as a peer, and answers its handshake if no more than 10 s have passed.
    pub fn admit(mut self) {
        self.answered = true;
        let Some(tunnel) = self.tunnel.upgrade() else {
            return;
        };
        let config = wiremesh_core::PeerConfig::new(self.node_id);
        if let Err(error) = tunnel.with(|state, now| state.engine.admit(now, config)) {
            tracing::warn!(?error, "an admitted node could not be added");
        }
    }

    /// Turns it away. The same as dropping the request.
    pub fn refuse(self) {}
}

impl Drop for AdmissionRequest {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let Some(tunnel) = self.tunnel.upgrade() else {
            return;
        };
        tunnel.with(|state, _| {
            state.engine.refuse(&self.node_id);
            state.refusals.add(Refusal {
                node_id: self.node_id,
                source: self.source,
                time: SystemTime::now(),
                reason: "the application refused it",
            });
        });
    }
}
