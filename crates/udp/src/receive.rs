//! Receiving: fair between the sockets, deaf to the fate of earlier sends.
//!
//! Owns the receive loop of [`UdpSockets`]. Never looks into a datagram.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use crate::batch::RecvBatch;
use crate::counters::Counters;
use crate::errors::is_transient_on_receive;
use crate::socket::Socket;
use crate::sockets::UdpSockets;

/// Errors skipped in one poll before other tasks get a turn.
const ERRORS_PER_POLL_MAX: usize = 64;

enum Looked {
    Filled,
    Nothing,
}

impl UdpSockets {
    /// Receives what is there, with one system call from one socket; the next call begins with
    /// another socket.
    ///
    /// The batch is emptied first. Errors that only report the fate of an earlier send are skipped.
    ///
    /// # Errors
    ///
    /// The socket itself failed: [`UdpSockets::rebind`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        batch.clear();
        let open = self.opened();
        if let Poll::Ready(result) = self.poll_sockets(&open.sockets, batch) {
            return Poll::Ready(result);
        }
        // Registered before the second look, so that no wake-up falls between the two.
        self.readers.register(cx.waker());
        self.poll_sockets(&open.sockets, batch)
    }

    /// Waits for datagrams and receives them; safe to cancel.
    ///
    /// # Errors
    ///
    /// As [`UdpSockets::poll_recv`].
    pub async fn recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        poll_fn(|cx| self.poll_recv(cx, batch)).await
    }

    fn poll_sockets(&self, sockets: &[Socket], batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let first = self.next_to_receive.load(Relaxed);
        for step in 0..sockets.len() {
            let index = first.wrapping_add(step) % sockets.len();
            match self.look(&sockets[index], batch) {
                Ok(Looked::Nothing) => {}
                Ok(Looked::Filled) => {
                    self.next_to_receive.store(index + 1, Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    fn look(&self, socket: &Socket, batch: &mut RecvBatch) -> io::Result<Looked> {
        let mut cx = Context::from_waker(&self.read_waker);
        for _ in 0..ERRORS_PER_POLL_MAX {
            match socket.poll_recv_ready(&mut cx) {
                Poll::Pending => return Ok(Looked::Nothing),
                Poll::Ready(ready) => ready?,
            }
            Counters::add(&self.counters.receive_syscalls, 1);
            match socket.receive(batch) {
                Ok((datagrams, bytes)) => {
                    Counters::add(&self.counters.received_batches, 1);
                    Counters::add(&self.counters.received_datagrams, datagrams);
                    Counters::add(&self.counters.received_bytes, bytes);
                    return Ok(Looked::Filled);
                }
                // tokio has noted it; the next turn registers for the wake-up.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_transient_on_receive(&error) => {
                    Counters::add(&self.counters.receive_errors_skipped, 1);
                }
                Err(error) => return Err(error),
            }
        }
        self.readers.wake_all();
        Ok(Looked::Nothing)
    }
}
