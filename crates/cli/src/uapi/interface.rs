//! The interface of `wiremesh wg`: what `wg` set, and the node that carries it out.
//!
//! Owns the node: there is one as soon as there is a private key, made anew when that changes. The
//! interface itself stays. What the node is told is what the [`Table`] holds.

use super::emit::{Shown, ShownPeer};
use super::parse::{Change, PeerChange};
use super::table::{Effect, PEERS_MAX, Settings, Table};
use super::{Configure, Errno, PublicKey, Refused};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use wiremesh::{AddPeerError, BindError, Device, IpNet, Node, NodeId, PeerConfig, SecretKey};

/// Peers that are handled before other tasks have a turn: each costs a curve operation.
const PEERS_PER_TURN: usize = 32;

/// The smallest MTU that a node starts with; the interface's may be smaller, and is used then.
const MTU_MIN: u16 = 1280;

/// The MTU that is assumed where the interface cannot be asked.
const MTU_DEFAULT: u16 = 1420;

/// An interface that `wg` configures.
#[derive(Debug)]
pub struct Interface {
    device: Device,
    private_key: Option<SecretKey>,
    port: u16,
    mark: u32,
    table: Table,
    node: Option<Node>,
}

impl Interface {
    /// An interface without a key and without peers.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            private_key: None,
            port: 0,
            mark: 0,
            table: Table::default(),
            node: None,
        }
    }

    /// Tells the node what the MTU is now; whether the interface is there still.
    pub fn follow(&self) -> bool {
        // In another network namespace it cannot be asked, and keeps what was known.
        if let (Some(node), Ok(mtu_bytes)) = (&self.node, self.device.mtu()) {
            node.set_device_mtu(mtu_bytes);
        }
        self.device.is_there()
    }

    /// Ends the node.
    pub async fn close(&mut self) {
        let Some(node) = self.node.take() else { return };
        // Where peers are by now, for the next node.
        for peer in node.status().peers {
            if let Some(settings) = self.table.of_mut(peer.node_id.into()) {
                settings.endpoint = peer.endpoint.or(settings.endpoint);
            }
        }
        node.close().await;
    }

    fn set_mark(&mut self, mark: u32) -> Result<(), Refused> {
        if let Some(node) = &self.node {
            node.set_mark(mark).map_err(|error| mark_refused(&error))?;
        }
        self.mark = mark;
        Ok(())
    }

    fn set_port(&mut self, port: u16) -> Result<(), Refused> {
        if let Some(node) = &self.node
            && port_of(node) != port
        {
            node.listen_on(port).map_err(|error| bind_refused(&error))?;
        }
        self.port = port;
        Ok(())
    }

    /// All zero takes the key away, and with it the node.
    async fn set_key(&mut self, key: SecretKey) {
        if self.private_key.as_ref() == Some(&key) {
            return;
        }
        self.close().await;
        self.private_key = Some(key).filter(|key| *key != SecretKey::from_bytes([0; 32]));
    }

    /// Our own key, which is never a peer's.
    fn own(&self) -> Option<PublicKey> {
        let id = wiremesh::node_id(self.private_key.as_ref()?).ok()?;
        Some(id.into())
    }

    fn change_peer(&mut self, change: &PeerChange) -> Result<(), Refused> {
        let effect = self.table.apply(change)?;
        let (Some(node), Some(id)) = (&self.node, id_of(change.public_key)) else {
            return Ok(());
        };
        match (effect, self.table.of(change.public_key)) {
            (Effect::Removed, _) => {
                node.remove_peer(id);
            }
            (Effect::Added, Some(settings)) => add(node, id, settings)?,
            (Effect::Changed, Some(settings)) => update(node, id, change, settings)?,
            _ => {}
        }
        Ok(())
    }

    /// Starts a node with everything that is set.
    async fn start(&mut self, key: SecretKey) -> Result<(), Refused> {
        let device = self.device.try_clone();
        let device = device.map_err(|error| Refused::new(Errno::Invalid, error))?;
        let mtu_bytes = self.device.mtu().unwrap_or(MTU_DEFAULT);
        let builder = Node::builder()
            .secret_key(key)
            .port(self.port)
            .mtu(mtu_bytes.max(MTU_MIN))
            .peers_max(PEERS_MAX as u32)
            .device(device)
            .plain_wireguard();
        let node = builder.bind().await.map_err(|error| bind_refused(&error))?;
        node.set_device_mtu(mtu_bytes);
        if self.mark != 0 {
            node.set_mark(self.mark)
                .map_err(|error| mark_refused(&error))?;
        }
        for (index, (key, settings)) in self.table.iter().enumerate() {
            if let Some(id) = id_of(key) {
                add(&node, id, settings)?;
            }
            if index % PEERS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        tracing::info!(key = %node.id(), port = port_of(&node), "the interface works");
        self.node = Some(node);
        Ok(())
    }
}

