//! The peers of `wiremesh wg`, as `wg` configured them.
//!
//! Owns them whether or not there is a private key yet, and also those that no node can have: a
//! public key can be any 32 bytes here. It does no I/O; [`super::interface`] tells the node.

use super::parse::PeerChange;
use super::{Errno, PublicKey, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use wiremesh::{IpNet, PresharedKey};

/// Peers that are kept; as many as a node takes.
pub const PEERS_MAX: usize = 131_072;

/// What is set of one peer.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// All zero is none.
    pub preshared_key: PresharedKey,
    /// Where it is reached, as it was set.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 is off.
    pub keepalive: u16,
    /// Its prefixes.
    pub allowed_ips: BTreeSet<IpNet>,
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There is no such peer, before and after.
    Nothing,
    /// It is new.
    Added,
    /// It has other settings.
    Changed,
    /// It is gone.
    Removed,
}

/// The peers and their prefixes; each prefix is one peer's.
#[derive(Debug, Default)]
pub struct Table {
    peers: BTreeMap<PublicKey, Settings>,
    owners: BTreeMap<IpNet, PublicKey>,
}

impl Table {
    /// The peers, by key.
    pub fn iter(&self) -> impl Iterator<Item = (PublicKey, &Settings)> {
        self.peers.iter().map(|(key, settings)| (*key, settings))
    }

    /// What is set of a peer.
    pub fn of(&self, key: PublicKey) -> Option<&Settings> {
        self.peers.get(&key)
    }

    /// The same, to note where it went by itself.
    pub fn of_mut(&mut self, key: PublicKey) -> Option<&mut Settings> {
        self.peers.get_mut(&key)
    }

    /// Removes all peers and names them.
    pub fn clear(&mut self) -> Vec<PublicKey> {
        self.owners.clear();
        std::mem::take(&mut self.peers).into_keys().collect()
    }

    /// Removes a peer.
    pub fn remove(&mut self, key: PublicKey) -> bool {
        let Some(settings) = self.peers.remove(&key) else {
            return false;
        };
        for net in &settings.allowed_ips {
            self.owners.remove(net);
        }
        true
    }

    /// Carries out what is said of one peer.
    ///
    /// # Errors
    ///
    /// There is no room for another one.
    pub fn apply(&mut self, change: &PeerChange) -> Result<Effect, Refused> {
        let key = change.public_key;
        let known = self.peers.contains_key(&key);
        if change.remove {
            return Ok(match self.remove(key) {
                true => Effect::Removed,
                false => Effect::Nothing,
            });
        }
        if !known && change.update_only {
            return Ok(Effect::Nothing);
        }
        if !known && self.peers.len() >= PEERS_MAX {
            let why = format!("there are {PEERS_MAX} peers, no more are possible");
            return Err(Refused::new(Errno::NoSpace, why));
        }
        let settings = self.peers.entry(key).or_default();
        if let Some(preshared_key) = &change.preshared_key {
            settings.preshared_key = preshared_key.clone();
        }
        settings.endpoint = change.endpoint.or(settings.endpoint);
        settings.keepalive = change.keepalive.unwrap_or(settings.keepalive);
        if change.replace_allowed_ips {
            for net in std::mem::take(&mut settings.allowed_ips) {
                self.owners.remove(&net);
            }
        }
        for one in &change.allowed_ips {
            match one.remove {
                true => self.take(one.net, key),
                false => self.give(one.net, key),
            }
        }
        Ok(match known {
            true => Effect::Changed,
            false => Effect::Added,
        })
    }

    /// A prefix has one owner: the last one that it was given to.
    fn give(&mut self, net: IpNet, key: PublicKey) {
        let before = self.owners.insert(net, key);
        if let Some(loser) = before.and_then(|before| self.peers.get_mut(&before)) {
            loser.allowed_ips.remove(&net);
        }
        if let Some(settings) = self.peers.get_mut(&key) {
            settings.allowed_ips.insert(net);
        }
    }

