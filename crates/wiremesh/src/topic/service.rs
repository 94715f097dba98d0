//! What all topics of a node share: who is connected for them, and who is let in.
//!
//! Owns the connections of the protocol, of which the application never hears, and the peers that
//! were learned from other nodes. Only peers of the node take part: a contact that is none becomes
//! one only where the node's admission lets every stranger in.

use super::contact;
use super::link::{Link, code, serve};
use super::running::Running;
use super::{Handle, PROTOCOL, TopicError};
use crate::accept::Accepted;
use crate::budget::Budget;
use crate::connection::Linked;
use crate::node::Node;
use crate::peer::PeerConfig;
use crate::port::lock;
use crate::target::reachable;
use crate::tunnel::Tunnel;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wiremesh_gossip::{Config, Contact, TopicId};
use wiremesh_wire::{Endpoint, Instant, NetworkId, NodeId};

/// Topics that a node may be in at a time.
pub(super) const TOPICS_MAX: usize = 30;
/// Connections for topics at a time.
const LINKS_MAX: usize = 512;
/// Unread bytes that a connection for topics may have, out of the node's budget.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// How long a peer that broke the rules is not let in again.
const SHUNNED_FOR: Duration = Duration::from_secs(30);
/// Peers that are remembered for it.
const SHUNNED_MAX: usize = 256;

/// What was refused; only grows.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(super) streams_refused: AtomicU64,
    pub(super) unknown_topics: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) links_refused: AtomicU64,
    pub(super) not_admitted: AtomicU64,
}

impl Refused {
    /// For status.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("topic-streams-refused", &self.streams_refused),
            ("topic-unknown", &self.unknown_topics),
            ("topic-stream-malformed", &self.malformed),
            ("topic-connections-refused", &self.links_refused),
            ("topic-contacts-not-admitted", &self.not_admitted),
        ]
        .map(|(reason, count)| (reason, count.load(Relaxed)))
    }
}

/// See the module.
pub(crate) struct Service {
    pub(super) tunnel: Arc<Tunnel>,
    endpoint: quinn::Endpoint,
    budget: Arc<Budget>,
    protocols: Vec<String>,
    /// Most peers that may be learned from other nodes.
    learned_max: usize,
    config: Config,
    /// Random at first: tells this run of the node from the one before. A topic that has let go of
    /// a link is told from itself before by the next number.
    instance: AtomicU64,
    pub(crate) counters: Refused,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether peers may connect for topics: once there has been one.
    open: bool,
    closed: bool,
    topics: BTreeMap<TopicId, Arc<Running>>,
    links: BTreeMap<NodeId, Vec<Arc<Link>>>,
    next_link: u64,
    /// Nodes that are being connected to, and the topics that wait.
    dialing: BTreeMap<NodeId, Vec<Arc<Running>>>,
    learned: VecDeque<NodeId>,
    shunned: BTreeMap<NodeId, Instant>,
}

/// What a [`Service`] is made from.
pub(crate) struct ServiceParts {
    pub(crate) tunnel: Arc<Tunnel>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) budget: Arc<Budget>,
    pub(crate) protocols: Vec<String>,
    pub(crate) learned_max: u32,
    pub(crate) config: Config,
    pub(crate) instance: u64,
}

impl Service {
    pub(crate) fn new(parts: ServiceParts) -> Self {
        Self {
            tunnel: parts.tunnel,
            endpoint: parts.endpoint,
            budget: parts.budget,
            protocols: parts.protocols,
            learned_max: usize::try_from(parts.learned_max).unwrap_or(usize::MAX),
            config: parts.config,
            instance: AtomicU64::new(parts.instance),
            counters: Refused::default(),
            shared: Mutex::default(),
        }
    }

    /// The topic of that name; joins it if the node is not in it.
    pub(super) fn topic(
        self: &Arc<Self>,
        node: &Node,
        name: &str,
        network: &NetworkId,
    ) -> Result<Arc<Handle>, TopicError> {
        let id = TopicId::new(network, name);
        let seed = self.tunnel.host.entropy().map_err(TopicError::System)?;
        // The last handle of a topic must not go while this is locked.
        let node = node.clone();
        let mut shared = lock(&self.shared);
        if shared.closed {
            return Err(TopicError::Closed);
        }
        let known = shared.topics.get(&id).cloned();
        if known.is_none() && shared.topics.len() >= TOPICS_MAX {
            return Err(TopicError::TooMany(TOPICS_MAX));
        }
        if !shared.open {
            self.open(&node)?;
            shared.open = true;
        }
        let running = known.unwrap_or_else(|| {
            let config = self.config.clone();
            let running = Arc::new(Running::new(self, name, id, config, seed));
            shared.topics.insert(id, Arc::clone(&running));
            self.tunnel.runtime.spawn(Arc::clone(&running).drive());
            running
        });
        let fresh = || Handle {
            node,
            running: Arc::clone(&running),
        };
        running.handle(fresh).ok_or(TopicError::Closed)
    }

