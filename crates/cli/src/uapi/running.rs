//! A running node of `wiremesh up`, as `wg` sees and changes it.
//!
//! Owns what of it can be changed: the port, the mark, and peers. Its private key and the preshared
//! keys on which nodes agree by themselves cannot; that is refused, and the log says why.

use super::emit::{Shown, ShownPeer};
use super::interface::{add_refused, bind_refused, keepalive, mark_refused, port_of};
use super::parse::{Change, PeerChange};
use super::server::Server;
use super::{Configure, Errno, PublicKey, Refused};
use crate::config::Config;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use tokio::sync::Mutex;
use wiremesh::address::{control_address, overlay_address};
use wiremesh::{IpNet, Level, Mode, Node, NodeId, Peer, PeerConfig, PresharedKey, SecretKey};

/// A node that `wg` may change.
#[derive(Debug)]
pub struct Running {
    node: Node,
    private_key: SecretKey,
    mark: u32,
    /// What was configured; a node does not tell.
    preshared: HashMap<NodeId, PresharedKey>,
}

/// A change of a peer whose key is one that a node can have.
struct Step {
    id: NodeId,
    change: PeerChange,
}

impl Running {
    /// The node of a configuration.
    pub fn new(node: Node, config: &Config) -> Self {
        let preshared = config.peers.iter();
        Self {
            node,
            private_key: config.secret_key.clone(),
            mark: 0,
            preshared: preshared
                .map(|peer| (peer.node_id, peer.preshared_key.clone()))
                .collect(),
        }
    }

    /// Refuses what cannot be done, before anything is.
    fn check(&self, change: &Change) -> Result<Vec<Step>, Refused> {
        if let Some(key) = &change.private_key
            && wiremesh::node_id(key).ok() != Some(self.node.id())
        {
            let why = "the private key of a running node cannot be changed: its address and what \
                       peers remember of it follow from it. Stop it and name another key file";
            return Err(Refused::new(Errno::NotSupported, why));
        }
        let promised: HashSet<NodeId> = match change.peers.is_empty() {
            true => HashSet::new(),
            false => self.promised(),
        };
        let mut steps = Vec::with_capacity(change.peers.len());
        for peer in &change.peers {
            let id = NodeId::from_bytes(&peer.public_key.0);
            let id = id.map_err(|error| Refused::new(Errno::Invalid, error))?;
            if id == self.node.id() {
                continue;
            }
            let known = self.node.peer(id).and_then(|peer| peer.status());
            let is_stock = known.as_ref().is_none_or(|known| known.stock);
            if known.is_none() && !peer.update_only && !peer.remove && promised.contains(&id) {
                let why = format!(
                    "{id} has promised more than L1, and a peer that `wg` adds is stock WireGuard. \
                     Add it to the configuration instead"
                );
                return Err(Refused::new(Errno::NotPermitted, why));
            }
            let mut peer = peer.clone();
            if change.replace_peers && is_stock {
                // What is not named is not set.
                peer.preshared_key.get_or_insert_default();
                peer.keepalive.get_or_insert(0);
            }
            if let Some(key) = &peer.preshared_key
                && !is_stock
                && *key != self.preshared_of(id)
            {
                let why = format!("{id} is no stock peer: it agrees on preshared keys with us");
                return Err(Refused::new(Errno::NotSupported, why));
            }
            steps.push(Step { id, change: peer });
        }
        Ok(steps)
    }

    /// Those who are held to have promised more than stock WireGuard has.
    fn promised(&self) -> HashSet<NodeId> {
        let pins = self.node.pins().into_iter();
        let above = pins.filter(|(_, pin)| pin.level > Level::Classical);
        above.map(|(id, _)| id).collect()
    }

    fn preshared_of(&self, id: NodeId) -> PresharedKey {
        self.preshared.get(&id).cloned().unwrap_or_default()
    }