    fn take(&mut self, net: IpNet, key: PublicKey) {
        let settings = self.peers.get_mut(&key);
        if settings.is_some_and(|settings| settings.allowed_ips.remove(&net)) {
            self.owners.remove(&net);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::parse::parse;
    use proptest::prelude::*;

    fn hex(number: u8) -> String {
        format!("{number:02x}").repeat(32)
    }

    fn key(number: u8) -> PublicKey {
        PublicKey([number; 32])
    }

    fn apply(table: &mut Table, text: &str) -> Vec<Effect> {
        let change = parse(text.as_bytes()).expect("good");
        let apply = |peer| table.apply(peer).expect("room");
        change.peers.iter().map(apply).collect()
    }

    fn prefixes(table: &Table, number: u8) -> Vec<String> {
        let settings = table.of(key(number)).expect("a peer");
        settings.allowed_ips.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn a_prefix_moves_to_the_last_one_that_it_is_given_to() {
        let (a, b) = (hex(1), hex(2));
        let mut table = Table::default();
        let text = format!(
            "public_key={a}\nallowed_ip=10.0.0.1/32\nallowed_ip=0.0.0.0/0\n\
             public_key={b}\nallowed_ip=10.0.0.1/32\n"
        );
        assert_eq!(apply(&mut table, &text), [Effect::Added; 2]);
        assert_eq!(prefixes(&table, 1), ["0.0.0.0/0"]);
        assert_eq!(prefixes(&table, 2), ["10.0.0.1/32"]);
        let text = format!("public_key={a}\nallowed_ip=-10.0.0.1/32\nallowed_ip=-0.0.0.0/0");
        assert_eq!(apply(&mut table, &text), [Effect::Changed]);
        assert!(prefixes(&table, 1).is_empty());
        assert_eq!(
            prefixes(&table, 2),
            ["10.0.0.1/32"],
            "only its owner loses it"
        );
        apply(&mut table, &format!("public_key={b}\nremove=true"));
        apply(
            &mut table,
            &format!("public_key={a}\nallowed_ip=10.0.0.1/32"),
        );
        assert_eq!(prefixes(&table, 1), ["10.0.0.1/32"]);
    }

    #[test]
    fn only_what_is_named_changes() {
        let a = hex(1);
        let mut table = Table::default();
        let text = format!("public_key={a}\nupdate_only=true\nallowed_ip=10.0.0.1/32");
        assert_eq!(apply(&mut table, &text), [Effect::Nothing]);
        let text = format!(
            "public_key={a}\npreshared_key={a}\nendpoint=1.2.3.4:5\n\
                            persistent_keepalive_interval=9\nallowed_ip=10.0.0.1/32"
        );
        assert_eq!(apply(&mut table, &text), [Effect::Added]);
        let text = format!("public_key={a}\nreplace_allowed_ips=true\nallowed_ip=::/0");
        assert_eq!(apply(&mut table, &text), [Effect::Changed]);
        let settings = table.of(key(1)).expect("a peer");
        assert_eq!(settings.preshared_key.as_bytes(), &[1; 32]);
        assert_eq!(
            settings.endpoint,
            Some("1.2.3.4:5".parse().expect("an address"))
        );
        assert_eq!(settings.keepalive, 9);
        assert_eq!(prefixes(&table, 1), ["::/0"]);
        let gone = format!("public_key={a}\nremove=true");
        assert_eq!(apply(&mut table, &gone), [Effect::Removed]);
        assert_eq!(apply(&mut table, &gone), [Effect::Nothing]);
        assert!(table.owners.is_empty());
    }

    proptest! {
        #[test]
        fn owners_and_peers_agree(
            steps in proptest::collection::vec((0u8..4, 0u8..4, 0u8..6), 0..60)
        ) {
            let mut table = Table::default();
            for (number, host, what) in steps {
                let rest = match what {
                    0 => "remove=true".to_owned(),
                    1 => format!("allowed_ip=-10.0.0.{host}/32"),
                    2 => format!("replace_allowed_ips=true\nallowed_ip=10.0.0.{host}/32"),
                    _ => format!("allowed_ip=10.0.0.{host}/32"),
                };
                apply(&mut table, &format!("public_key={}\n{rest}", hex(number)));
                let of_peers: BTreeMap<IpNet, PublicKey> = table
                    .iter()
                    .flat_map(|(key, one)| one.allowed_ips.iter().map(move |net| (*net, key)))
                    .collect();
                let count: usize = table.iter().map(|(_, one)| one.allowed_ips.len()).sum();
                prop_assert_eq!(count, of_peers.len());
                prop_assert_eq!(&of_peers, &table.owners);
            }
        }
    }
}
