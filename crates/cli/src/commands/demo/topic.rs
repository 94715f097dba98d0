//! The part of the demo with a topic: a large object on its way to everybody, and urgent ones that
//! overtake it.
//!
//! Owns what is published and how the delays are told.

use crate::failure::Failure;
use crate::{say, units};
use std::time::{Duration, Instant};
use wiremesh::{Node, Priority, Subscription, Topic};

const NAME: &str = "demo";
/// The large object.
const BULK_BYTES: usize = 16 << 20;
const URGENT_BYTES: usize = 1_024;
const URGENT_COUNT: usize = 20;
/// Between two urgent objects.
const PAUSE: Duration = Duration::from_millis(5);
const LIFETIME: Duration = Duration::from_secs(60);
/// Nothing on loopback takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it; the first node publishes.
pub async fn run(nodes: &[&Node]) -> Result<(), Failure> {
    let late = || Failure::runtime("the topic did not work in time");
    let told = tokio::time::timeout(PATIENCE, broadcast(nodes)).await;
    told.map_err(|_| late())?
}

async fn broadcast(nodes: &[&Node]) -> Result<(), Failure> {
    let failed = |error| Failure::runtime(format!("a topic failed: {error}"));
    let topics: Result<Vec<Topic>, _> = nodes.iter().map(|node| node.topic(NAME)).collect();
    let topics = topics.map_err(failed)?;
    let Some((publisher, others)) = topics.split_first() else {
        return Ok(());
    };
    while topics
        .iter()
        .any(|topic| topic.status().neighbours.is_empty())
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    let readers = others.iter().map(|topic| read(topic.subscribe(), begun));
    let readers: Vec<_> = readers.map(tokio::spawn).collect();
    let publish = async |content: &[u8], class| {
        let published = publisher.publish(content, class, LIFETIME).await;
        published.map_err(|error| Failure::runtime(format!("publishing failed: {error}")))
    };
    publish(&vec![7; BULK_BYTES], Priority::Bulk).await?;
    for _ in 0..URGENT_COUNT {
        let mut content = [0; URGENT_BYTES];
        content[..8].copy_from_slice(&micros(begun.elapsed()).to_le_bytes());
        publish(&content, Priority::Urgent).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let (mut urgent, mut bulk) = (Vec::new(), Duration::ZERO);
    for reader in readers {
        let (delays, whole) = reader.await.unwrap_or_default();
        urgent.extend(delays);
        bulk = bulk.max(whole);
    }
    urgent.sort_unstable();
    let middle = urgent.get(urgent.len() / 2).copied().unwrap_or_default();
    let longest = urgent.last().copied().unwrap_or_default();
    say::note(format!(
        "Then node 1 published {} to everybody (bulk), and {URGENT_COUNT} urgent objects of 1 KiB while it was on its way:",
        units::bytes(BULK_BYTES as u64)
    ));
    say::note(format!(
        "  urgent  {} at half of the {} arrivals, {} at the last",
        units::span(middle),
        urgent.len(),
        units::span(longest)
    ));
    say::note(format!(
        "  bulk    {} until everybody had it",
        units::span(bulk)
    ));
    Ok(())
}

/// Takes all objects; gives the delays of the urgent ones, and when the large one was there.
async fn read(mut subscription: Subscription, begun: Instant) -> (Vec<Duration>, Duration) {
    let (mut urgent, mut bulk) = (Vec::new(), None);
    while urgent.len() < URGENT_COUNT || bulk.is_none() {
        let Some(object) = subscription.recv().await else {
            break;
        };
        let now = begun.elapsed();
        match (object.priority, object.content.first_chunk::<8>()) {
            (Priority::Urgent, Some(sent)) => {
                let sent = Duration::from_micros(u64::from_le_bytes(*sent));
                urgent.push(now.saturating_sub(sent));
            }
            _ => bulk = Some(now),
        }
    }
    (urgent, bulk.unwrap_or_default())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
