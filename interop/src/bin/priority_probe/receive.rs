//! The receiver: how long each urgent message was under way, and how much bulk came meanwhile.
//!
//! Owns the samples.

use crate::clock::{self, Kind, URGENT_BYTES};
use crate::{Outcome, SCTP_PORT, TOPIC};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use wiremesh::{Connection, Node};
use wiremesh_sctp::{Sctp, SctpExt as _};

/// What came.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Totals>>);

#[derive(Default)]
struct Totals {
    objects_ns: Vec<u64>,
    datagrams_ns: Vec<u64>,
    bulk_bytes: u64,
    /// Time and bulk so far, at the first and at the latest message.
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Received {
    fn with<T>(&self, f: impl FnOnce(&mut Totals) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn message(&self, message: &[u8]) {
        let Some((kind, delay)) = clock::delay(message) else {
            return;
        };
        self.with(|totals| {
            match kind {
                Kind::Object => totals.objects_ns.push(delay),
                Kind::Datagram => totals.datagrams_ns.push(delay),
            }
            totals.last = (clock::now(), totals.bulk_bytes);
            totals.first.get_or_insert(totals.last);
        });
    }

    fn bulk(&self, bytes: usize) {
        self.with(|totals| totals.bulk_bytes += bytes as u64);
    }

    fn report(&self) -> Value {
        self.with(|totals| {
            let first = totals.first.unwrap_or_default();
            json!({
                "objects_ns": totals.objects_ns,
                "datagrams_ns": totals.datagrams_ns,
                "span_ns": totals.last.0 - first.0,
                "bulk_bytes": totals.last.1 - first.1,
            })
        })
    }
}

/// Takes what one connection brings, until the sender closes it.
pub async fn until_closed(node: &Node, carrier: &str) -> Outcome<Value> {
    let connection = node.accept().await.ok_or("the node was closed")?;
    let received = Received::default();
    let all = (connection.clone(), received.clone());
    match carrier {
        "topic" => drop(tokio::spawn(objects(node.clone(), all.0, all.1))),
        "sctp" => drop(tokio::spawn(messages(node.sctp()?, all.1))),
        _ => {
            tokio::spawn(datagrams(connection.clone(), received.clone()));
            tokio::spawn(streams(all.0, all.1));
        }
    }
    connection.closed().await;
    Ok(received.report())
}

async fn messages(sctp: Sctp, received: Received) -> Outcome {
    let association = sctp.listen(SCTP_PORT)?.accept().await;
    let association = association.ok_or("the node was closed")?;
    loop {
        let message = association.recv().await?.message;
        if message.len() == URGENT_BYTES {
            received.message(&message);
        } else {
            received.bulk(message.len());
        }
    }
}

/// What the topic brings; of each large object the sender is told.
async fn objects(node: Node, connection: Connection, received: Received) -> Outcome {
    let mut subscription = node.topic(TOPIC)?.subscribe();
    let mut arrivals = connection.open_uni().await?;
    // The other end hears of a stream when something is sent on it.
    arrivals.write_all(&[0]).await?;
    while let Some(object) = subscription.recv().await {
        if object.content.len() == URGENT_BYTES {
            received.message(&object.content);
        } else {
            received.bulk(object.content.len());
            arrivals.write_all(&[0]).await?;
        }
    }
    Ok(())
}

async fn datagrams(connection: Connection, received: Received) {
    while let Ok(message) = connection.read_datagram().await {
        received.message(&message);
    }
}

async fn streams(connection: Connection, received: Received) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let received = received.clone();
        tokio::spawn(async move {
            let mut message = Vec::new();
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                if message.len() + chunk.bytes.len() <= URGENT_BYTES {
                    message.extend_from_slice(&chunk.bytes);
                } else {
                    received.bulk(chunk.bytes.len());
                }
            }
            if message.len() == URGENT_BYTES {
                received.message(&message);
            }
        });
    }
}
