//! The allowed IPs of a peer: given, replaced, taken away.
//!
//! Owns the two rules of [`Routing`]. The table itself is in `allowed_ips.rs`.

use super::Node;
use super::shared::Shared;
use crate::allowed_ips::Overlap;
use crate::config::Routing;
use crate::peer::{Peer, PeerKey};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use wiremesh_wire::IpNet;

impl Node {
    /// Replaces the prefixes that a peer has beside its overlay addresses; sessions go on.
    /// `false` if there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Overlap`] with another peer; nothing has changed then. Never with [`Routing::AsGiven`].
    pub fn set_allowed_ips(
        &mut self,
        key: PeerKey,
        allowed_ips: &[IpNet],
    ) -> Result<bool, Overlap> {
        let Some(peer) = self.peers.of(key) else {
            return Ok(false);
        };
        let mut wanted = allowed_ips.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.shared.insert_prefixes(key, wanted.iter())?;
        let own = self.shared.own_prefixes(peer.overlay, peer.control);
        for net in peer.allowed_ips.iter() {
            if wanted.binary_search(net).is_err() && !own.contains(net) {
                self.shared.allowed.remove(net, key);
            }
        }
        peer.allowed_ips = wanted.into_boxed_slice();
        Ok(true)
    }
}

impl Shared {
    /// What a peer has by its key alone.
    pub(super) fn own_prefixes(&self, overlay: Ipv6Addr, control: Ipv6Addr) -> Vec<IpNet> {
        match self.routing {
            Routing::Overlay => [overlay, control].map(IpNet::from).to_vec(),
            Routing::AsGiven => Vec::new(),
        }
    }

    /// Gives a peer all of these prefixes, or none.
    pub(super) fn insert_prefixes<'a>(
        &mut self,
        key: PeerKey,
        wanted: impl Iterator<Item = &'a IpNet>,
    ) -> Result<(), Overlap> {
        let mut added: Vec<IpNet> = Vec::new();
        for net in wanted {
            if self.routing == Routing::AsGiven {
                self.allowed.give(*net, key);
                continue;
            }
            let fresh = self.allowed.owner(net).is_none();
            if let Err(overlap) = self.allowed.insert(*net, key) {
                added.iter().for_each(|net| self.allowed.remove(net, key));
                return Err(overlap);
            }
            added.extend(fresh.then_some(*net));
        }
        Ok(())
    }

    /// What a peer still has of the prefixes that it was given.
    pub(super) fn prefixes_of(&self, peer: &Peer) -> Box<[IpNet]> {
        let has = |net: &&IpNet| self.allowed.owner(net) == Some(peer.key);
        peer.allowed_ips.iter().filter(has).copied().collect()
    }

    /// Takes everything from a peer that is being removed.
    pub(super) fn take_prefixes(&mut self, peer: &Peer) {
        let own = self.own_prefixes(peer.overlay, peer.control);
        for net in own.iter().chain(peer.allowed_ips.iter()) {
            self.allowed.remove(net, peer.key);
        }
    }
}
