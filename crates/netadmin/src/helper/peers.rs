//! The peers of one interface of the kernel's WireGuard.
//!
//! Owns how many there may be. It keeps public keys and figures; secrets go to the kernel and are
//! wiped.

use super::interfaces::at;
use std::collections::BTreeMap;
use wiremesh_netadmin::verbs::{
    FIGURES_MAX, Figures, Key, PEERS_MAX, PREFIXES_MAX, PeerChange, PeerFigures, Prefix, Reason,
    Refusal, Reply,
};
use wiremesh_netlink::wireguard::{self, Peer, PeerSettings};

/// Peers of the interface with this index.
#[derive(Default)]
pub struct Peers {
    index: u32,
    /// With how many allowed IPs.
    known: BTreeMap<Key, usize>,
    /// Of one moment: they are told part by part.
    figures: Figures,
}

impl Peers {
    /// None yet.
    pub fn of(index: u32) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    /// Changes one, or makes it: all of it or nothing, being one message to the kernel.
    pub fn set(&mut self, change: &PeerChange) -> Result<Reply, Refusal> {
        let pair = |net: &Prefix| (net.address, net.bits);
        let all = |nets: &Vec<_>| nets.iter().map(pair).collect::<Vec<_>>();
        let nets = change.allowed_ips.as_ref().map(all);
        let before = self.known.get(&change.public_key).copied();
        let wanted = nets.as_ref().map_or(before.unwrap_or(0), Vec::len);
        let others = self.known.values().sum::<usize>() - before.unwrap_or(0);
        if before.is_none() && self.known.len() >= PEERS_MAX || others + wanted > PREFIXES_MAX {
            return Err(Reason::Peers.into());
        }
        let settings = PeerSettings {
            public_key: &change.public_key,
            replace: change.replace,
            preshared_key: change.preshared_key.as_deref(),
            endpoint: change.endpoint,
            keepalive_seconds: change.keepalive_seconds,
            allowed_ips: nets.as_deref(),
        };
        // Known even if the kernel refuses: so there are never more than are counted.
        self.known.insert(change.public_key, wanted);
        wireguard::set_peer(self.index, &settings).map_err(at("set a peer"))?;
        Ok(Reply::Done(self.index))
    }

    /// Removes one.
    pub fn remove(&mut self, key: &Key) -> Result<Reply, Refusal> {
        wireguard::remove_peer(self.index, key).map_err(at("remove a peer"))?;
        self.known.remove(key);
        Ok(Reply::Done(self.index))
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
        let Figures { listen_port, peers } = &self.figures;
        let (listen_port, rest) = (*listen_port, peers.get(from.into()..).unwrap_or(&[]));
        let peers = rest[..rest.len().min(FIGURES_MAX)].to_vec();
        let left = (rest.len() - peers.len()) as u16;
        Ok(Reply::Figures(Figures { listen_port, peers }, left))
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