impl Configure for Interface {
    async fn set(&mut self, change: Change) -> Result<(), Refused> {
        if let Some(mark) = change.fwmark {
            self.set_mark(mark)?;
        }
        if let Some(key) = change.private_key {
            self.set_key(key).await;
        }
        if let Some(port) = change.listen_port {
            self.set_port(port)?;
        }
        if change.replace_peers {
            for key in self.table.clear() {
                if let (Some(node), Some(id)) = (&self.node, id_of(key)) {
                    node.remove_peer(id);
                }
            }
        }
        let own = self.own();
        if let Some(own) = own {
            self.table.remove(own);
        }
        for (index, peer) in change.peers.iter().enumerate() {
            if Some(peer.public_key) != own {
                self.change_peer(peer)?;
            }
            if index % PEERS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        match (&self.node, self.private_key.clone()) {
            (None, Some(key)) => self.start(key).await,
            _ => Ok(()),
        }
    }

    fn show(&self) -> Shown {
        let status = self.node.as_ref().map(Node::status);
        let peers = status.iter().flat_map(|status| &status.peers);
        let live: HashMap<PublicKey, _> = peers
            .map(|peer| (PublicKey::from(peer.node_id), peer))
            .collect();
        let peers = self.table.iter().map(|(key, settings)| {
            let live = live.get(&key);
            ShownPeer {
                public_key: key,
                preshared_key: settings.preshared_key.clone(),
                endpoint: live.and_then(|peer| peer.endpoint).or(settings.endpoint),
                last_handshake: live.and_then(|peer| peer.last_handshake),
                tx_bytes: live.map_or(0, |peer| peer.tx_bytes),
                rx_bytes: live.map_or(0, |peer| peer.rx_bytes),
                keepalive: settings.keepalive,
                allowed_ips: settings.allowed_ips.iter().copied().collect(),
            }
        });
        Shown {
            private_key: self.private_key.clone(),
            listen_port: self.node.as_ref().map_or(self.port, port_of),
            fwmark: self.mark,
            peers: peers.collect(),
        }
    }
}

/// The port on which a node listens.
pub(super) fn port_of(node: &Node) -> u16 {
    let addresses = node.listen_addresses();
    addresses.first().map_or(0, |address| address.port())
}

/// Seconds, as they are set.
pub(super) fn keepalive(seconds: u16) -> Option<Duration> {
    (seconds != 0).then(|| Duration::from_secs(seconds.into()))
}

pub(super) fn mark_refused(error: &io::Error) -> Refused {
    let why = format!("datagrams cannot be marked ({error}): that needs CAP_NET_ADMIN");
    Refused::new(Errno::NotPermitted, why)
}

pub(super) fn bind_refused(error: &BindError) -> Refused {
    let errno = match error {
        BindError::Sockets(_) => Errno::InUse,
        _ => Errno::Invalid,
    };
    Refused::new(errno, error)
}

pub(super) fn add_refused(error: &AddPeerError) -> Refused {
    let errno = match error {
        AddPeerError::TooManyPeers => Errno::NoSpace,
        AddPeerError::Overlap { .. } => Errno::InUse,
        _ => Errno::Invalid,
    };
    Refused::new(errno, error)
}

/// `None` for bytes that are no node's key: such a peer is kept and shown, as other programs do,
/// and nothing can come from it or reach it.
fn id_of(key: PublicKey) -> Option<NodeId> {
    NodeId::from_bytes(&key.0).ok()
}

fn add(node: &Node, id: NodeId, settings: &Settings) -> Result<(), Refused> {
    let config = PeerConfig {
        endpoints: settings.endpoint.map(Into::into).into_iter().collect(),
        preshared_key: settings.preshared_key.clone(),
        allowed_ips: settings.allowed_ips.iter().copied().collect(),
        persistent_keepalive: keepalive(settings.keepalive),
        stock: true,
        ..PeerConfig::new(id)
    };
    let added = node.add_peer(config);
    added.map(drop).map_err(|error| add_refused(&error))
}

/// Tells the node what was set of a peer that it has.
fn update(
    node: &Node,
    id: NodeId,
    change: &PeerChange,
    settings: &Settings,
) -> Result<(), Refused> {
    let Some(peer) = node.peer(id) else {
        return add(node, id, settings);
    };
    if change.preshared_key.is_some() {
        peer.set_preshared_key(settings.preshared_key.clone(), 0);
    }
    if let Some(endpoint) = change.endpoint {
        peer.replace_endpoint(endpoint);
    }
    if let Some(seconds) = change.keepalive {
        peer.set_persistent_keepalive(keepalive(seconds));
    }
    if change.replace_allowed_ips || !change.allowed_ips.is_empty() {
        let allowed_ips: Vec<IpNet> = settings.allowed_ips.iter().copied().collect();
        peer.set_allowed_ips(&allowed_ips)
            .map_err(|error| add_refused(&error))?;
    }
    Ok(())
}
