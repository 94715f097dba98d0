//! The peers of one interface of the kernel's WireGuard.
//!
//! Owns how many there may be. It keeps public keys and figures; secrets go to the kernel and are
//! wiped.

use super::interfaces::at;
use std::collections::BTreeSet;
use wiremesh_netadmin::verbs::{
    FIGURES_MAX, Figures, Key, PEERS_MAX, PeerChange, PeerFigures, Reason, Refusal, Reply,
};
use wiremesh_netlink::wireguard::{self, Peer, PeerSettings};

/// Peers of the interface with this index.
pub struct Peers {
    index: u32,
    known: BTreeSet<Key>,
    /// Of one moment: they are told part by part.
    figures: Figures,
}

impl Peers {
    /// None yet.
    pub fn new(index: u32) -> Self {
        Self {
            index,
            known: BTreeSet::new(),
            figures: Figures::default(),
        }
    }

    /// Changes one, or makes it: all of it or nothing, being one message to the kernel.
    pub fn set(&mut self, change: &PeerChange) -> Result<Reply, Refusal> {
        if self.known.len() >= PEERS_MAX && !self.known.contains(&change.public_key) {
            return Err(Refusal::with(Reason::Peers, PEERS_MAX));
        }
        let nets = change.allowed_ips.iter().flatten();
        let nets: Vec<_> = nets.map(|net| (net.address, net.bits)).collect();
        let settings = PeerSettings {
            public_key: &change.public_key,
            replace: change.replace,
            preshared_key: change.preshared_key.as_deref(),
            endpoint: change.endpoint,
            keepalive_seconds: change.keepalive_seconds,
            allowed_ips: change.allowed_ips.as_ref().map(|_| &nets[..]),
        };
        // Known even if the kernel refuses: so there are never more than are counted.
        self.known.insert(change.public_key);
        wireguard::set_peer(self.index, &settings).map_err(at("set a peer"))?;
        Ok(Reply::Done)
    }

    /// Removes one.
    pub fn remove(&mut self, key: &Key) -> Result<Reply, Refusal> {
        wireguard::remove_peer(self.index, key).map_err(at("remove a peer"))?;
        self.known.remove(key);
        Ok(Reply::Done)
    }

    /// Tells the figures of some from this one on; those of the first are read anew.
    pub fn figures(&mut self, from: u16) -> Result<Reply, Refusal> {
        if from == 0 {
            let device = wireguard::device(self.index).map_err(at("read the figures"))?;
            self.figures = Figures {
                listen_port: device.listen_port,
                peers: device.peers.iter().map(figures_of).collect(),
            };
        }
        let listen_port = self.figures.listen_port;
        let rest = self.figures.peers.get(from.into()..).unwrap_or(&[]);
        let (told, rest) = rest.split_at(rest.len().min(FIGURES_MAX));
        let peers = told.to_vec();
        Ok(Reply::Figures {
            figures: Figures { listen_port, peers },
            left: rest.len() as u16,
        })
    }
}

fn figures_of(peer: &Peer) -> PeerFigures {
    PeerFigures {
        public_key: peer.public_key,
        endpoint: peer.endpoint,
        last_handshake: peer.last_handshake,
        rx_bytes: peer.received_bytes,
        tx_bytes: peer.sent_bytes,
    }
}
