//! What the sender sends, by carrier: bulk without end, and urgent messages now and then.
//!
//! Owns the rhythm. An urgent message is stamped before it is handed over, so that waiting for room
//! counts.

use crate::clock::{Kind, OBJECT_BYTES, stamped};
use crate::{LINGER, Outcome, SCTP_PORT, TOPIC, WARM_UP};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use wiremesh::quinn::RecvStream;
use wiremesh::{Connection, Node, NodeId, Priority, PrioritySend, Topic};
use wiremesh_sctp::{SctpExt as _, SendMode};

/// Streams of an SCTP association.
const URGENT_STREAM: u16 = 1;
const BULK_STREAM: u16 = 2;
/// How long an object of a topic lives.
const LIFETIME: Duration = Duration::from_secs(60);

/// An urgent object and an urgent datagram, in turns, each on its own.
pub async fn on_streams(connection: &Connection, is_loaded: bool, messages: u32) -> Outcome {
    if is_loaded {
        tokio::spawn(bulk_streams(connection.clone()));
    }
    sleep(WARM_UP).await;
    for number in 0..messages {
        sleep(pause(number)).await;
        tokio::spawn(object(connection.clone(), stamped(Kind::Object)));
        sleep(pause(number)).await;
        connection.send_datagram_with(Priority::Urgent, stamped(Kind::Datagram).into())?;
    }
    sleep(LINGER).await;
    Ok(())
}

async fn object(connection: Connection, message: Vec<u8>) -> Outcome {
    let mut stream = connection.open_uni_with(Priority::Urgent).await?;
    stream.write_all(&message).await?;
    stream.finish()?;
    Ok(())
}

/// One large object after the other, each on a stream of its own, until the connection ends.
async fn bulk_streams(connection: Connection) -> Outcome {
    let object = vec![0; OBJECT_BYTES];
    let mut before: Option<PrioritySend> = None;
    loop {
        let mut stream = connection.open_uni_with(Priority::Bulk).await?;
        stream.write_all(&object).await?;
        stream.finish()?;
        // The next begins while the last bytes of this one are under way, the one after it does not.
        if let Some(before) = before.replace(stream) {
            before.stopped().await?;
        }
    }
}

/// Urgent objects of a topic. The receiver says on a stream when it has a large one.
pub async fn on_topic(
    node: &Node,
    connection: &Connection,
    is_loaded: bool,
    messages: u32,
) -> Outcome {
    let topic = node.topic(TOPIC)?;
    // It comes when the receiver is in the topic, too.
    let arrivals = connection.accept_uni().await?;
    while topic.status().neighbours.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    if is_loaded {
        // With what the receiver says first, two: the next begins while the last bytes of this one are
        // under way.
        let room = Arc::new(Semaphore::new(1));
        tokio::spawn(note_arrivals(arrivals, Arc::clone(&room)));
        tokio::spawn(bulk_objects(topic.clone(), room));
    }
    sleep(WARM_UP).await;
    for number in 0..messages {
        sleep(2 * pause(number)).await;
        let (topic, message) = (topic.clone(), stamped(Kind::Object));
        tokio::spawn(async move { topic.publish(message, Priority::Urgent, LIFETIME).await });
    }
    // Not before the last one has arrived: then the node leaves the topic.
    sleep(LINGER).await;
    Ok(())
}

/// Messages of one association, each class on a stream of its own; what is a datagram elsewhere is
/// unordered here.
pub async fn on_sctp(node: &Node, receiver: NodeId, is_loaded: bool, messages: u32) -> Outcome {
    let association = Arc::new(node.sctp()?.connect(receiver, SCTP_PORT).await?);
    association.set_priority(URGENT_STREAM, Priority::Urgent);
    association.set_priority(BULK_STREAM, Priority::Bulk);
    if is_loaded {
        let association = Arc::clone(&association);
        tokio::spawn(async move {
            let large = || vec![0; OBJECT_BYTES];
            let mode = SendMode::default();
            while association
                .send(BULK_STREAM, 0, large(), mode)
                .await
                .is_ok()
            {}
        });
    }
    sleep(WARM_UP).await;
    for number in 0..messages {
        for kind in [Kind::Object, Kind::Datagram] {
            sleep(pause(number)).await;
            let (association, message) = (Arc::clone(&association), stamped(kind));
            let mode = SendMode {
                unordered: kind == Kind::Datagram,
                ..SendMode::default()
            };
            tokio::spawn(async move { association.send(URGENT_STREAM, 0, message, mode).await });
        }
    }
    sleep(LINGER).await;
    Ok(())
}

async fn note_arrivals(mut arrivals: RecvStream, room: Arc<Semaphore>) {
    while let Ok(Some(arrived)) = arrivals.read_chunk(usize::MAX, true).await {
        room.add_permits(arrived.bytes.len());
    }
}

async fn bulk_objects(topic: Topic, room: Arc<Semaphore>) -> Outcome {
    let object = vec![0; OBJECT_BYTES];
    loop {
        room.acquire().await?.forget();
        topic.publish(&object, Priority::Bulk, LIFETIME).await?;
    }
}

/// 25 to 30 ms, spread so that no message keeps step with anything.
fn pause(number: u32) -> Duration {
    Duration::from_micros(25_000 + u64::from(number.wrapping_mul(2_654_435_761) % 5_000))
}
