//! Topics over real nodes on loopback: everybody has each object once, only those who may take
//! part, and what is slow, late or expired harms nobody else.

#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/topics.rs"]
mod topics;

use nodes::{in_time, introduce, pattern, plain_node, until};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Runtime};
use topics::{LIFETIME, closed, closed_pair, collect, joined, network};
use wiremesh::Priority::{Bulk, Normal, Urgent};
use wiremesh::{
    BindError, Node, ObjectId, PeerConfig, PublishError, SecretKey, Subscription, Topic,
    TopicError, Verdict,
};

async fn publish(topic: &Topic, content: impl AsRef<[u8]>) -> ObjectId {
    let published = topic.publish(content, Normal, LIFETIME).await;
    published.expect("a good object")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_each_object_once_with_all_that_was_said_of_it() {
    in_time(async {
        let network = network(6, "blocks").await;
        let mut all: Vec<Subscription> = network.topics.iter().map(Topic::subscribe).collect();
        let mut expected = Vec::new();
        for (number, topic) in network.topics.iter().enumerate() {
            for class in [Urgent, Normal, Bulk] {
                let content = pattern(100 + number * 3_000, number as u32);
                let published = topic.publish(&content, class, LIFETIME).await;
                expected.push((published.expect("room"), class, content, number));
            }
        }
        for (number, subscription) in all.iter_mut().enumerate() {
            let others = expected.iter().filter(|object| object.3 != number);
            let others: Vec<_> = others.collect();
            let objects = collect(subscription, others.len()).await;
            for (id, class, content, _) in others {
                let same: Vec<_> = objects.iter().filter(|object| object.id == *id).collect();
                let [object] = same[..] else {
                    panic!("once, not {} times", same.len());
                };
                let got = (object.priority, &object.content[..]);
                assert_eq!(got, (*class, &content[..]));
                assert!(object.expires > SystemTime::now());
                assert_ne!(object.from, network.nodes[number].id());
            }
            assert_eq!(subscription.missed(), 0);
        }
        let counters = network.topics[0].status().counters;
        assert_eq!((counters.published, counters.delivered), (3, 15));
        assert_eq!(network.nodes[0].status().topics[0].name, "blocks");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_arrives_whole_and_in_one_piece() {
    in_time(async {
        let network = network(4, "files").await;
        let mut all: Vec<Subscription> = network.topics.iter().map(Topic::subscribe).collect();
        let content = pattern(5 << 20, 7);
        let id = publish(&network.topics[1], &content).await;
        for (number, subscription) in all.iter_mut().enumerate() {
            if number != 1 {
                let objects = collect(subscription, 1).await;
                assert_eq!(objects[0].id, id);
                assert!(objects[0].content == content);
            }
        }
    })
    .await;
}

/// Three nodes in a row that admit only the next one.
async fn row() -> [Node; 3] {
    let (first, middle) = closed_pair().await;
    let last = closed().bind().await.expect("binds");
    introduce(&middle, &last);
    introduce(&last, &middle);
    [first, middle, last]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_rejects_is_not_delivered_and_not_forwarded() {
    in_time(async {
        let nodes = row().await;
        let topics = nodes.each_ref().map(|node| node.topic("t").expect("joins"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        topics[1].validate(move |object| {
            count.fetch_add(1, Relaxed);
            match object.content.first() {
                Some(b'g') => Verdict::Accept,
                Some(b'p') => panic!("a validator's fault is not the node's"),
                _ => Verdict::Reject,
            }
        });
        let mut middle = topics[1].subscribe();
        let mut last = topics[2].subscribe();
        joined(&topics).await;
        for content in ["bad", "panic", "good"] {
            publish(&topics[0], content).await;
        }
        for subscription in [&mut middle, &mut last] {
            assert_eq!(collect(subscription, 1).await[0].content, "good");
        }
        assert_eq!(asked.load(Relaxed), 3);
        assert_eq!(topics[1].status().counters.rejected, 2);
        assert_eq!(topics[2].status().counters.delivered, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_misses_and_harms_nobody() {
    in_time(async {
        let network = network(3, "t").await;
        let slow = network.topics[1].subscribe();
        let mut fast = network.topics[1].subscribe();
        let mut other = network.topics[2].subscribe();
        let count = 4_200;
        let publishing = async {
            for number in 0..count {
                publish(&network.topics[0], u32::to_be_bytes(number)).await;
            }
        };
        let count = count as usize;
        let (_, one, two) = tokio::join!(
            publishing,
            collect(&mut fast, count),
            collect(&mut other, count)
        );
        for objects in [one, two] {
            let ids: BTreeSet<ObjectId> = objects.iter().map(|object| object.id).collect();
            assert_eq!(ids.len(), count);
        }
        assert_eq!((fast.missed(), other.missed()), (0, 0));
        assert_eq!(slow.missed(), 4_200 - 4_096);
        assert_eq!(network.topics[1].status().missed, slow.missed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_object_is_given_to_nobody() {
    in_time(async {
        let (first, second) = closed_pair().await;
        let topic = first.topic("t").expect("joins");
        let short = Duration::from_millis(1);
        let published = topic.publish("gone", Urgent, short).await;
        published.expect("a good object");
        // It takes handshakes until the other is there.
        let late = second.topic("t").expect("joins");
        let mut subscription = late.subscribe();
        joined(&[topic.clone(), late]).await;
        publish(&topic, "here").await;
        assert_eq!(collect(&mut subscription, 1).await[0].content, "here");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admitted_nodes_take_part() {
    in_time(async {
        let [first, middle, last] = row().await;
        let stranger = plain_node().await;
        introduce(&stranger, &middle);
        let nodes = [first, middle, last];
        let outside = stranger.topic("t").expect("joins");
        let topics = nodes.each_ref().map(|node| node.topic("t").expect("joins"));
        let mut all = topics.each_ref().map(Topic::subscribe);
        joined(&topics).await;
        publish(&outside, "from outside").await;
        for (number, topic) in topics.iter().enumerate() {
            publish(topic, [number as u8]).await;
        }
        for (number, subscription) in all.iter_mut().enumerate() {
            let objects = collect(subscription, 2).await;
            let firsts: BTreeSet<u8> = objects.iter().map(|object| object.content[0]).collect();
            let others = (0..3).filter(|other| *other != number as u8);
            assert_eq!(firsts, others.collect());
        }
        // The ends of the row hear of each other, and do not know each other.
        let (ends, between) = ([0, 2].map(|end| &topics[end]), nodes[1].id());
        for end in ends {
            assert_eq!(end.status().neighbours, [between]);
        }
        assert_eq!(nodes[0].status().peers.len(), 1);
        assert!(outside.status().neighbours.is_empty());
        let refusals = nodes[1].status().refusals;
        assert!(
            refusals
                .iter()
                .any(|refusal| refusal.node_id == stranger.id())
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_know_one_learn_of_each_other_where_strangers_are_let_in() {
    in_time(async {
        let network = network(5, "t").await;
        let topics = &network.topics[1..];
        let several = || {
            topics
                .iter()
                .all(|topic| topic.status().neighbours.len() > 1)
        };
        until("they have more neighbours than the first", several).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_gets_what_has_not_expired_and_all_that_follows() {
    in_time(async {
        let network = network(3, "t").await;
        let before = publish(&network.topics[0], "before").await;
        let late = plain_node().await;
        introduce(&late, &network.nodes[2]);
        let topic = late.topic("t").expect("joins");
        let mut subscription = topic.subscribe();
        joined(std::slice::from_ref(&topic)).await;
        let after = publish(&network.topics[1], "after").await;
        let ids = collect(&mut subscription, 2).await;
        let ids: BTreeSet<ObjectId> = ids.iter().map(|object| object.id).collect();
        assert_eq!(ids, BTreeSet::from([before, after]));
    })
    .await;
}

/// A node in a runtime of its own, so that it can end as a killed process does: in silence.
fn start(key: SecretKey, contact: PeerConfig) -> (Runtime, Node, Topic) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (node, topic) = runtime.block_on(async {
        let node = nodes::builder().secret_key(key).bind().await;
        let node = node.expect("binds");
        node.add_peer(contact).expect("a new peer");
        let topic = node.topic("t").expect("joins");
        (node, topic)
    });
    (runtime, node, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_comes_back_as_a_new_one() {
    in_time(async {
        let network = network(3, "t").await;
        let key = SecretKey::from_bytes([77; 32]);
        let mut contact = PeerConfig::new(network.nodes[0].id());
        contact.endpoints = network.nodes[0].ticket().endpoints;
        for run in 0..3u8 {
            let (key, contact) = (key.clone(), contact.clone());
            let started = std::thread::spawn(move || start(key, contact)).join();
            let (runtime, node, topic) = started.expect("it runs");
            let mut subscription = topic.subscribe();
            joined(std::slice::from_ref(&topic)).await;
            let id = publish(&network.topics[1], [run]).await;
            // Those of the runs before have not expired, and this run has not had them.
            let objects = collect(&mut subscription, usize::from(run) + 1).await;
            let ids: BTreeSet<ObjectId> = objects.iter().map(|object| object.id).collect();
            assert_eq!(ids.len(), usize::from(run) + 1);
            assert!(ids.contains(&id));
            runtime.shutdown_background();
            drop((node, topic, subscription));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_left_with_its_last_handle_and_can_be_joined_again() {
    in_time(async {
        let (first, second) = closed_pair().await;
        let stays = first.topic("t").expect("joins");
        let topic = second.topic("t").expect("joins");
        let subscription = topic.subscribe();
        joined(&[stays.clone(), topic.clone()]).await;
        drop(topic);
        assert_eq!(second.status().topics.len(), 1, "a subscription holds it");
        drop(subscription);
        until("it is left", || second.status().topics.is_empty()).await;
        until("the other knows", || stays.status().neighbours.is_empty()).await;
        let again = second.topic("t").expect("joins");
        let mut subscription = again.subscribe();
        joined(&[stays.clone(), again]).await;
        publish(&stays, "again").await;
        assert_eq!(collect(&mut subscription, 1).await[0].content, "again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_node_are_apart() {
    in_time(async {
        let (first, second) = closed_pair().await;
        let names = ["a", "b"];
        let ours = names.map(|name| first.topic(name).expect("joins"));
        let theirs = second.topic("b").expect("joins");
        let mut subscription = theirs.subscribe();
        joined(&[ours[1].clone(), theirs]).await;
        publish(&ours[0], "for a").await;
        publish(&ours[1], "for b").await;
        assert_eq!(collect(&mut subscription, 1).await[0].content, "for b");
        assert!(ours[0].status().neighbours.is_empty());
    })
    .await;
}

#[tokio::test]
async fn bad_arguments_are_refused_with_a_reason() {
    in_time(async {
        let node = closed().protocol("wiremesh-gossip/1").bind().await;
        let error = node.expect_err("reserved");
        assert!(matches!(error, BindError::ReservedProtocol(_)));
        assert!(error.to_string().contains("fix:"), "{error}");

        let node = closed().bind().await.expect("binds");
        for name in ["", &"x".repeat(256)] {
            let error = node.topic(name).expect_err("no name");
            assert!(matches!(error, TopicError::Name(len) if len == name.len()));
        }
        let topic = node.topic(&"x".repeat(255)).expect("just so long");
        let many: Vec<Topic> = (1..30)
            .map(|number| node.topic(&number.to_string()).expect("within the limit"))
            .collect();
        let error = node.topic("one more").expect_err("too many");
        assert!(matches!(error, TopicError::TooMany(30)));
        drop(many);

        let hour = Duration::from_secs(3_600);
        let too_large = vec![0; (64 << 20) + 1];
        let cases: [(&[u8], Duration, PublishError); 4] = [
            (b"", hour, PublishError::Empty),
            (&too_large, hour, PublishError::TooLarge(too_large.len())),
            (b"x", Duration::ZERO, PublishError::Lifetime(Duration::ZERO)),
            (b"x", hour * 2, PublishError::Lifetime(hour * 2)),
        ];
        for (content, lifetime, expected) in cases {
            let published = topic.publish(content, Urgent, lifetime).await;
            assert_eq!(published, Err(expected));
        }
        let mut subscription = topic.subscribe();
        node.close().await;
        assert!(subscription.recv().await.is_none());
        let published = topic.publish("x", Urgent, hour).await;
        assert_eq!(published, Err(PublishError::Closed));
        assert!(matches!(node.topic("y"), Err(TopicError::Closed)));
    })
    .await;
}
