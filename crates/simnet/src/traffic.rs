//! Traffic between two nodes: large objects without end, small messages now and then.
//!
//! Owns what a message carries so that its delay can be taken: the virtual time at which it was
//! handed over, and padding.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wiremesh::{Connection, Priority, PrioritySend};
use wiremesh_udp::memory::Network;

use crate::Delays;

/// A large object.
pub const OBJECT_BYTES: usize = 1_000_000;
/// A byte of a large object, beside the class. A message begins with a zero.
const OBJECT: u8 = 0x80;
/// An urgent object or datagram.
pub const URGENT_BYTES: usize = 1_024;

/// What has come to a receiver.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<Mutex<Totals>>);

#[derive(Debug, Default)]
struct Totals {
    delays: Delays,
    /// Of large objects, by class.
    bytes: [u64; 3],
}

impl Received {
    fn with<T>(&self, f: impl FnOnce(&mut Totals) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The delays of the messages.
    pub fn delays(&self) -> Delays {
        self.with(|totals| totals.delays.clone())
    }

    /// The bytes of large objects of a class, also of unfinished ones.
    pub fn bytes(&self, priority: Priority) -> u64 {
        self.with(|totals| totals.bytes[priority.index()])
    }

    /// Notes a message that carries the time of its sending.
    pub fn message(&self, network: &Network, message: &[u8]) {
        let sent = message.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
        let delay = network.elapsed() - Duration::from_nanos(sent);
        self.with(|totals| totals.delays.add(delay));
    }

    /// Notes so many bytes of bulk.
    pub fn bulk(&self, len: usize) {
        self.with(|totals| totals.bytes[Priority::Bulk.index()] += len as u64);
    }

    fn part(&self, part: &[u8]) {
        let class = part.first().map_or(0, |byte| usize::from(byte & !OBJECT));
        self.with(|totals| totals.bytes[class] += part.len() as u64);
    }
}

/// A message that carries the time of its sending.
pub fn stamped(network: &Network, len: usize) -> Vec<u8> {
    let mut message = vec![0; len.max(8)];
    let nanos = u64::try_from(network.elapsed().as_nanos()).unwrap_or(u64::MAX);
    message[..8].copy_from_slice(&nanos.to_be_bytes());
    message
}

/// Sends one large object after the other, each on a stream of its own, until the connection ends.
pub async fn objects(connection: Connection, priority: Priority) {
    let object = vec![OBJECT | priority as u8; OBJECT_BYTES];
    let mut before: Option<PrioritySend> = None;
    while let Ok(mut stream) = connection.open_uni_with(priority).await {
        if stream.write_all(&object).await.is_err() || stream.finish().is_err() {
            return;
        }
        // The next begins while the last bytes of this one are under way, the one after it does not.
        if let Some(before) = before.replace(stream) {
            let _ = before.stopped().await;
        }
    }
}

/// Sends so many urgent objects, every 50 to 60 ms, each on a stream of its own.
pub async fn urgent(network: Network, connection: Connection, count: u32) {
    for number in 0..count {
        network.sleep(pause(number)).await;
        let Ok(mut stream) = connection.open_uni_with(Priority::Urgent).await else {
            return;
        };
        let message = stamped(&network, URGENT_BYTES);
        if stream.write_all(&message).await.is_err() || stream.finish().is_err() {
            return;
        }
    }
}

/// Sends so many urgent datagrams, every 50 to 60 ms.
pub async fn urgent_datagrams(network: Network, connection: Connection, count: u32) {
    for number in 0..count {
        network.sleep(pause(number)).await;
        let message = stamped(&network, URGENT_BYTES);
        let sent = connection.send_datagram_with(Priority::Urgent, message.into());
        if sent.is_err() {
            return;
        }
    }
}

/// 50 to 60 ms, spread so that no message keeps step with anything.
pub fn pause(number: u32) -> Duration {
    Duration::from_micros(50_000 + u64::from(number.wrapping_mul(2_654_435_761) % 10_000))
}

/// Takes everything that comes on streams.
pub async fn receive(network: Network, connection: Connection, received: Received) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let (network, received) = (network.clone(), received.clone());
        tokio::spawn(async move {
            let mut message = Vec::new();
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                match chunk.bytes.first() {
                    Some(first) if first & OBJECT != 0 => received.part(&chunk.bytes),
                    _ => message.extend_from_slice(&chunk.bytes),
                }
            }
            if message.len() == URGENT_BYTES {
                received.message(&network, &message);
            }
        });
    }
}

/// Takes all datagrams.
pub async fn receive_datagrams(network: Network, connection: Connection, received: Received) {
    while let Ok(message) = connection.read_datagram().await {
        received.message(&network, &message);
    }
}
