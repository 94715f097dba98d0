//! `wiremesh publish`.
//!
//! Owns the life of the node that publishes: until its neighbours have the object.

use super::subscribe::{joined, topic_node};
use crate::args::PublishArgs;
use crate::failure::Failure;
use crate::{node, say, units};
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use wiremesh::{PublishError, Topic};

/// Largest object, bytes.
const OBJECT_MAX: u64 = 64 << 20;
/// How often the neighbours are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What has left the queues is on its way; the neighbours have it after so long.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);

pub async fn run(args: PublishArgs) -> Result<(), Failure> {
    let path = args.file.clone();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let content = read.map_err(|error| Failure::runtime(format!("cannot read: {error}")))??;
    let (node, topic) = topic_node(&args.topic, &args.node, &args.ticket, &args.peer).await?;
    let work = async {
        joined(&topic).await;
        let sent = topic.publish(&content, args.priority, args.expires).await;
        let id = sent.map_err(publish_failure)?;
        say::note(format!(
            "published {id}, {}, {}",
            args.priority,
            units::bytes(content.len() as u64)
        ));
        let spread = tokio::time::timeout(args.expires, spread(&topic)).await;
        spread.map_err(|_| {
            Failure::runtime("the object expired before all neighbours had it")
                .fix("give it more time: --expires 10m")
        })?;
        let neighbours = topic.status().neighbours.len() as u64;
        let neighbours = units::count(neighbours, "neighbour has it", "neighbours have it");
        say::note(format!("{neighbours}; they pass it on"));
        say::print(format!("{id}\n"))
    };
    let result = tokio::select! {
        result = work => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    node.close().await;
    result
}

/// Reads the object; never more than one can have.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::input(format!("cannot read {}: {error}", path.display())).at("the argument FILE")
    };
    let mut content = Vec::new();
    let most = OBJECT_MAX + 1;
    if path == Path::new("-") {
        let read = std::io::stdin().lock().take(most).read_to_end(&mut content);
        read.map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(most).read_to_end(&mut content).map_err(failed)?;
    }
    if content.is_empty() {
        return Err(Failure::input("the object is empty")
            .at("the argument FILE")
            .fix("publish at least one byte"));
    }
    if content.len() as u64 > OBJECT_MAX {
        return Err(Failure::input("the object has more than 64 MiB")
            .at("the argument FILE")
            .fix("publish it in parts, or use `wiremesh send`"));
    }
    Ok(content)
}

fn publish_failure(error: PublishError) -> Failure {
    Failure::runtime(format!("cannot publish: {error}"))
}

/// Waits until the neighbours have what was published.
async fn spread(topic: &Topic) {
    loop {
        let memory = topic.status().memory;
        if memory.queue_bytes == 0 && memory.pinned_bytes == 0 {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(ARRIVES_WITHIN).await;
}
