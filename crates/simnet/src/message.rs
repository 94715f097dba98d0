//! The same situation as in [`crate::priority`], for what carries messages: SCTP and topics.
//!
//! Owns the traffic of both; one node behind a modem sends bulk messages of 1 MB without end to
//! another, and urgent ones of 1 KB.

use std::time::Duration;

use tokio::time::sleep;
use wiremesh::{EgressConfig, Node, Priority, Topic};
use wiremesh_sctp::{Association, SctpExt, SendMode};

use crate::priority::{Figures, MODEM, WARM_UP};
use crate::traffic::{OBJECT_BYTES, Received, URGENT_BYTES, pause, stamped};
use crate::{World, run};

/// What the messages travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Two streams of one SCTP association.
    Sctp,
    /// One topic.
    Topic,
}

/// One to send urgent messages, one for bulk.
enum Sender {
    Sctp(Association),
    Topic(Topic),
}

const LIFETIME: Duration = Duration::from_secs(600);

impl Sender {
    async fn send(&self, class: Priority, message: Vec<u8>) -> bool {
        match self {
            Self::Sctp(association) => {
                let stream = class as u16;
                let sent = association.send(stream, 0, message, SendMode::default());
                sent.await.is_ok()
            }
            Self::Topic(topic) => topic.publish(message, class, LIFETIME).await.is_ok(),
        }
    }
}

/// Measures with so many urgent messages, beside bulk if `is_loaded`.
pub fn measure(
    name: &'static str,
    carrier: Carrier,
    rate_bits: Option<u64>,
    is_loaded: bool,
    messages: u32,
) -> Figures {
    run(1, move |world| async move {
        let uplink = world.network.link(MODEM);
        let config = EgressConfig {
            rate_bits,
            ..EgressConfig::default()
        };
        let builder = world.builder(&world.host(uplink)).egress(config);
        let from = builder.bind().await.expect("the port is free");
        let to = world.node(world.network.link(MODEM)).await;
        let received = Received::default();
        let sender = std::sync::Arc::new(open(&world, carrier, &from, &to, &received).await);
        if is_loaded {
            let bulk = std::sync::Arc::clone(&sender);
            tokio::spawn(async move {
                while bulk.send(Priority::Bulk, vec![0xff; OBJECT_BYTES]).await {}
            });
        }
        sleep(WARM_UP).await;
        let (began, before) = (world.elapsed(), received.bytes(Priority::Bulk));
        for number in 0..messages {
            sleep(pause(number)).await;
            let message = stamped(&world.network, URGENT_BYTES);
            assert!(sender.send(Priority::Urgent, message).await);
        }
        let took = world.elapsed() - began;
        let bulk_bytes = received.bytes(Priority::Bulk) - before;
        sleep(Duration::from_secs(1)).await;
        let modem = world.network.counters(uplink);
        Figures {
            name,
            urgent: received.delays(),
            sent: messages,
            bulk_rate: (bulk_bytes as f64 * 8.0 / took.as_secs_f64()) as u64,
            modem_wait: modem.wait_max,
            modem_dropped: modem.dropped,
        }
    })
}

async fn open(
    world: &World,
    carrier: Carrier,
    from: &Node,
    to: &Node,
    received: &Received,
) -> Sender {
    // They know each other from here on.
    let _ = world.connect(from, to).await;
    let (network, received) = (world.network.clone(), received.clone());
    let take = move |message: &[u8]| match message.len() {
        URGENT_BYTES => received.message(&network, message),
        len => received.bulk(len),
    };
    match carrier {
        Carrier::Sctp => {
            let [from, sctp] = [from, to].map(|node| node.sctp().expect("it is free"));
            let listener = sctp.listen(5000).expect("the port is free");
            let (open, accepted) = tokio::join!(from.connect(to.id(), 5000), listener.accept());
            let (open, accepted) = (open.expect("it opens"), accepted.expect("it opens"));
            for class in Priority::ALL {
                open.set_priority(class as u16, class);
            }
            tokio::spawn(async move {
                let _listener = listener;
                while let Ok(message) = accepted.recv().await {
                    take(&message.message);
                }
            });
            Sender::Sctp(open)
        }
        Carrier::Topic => {
            let [topic, there] = [from, to].map(|node| node.topic("blocks").expect("a new topic"));
            let mut subscription = there.subscribe();
            tokio::spawn(async move {
                while let Some(object) = subscription.recv().await {
                    take(&object.content);
                }
            });
            while topic.status().neighbours.is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
            Sender::Topic(topic)
        }
    }
}
