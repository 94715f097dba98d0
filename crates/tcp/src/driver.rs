//! The task that carries packets between the node and the connections.
//!
//! Owns the clock and the waiting: for packets, for a stream that has read or written, for a
//! deadline, and for the node's UDP socket when that is full. It decides nothing of TCP.

use crate::link::Outgoing;
use crate::stack::Stack;
use smoltcp::time::Instant;
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use wiremesh::RawSocket;

/// Packets taken in before the connections may answer.
const INGEST_MAX: usize = 128;
/// The longest IP packet.
const PACKET_BYTES_MAX: usize = 65_535;

/// What the driver and all handles share.
pub(crate) struct Shared {
    stack: Mutex<Stack>,
    pub(crate) raw: RawSocket,
    pub(crate) wake: Notify,
    begun: std::time::Instant,
}

/// Keeps the stack alive; when the last one is dropped, it ends with its last connection.
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stack().released = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    pub(crate) fn new(stack: Stack, raw: RawSocket) -> Self {
        Self {
            stack: Mutex::new(stack),
            raw,
            wake: Notify::new(),
            begun: std::time::Instant::now(),
        }
    }

    /// Locks the stack. A panic under the lock is a fault of ours, not of what the lock protects.
    pub(crate) fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        let micros = i64::try_from(self.begun.elapsed().as_micros());
        Instant::from_micros(micros.unwrap_or(i64::MAX))
    }

    /// Takes in what has come: `Ready(false)` once the node is closed.
    fn poll_ingest(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<bool> {
        let now = self.now();
        let mut stack = None;
        for _ in 0..INGEST_MAX {
            match self.raw.poll_recv(cx, buffer) {
                Poll::Ready(Ok(len)) => stack
                    .get_or_insert_with(|| self.stack())
                    .ingest(&mut buffer[..len], now),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending if stack.is_none() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(true)
    }

    async fn send(&self, outgoing: &mut Outgoing) {
        let mut sent = 0;
        loop {
            sent += self.raw.try_send_all(outgoing.iter_from(sent));
            if sent >= outgoing.len() {
                return outgoing.clear();
            }
            self.raw.writable().await;
        }
    }
}

/// Runs until the node is closed, or all handles and connections are gone.
pub(crate) async fn drive(shared: Arc<Shared>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut outgoing = Outgoing::default();
    loop {
        let pause = {
            let mut stack = shared.stack();
            let pause = stack.turn(shared.now());
            std::mem::swap(&mut stack.outgoing, &mut outgoing);
            if stack.is_done() && outgoing.len() == 0 {
                return;
            }
            pause
        };
        shared.send(&mut outgoing).await;
        let open = tokio::select! {
            open = poll_fn(|cx| shared.poll_ingest(cx, &mut buffer)) => open,
            () = shared.wake.notified() => true,
            () = sleep(pause) => true,
        };
        if !open {
            shared.stack().close();
        }
    }
}

async fn sleep(pause: Option<smoltcp::time::Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(Duration::from_micros(pause.total_micros())).await,
        None => pending().await,
    }
}
