//! No byte is lost, doubled or out of place, however bad the network in between.
//!
//! The relay of the test kit stands between real sockets. Amounts are small: what is tested is that
//! everything arrives, not how fast.

#[path = "support/pair.rs"]
mod pair;

use pair::nodes::{in_time, pattern};
use pair::{Pair, read_all};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use wiremesh_tcp::TcpStream;
use wiremesh_testkit::impair::LinkConfig;

/// Writes pieces of changing length, then closes.
async fn write_pieces(stream: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8], seed: u32) {
    let lengths = pattern(64, seed ^ 0x5a5a);
    let mut rest = data;
    for n in 0.. {
        let wanted = 1 + usize::from(lengths[n % lengths.len()]) * 97;
        let (piece, left) = rest.split_at(wanted.min(rest.len()));
        stream.write_all(piece).await.expect("the peer reads");
        rest = left;
        if rest.is_empty() {
            break;
        }
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    stream.shutdown().await.expect("open until now");
}

/// Sends both ways at once and compares.
async fn exchange(ours: TcpStream, theirs: TcpStream, bytes: usize, seed: u32) {
    let (there, back) = (pattern(bytes, seed), pattern(bytes, seed + 1));
    let (mut our_read, mut our_write) = tokio::io::split(ours);
    let (mut their_read, mut their_write) = tokio::io::split(theirs);
    let (got_back, got_there, (), ()) = tokio::join!(
        read_all(&mut our_read),
        read_all(&mut their_read),
        write_pieces(&mut our_write, &there, seed),
        write_pieces(&mut their_write, &back, seed + 1),
    );
    assert!(
        got_there == there,
        "{} bytes of {bytes} arrived",
        got_there.len()
    );
    assert!(
        got_back == back,
        "{} bytes of {bytes} came back",
        got_back.len()
    );
}

async fn survives(link: LinkConfig, bytes: usize, seed: u32) -> Pair {
    let pair = Pair::impaired(link, u64::from(seed)).await;
    let listener = pair.b_tcp.listen(80).expect("free");
    let (ours, theirs) = pair.connect(&listener).await;
    exchange(ours, theirs, bytes, seed).await;
    pair
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss() {
    let link = LinkConfig {
        loss: 0.03,
        delay: ms(2),
        ..LinkConfig::default()
    };
    in_time(async {
        let pair = survives(link, 600_000, 7).await;
        let stats = pair.relay.expect("there is one").stats();
        assert!(
            stats.to_target.lost > 3 && stats.to_client.lost > 3,
            "{stats:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reordering_and_duplication() {
    let link = LinkConfig {
        delay: ms(5),
        jitter: ms(5),
        duplicate: 0.1,
        ..LinkConfig::default()
    };
    in_time(async {
        let pair = survives(link, 1_000_000, 8).await;
        let stats = pair.relay.expect("there is one").stats();
        assert!(stats.to_target.reordered > 50, "{stats:?}");
        assert!(stats.to_target.duplicated > 50, "{stats:?}");
    })
    .await;
}

#[test]
fn any_mix_of_faults() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let faults = (
        0.0..0.04f64,
        0u64..8,
        0u64..8,
        0.0..0.1f64,
        1usize..80_000,
        any::<u16>(),
    );
    let config = Config {
        cases: 8,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&faults, |(loss, delay, jitter, duplicate, bytes, seed)| {
        let link = LinkConfig {
            loss,
            delay: ms(delay),
            jitter: ms(jitter.min(delay)),
            duplicate,
            corrupt: loss / 4.0,
            ..LinkConfig::default()
        };
        runtime.block_on(in_time(survives(link, bytes, u32::from(seed))));
        Ok(())
    });
    outcome.expect("every byte is in its place");
}
