//! The prefixes of all peers: given, replaced, taken away.
//!
//! Owns the two rules of [`Routing`]. The table itself is in `allowed_ips.rs`.

use crate::allowed_ips::{AllowedIps, Overlap};
use crate::config::Routing;
use crate::peer::PeerKey;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use wiremesh_wire::IpNet;

/// See the module.
pub(crate) struct Prefixes {
    allowed: AllowedIps,
    pub(crate) routing: Routing,
}

impl Prefixes {
    pub(crate) fn new(routing: Routing) -> Self {
        Self {
            allowed: AllowedIps::default(),
            routing,
        }
    }

    /// The owner of the longest prefix that holds `address`.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<PeerKey> {
        self.allowed.lookup(address)
    }

    /// What a peer has by its key alone.
    pub(crate) fn own(&self, overlay: Ipv6Addr, control: Ipv6Addr) -> Vec<IpNet> {
        match self.routing {
            Routing::Overlay => [overlay, control].map(IpNet::from).to_vec(),
            Routing::AsGiven => Vec::new(),
        }
    }

    /// Gives a peer all of these prefixes, or none.
    pub(crate) fn insert<'a>(
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

    /// Gives a peer other prefixes than it `had` beside its `own`, and returns them in order.
    pub(crate) fn replace(
        &mut self,
        key: PeerKey,
        own: &[IpNet],
        had: &[IpNet],
        wanted: &[IpNet],
    ) -> Result<Box<[IpNet]>, Overlap> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.insert(key, wanted.iter())?;
        for net in had {
            if wanted.binary_search(net).is_err() && !own.contains(net) {
                self.allowed.remove(net, key);
            }
        }
        Ok(wanted.into_boxed_slice())
    }

    /// What a peer still has of the prefixes that it was given.
    pub(crate) fn of(&self, key: PeerKey, given: &[IpNet]) -> Box<[IpNet]> {
        let has = |net: &&IpNet| self.allowed.owner(net) == Some(key);
        given.iter().filter(has).copied().collect()
    }

    /// Takes prefixes from a peer that is being removed.
    pub(crate) fn take<'a>(&mut self, key: PeerKey, nets: impl Iterator<Item = &'a IpNet>) {
        nets.for_each(|net| self.allowed.remove(net, key));
    }
}
