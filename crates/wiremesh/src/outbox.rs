//! Sealed datagrams on their way to the socket, gathered into batches.
//!
//! Owns the order (nonces are assigned, so nothing overtakes) and the batching: consecutive
//! datagrams of one path and one size leave in one system call. Never looks inside.

use std::collections::VecDeque;
use wiremesh_core::Path;
use wiremesh_udp::{SendError, Transmit, UdpSockets};

/// A batch must fit a UDP datagram of the largest size, or the kernel refuses it.
const BATCH_BYTES_MAX: usize = 65_000;
/// Above this many bytes the streams have to wait.
const QUEUE_BYTES_MAX: usize = 512 * 1024;
/// Batch buffers kept for reuse.
const SPARE_MAX: usize = 4;

/// Consecutive datagrams for one path, all of `segment` bytes but the last.
pub(crate) struct Batch {
    path: Path,
    ecn: u8,
    segment: usize,
    count: usize,
    closed: bool,
    sent: usize,
    pub(crate) contents: Vec<u8>,
}

/// What flushing came to.
#[derive(Default)]
pub(crate) struct Flushed {
    /// The socket failed and must be bound anew.
    pub(crate) fatal: bool,
    /// The local address of this path is no longer ours.
    pub(crate) source_rejected: Option<Path>,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Outbox {
    batches: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    blocked: bool,
}

impl Outbox {
    /// Whether the socket has refused more for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether enough waits for one system call of the largest size.
    pub(crate) fn has_full_batch(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX * 9 / 10
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= QUEUE_BYTES_MAX
    }

    /// The batch to which a datagram of `len` bytes is to be appended; call [`Outbox::appended`]
    /// after that.
    pub(crate) fn batch_for(
        &mut self,
        path: Path,
        ecn: u8,
        len: usize,
        segments_max: usize,
    ) -> &mut Batch {
        let fits = self.batches.back().is_some_and(|batch| {
            batch.path == path
                && batch.ecn == ecn
                && !batch.closed
                && batch.sent == 0
                && batch.count < segments_max
                && len <= batch.segment
                && batch.contents.len() + len <= BATCH_BYTES_MAX
        });
        if !fits {
            let contents = self.spare.pop().unwrap_or_default();
            let segment = len;
            let batch = Batch {
                path,
                ecn,
                segment,
                count: 0,
                closed: false,
                sent: 0,
                contents,
            };
            self.batches.push_back(batch);
        }
        self.batches
            .back_mut()
            .expect("a batch was just found or made")
    }

    /// Accounts for a datagram of `len` bytes that was appended to the last batch.
    pub(crate) fn appended(&mut self, len: usize) {
        if let Some(batch) = self.batches.back_mut() {
            batch.count += 1;
            batch.closed = len < batch.segment;
            self.bytes += len;
        }
    }

    /// Takes the last batch back if nothing was appended to it.
    pub(crate) fn drop_if_empty(&mut self) {
        if let Some(batch) = self.batches.pop_back_if(|batch| batch.count == 0) {
            self.spare.push(batch.contents);
        }
    }

    /// Appends a finished datagram.
    pub(crate) fn push(&mut self, finished: &wiremesh_core::Transmit, segments_max: usize) {
        let datagram = &finished.datagram;
        let batch = self.batch_for(finished.path, finished.ecn, datagram.len(), segments_max);
        batch.contents.extend_from_slice(datagram);
        self.appended(datagram.len());
    }

    /// Gives the socket as much as it takes.
    pub(crate) fn flush(&mut self, sockets: &UdpSockets) -> Flushed {
        let mut flushed = Flushed::default();
        self.blocked = false;
        while let Some(batch) = self.batches.front_mut() {
            let transmit = Transmit {
                destination: batch.path.remote,
                source: batch.path.local,
                ecn: batch.ecn,
                segment_size: (batch.count > 1).then_some(batch.segment),
                contents: &batch.contents[batch.sent..],
            };
            match sockets.try_send(&transmit) {
                Ok(sent) => {
                    if sent.source_rejected {
                        flushed.source_rejected = Some(batch.path);
                    }
                }
                Err(SendError::WouldBlock { sent_bytes }) => {
                    batch.sent += sent_bytes;
                    self.blocked = true;
                    return flushed;
                }
                // This destination only; counted below. The streams repeat what matters.
                Err(SendError::Dropped(_)) => {}
                Err(SendError::Fatal(error)) => {
                    tracing::warn!(%error, "UDP socket failed");
                    flushed.fatal = true;
                }
            }
            self.pop_front();
        }
        flushed
    }

    fn pop_front(&mut self) {
        if let Some(mut batch) = self.batches.pop_front() {
            self.bytes -= batch.contents.len();
            batch.contents.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(batch.contents);
            }
        }
    }
}