    fn keep_only(&mut self, steps: &[Step]) {
        let named: HashSet<NodeId> = steps.iter().map(|step| step.id).collect();
        for peer in self.node.status().peers {
            if !named.contains(&peer.node_id) {
                self.remove(peer.node_id);
            }
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.node.remove_peer(id);
        self.preshared.remove(&id);
    }

    fn step(&mut self, Step { id, change }: Step) -> Result<(), Refused> {
        match self.node.peer(id) {
            _ if change.remove => self.remove(id),
            Some(peer) => self.update(&peer, &change)?,
            None if change.update_only => {}
            None => self.add(id, &change)?,
        }
        Ok(())
    }

    fn add(&mut self, id: NodeId, change: &PeerChange) -> Result<(), Refused> {
        let preshared_key = change.preshared_key.clone().unwrap_or_default();
        let config = PeerConfig {
            endpoints: change.endpoint.map(Into::into).into_iter().collect(),
            preshared_key: preshared_key.clone(),
            allowed_ips: changed_prefixes(id, &[], change),
            persistent_keepalive: keepalive(change.keepalive.unwrap_or_default()),
            stock: true,
            ..PeerConfig::new(id)
        };
        let added = self.node.add_peer(config);
        added.map_err(|error| add_refused(&error))?;
        tracing::warn!(peer = %id, "added by `wg`: stock WireGuard, level L1, until the node ends");
        self.preshared.insert(id, preshared_key);
        Ok(())
    }

    fn update(&mut self, peer: &Peer, change: &PeerChange) -> Result<(), Refused> {
        let id = peer.node_id();
        if change.replace_allowed_ips || !change.allowed_ips.is_empty() {
            let before = peer.status().map(|status| status.allowed_ips);
            let wanted = changed_prefixes(id, &before.unwrap_or_default(), change);
            peer.set_allowed_ips(&wanted)
                .map_err(|error| add_refused(&error))?;
        }
        if let Some(key) = &change.preshared_key
            && *key != self.preshared_of(id)
        {
            peer.set_preshared_key(key.clone(), 0);
            self.preshared.insert(id, key.clone());
        }
        if let Some(endpoint) = change.endpoint {
            peer.replace_endpoint(endpoint);
        }
        if let Some(seconds) = change.keepalive {
            peer.set_persistent_keepalive(keepalive(seconds));
        }
        Ok(())
    }
}

impl Configure for Running {
    async fn set(&mut self, change: Change) -> Result<(), Refused> {
        let steps = self.check(&change)?;
        if let Some(mark) = change.fwmark.filter(|mark| *mark != self.mark) {
            let set = self.node.set_mark(mark);
            set.map_err(|error| mark_refused(&error))?;
            self.mark = mark;
        }
        let here = port_of(&self.node);
        if let Some(port) = change.listen_port.filter(|port| *port != here) {
            let moved = self.node.listen_on(port);
            moved.map_err(|error| bind_refused(&error))?;
        }
        if change.replace_peers {
            self.keep_only(&steps);
        }
        steps.into_iter().try_for_each(|step| self.step(step))
    }

