//! What a peer that is let in can do against topics: it is bounded, counted, and harms nobody else.

#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/topics.rs"]
mod topics;

use nodes::{in_time, plain_node, until};
use topics::{LIFETIME, collect, network};
use wiremesh::quinn::{SendStream, VarInt};
use wiremesh::{Connection, Node, Priority, Topic};

const PROTOCOL: &str = "wiremesh-gossip/1";

/// A peer that speaks the protocol of topics by hand.
async fn attacker(victim: &Node) -> (Node, Connection) {
    let node = plain_node().await;
    let connection = node.connect(&victim.ticket(), PROTOCOL).await;
    let connection = connection.expect("it is let in");
    (node, connection)
}

/// The header of a stream: version, class, instance, topic.
fn header(topic: &[u8; 32]) -> Vec<u8> {
    [&[1, 0][..], &[7; 8], topic].concat()
}

async fn stream(connection: &Connection, bytes: &[u8]) -> Option<SendStream> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

fn dropped(node: &Node, reason: &str) -> u64 {
    let dropped = node.status().dropped;
    let found = dropped.iter().find(|(name, _)| *name == reason);
    found.map_or(0, |(_, count)| *count)
}

/// Objects still go from one end to the other.
async fn delivers(topics: &[Topic]) {
    let mut subscription = topics[2].subscribe();
    for number in 0..20 {
        let published = topics[1].publish([number], Priority::Urgent, LIFETIME);
        published.await.expect("room");
    }
    assert_eq!(collect(&mut subscription, 20).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_unknown_topics_are_refused_and_too_many_end_the_connection() {
    in_time(async {
        let network = network(3, "t").await;
        let victim = &network.nodes[0];
        let (_node, connection) = attacker(victim).await;
        let mut first = stream(&connection, &header(&[9; 32])).await.expect("open");
        let stopped = first.stopped().await.expect("the connection lives");
        assert_eq!(stopped, Some(VarInt::from_u32(0x77_6d10)));
        assert_eq!(dropped(victim, "topic-unknown"), 1);
        first.reset(0u32.into()).ok();
        for number in 0..200u8 {
            if stream(&connection, &header(&[number; 32])).await.is_none() {
                break;
            }
        }
        connection.closed().await;
        assert!(dropped(victim, "topic-streams-refused") <= 200);
        // It is not let in again for a while.
        let again = _node.connect(victim.id(), PROTOCOL).await;
        if let Ok(again) = again {
            again.closed().await;
        }
        until("it is turned away", || {
            dropped(victim, "topic-connections-refused") > 0
        })
        .await;
        delivers(&network.topics).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_beyond_the_limit_are_refused() {
    in_time(async {
        let network = network(3, "t").await;
        let victim = &network.nodes[0];
        let (_node, connection) = attacker(victim).await;
        let mut held = Vec::new();
        for _ in 0..20 {
            // A byte of a header, and no more.
            held.push(stream(&connection, &[1]).await.expect("open"));
        }
        // Ten are as many as one topic can need.
        for late in &held[10..] {
            let stopped = late.stopped().await.expect("the connection lives");
            assert_eq!(stopped, Some(VarInt::from_u32(0x77_6d11)));
        }
        assert_eq!(dropped(victim, "topic-streams-refused"), 10);
        assert!(connection.close_reason().is_none());
        delivers(&network.topics).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_no_message_has_end_the_connection() {
    in_time(async {
        let network = network(3, "t").await;
        let victim = &network.nodes[0];
        for length in [0u32, 131_095, u32::MAX] {
            let (_node, connection) = attacker(victim).await;
            let topic = *network.topics[0].id().as_bytes();
            let bytes = [&header(&topic)[..], &length.to_be_bytes()].concat();
            let stream = stream(&connection, &bytes).await;
            connection.closed().await;
            drop(stream);
        }
        assert_eq!(dropped(victim, "topic-stream-malformed"), 3);
        delivers(&network.topics).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_never_reads_holds_up_nobody() {
    in_time(async {
        let network = network(3, "t").await;
        let victim = &network.nodes[0];
        let (_node, connection) = attacker(victim).await;
        let topic = *network.topics[0].id().as_bytes();
        // JOIN without an address.
        let join = [&header(&topic)[..], &[0, 0, 0, 2, 1, 0]].concat();
        let _stream = stream(&connection, &join).await.expect("open");
        let id = _node.id();
        let joined = || network.topics[0].status().neighbours.contains(&id);
        until("it is a neighbour", joined).await;
        let mut subscription = network.topics[2].subscribe();
        let publishing = async {
            for number in 0..400u32 {
                let content = vec![number as u8; 16_000];
                let published = network.topics[1].publish(content, Priority::Bulk, LIFETIME);
                published.await.expect("room");
            }
        };
        let (objects, ()) = tokio::join!(collect(&mut subscription, 400), publishing);
        assert_eq!(objects.len(), 400);
        let memory = network.topics[0].status().memory;
        assert!(memory.queue_bytes <= 3 << 20, "{memory:?}");
    })
    .await;
}
