//! One link of the demo: numbered messages on a stream, numbered datagrams, and their echoes.
//!
//! Owns the counts. A stream that ends is opened anew, and counted as broken.

use super::member::Member;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use wiremesh::quinn::{RecvStream, SendStream};
use wiremesh::{Connection, Level, NodeId};

/// The protocol of the demo's connections.
pub const PROTOCOL: &str = "wiremesh-upgrade/1";
/// The pause between two messages.
pub const EVERY: Duration = Duration::from_millis(20);
/// The last echoes may take this long.
const LAST_ECHOES: Duration = Duration::from_secs(2);
/// A link on which an echo came within this is alive.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// What went over a link.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub sent: u64,
    pub echoed: u64,
    pub datagrams: u64,
    pub datagrams_echoed: u64,
    pub broken: u64,
    /// How often the session in use was seen below the required level.
    pub below: u64,
    /// The longest time from one echo on the stream to the next.
    pub longest_gap: Duration,
}

/// One link.
pub struct Link {
    ends: (Arc<Member>, Arc<Member>),
    count: Mutex<Count>,
    connection: Mutex<Option<Connection>>,
    last_echo: Mutex<Option<Instant>>,
    finishing: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Begins to talk, from the first end to the second.
    pub fn start(ends: (Arc<Member>, Arc<Member>)) -> Arc<Self> {
        let link = Arc::new(Self {
            ends,
            count: Mutex::default(),
            connection: Mutex::default(),
            last_echo: Mutex::default(),
            finishing: AtomicBool::new(false),
            task: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&link).keep_talking());
        *lock(&link.task) = Some(task);
        link
    }

    /// The counts so far.
    pub fn count(&self) -> Count {
        *lock(&self.count)
    }

    /// Whether one of the two ends is this node.
    pub fn touches(&self, id: &NodeId) -> bool {
        [&self.ends.0, &self.ends.1]
            .iter()
            .any(|end| end.ticket().node_id == *id)
    }

    /// The level of the session in use; `None` without a connection.
    pub fn level(&self) -> Option<Level> {
        let connection = lock(&self.connection).clone()?;
        connection.security().suite?.level()
    }

    /// Whether echoes come.
    pub fn is_alive(&self) -> bool {
        lock(&self.last_echo).is_some_and(|at| at.elapsed() < ALIVE_WITHIN)
    }

    /// Stops sending.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    /// Waits for the last echoes.
    pub async fn finished(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            // A link that is away has nothing to wait for.
            let _ = tokio::time::timeout(LAST_ECHOES * 2, task).await;
        }
    }

    async fn keep_talking(self: Arc<Self>) {
        while !self.finishing.load(Ordering::Relaxed) {
            if let Some(connection) = self.ends.0.connect(&self.ends.1, PROTOCOL).await {
                let done = self.talk(&connection).await.is_some();
                *lock(&self.connection) = done.then_some(connection);
                if done {
                    return;
                }
                lock(&self.count).broken += 1;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Talks until the end of the demo (`Some`) or of the connection.
    async fn talk(&self, connection: &Connection) -> Option<()> {
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        // The echoing side learns of the stream from its first byte.
        send.write_all(&0u64.to_le_bytes()).await.ok()?;
        let mut first = [0; 8];
        receive.read_exact(&mut first).await.ok()?;
        *lock(&self.connection) = Some(connection.clone());
        let sender = self.send(connection, &mut send);
        let echoes = self.count_echoes(&mut receive);
        let datagrams = self.count_datagrams(connection);
        let outcome = tokio::select! {
            outcome = async { tokio::join!(sender, echoes) } => outcome,
            () = datagrams => (None, None),
        };
        match outcome {
            (Some(()), Some(())) => Some(()),
            _ => {
                *lock(&self.connection) = None;
                None
            }
        }
    }

    async fn send(&self, connection: &Connection, send: &mut SendStream) -> Option<()> {
        let mut ticks = tokio::time::interval(EVERY);
        let mut number = 1u64;
        while !self.finishing.load(Ordering::Relaxed) {
            ticks.tick().await;
            let message = number.to_le_bytes();
            lock(&self.count).sent += 1;
            send.write_all(&message).await.ok()?;
            lock(&self.count).datagrams += 1;
            connection.send_datagram(message.to_vec().into()).ok()?;
            number += 1;
            let security = connection.security();
            let level = security.suite.and_then(|suite| suite.level());
            if level.is_some_and(|level| level < security.required) {
                lock(&self.count).below += 1;
            }
        }
        // The datagrams' echoes come on the same way, so none is behind this by much.
        tokio::time::sleep(LAST_ECHOES / 4).await;
        send.finish().ok()
    }

    async fn count_echoes(&self, receive: &mut RecvStream) -> Option<()> {
        let mut expected = 1u64;
        let mut last = Instant::now();
        let mut message = [0; 8];
        loop {
            match receive.read_exact(&mut message).await {
                Ok(()) => {}
                // The other side ends its stream when ours has ended.
                Err(wiremesh::quinn::ReadExactError::FinishedEarly(0))
                    if self.finishing.load(Ordering::Relaxed) =>
                {
                    return Some(());
                }
                Err(_) => return None,
            }
            let mut count = lock(&self.count);
            if message == expected.to_le_bytes() {
                count.echoed += 1;
            }
            count.longest_gap = count.longest_gap.max(last.elapsed());
            last = Instant::now();
            *lock(&self.last_echo) = Some(last);
            expected += 1;
        }
    }

    async fn count_datagrams(&self, connection: &Connection) {
        while connection.read_datagram().await.is_ok() {
            lock(&self.count).datagrams_echoed += 1;
        }
    }
}

/// Sends back whatever comes on a connection.
pub async fn echo(connection: Connection) {
    let datagrams = async {
        while let Ok(datagram) = connection.read_datagram().await {
            if connection.send_datagram(datagram).is_err() {
                return;
            }
        }
    };
    let streams = async {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(Some(len)) = receive.read(&mut buffer).await {
                    send.write_all(&buffer[..len]).await.ok()?;
                }
                send.finish().ok()
            });
        }
    };
    tokio::join!(datagrams, streams);
}