    fn show(&self) -> Shown {
        let peers = self.node.status().peers.into_iter().map(|peer| {
            let own = own_prefixes(peer.node_id);
            let keepalive = peer.persistent_keepalive.unwrap_or_default().as_secs();
            ShownPeer {
                public_key: PublicKey::from(peer.node_id),
                preshared_key: self.preshared_of(peer.node_id),
                endpoint: peer.endpoint,
                last_handshake: peer.last_handshake,
                tx_bytes: peer.tx_bytes,
                rx_bytes: peer.rx_bytes,
                keepalive: u16::try_from(keepalive).unwrap_or(u16::MAX),
                allowed_ips: own.into_iter().chain(peer.allowed_ips).collect(),
            }
        });
        Shown {
            private_key: Some(self.private_key.clone()),
            listen_port: port_of(&self.node),
            fwmark: self.mark,
            peers: peers.collect(),
        }
    }
}

/// Lets `wg` see and change a node that has an interface; for one without, it waits for ever.
pub async fn serve(node: &Node, config: &Config) {
    let status = node.status();
    // In kernel mode `wg` asks the kernel.
    let Some(interface) = status.device.filter(|_| status.mode == Mode::Tun) else {
        return std::future::pending().await;
    };
    match Server::bind(&interface).await {
        Ok(server) => {
            let running = Running::new(node.clone(), config);
            server.serve(Arc::new(Mutex::new(running))).await;
        }
        Err(failure) => {
            let fix = failure.fix.unwrap_or_default();
            tracing::warn!(
                reason = failure.what,
                fix,
                "`wg show` does not show the node"
            );
            std::future::pending().await
        }
    }
}

/// The prefixes that a peer always has: `wg` may name them, which changes nothing.
fn own_prefixes(id: NodeId) -> [IpNet; 2] {
    let own: [Ipv6Addr; 2] = [overlay_address(&id), control_address(&id)];
    own.map(IpNet::from)
}

fn changed_prefixes(id: NodeId, before: &[IpNet], change: &PeerChange) -> Vec<IpNet> {
    let mut prefixes = match change.replace_allowed_ips {
        true => Vec::new(),
        false => before.to_vec(),
    };
    for one in &change.allowed_ips {
        prefixes.retain(|net| *net != one.net);
        prefixes.extend((!one.remove).then_some(one.net));
    }
    let own = own_prefixes(id);
    prefixes.retain(|net| !own.contains(net));
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::emit::emit;
    use crate::uapi::parse::parse;

    const A: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    async fn node() -> Running {
        let private_key = SecretKey::from_bytes([7; 32]);
        let builder = Node::builder().secret_key(private_key.clone());
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let node = builder.listen(loopback).bind().await.expect("bound");
        Running {
            node,
            private_key,
            mark: 0,
            preshared: HashMap::new(),
        }
    }

    async fn set(running: &mut Running, text: &str) -> Result<(), Errno> {
        let change = parse(text.as_bytes()).expect("good");
        running.set(change).await.map_err(|refused| refused.errno)
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_refused_before_anything_is() {
        let mut running = node().await;
        let other = "11".repeat(32);
        let before = running.show();
        let text =
            format!("private_key={other}\nlisten_port=0\npublic_key={A}\nallowed_ip=10.0.0.0/8");
        assert_eq!(set(&mut running, &text).await, Err(Errno::NotSupported));
        let small = "00".repeat(32);
        let text = format!("public_key={A}\npublic_key={small}");
        assert_eq!(set(&mut running, &text).await, Err(Errno::Invalid));
        assert_eq!(*emit(&running.show()), *emit(&before));
        let own = "07".repeat(32);
        assert_eq!(
            set(&mut running, &format!("private_key={own}")).await,
            Ok(())
        );
    }

    #[tokio::test]
    async fn stock_peers_come_change_and_go() {
        let mut running = node().await;
        let psk = "22".repeat(32);
        let text = format!(
            "public_key={A}\npreshared_key={psk}\nendpoint=127.0.0.1:9\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/24\nallowed_ip=10.1.0.0/24"
        );
        assert_eq!(set(&mut running, &text).await, Ok(()));
        let text = emit(&running.show());
        for line in [
            &format!("preshared_key={psk}"),
            "endpoint=127.0.0.1:9",
            "persistent_keepalive_interval=25",
            "allowed_ip=10.0.0.0/24",
            "allowed_ip=10.1.0.0/24",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {}", *text);
        }
        let id = running.node.status().peers[0].node_id;
        assert!(running.node.status().peers[0].stock);
        // Its own addresses are shown, may be named, and are never lost.
        let text = format!(
            "public_key={A}\nupdate_only=true\nreplace_allowed_ips=true\nallowed_ip={}\n\
             allowed_ip=10.2.0.0/24\nendpoint=127.0.0.1:10",
            own_prefixes(id)[0]
        );
        assert_eq!(set(&mut running, &text).await, Ok(()));
        let peer = &running.show().peers[0];
        let [overlay, control] = own_prefixes(id);
        let extra: IpNet = "10.2.0.0/24".parse().expect("a prefix");
        assert_eq!(peer.allowed_ips, [overlay, control, extra]);
        assert_eq!(
            peer.endpoint,
            Some("127.0.0.1:10".parse().expect("an address"))
        );
        assert_eq!(peer.keepalive, 25);

        let text = format!("replace_peers=true\npublic_key={A}\nallowed_ip=-10.2.0.0/24");
        assert_eq!(set(&mut running, &text).await, Ok(()));
        let peer = &running.show().peers[0];
        assert!(peer.preshared_key.is_zero());
        assert_eq!((peer.keepalive, peer.allowed_ips.len()), (0, 2));
        assert_eq!(set(&mut running, "replace_peers=true").await, Ok(()));
        assert!(running.show().peers.is_empty());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_leaves_the_node_where_it_was() {
        let mut running = node().await;
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
        let port = taken.local_addr().expect("an address").port();
        let before = port_of(&running.node);
        let text = format!("listen_port={port}");
        assert_eq!(set(&mut running, &text).await, Err(Errno::InUse));
        assert_eq!(port_of(&running.node), before);
        drop(taken);
        assert_eq!(set(&mut running, &text).await, Ok(()));
        assert_eq!(running.show().listen_port, port);
    }
}
