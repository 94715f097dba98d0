//! Cryptokey routing: which peer owns which addresses.
//!
//! Owns a set of disjoint prefixes. Overlaps are refused, never moved silently, so a lookup is one
//! ordered search. Source: WireGuard paper section 2.

use crate::peer::PeerKey;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
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

/// First address of a prefix as a number, after the family.
type Start = (bool, u128);

/// Disjoint prefixes and their owners.
#[derive(Default)]
pub struct AllowedIps {
    prefixes: BTreeMap<Start, (IpNet, PeerKey)>,
}

fn start_of(addr: IpAddr) -> Start {
    match addr {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, u128::from(v6)),
    }
}

fn last_of(net: &IpNet) -> Start {
    let (six, start) = start_of(net.addr());
    let bits = if six { 128 } else { 32 };
    let host_bits = bits - u32::from(net.prefix());
    let mask = if host_bits == 128 {
        u128::MAX
    } else {
        (1u128 << host_bits) - 1
    };
    (six, start | mask)
}

impl AllowedIps {
    /// The owner of `addr`.
    pub fn lookup(&self, addr: IpAddr) -> Option<PeerKey> {
        let (_, (net, owner)) = self.prefixes.range(..=start_of(addr)).next_back()?;
        net.contains(addr).then_some(*owner)
    }

    /// The first prefix that shares an address with `net`.
    pub fn overlapping(&self, net: &IpNet) -> Option<(IpNet, PeerKey)> {
        let first_inside = self
            .prefixes
            .range(start_of(net.addr())..=last_of(net))
            .next();
        let before = self.prefixes.range(..start_of(net.addr())).next_back();
        first_inside
            .or(before)
            .map(|(_, (taken, owner))| (*taken, *owner))
            .filter(|(taken, _)| taken.overlaps(net))
    }

    /// Gives `net` to `owner`. Where `owner` has a larger prefix around it nothing changes; smaller
    /// ones of `owner` inside it become part of it.
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
        if self
            .overlapping(&net)
            .is_some_and(|(taken, _)| taken.prefix() <= net.prefix())
        {
            return Ok(());
        }
        let inside: Vec<Start> = self
            .prefixes
            .range(start_of(net.addr())..=last_of(&net))
            .map(|(start, _)| *start)
            .collect();
        for start in inside {
            self.prefixes.remove(&start);
        }
        self.prefixes.insert(start_of(net.addr()), (net, owner));
        Ok(())
    }

    /// The first prefix of another peer that shares an address with `net`.
    fn foreign_overlap(&self, net: &IpNet, owner: PeerKey) -> Option<(IpNet, PeerKey)> {
        let before = self.prefixes.range(..start_of(net.addr())).next_back();
        self.prefixes
            .range(start_of(net.addr())..=last_of(net))
            .chain(before)
            .map(|(_, (taken, holder))| (*taken, *holder))
            .find(|(taken, holder)| *holder != owner && taken.overlaps(net))
    }

    /// Takes `net` from `owner`.
    pub fn remove(&mut self, net: &IpNet, owner: PeerKey) {
        let start = start_of(net.addr());
        if self.prefixes.get(&start) == Some(&(*net, owner)) {
            self.prefixes.remove(&start);
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
    }
}
