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

fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut random = net::Random::new(seed);
    (0..len).map(|_| random.word() as u8).collect()
}

#[test]
fn large_objects_reach_all_nodes() {
    let mut settings = Settings::new(12, 2);
    settings.rate = Some(4_000_000);
    let mut net = Net::new(settings);
    net.keep_contents = true;
    net.join_all(SECOND / 5);
    net.run(SECOND * 10);
    let sent = net.sent_bytes;
    let sizes = [16 * 1024, 16 * 1024 + 1, 100_000, 3_000_000];
    let mut ids = Vec::new();
    let mut total = 0;
    for (round, len) in sizes.into_iter().enumerate() {
        let bytes = content(len, round as u64);
        total += len as u64;
        let id = net.publish(round, bytes.clone(), Priority::Bulk, SECOND * 60);
        ids.push((round, id.expect("room"), bytes));
    }
    net.run(SECOND * 20);
    for (number, node) in net.nodes.iter().enumerate() {
        assert_eq!(node.twice, 0);
        for (at, id, bytes) in &ids {
            let mut contents = node.contents.iter().filter(|(known, _)| known == id);
            match contents.next() {
                Some((_, content)) => assert_eq!(&content[..], &bytes[..]),
                None => assert_eq!(*at, number, "{} bytes at node {number}", bytes.len()),
            }
        }
    }
    let factor = (net.sent_bytes - sent) as f64 / (total * 11) as f64;
    println!("{factor:.3} bytes sent for each delivered");
    assert!(factor < 1.2, "{factor}");
}
