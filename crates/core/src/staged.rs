//! Packets that wait for a session, out of one pool of bytes for all peers.
//!
//! Owns the count of what waits. A packet gives its bytes back wherever it is dropped, so nothing
//! that forgets a peer, a link or a queue has to think of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// What each packet counts besides its bytes: its place in a queue that grows by doubling, and what
/// an allocator adds.
pub(crate) const PACKET_OVERHEAD_BYTES: usize = 128;

/// The pool of one node.
pub(crate) struct StagingPool {
    used_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// A packet that counts in its pool until it is dropped or taken.
pub(crate) struct Staged {
    packet: Vec<u8>,
    used_bytes: Arc<AtomicUsize>,
}

impl StagingPool {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            used_bytes: Arc::default(),
            bytes_max,
        }
    }

    /// Takes a packet in, or gives it back if there is no room.
    pub(crate) fn stage(&self, packet: Vec<u8>) -> Result<Staged, Vec<u8>> {
        let used_bytes = self.used_bytes() + cost(&packet);
        if used_bytes > self.bytes_max {
            return Err(packet);
        }
        // A node is fed by one thread at a time.
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        Ok(Staged {
            packet,
            used_bytes: Arc::clone(&self.used_bytes),
        })
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

impl Staged {
    /// The packet, which counts no more.
    pub(crate) fn into_packet(mut self) -> Vec<u8> {
        let packet = core::mem::take(&mut self.packet);
        // The rest is given back on drop.
        self.used_bytes
            .fetch_sub(packet.capacity(), Ordering::Relaxed);
        packet
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.used_bytes
            .fetch_sub(cost(&self.packet), Ordering::Relaxed);
    }
}

fn cost(packet: &Vec<u8>) -> usize {
    packet.capacity() + PACKET_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_full_pool_gives_back_and_a_dropped_packet_makes_room() {
        let packet = || vec![7; 100];
        let pool = StagingPool::new(2 * (100 + PACKET_OVERHEAD_BYTES));
        let first = pool.stage(packet()).expect("the pool is empty");
        let second = pool.stage(packet()).expect("it fits exactly");
        let rejected = pool.stage(Vec::new()).err();
        assert_eq!(rejected, Some(Vec::new()), "empty packets count as well");
        drop(first);
        let third = pool.stage(packet()).expect("there is room again");
        assert_eq!(second.into_packet(), packet());
        drop(third);
        assert_eq!(pool.used_bytes(), 0);
    }
}
