//! The table of peers beside a list: who is found by key and by address, and in which order.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use wiremesh_core::{AddPeerError, Node, NodeConfig, PeerConfig, PeerKey, Routing};
use wiremesh_wire::address::{control_address, overlay_address};
use wiremesh_wire::{Instant, NodeId, Now, SecretKey, UnixTime};

const KEYS: u8 = 24;

fn now() -> Now {
    let unix = UnixTime::from_secs_nanos(1_700_000_000, 0);
    Now::new(Instant::from_nanos(1), unix)
}

fn node(key: u8, routing: Routing) -> Node {
    let mut config = NodeConfig::new(SecretKey::from_bytes([key; 32]));
    config.routing = routing;
    Node::new(config, [key; 32], now()).expect("no policy")
}

fn ids() -> Vec<NodeId> {
    let one = |key| node(key, Routing::Overlay).node_id();
    (1..=KEYS).map(one).collect()
}

fn addresses(id: &NodeId) -> [IpAddr; 2] {
    [overlay_address(id).into(), control_address(id).into()]
}

proptest! {
    #[test]
    fn peers_are_found_as_in_a_list(
        as_given in any::<bool>(),
        steps in proptest::collection::vec((any::<bool>(), 0..usize::from(KEYS)), 1..100),
    ) {
        let ids = ids();
        let routing = if as_given { Routing::AsGiven } else { Routing::Overlay };
        let mut node = node(200, routing);
        let mut list: BTreeMap<NodeId, PeerKey> = BTreeMap::new();
        let mut gone: Vec<PeerKey> = Vec::new();
        for (adds, which) in steps {
            let id = ids[which];
            if adds {
                match node.add_peer(now(), PeerConfig::new(id)) {
                    Ok(key) => prop_assert_eq!(list.insert(id, key), None),
                    Err(error) => {
                        prop_assert_eq!(error, AddPeerError::Exists);
                        prop_assert!(list.contains_key(&id));
                    }
                }
            } else if let Some(key) = list.remove(&id) {
                prop_assert!(node.remove_peer(key));
                gone.push(key);
            }
            for id in &ids {
                let key = list.get(id).copied();
                prop_assert_eq!(node.peer_by_id(id), key);
                for address in addresses(id) {
                    prop_assert_eq!(node.peer_by_address(address), key.filter(|_| !as_given));
                }
            }
            prop_assert!(node.peers().eq(list.values().copied()), "ordered by node id");
            prop_assert!(gone.iter().all(|key| node.node_id_of(*key).is_none()));
        }
    }
}
