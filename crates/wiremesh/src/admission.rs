//! Who may come in unasked.
//!
//! Owns the question that the application is asked. A request that is dropped without an answer
//! is a refusal; a refused node leaves no state. It gets silence when it was asked for nothing but
//! its key, and is told so when it has shown a proof.

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
    /// The application decides by the key; make it with [`Admission::ask`].
    Ask(AskFn),
    /// The application decides by the key and a proof; make it with [`Admission::proof`].
    Proof(AskFn),
}

/// The callback of [`Admission::Ask`] and [`Admission::Proof`].
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

    /// Calls `decide` for each stranger that has shown its key and a proof: at most 4 KiB that mean
    /// something to the application, such as a password's hash or a signed invitation. The stranger
    /// gives it as [`crate::PeerConfig::proof`] or [`crate::Target::with_proof`].
    ///
    /// The stranger gets a session that carries the agreement on a suite and nothing else, and the
    /// proof travels inside it. `decide` runs in a task of its own and must not block it; it may
    /// keep the request and answer from anywhere within 30 s. At most 256 strangers stand there at
    /// a time; a further one gets no answer.
    pub fn proof(decide: impl Fn(AdmissionRequest) + Send + Sync + 'static) -> Self {
        Self::Proof(AskFn(Arc::new(decide)))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowList => f.write_str("AllowList"),
            Self::AllowAll { provisional_max } => write!(f, "AllowAll({provisional_max})"),
            Self::Ask(_) => f.write_str("Ask(..)"),
            Self::Proof(_) => f.write_str("Proof(..)"),
        }
    }
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) node_id: NodeId,
    pub(crate) source: SocketAddr,
    pub(crate) proof: Vec<u8>,
    pub(crate) under_load: bool,
}

/// A stranger at the door.
#[derive(Debug)]
pub struct AdmissionRequest {
    tunnel: Weak<Tunnel>,
    host: NodeId,
    stranger: Stranger,
    answered: bool,
}

impl AdmissionRequest {
    pub(crate) fn new(tunnel: &Tunnel, stranger: Stranger) -> Self {
        Self {
            tunnel: tunnel.me.clone(),
            host: tunnel.node_id,
            stranger,
            answered: false,
        }
    }

    /// Its key. The stranger has proven that it holds the secret.
    pub fn node_id(&self) -> NodeId {
        self.stranger.node_id
    }

    /// The node that is asked: ours.
    pub fn host(&self) -> NodeId {
        self.host
    }

    /// Where it asks from.
    pub fn source(&self) -> SocketAddr {
        self.stranger.source
    }

    /// The proof that it shows under [`Admission::Proof`]; empty if it shows none.
    pub fn proof(&self) -> &[u8] {
        &self.stranger.proof
    }

    /// Whether more handshakes come in than [`crate::NodeBuilder::handshakes_per_second_max`]: a
    /// reason to refuse whoever costs much to check.
    pub fn under_load(&self) -> bool {
        self.stranger.under_load
    }

    /// Lets it in as a peer, and answers it if no more than 10 s have passed, with a proof 30 s.
    pub fn admit(mut self) {
        self.answered = true;
        let Some(tunnel) = self.tunnel.upgrade() else {
            return;
        };
        let config = wiremesh_core::PeerConfig::new(self.stranger.node_id);
        let admitted = tunnel.with(|state, now| Some(state.engine.own()?.admit(now, config)));
        if let Some(Err(error)) = admitted {
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
        let Stranger {
            node_id, source, ..
        } = self.stranger;
        tunnel.with(|state, now| {
            if let Some(engine) = state.engine.own() {
                engine.refuse(now, &node_id);
            }
            state.refusals.add(Refusal {
                node_id,
                source,
                time: SystemTime::now(),
                reason: "the application refused it".into(),
            });
        });
    }
}
