//! The same seed gives the same run, down to the last bit of every datagram and its time.

use std::time::Duration;

use wiremesh::Priority;
use wiremesh_simnet::traffic::{self, Received};
use wiremesh_simnet::{Delays, LinkConfig, run};

/// Two nodes with all kinds of traffic on a lossy link, for three seconds.
fn traced(seed: u64) -> (u64, Delays, u64) {
    run(seed, |world| async move {
        let lossy = LinkConfig {
            delay: Duration::from_millis(20),
            rate: Some(10_000_000),
            queue_bytes: 50_000,
            loss_permille: 5,
            ..LinkConfig::default()
        };
        let uplink = || world.network.link(lossy);
        let (one, other) = (world.node(uplink()).await, world.node(uplink()).await);
        let (out, back) = world.connect(&one, &other).await;
        let received = Received::default();
        tokio::spawn(traffic::objects(out.clone(), Priority::Bulk));
        tokio::spawn(traffic::receive(
            world.network.clone(),
            back,
            received.clone(),
        ));
        traffic::urgent(world.network.clone(), out, 50).await;
        (
            world.network.trace(),
            received.delays(),
            received.bytes(Priority::Bulk),
        )
    })
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let first = traced(7);
    println!(
        "trace {:016x}, urgent {}, bulk {} bytes",
        first.0, first.1, first.2
    );
    assert!(first.1.count() > 40 && first.2 > 1_000_000, "{first:?}");
    assert_eq!(first, traced(7));
    assert_ne!(first.0, traced(8).0);
}
