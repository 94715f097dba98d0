//! Streams between two nodes stay correct on a bad network.
//!
//! The relay of the test kit stands between real sockets. Amounts are small and times generous:
//! what is tested is that everything arrives, not how fast.

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{ECHO, echo_node, exchange, in_time, pattern, plain_node, ticket_through, until};
use std::time::Duration;
use tokio::task::JoinSet;
use wiremesh::{Connection, Node};
use wiremesh_testkit::impair::{Impair, ImpairConfig, ImpairStats, LinkConfig};

/// Streams at a time.
const STREAMS: u32 = 4;

/// Two nodes with a relay between them, connected.
struct Pair {
    server: Node,
    client: Node,
    relay: Impair,
    connection: Connection,
}

impl Pair {
    async fn new(link: LinkConfig) -> Self {
        let (server, client) = (echo_node().await, plain_node().await);
        let target = server.listen_addresses()[0];
        let relay = Impair::start(ImpairConfig::new(target).with_link(link).with_seed(7));
        let relay = relay.expect("the relay starts");
        let ticket = ticket_through(&server, relay.local_addr());
        let connection = client.connect(&ticket, ECHO).await.expect("connects");
        Self {
            server,
            client,
            relay,
            connection,
        }
    }

    /// Exchanges `bytes` over several streams at once.
    async fn exchange(&self, bytes: usize) {
        let mut streams = JoinSet::new();
        for stream in 0..STREAMS {
            let connection = self.connection.clone();
            let data = pattern(bytes / STREAMS as usize, stream);
            streams.spawn(async move { exchange(&connection, data).await });
        }
        while let Some(done) = streams.join_next().await {
            done.expect("the data is intact");
        }
    }

    async fn close(self) -> ImpairStats {
        self.client.close().await;
        self.server.close().await;
        self.relay.stats()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn survives(link: LinkConfig, bytes: usize) -> ImpairStats {
    in_time(async {
        let pair = Pair::new(link).await;
        pair.exchange(bytes).await;
        pair.close().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss() {
    let link = LinkConfig {
        loss: 0.05,
        ..LinkConfig::default()
    };
    let stats = survives(link, 3_000_000).await;
    assert!(stats.to_target.lost > 20 && stats.to_client.lost > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delay_and_reordering() {
    let link = LinkConfig {
        delay: ms(10),
        jitter: ms(10),
        ..LinkConfig::default()
    };
    let stats = survives(link, 3_000_000).await;
    assert!(stats.to_target.reordered > 100 && stats.to_client.reordered > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplication() {
    let link = LinkConfig {
        delay: ms(2),
        duplicate: 0.2,
        ..LinkConfig::default()
    };
    let stats = survives(link, 3_000_000).await;
    assert!(stats.to_target.duplicated > 100 && stats.to_client.duplicated > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corruption() {
    let link = LinkConfig {
        corrupt: 0.02,
        ..LinkConfig::default()
    };
    in_time(async {
        let pair = Pair::new(link).await;
        pair.exchange(3_000_000).await;
        let dropped = pair.server.status().dropped;
        let unauthenticated = dropped.iter().find(|(why, _)| *why == "unauthenticated");
        let count = unauthenticated.map_or(0, |(_, count)| *count);
        assert!(count > 5, "damage is noticed: {dropped:?}");
        pair.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mtu_of_1360() {
    let link = LinkConfig {
        mtu_bytes: Some(1_360),
        ..LinkConfig::default()
    };
    in_time(async {
        let pair = Pair::new(link).await;
        pair.exchange(3_000_000).await;
        let mtu = pair.connection.path().mtu_bytes;
        // 28 bytes of IPv4 and UDP, 32 of WireGuard.
        assert!(usize::from(mtu) <= 1_360 - 28 - 32, "{mtu}");
        pair.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mtu_that_falls_to_1360_is_no_black_hole() {
    in_time(async {
        let pair = Pair::new(LinkConfig::default()).await;
        let connection = &pair.connection;
        pair.exchange(2_000_000).await;
        let before = connection.path().mtu_bytes;
        assert!(before > 1_300, "the path MTU was found: {before}");
        let small = LinkConfig {
            mtu_bytes: Some(1_360),
            ..LinkConfig::default()
        };
        pair.relay
            .set_config(small.clone(), small)
            .expect("in range");
        pair.exchange(400_000).await;
        assert!(connection.path().mtu_bytes < before);
        let stats = pair.close().await;
        assert!(stats.to_target.too_large + stats.to_client.too_large > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once() {
    let link = LinkConfig {
        loss: 0.05,
        delay: ms(10),
        jitter: ms(10),
        duplicate: 0.05,
        corrupt: 0.02,
        mtu_bytes: Some(1_360),
        ..LinkConfig::default()
    };
    let stats = survives(link, 1_000_000).await;
    assert!(stats.to_target.dropped() > 0 && stats.to_target.corrupted > 0);
}

/// A link on which 3 MB take longer than a second, so that things can happen meanwhile.
fn narrow() -> LinkConfig {
    LinkConfig {
        delay: ms(2),
        rate_bits_per_s: Some(20_000_000),
        ..LinkConfig::default()
    }
}

/// Exchanges 3 MB and calls `disturb` when a part of them has arrived.
async fn disturbed(pair: &Pair, disturb: impl Fn()) {
    let bytes = || pair.relay.stats().to_target.delivered_bytes;
    let begin = bytes();
    let middle = async {
        until("a part has arrived", || bytes() > begin + 300_000).await;
        disturb();
    };
    tokio::join!(pair.exchange(3_000_000), middle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nat_that_forgets_its_table_in_the_middle() {
    in_time(async {
        let pair = Pair::new(narrow()).await;
        let seen = || {
            let peer = pair.server.peer(pair.client.id()).expect("it is connected");
            peer.status().and_then(|status| status.endpoint)
        };
        until("the server knows where the client is", || seen().is_some()).await;
        let before = seen();
        disturbed(&pair, || pair.relay.rebind_upstream().expect("a free port")).await;
        assert_ne!(seen(), before, "the server follows the client");
        assert_eq!(seen(), Some(pair.relay.upstream_addresses()[0].1));
        assert!(pair.connection.close_reason().is_none());
        pair.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sockets_of_either_node_in_the_middle() {
    in_time(async {
        let pair = Pair::new(narrow()).await;
        for node in [&pair.client, &pair.server] {
            let before = node.listen_addresses();
            disturbed(&pair, || node.rebind()).await;
            assert_eq!(node.listen_addresses(), before, "the same port is taken");
        }
        assert!(pair.connection.close_reason().is_none());
        pair.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekeying_in_the_middle() {
    in_time(async {
        let pair = Pair::new(narrow()).await;
        let handshakes = pair.client.status().handshakes;
        for node in [&pair.client, &pair.server] {
            let other = match node.id() == pair.client.id() {
                true => pair.server.id(),
                false => pair.client.id(),
            };
            let peer = node.peer(other).expect("it is connected");
            disturbed(&pair, || peer.rekey()).await;
        }
        assert!(pair.client.status().handshakes >= handshakes + 2);
        pair.close().await;
    })
    .await;
}
