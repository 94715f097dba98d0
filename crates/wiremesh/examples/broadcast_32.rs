//! Objects to everybody while nodes come and go: 32 nodes on loopback, 10,000 objects of three
//! classes, and a fifth of the nodes killed and started again meanwhile. Every node that was there
//! from the begin to the end has each object once.
//!
//! `cargo run --release -p wiremesh --example broadcast_32 [-- NODES OBJECTS]`

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use wiremesh::{Admission, Endpoint, Node, ObjectId, PeerConfig, Priority, SecretKey, Topic};

type Failure = Box<dyn Error + Send + Sync>;

/// Longer than the whole run: nothing expires before it was counted.
const LIFETIME: Duration = Duration::from_secs(1_800);
/// No object takes so long.
const PATIENCE: Duration = Duration::from_secs(900);

/// A node, with what it got.
struct Member {
    /// Its own, where it can be killed in silence.
    runtime: Option<Runtime>,
    node: Node,
    topic: Topic,
    got: Arc<Got>,
}

#[derive(Default)]
struct Got {
    objects: std::sync::Mutex<HashMap<ObjectId, u32>>,
    count: AtomicU64,
}

/// Starts a node that knows `contacts`, and notes what it gets.
async fn start(key: SecretKey, contacts: &[Node]) -> Result<(Node, Topic, Arc<Got>), Failure> {
    let admission = Admission::AllowAll {
        provisional_max: 200,
    };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let builder = Node::builder().secret_key(key).listen(loopback);
    let node = builder.admission(admission).bind().await?;
    for contact in contacts {
        let mut config = PeerConfig::new(contact.id());
        let listen = contact.listen_addresses().into_iter();
        config.endpoints = listen.map(Endpoint::Address).collect();
        node.add_peer(config)?;
    }
    let topic = node.topic("broadcast")?;
    let got = Arc::new(Got::default());
    let (mut subscription, note) = (topic.subscribe(), Arc::clone(&got));
    tokio::spawn(async move {
        while let Some(object) = subscription.recv().await {
            let mut objects = note.objects.lock().expect("nobody panics with it");
            *objects.entry(object.id).or_default() += 1;
            note.count.fetch_add(1, Relaxed);
        }
    });
    Ok((node, topic, got))
}

/// The same in a runtime of its own.
fn start_apart(key: SecretKey, contacts: Vec<Node>) -> Result<Member, Failure> {
    std::thread::spawn(move || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (node, topic, got) = runtime.block_on(start(key, &contacts))?;
        Ok(Member {
            runtime: Some(runtime),
            node,
            topic,
            got,
        })
    })
    .join()
    .expect("starting a node does not panic")
}

fn key(number: usize) -> SecretKey {
    let mut bytes = [42; 32];
    bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    SecretKey::from_bytes(bytes)
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("never happened: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Publishes objects of all classes from the nodes that stay, in turn.
async fn publish(
    topics: Vec<Topic>,
    objects: usize,
    done: &AtomicU64,
) -> Result<Vec<usize>, Failure> {
    let mut published = vec![0; topics.len()];
    for number in 0..objects {
        let class = Priority::ALL[number % 3];
        let mut content = vec![number as u8; 64 + number * 37 % 1_400];
        content[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let by = number % topics.len();
        topics[by].publish(content, class, LIFETIME).await?;
        published[by] += 1;
        done.fetch_add(1, Relaxed);
    }
    Ok(published)
}

/// Runs it, and gives the lines that say what came of it.
async fn run(nodes: usize, objects: usize) -> Result<Vec<String>, Failure> {
    let restarted = nodes / 5;
    let stay = nodes - restarted;
    let mut stayers = Vec::new();
    let mut contacts: Vec<Node> = Vec::new();
    for number in 0..stay {
        let (node, topic, got) = start(key(number), &contacts).await?;
        contacts.truncate(3);
        contacts.push(node.clone());
        stayers.push((node, topic, got));
    }
    let known: Vec<Node> = stayers
        .iter()
        .take(4)
        .map(|member| member.0.clone())
        .collect();
    let mut others = Vec::new();
    for number in stay..nodes {
        others.push(start_apart(key(number), known.clone())?);
    }
    let topics: Vec<Topic> = stayers.iter().map(|member| member.1.clone()).collect();
    let joined = |topic: &Topic| !topic.status().neighbours.is_empty();
    wait_for("all have neighbours", || {
        topics.iter().all(joined) && others.iter().all(|member| joined(&member.topic))
    })
    .await?;

    let begun = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let (publishing, count) = (topics.clone(), Arc::clone(&done));
    let publishing = tokio::spawn(async move { publish(publishing, objects, &count).await });
    // One after another is killed while objects are on their way, and is back at once.
    for (number, member) in others.iter_mut().enumerate() {
        let due = (objects * (number + 1) / (restarted + 1)) as u64;
        wait_for("it is published on", || done.load(Relaxed) >= due).await?;
        if let Some(runtime) = member.runtime.take() {
            runtime.shutdown_background();
        }
        *member = start_apart(key(stay + number), known.clone())?;
    }
    let published = publishing.await??;
    let complete = |number: usize| (objects - published[number]) as u64;
    let all = |got: &Got, number| got.count.load(Relaxed) >= complete(number);
    let whole = wait_for("all objects are there", || {
        stayers
            .iter()
            .enumerate()
            .all(|(number, member)| all(&member.2, number))
    })
    .await;
    let took = begun.elapsed();
    // A second copy would come soon after the first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut lines = Vec::new();
    let (mut deliveries, mut missing, mut twice) = (0, 0, 0);
    for (number, member) in stayers.iter().enumerate() {
        let objects = member.2.objects.lock().expect("nobody panics with it");
        deliveries += objects.len();
        missing += complete(number) as usize - objects.len().min(complete(number) as usize);
        twice += objects.values().filter(|count| **count > 1).count();
    }
    lines.push(format!(
        "{nodes} nodes, {objects} objects, {restarted} nodes killed and started again, {:.1} s",
        took.as_secs_f64()
    ));
    lines.push(format!(
        "of {} deliveries to the {stay} nodes that stayed: {deliveries} made, {missing} missing, \
         {twice} twice",
        objects * (stay - 1)
    ));
    let back = others.iter().map(|member| member.got.count.load(Relaxed));
    let back: Vec<String> = back.map(|count| count.to_string()).collect();
    lines.push(format!("objects that the new ones got: {}", back.join(" ")));
    for member in &mut others {
        if let Some(runtime) = member.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = &member.node;
    }
    if whole.is_err() || missing > 0 || twice > 0 {
        return Err(lines.join("\n").into());
    }
    lines.push("every node that stayed has each object exactly once".into());
    Ok(lines)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse());
    let nodes = numbers.next().transpose()?.unwrap_or(32);
    let objects = numbers.next().transpose()?.unwrap_or(10_000);
    if !(5..=200).contains(&nodes) || objects == 0 {
        return Err("give 5 to 200 nodes and at least one object".into());
    }
    for line in run(nodes, objects).await? {
        println!("{line}");
    }
    Ok(())
}