    /// Lets peers connect for topics from now on.
    fn open(&self, node: &Node) -> Result<(), TopicError> {
        let own = self.protocols.iter().map(String::as_str);
        let all: Vec<&str> = own.chain([PROTOCOL]).collect();
        let server = node.provider().server_config(&all);
        let server = server.map_err(TopicError::Protocols)?;
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// Ends a topic that nobody uses; false if somebody does again.
    pub(super) fn end_topic(&self, topic: &Running) -> bool {
        let mut shared = lock(&self.shared);
        let unused = !topic.is_held();
        if unused {
            // Before there can be another one of the same name.
            topic.end();
            shared.topics.remove(&topic.id);
        }
        unused
    }

    pub(super) fn running(&self, id: &TopicId) -> Option<Arc<Running>> {
        lock(&self.shared).topics.get(id).cloned()
    }

    pub(crate) fn topics(&self) -> Vec<Arc<Running>> {
        lock(&self.shared).topics.values().cloned().collect()
    }

    /// The node is closed: everything ends.
    pub(crate) fn close(&self) {
        let mut shared = lock(&self.shared);
        shared.closed = true;
        let topics = std::mem::take(&mut shared.topics);
        drop(shared);
        topics.values().for_each(|topic| topic.end());
    }

    /// Streams that a peer may have open on a link.
    pub(super) fn streams_max(&self) -> usize {
        // Twice what it needs: the end of one may come after the begin of the next.
        let topics = lock(&self.shared).topics.len();
        topics * 6 + 4
    }

    /// A peer has connected for topics.
    pub(crate) fn accepted(self: &Arc<Self>, accepted: Accepted) {
        let Accepted {
            linked,
            peer,
            permit,
            ..
        } = accepted;
        if self.is_shunned(&peer) || lock(&self.shared).topics.is_empty() {
            self.counters.links_refused.fetch_add(1, Relaxed);
            return linked
                .quinn
                .close(code::BUSY.into(), b"no topics for you here");
        }
        if let Some(link) = self.add_link(linked, peer, false) {
            let service = Arc::clone(self);
            self.tunnel.runtime.spawn(async move {
                serve(service, link).await;
                drop(permit);
            });
        }
    }

    fn add_link(&self, linked: Linked, peer: NodeId, outgoing: bool) -> Option<Arc<Link>> {
        let key = self
            .tunnel
            .peek(|state, _| state.engine.peer_by_id(&peer))?;
        let mut shared = lock(&self.shared);
        let full = shared.links.values().map(Vec::len).sum::<usize>() >= LINKS_MAX;
        if shared.closed || full {
            drop(shared);
            self.counters.links_refused.fetch_add(1, Relaxed);
            linked
                .quinn
                .close(code::BUSY.into(), b"busy: too many connections for topics");
            return None;
        }
        self.budget.grant_up_to(&linked.quinn, WINDOW_BYTES);
        let id = shared.next_link;
        shared.next_link += 1;
        let own = self.instance.load(Relaxed);
        let link = Arc::new(Link::new(id, (peer, key), outgoing, own, linked));
        let links = shared.links.entry(peer).or_default();
        // One each way, as both may connect at once. Whoever connects again has lost the other.
        for old in links.iter().filter(|old| old.outgoing == outgoing) {
            old.connection.close(code::REPLACED.into(), b"replaced");
        }
        links.push(Arc::clone(&link));
        Some(link)
    }

    /// A link's task has ended.
    pub(super) fn remove_link(&self, link: &Arc<Link>) {
        let mut shared = lock(&self.shared);
        let mut other = None;
        if let Some(links) = shared.links.get_mut(&link.peer) {
            links.retain(|known| known.id != link.id);
            other = links.last().cloned();
            if links.is_empty() {
                shared.links.remove(&link.peer);
            }
        }
        drop(shared);
        for topic in self.topics() {
            topic.lose(link, other.as_ref());
        }
    }

    /// The peer's run is known now: links of an earlier one lead nowhere.
    pub(super) fn note_instance(&self, link: &Arc<Link>, instance: u64) {
        *lock(&link.instance) = Some(instance);
        let shared = lock(&self.shared);
        let links = shared.links.get(&link.peer).into_iter().flatten();
        let earlier = |old: &&Arc<Link>| {
            old.id < link.id && lock(&old.instance).is_some_and(|known| known != instance)
        };
        let earlier: Vec<Arc<Link>> = links.filter(earlier).cloned().collect();
        drop(shared);
        for old in earlier {
            old.connection.close(code::REPLACED.into(), b"replaced");
            // At once: what is answered must not go the old way.
            for topic in self.topics() {
                topic.lose(&old, Some(link));
            }
        }
    }

    /// A topic has no use for a link any more, and never again.
    pub(super) fn detach(&self, link: &Link, topic: TopicId) {
        self.instance.fetch_add(1, Relaxed);
        link.detach(topic);
    }

    pub(super) fn uses(&self, link: &Link) -> bool {
        self.topics().iter().any(|topic| topic.is_on(link))
    }

    /// Does not let a peer in for a while.
    pub(super) fn shun(&self, peer: NodeId) {
        let now = self.tunnel.host.now().instant;
        let mut shared = lock(&self.shared);
        shared.shunned.retain(|_, until| *until > now);
        if shared.shunned.len() < SHUNNED_MAX {
            shared.shunned.insert(peer, now + SHUNNED_FOR);
        }
    }

    fn is_shunned(&self, peer: &NodeId) -> bool {
        let now = self.tunnel.host.now().instant;
        let shared = lock(&self.shared);
        shared.shunned.get(peer).is_some_and(|until| *until > now)
    }

    /// Gets a topic its link to a contact, over a connection that is there or a new one.
    pub(super) async fn link_for(self: &Arc<Self>, topic: &Arc<Running>, contact: Contact) {
        let peer = contact.node;
        let known = {
            let mut shared = lock(&self.shared);
            let known = shared.links.get(&peer).into_iter().flatten();
            let mut known = known.filter(|link| link.is_good_for(&topic.id));
            let known = known.next_back().cloned();
            if known.is_none() {
                let waiting = shared.dialing.entry(peer).or_default();
                waiting.push(Arc::clone(topic));
                if waiting.len() > 1 {
                    return;
                }
            }
            known
        };
        let link = match known {
            Some(link) => return topic.attach(&link),
            None => self.dial(topic, &contact).await,
        };
        let waiting = lock(&self.shared).dialing.remove(&peer);
        for topic in waiting.unwrap_or_default() {
            match &link {
                Some(link) => topic.attach(link),
                None => topic.no_link(peer),
            }
        }
    }

    async fn dial(self: &Arc<Self>, topic: &Arc<Running>, contact: &Contact) -> Option<Arc<Link>> {
        let peer = contact.node;
        if self.is_shunned(&peer) {
            return None;
        }
        let handle = topic.held()?;
        let node = handle.node.clone();
        drop(handle);
        if !self.may_dial(&node, contact) {
            self.counters.not_admitted.fetch_add(1, Relaxed);
            return None;
        }
        let connected = tokio::select! {
            connected = node.connect(peer, PROTOCOL) => connected,
            () = topic.unheld() => return None,
        };
        match connected {
            Ok(connection) => {
                let link = self.add_link(connection.linked().clone(), peer, true)?;
                self.tunnel
                    .runtime
                    .spawn(serve(Arc::clone(self), Arc::clone(&link)));
                Some(link)
            }
            Err(error) => {
                tracing::debug!(%peer, %error, topic = topic.name, "no connection for a topic");
                None
            }
        }
    }

    /// Whether a contact is a peer, or becomes one: where strangers are let in anyway.
    fn may_dial(&self, node: &Node, contact: &Contact) -> bool {
        let own = self.tunnel.plane.listen_addresses();
        let on_loopback = own.iter().any(|address| address.ip().is_loopback());
        let addresses = contact::parse(&contact.addresses, on_loopback);
        let peer = contact.node;
        if let Some(status) = node.peer_status(&peer) {
            // What others say of it is only good where nothing better is known.
            if status.endpoint.is_none() && !addresses.is_empty() {
                node.with_peer(&peer, |state, _, key| {
                    state.engine.set_candidates(key, &addresses)
                });
            }
            return true;
        }
        if addresses.is_empty() || !self.make_room_to_learn(node) {
            return false;
        }
        let mut config = PeerConfig::new(peer);
        config.endpoints = addresses.into_iter().map(Endpoint::Address).collect();
        let added = node.add_peer(config).is_ok();
        if added {
            lock(&self.shared).learned.push_back(peer);
        }
        added
    }

    /// Forgets the oldest learned peer without a link if there are too many.
    fn make_room_to_learn(&self, node: &Node) -> bool {
        let mut shared = lock(&self.shared);
        let Shared { learned, links, .. } = &mut *shared;
        if learned.len() < self.learned_max {
            return true;
        }
        let unused = learned.iter().position(|peer| !links.contains_key(peer));
        let oldest = unused.and_then(|place| learned.remove(place));
        drop(shared);
        oldest.is_some_and(|oldest| node.remove_peer(oldest))
    }

    /// The application names a peer itself: it stays.
    pub(crate) fn keep(&self, peer: &NodeId) {
        lock(&self.shared).learned.retain(|known| known != peer);
    }

    /// Where other nodes reach this one.
    pub(super) fn own_addresses(&self) -> Vec<SocketAddr> {
        reachable(&self.tunnel.plane.listen_addresses())
    }

    /// Some peers that may be in a topic, by chance if there are many.
    pub(super) fn peers_to_join_by(&self, count: usize) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = self.tunnel.peek(|state, _| {
            let keys = state.engine.peers().into_iter();
            let ids = keys.filter_map(|key| state.engine.node_id_of(key));
            ids.filter(|id| state.names.speaks_streams(id)).collect()
        });
        peers.sort_unstable();
        while peers.len() > count {
            let Ok(chance) = self.tunnel.host.entropy() else {
                break;
            };
            // Each draw gives eight places; the last ones take those that were drawn.
            for word in chance.chunks_exact(4).take(peers.len() - count) {
                let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
                let place = word as usize % peers.len();
                peers.swap_remove(place);
            }
        }
        peers.sort_unstable();
        peers
    }
}
