//! The table of peers: handles, and who has a key or an overlay address.
//!
//! Owns the peers. A handle is an index and a generation, so that it never names another peer. To
//! find one takes the same time for any number of them; the hashes are keyed by the node's secret
//! seed, so nobody can choose keys that collide.

use crate::peer::{Peer, PeerKey};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use hashbrown::HashTable;
use wiremesh_noise::crypto::hash;
use wiremesh_wire::NodeId;

type Slot = (u32, Option<Box<Peer>>);

/// All peers of a node.
pub(super) struct Peers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// For their order.
    by_id: BTreeMap<NodeId, PeerKey>,
    /// Indices of slots, by node id and by overlay address.
    ids: HashTable<u32>,
    overlays: HashTable<u32>,
    hash_key: [u64; 4],
}

impl Peers {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        let digest = hash(&[b"wiremesh table of peers", seed]);
        let mut hash_key = [0; 4];
        for (key, word) in hash_key.iter_mut().zip(words(&digest)) {
            *key = word;
        }
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            ids: HashTable::new(),
            overlays: HashTable::new(),
            hash_key,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All handles, ordered by node id.
    pub(super) fn keys(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.by_id.values().copied()
    }

    pub(super) fn of(&mut self, key: PeerKey) -> Option<&mut Peer> {
        match self.slots.get_mut(key.index()) {
            Some((generation, Some(peer))) if *generation == key.generation() => Some(peer),
            _ => None,
        }
    }

    pub(super) fn peek(&self, key: PeerKey) -> Option<&Peer> {
        match self.slots.get(key.index()) {
            Some((generation, Some(peer))) if *generation == key.generation() => Some(peer),
            _ => None,
        }
    }

    /// The peer with this node id.
    pub(super) fn key_of(&self, id: &NodeId) -> Option<PeerKey> {
        self.with_bytes(id.as_bytes()).map(|peer| peer.key)
    }

    /// The node id of these bytes if a peer has it, and they need no check.
    pub(super) fn checked_id(&self, bytes: &[u8; 32]) -> Option<NodeId> {
        self.with_bytes(bytes).map(|peer| peer.remote.node_id())
    }

    /// The peer whose key gives this overlay address.
    pub(super) fn with_overlay(&self, address: Ipv6Addr) -> Option<PeerKey> {
        let hash = self.hash(&address.octets());
        let found = self.overlays.find(hash, |index| {
            peer_at(&self.slots, *index).is_some_and(|peer| peer.overlay == address)
        });
        peer_at(&self.slots, *found?).map(|peer| peer.key)
    }

    fn with_bytes(&self, id: &[u8; 32]) -> Option<&Peer> {
        let found = self.ids.find(self.hash(id), |index| {
            peer_at(&self.slots, *index).is_some_and(|peer| peer.remote.node_id().as_bytes() == id)
        });
        peer_at(&self.slots, *found?)
    }

    pub(super) fn next_key(&self) -> PeerKey {
        match self.free.last() {
            Some(index) => PeerKey::new(*index, self.slots[*index as usize].0),
            None => PeerKey::new(self.slots.len() as u32, 0),
        }
    }

    /// Adds a peer under the handle that [`Peers::next_key`] gave.
    pub(super) fn insert(&mut self, peer: Box<Peer>) {
        let (id, overlay) = (peer.remote.node_id(), peer.overlay);
        let key = peer.key;
        let index = key.index() as u32;
        self.by_id.insert(id, key);
        if self.free.last() == Some(&index) {
            self.free.pop();
            self.slots[key.index()].1 = Some(peer);
        } else {
            self.slots.push((key.generation(), Some(peer)));
        }
        let (id_hash, overlay_hash) = (self.hash(id.as_bytes()), self.hash(&overlay.octets()));
        let (slots, hash_key) = (&self.slots, &self.hash_key);
        self.ids.insert_unique(id_hash, index, |index| {
            let id = peer_at(slots, *index).map(|peer| peer.remote.node_id());
            id.map_or(0, |id| keyed_hash(hash_key, id.as_bytes()))
        });
        self.overlays.insert_unique(overlay_hash, index, |index| {
            let overlay = peer_at(slots, *index).map(|peer| peer.overlay.octets());
            overlay.map_or(0, |overlay| keyed_hash(hash_key, &overlay))
        });
    }

    pub(super) fn remove(&mut self, key: PeerKey) -> Option<Box<Peer>> {
        self.of(key)?;
        let slot = &mut self.slots[key.index()];
        slot.0 = slot.0.wrapping_add(1);
        let peer = slot.1.take()?;
        let index = key.index() as u32;
        self.free.push(index);
        let id = peer.remote.node_id();
        self.by_id.remove(&id);
        let (id_hash, overlay_hash) = (self.hash(id.as_bytes()), self.hash(&peer.overlay.octets()));
        for (table, hash) in [(&mut self.ids, id_hash), (&mut self.overlays, overlay_hash)] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == index) {
                entry.remove();
            }
        }
        Some(peer)
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        keyed_hash(&self.hash_key, bytes)
    }
}

fn peer_at(slots: &[Slot], index: u32) -> Option<&Peer> {
    slots.get(index as usize)?.1.as_deref()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// Multiplies pairs of words with secret numbers added, and adds up both halves of the products.
fn keyed_hash(key: &[u64; 4], bytes: &[u8]) -> u64 {
    let masked: [u64; 4] = {
        let mut masked = *key;
        for (word, input) in masked.iter_mut().zip(words(bytes)) {
            *word ^= input;
        }
        masked
    };
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ (product >> 64) as u64
    };
    fold(
        fold(masked[0], masked[1]) ^ key[3],
        fold(masked[2], masked[3]) ^ key[0],
    )
}
