//! Objects reach everybody, once, in simulated networks.

#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use net::{Net, Settings};
use wiremesh_wire::Priority;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn small_objects_reach_all_nodes_once() {
    let mut net = Net::new(Settings::new(12, 1));
    net.join_all(SECOND / 5);
    net.run(SECOND * 10);
    let mut ids = Vec::new();
    for round in 0..30 {
        let class = Priority::ALL[round % 3];
        let content = vec![round as u8; 1 + round * 500];
        let at = round * 7 % 12;
        ids.push((
            at,
            net.publish(at, content, class, SECOND * 60).expect("room"),
        ));
        net.run(SECOND / 10);
    }
    net.run(SECOND * 5);
    for (number, node) in net.nodes.iter().enumerate() {
        assert_eq!(node.twice, 0);
        for (at, id) in &ids {
            let want = *at != number;
            assert_eq!(
                node.delivered.contains_key(id),
                want,
                "{id:?} at node {number}"
            );
        }
    }
}
