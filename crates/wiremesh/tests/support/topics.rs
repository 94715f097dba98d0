//! Nodes that are in a topic together.

#![allow(dead_code)] // each test takes what it needs

use super::nodes::{introduce, plain_node, until};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh::{Node, NodeBuilder, Object, Subscription, Topic};

pub const LIFETIME: Duration = Duration::from_secs(600);

/// Settings of a node on IPv4 loopback that admits nobody but its peers.
pub fn closed() -> NodeBuilder {
    Node::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Two nodes that admit nobody but each other.
pub async fn closed_pair() -> (Node, Node) {
    let first = closed().bind().await.expect("binds");
    let second = closed().bind().await.expect("binds");
    introduce(&first, &second);
    introduce(&second, &first);
    (first, second)
}

pub struct Network {
    pub nodes: Vec<Node>,
    pub topics: Vec<Topic>,
}

/// Nodes that know the first one and learn of each other, all in the topic.
pub async fn network(count: usize, name: &str) -> Network {
    let nodes = star(count).await;
    let topics: Vec<Topic> = nodes
        .iter()
        .map(|node| node.topic(name).expect("joins"))
        .collect();
    joined(&topics).await;
    Network { nodes, topics }
}

/// Nodes that know the first one.
pub async fn star(count: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..count {
        let node = plain_node().await;
        if let Some(first) = nodes.first() {
            introduce(&node, first);
        }
        nodes.push(node);
    }
    nodes
}

/// Waits until all have neighbours.
pub async fn joined(topics: &[Topic]) {
    let alone = |topic: &&Topic| topic.status().neighbours.is_empty();
    until("everybody has a neighbour", || {
        topics.iter().find(alone).is_none()
    })
    .await;
}

pub async fn collect(subscription: &mut Subscription, count: usize) -> Vec<Object> {
    let mut objects = Vec::new();
    while objects.len() < count {
        objects.push(subscription.recv().await.expect("the node lives"));
    }
    objects
}
