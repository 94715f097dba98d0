//! How much the data of all connections together may take while it waits, and how many there are.
//!
//! Owns what is left of the budget. A connection begins with what every peer assumes and gets a
//! share of the rest when the application takes it; the share comes back when quinn forgets the
//! connection. What was granted is never taken back before, so the sum is never exceeded.

use crate::port::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use wiremesh_quic::{Attachment, SEND_WINDOW_BYTES, assumed};

/// What each connection has from the start, each way: peers rely on it.
const LEAST_BYTES: u64 = assumed::INITIAL_MAX_DATA_BYTES;
/// A connection gets at most this part of what is left, so that there is always some left.
const PART: u64 = 32;

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Beyond what each connection has from the start.
    left_bytes: Mutex<u64>,
    /// The receive window that a connection may have, unless the settings fixed it.
    window_max: Option<u64>,
    /// Whether the send window follows too: settings of the application's own are not touched.
    limits_sending: bool,
    pub(crate) connections_max: usize,
    pub(crate) refused: Refused,
}

/// Incoming connections that were refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(crate) connections_full: AtomicU64,
    pub(crate) connections_of_peer_full: AtomicU64,
    pub(crate) accept_backlog_full: AtomicU64,
}

impl Refused {
    /// For status.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("connections-full", &self.connections_full),
            ("connections-of-peer-full", &self.connections_of_peer_full),
            ("accept-backlog-full", &self.accept_backlog_full),
        ]
        .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

/// The part of one connection; goes back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        *lock(&self.budget.left_bytes) += self.bytes;
    }
}

impl Budget {
    /// Half of it is for what connections have from the start, and so says how many there can be.
    pub(crate) fn new(bytes_max: u64, window_max: Option<u64>, limits_sending: bool) -> Self {
        let connections_max = (bytes_max / 2 / LEAST_BYTES).max(1);
        Self {
            left_bytes: Mutex::new(bytes_max.saturating_sub(connections_max * LEAST_BYTES)),
            window_max,
            limits_sending,
            connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
            refused: Refused::default(),
        }
    }

    fn share(self: &Arc<Self>, window_max: u64) -> Share {
        let mut left_bytes = lock(&self.left_bytes);
        let bytes = (*left_bytes / PART).min(window_max.saturating_sub(LEAST_BYTES));
        *left_bytes -= bytes;
        Share {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Gives a connection its share, once.
    pub(crate) fn grant(self: &Arc<Self>, connection: &quinn::Connection) {
        self.grant_up_to(connection, u64::MAX);
    }

    /// As [`Budget::grant`], of which the connection needs no more than so many bytes.
    pub(crate) fn grant_up_to(self: &Arc<Self>, connection: &quinn::Connection, bytes: u64) {
        let attachment = Attachment::of(connection.peer_identity());
        let (Some(window_max), Some(attachment)) = (self.window_max, attachment) else {
            return;
        };
        let share = self.share(window_max.min(bytes));
        let window = LEAST_BYTES + share.bytes;
        let window = quinn::VarInt::from_u64(window).unwrap_or(quinn::VarInt::MAX);
        connection.set_receive_window(window);
        if self.limits_sending {
            connection.set_send_window(window.into_inner().min(SEND_WINDOW_BYTES));
        }
        attachment.attach(share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wiremesh_quic::RECEIVE_WINDOW_BYTES;

    #[test]
    fn shares_become_smaller_never_exceed_the_budget_and_come_back() {
        let bytes_max = 512 << 20;
        let window_max = u64::from(RECEIVE_WINDOW_BYTES);
        let budget = Arc::new(Budget::new(bytes_max, Some(window_max), true));
        assert_eq!(budget.connections_max, 2_048);
        let shares: Vec<_> = (0..budget.connections_max)
            .map(|_| budget.share(window_max))
            .collect();
        assert_eq!(shares[0].bytes, 8 << 20);
        assert!(shares[49].bytes > 1 << 20, "{}", shares[49].bytes);
        assert!(shares.is_sorted_by(|a, b| a.bytes >= b.bytes));
        let granted: u64 = shares.iter().map(|share| share.bytes + LEAST_BYTES).sum();
        assert!(granted <= bytes_max);
        drop(shares);
        assert_eq!(*lock(&budget.left_bytes), bytes_max / 2);
    }

    #[test]
    fn a_budget_for_nothing_still_lets_one_connection_in() {
        let budget = Arc::new(Budget::new(0, Some(1 << 20), true));
        assert_eq!(budget.connections_max, 1);
        assert_eq!(budget.share(1 << 20).bytes, 0);
    }
}
