//! Cryptokey routing: which peer owns which addresses.
//!
//! Owns a set of prefixes; the longest one that holds an address decides. [`AllowedIps::insert`]
//! refuses overlaps between peers, [`AllowedIps::give`] takes them as WireGuard does: one prefix
//! may lie in another's, and the same one moves. Source: WireGuard paper section 2.

use crate::peer::PeerKey;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wiremesh_wire::IpNet;

/// A prefix that belongs to another peer already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The prefix that was to be added.
    pub wanted: IpNet,
    /// The prefix in the way.
    pub taken: IpNet,
    /// Who has it.
    pub owner: PeerKey,
}

/// First address and length of a prefix.
type Key = (IpAddr, u8);

/// Prefixes and their owners.
#[derive(Default)]
pub struct AllowedIps {
    prefixes: BTreeMap<Key, (IpNet, PeerKey)>,
    /// The lengths that occur, longest first, each with how often: IPv4, then IPv6. A lookup tries
    /// no others, and there are few.
    lengths: [Vec<(u8, u32)>; 2],
}

fn key_of(net: &IpNet) -> Key {
    (net.addr(), net.prefix())
}

/// The last address of a prefix.
fn last_of(net: &IpNet) -> IpAddr {
    match net.addr() {
        IpAddr::V4(v4) => {
            let hosts = u32::MAX.checked_shr(net.prefix().into()).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() | hosts).into()
        }
        IpAddr::V6(v6) => {
            let hosts = u128::MAX.checked_shr(net.prefix().into()).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() | hosts).into()
        }
    }
}

fn family_of(addr: IpAddr) -> usize {
    usize::from(addr.is_ipv6())
}

impl AllowedIps {
    /// The owner of the longest prefix that holds `addr`.
    ///
    /// Cost: one ordered search for each length of prefix that occurs in the family.
    pub fn lookup(&self, addr: IpAddr) -> Option<PeerKey> {
        let lengths = &self.lengths[family_of(addr)];
        lengths.iter().find_map(|(length, _)| {
            let net = IpNet::new(addr, *length).ok()?;
            self.owner(&net)
        })
    }

    /// Who has exactly this prefix.
    pub fn owner(&self, net: &IpNet) -> Option<PeerKey> {
        self.prefixes.get(&key_of(net)).map(|(_, owner)| *owner)
    }

    /// Adds `net` to what `owner` has.
    ///
    /// # Errors
    ///
    /// [`Overlap`] when it shares an address with a prefix of another peer; nothing changes then.
    pub fn insert(&mut self, net: IpNet, owner: PeerKey) -> Result<(), Overlap> {
        if let Some((taken, holder)) = self.foreign_overlap(&net, owner) {
            return Err(Overlap {
                wanted: net,
                taken,
                owner: holder,
            });
        }
        self.give(net, owner);
        Ok(())
    }

    /// Gives `net` to `owner`, whoever had it; prefixes around it and inside it stay.
    pub fn give(&mut self, net: IpNet, owner: PeerKey) {
        if self.prefixes.insert(key_of(&net), (net, owner)).is_some() {
            return;
        }
        let lengths = &mut self.lengths[family_of(net.addr())];
        match lengths.binary_search_by(|(length, _)| net.prefix().cmp(length)) {
            Ok(at) => lengths[at].1 += 1,
            Err(at) => lengths.insert(at, (net.prefix(), 1)),
        }
    }

    /// The first prefix of another peer that shares an address with `net`.
    fn foreign_overlap(&self, net: &IpNet, owner: PeerKey) -> Option<(IpNet, PeerKey)> {
        let lengths = &self.lengths[family_of(net.addr())];
        let around = lengths
            .iter()
            .filter(|(length, _)| *length < net.prefix())
            .filter_map(|(length, _)| {
                let outer = IpNet::new(net.addr(), *length).ok()?;
                self.prefixes.get(&key_of(&outer))
            });
        self.prefixes
            .range((net.addr(), 0)..=(last_of(net), u8::MAX))
            .map(|(_, entry)| entry)
            .chain(around)
            .find(|(_, holder)| *holder != owner)
            .copied()
    }

