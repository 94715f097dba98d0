//! What the sockets did since they were first bound.
//!
//! Owns the atomic counters and their snapshot. Counting is relaxed: a snapshot taken under load
//! may be a few datagrams apart between fields. Counters survive a rebind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::DropReason;

const REASONS: usize = DropReason::ALL.len();

/// A snapshot of the counters of [`crate::UdpSockets`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpCounters {
    /// Datagrams received.
    pub received_datagrams: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Receive calls that brought at least one datagram.
    pub received_batches: u64,
    /// Receive system calls, also those that found nothing.
    pub receive_syscalls: u64,
    /// Receive errors that only report the fate of an earlier send, and are skipped.
    pub receive_errors_skipped: u64,
    /// Datagrams accepted by the operating system.
    pub sent_datagrams: u64,
    /// UDP payload bytes accepted by the operating system.
    pub sent_bytes: u64,
    /// Send system calls that were accepted (one may carry many datagrams).
    pub sent_batches: u64,
    /// Send system calls, also the refused ones.
    pub send_syscalls: u64,
    /// Sends that found the socket's buffer full.
    pub send_would_block: u64,
    /// Pinned source addresses that the operating system refused.
    pub sources_rejected: u64,
    dropped: [u64; REASONS],
}

impl UdpCounters {
    /// Gives the number of outgoing datagrams dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason.index()]
    }

    /// Gives the number of outgoing datagrams dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received_datagrams: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) received_batches: AtomicU64,
    pub(crate) receive_syscalls: AtomicU64,
    pub(crate) receive_errors_skipped: AtomicU64,
    pub(crate) sent_datagrams: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) sent_batches: AtomicU64,
    pub(crate) send_syscalls: AtomicU64,
    pub(crate) send_would_block: AtomicU64,
    pub(crate) sources_rejected: AtomicU64,
    dropped: [AtomicU64; REASONS],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn on_dropped(&self, reason: DropReason, datagrams: usize) {
        Self::add(&self.dropped[reason.index()], datagrams);
    }

    pub(crate) fn snapshot(&self) -> UdpCounters {
        UdpCounters {
            received_datagrams: self.received_datagrams.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            received_batches: self.received_batches.load(Relaxed),
            receive_syscalls: self.receive_syscalls.load(Relaxed),
            receive_errors_skipped: self.receive_errors_skipped.load(Relaxed),
            sent_datagrams: self.sent_datagrams.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            sent_batches: self.sent_batches.load(Relaxed),
            send_syscalls: self.send_syscalls.load(Relaxed),
            send_would_block: self.send_would_block.load(Relaxed),
            sources_rejected: self.sources_rejected.load(Relaxed),
            dropped: std::array::from_fn(|i| self.dropped[i].load(Relaxed)),
        }
    }
}