    /// Takes `net` from `owner`.
    pub fn remove(&mut self, net: &IpNet, owner: PeerKey) {
        if self.owner(net) != Some(owner) {
            return;
        }
        self.prefixes.remove(&key_of(net));
        let lengths = &mut self.lengths[family_of(net.addr())];
        if let Ok(at) = lengths.binary_search_by(|(length, _)| net.prefix().cmp(length)) {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(s: &str) -> IpNet {
        s.parse().expect("a prefix")
    }

    #[test]
    fn overlapping_allowed_ips_are_refused_not_moved() {
        let (a, b) = (PeerKey::for_test(1), PeerKey::for_test(2));
        let mut table = AllowedIps::default();
        table.insert(net("10.0.0.0/8"), a).expect("free");
        for wanted in [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "10.255.255.255/32",
        ] {
            let overlap = table.insert(net(wanted), b).expect_err("taken");
            assert_eq!((overlap.taken, overlap.owner), (net("10.0.0.0/8"), a));
        }
        assert_eq!(table.lookup("10.1.2.3".parse().expect("ip")), Some(a));
        table.insert(net("11.0.0.0/8"), b).expect("beside it");
        table
            .insert(net("9.255.255.255/32"), b)
            .expect("just before it");
        table.insert(net("::/0"), b).expect("another family");
    }

    #[test]
    fn what_is_given_moves_and_may_lie_in_anothers() {
        let (a, b) = (PeerKey::for_test(1), PeerKey::for_test(2));
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        let mut table = AllowedIps::default();
        table.give(net("0.0.0.0/0"), a);
        table.give(net("::/0"), a);
        table.give(net("10.0.0.2/32"), b);
        assert_eq!(table.lookup(ip("10.0.0.2")), Some(b));
        assert_eq!(table.lookup(ip("10.0.0.3")), Some(a));
        assert_eq!(table.lookup(ip("fd00::1")), Some(a));
        table.give(net("0.0.0.0/0"), b);
        assert_eq!(table.lookup(ip("10.0.0.3")), Some(b));
        table.remove(&net("0.0.0.0/0"), a);
        assert_eq!(
            table.lookup(ip("10.0.0.3")),
            Some(b),
            "it is not a's any more"
        );
        table.remove(&net("0.0.0.0/0"), b);
        assert_eq!(table.lookup(ip("10.0.0.3")), None);
        assert_eq!(table.owner(&net("10.0.0.2/32")), Some(b));
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32, 0u32..4), 1..40),
            probes in proptest::collection::vec(any::<u32>(), 50)
        ) {
            let mut table = AllowedIps::default();
            let mut list: Vec<(IpNet, PeerKey)> = Vec::new();
            for (addr, prefix, owner) in nets {
                let net = IpNet::new(IpAddr::from(addr.to_be_bytes()), prefix).expect("valid");
                let owner = PeerKey::for_test(owner);
                let clash = list.iter().any(|(n, o)| *o != owner && n.overlaps(&net));
                prop_assert_eq!(table.insert(net, owner).is_ok(), !clash);
                if !clash { list.push((net, owner)); }
            }
            for probe in probes.iter().map(|p| IpAddr::from(p.to_be_bytes()))
                .chain(list.iter().map(|(n, _)| n.addr()).collect::<Vec<_>>()) {
                let naive = list.iter().find(|(n, _)| n.contains(probe)).map(|(_, o)| *o);
                prop_assert_eq!(table.lookup(probe), naive);
            }
        }

        #[test]
        fn the_longest_prefix_decides_as_in_a_list(
            steps in proptest::collection::vec(
                (any::<bool>(), 0u32..64, 24u8..=32, 0u32..3), 1..60),
        ) {
            let mut table = AllowedIps::default();
            let mut list: Vec<(IpNet, PeerKey)> = Vec::new();
            for (gives, addr, prefix, owner) in steps {
                let net = IpNet::new(IpAddr::from(addr.to_be_bytes()), prefix).expect("valid");
                let owner = PeerKey::for_test(owner);
                if gives {
                    table.give(net, owner);
                    list.retain(|(known, _)| *known != net);
                    list.push((net, owner));
                } else {
                    table.remove(&net, owner);
                    list.retain(|entry| *entry != (net, owner));
                }
            }
            for probe in (0u32..64).map(|p| IpAddr::from(p.to_be_bytes())) {
                let holding = list.iter().filter(|(net, _)| net.contains(probe));
                let naive = holding.max_by_key(|(net, _)| net.prefix()).map(|(_, o)| *o);
                prop_assert_eq!(table.lookup(probe), naive);
            }
        }
    }
}
