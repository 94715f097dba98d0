//! Datagrams that came out of the tunnel and wait for the reader of their port.
//!
//! Owns a bounded queue per port. Payloads of one batch lie one behind the other, so that a run of
//! equal ones is handed on in one copy. A full queue drops, as a socket buffer does, and counts.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One datagram in an [`Arena`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) source: SocketAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ecn: u8,
    start: usize,
    pub(crate) len: usize,
}

/// Payloads and where each lies.
#[derive(Default, Debug)]
struct Arena {
    bytes: Vec<u8>,
    items: VecDeque<Item>,
}

/// What each datagram counts besides its payload, so that small and empty ones are bounded too.
pub(crate) const ITEM_BYTES: usize = size_of::<Item>();

/// What an empty arena keeps for the next datagrams: several batches of the driver.
const KEPT_BYTES: usize = 1 << 20;

impl Arena {
    /// Makes it ready to be filled again; gives back what one long queue took.
    fn empty(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.items.clear();
        self.items.shrink_to(KEPT_BYTES / 4 / ITEM_BYTES);
    }

    fn held_bytes(&self) -> usize {
        self.bytes.len() + self.items.len() * ITEM_BYTES
    }
}

/// The side that the driver fills.
#[derive(Default, Debug)]
pub(crate) struct Filling {
    arena: Arena,
    waker: Option<Waker>,
    /// Further readers that wait.
    more_wakers: Vec<Waker>,
    dropped: u64,
    closed: bool,
}

impl Filling {
    fn register(&mut self, waker: &Waker) {
        match &self.waker {
            None => self.waker = Some(waker.clone()),
            Some(known) if known.will_wake(waker) => {}
            Some(_) if self.more_wakers.iter().any(|known| known.will_wake(waker)) => {}
            Some(_) => self.more_wakers.push(waker.clone()),
        }
    }
}

/// The queue of one port.
#[derive(Debug)]
pub(crate) struct PortQueue {
    filling: Mutex<Filling>,
    reading: Mutex<Arena>,
    bytes_max: usize,
}

/// Where a datagram came from and went to.
#[derive(Clone, Copy)]
pub(crate) struct Addressing {
    pub(crate) source: SocketAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ecn: u8,
}

/// Locks, whatever a panicking holder left behind: the data are plain and always consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortQueue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            filling: Mutex::default(),
            reading: Mutex::default(),
            bytes_max,
        }
    }

    /// Appends a datagram and gives the reader to wake, if one waits.
    pub(crate) fn push(&self, from: Addressing, payload: &[u8]) -> Option<Waker> {
        let mut filling = lock(&self.filling);
        let held_bytes = filling.arena.held_bytes();
        if held_bytes + payload.len() + ITEM_BYTES > self.bytes_max || filling.closed {
            filling.dropped += 1;
            return None;
        }
        let bytes = &mut filling.arena.bytes;
        let start = bytes.len();
        if bytes.capacity() - start < payload.len() {
            // By doubling, but never beyond what can be used.
            let needed = start + payload.len();
            let capacity = (2 * bytes.capacity()).clamp(needed, self.bytes_max);
            bytes.reserve_exact(capacity - start);
        }
        bytes.extend_from_slice(payload);
        filling.arena.items.push_back(Item {
            source: from.source,
            destination: from.destination,
            ecn: from.ecn,
            start,
            len: payload.len(),
        });
        filling.more_wakers.drain(..).for_each(Waker::wake);
        filling.waker.take()
    }

    /// Ends the queue: readers get what is left and then nothing.
    pub(crate) fn close(&self) {
        let waker = {
            let mut filling = lock(&self.filling);
            filling.closed = true;
            filling.more_wakers.drain(..).for_each(Waker::wake);
            filling.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How many datagrams found the queue full.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.filling).dropped
    }

    /// Calls `read` with the queue's front; `None` when the queue has ended.
    pub(crate) fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Front<'_>) -> T,
    ) -> Poll<Option<T>> {
        let mut reading = lock(&self.reading);
        if reading.items.is_empty() {
            let mut filling = lock(&self.filling);
            reading.empty();
            std::mem::swap(&mut *reading, &mut filling.arena);
            if reading.items.is_empty() {
                if filling.closed {
                    return Poll::Ready(None);
                }
                filling.register(cx.waker());
                return Poll::Pending;
            }
        }
        Poll::Ready(Some(read(&mut Front(&mut reading))))
    }
}

/// The datagrams that a reader may take now.
pub(crate) struct Front<'a>(&'a mut Arena);

impl Front<'_> {
    /// Copies one datagram, cut to the buffer's length.
    pub(crate) fn take_one(&mut self, buffer: &mut [u8]) -> Option<Item> {
        let item = self.0.items.pop_front()?;
        let len = item.len.min(buffer.len());
        buffer[..len].copy_from_slice(&self.0.bytes[item.start..item.start + len]);
        Some(Item { len, ..item })
    }

    /// Copies a run of datagrams that are alike but for a shorter last one; gives the first with
    /// the bytes copied.
    pub(crate) fn take_run(&mut self, buffer: &mut [u8]) -> Option<(Item, usize)> {
        let first = *self.0.items.front()?;
        if first.len > buffer.len() {
            // Longer than any datagram of this reader's protocol: not for it.
            self.0.items.pop_front();
            return Some((Item { len: 0, ..first }, 0));
        }
        let mut total = 0;
        while let Some(item) = self.0.items.front() {
            let alike = item.source == first.source
                && item.ecn == first.ecn
                && item.destination == first.destination
                && item.len <= first.len
                && total + item.len <= buffer.len();
            if !alike {
                break;
            }
            total += item.len;
            let shorter = item.len < first.len;
            self.0.items.pop_front();
            if shorter {
                break;
            }
        }
        buffer[..total].copy_from_slice(&self.0.bytes[first.start..first.start + total]);
        Some((first, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> Addressing {
        let address: IpAddr = [10, 0, 0, 1].into();
        Addressing {
            source: SocketAddr::new(address, port),
            destination: address,
            ecn: 0,
        }
    }

    fn read<T>(queue: &PortQueue, read: impl FnOnce(&mut Front<'_>) -> T) -> Poll<Option<T>> {
        queue.poll_read(&mut Context::from_waker(Waker::noop()), read)
    }

    #[test]
    fn a_run_ends_at_a_shorter_datagram_or_another_source() {
        let queue = PortQueue::new(10_000);
        for (port, payload) in [(1, "aaaa"), (1, "bbbb"), (1, "c"), (1, "dddd"), (2, "eeee")] {
            queue.push(from(port), payload.as_bytes());
        }
        let mut buffer = [0; 100];
        for (text, len) in [("aaaabbbbc", 4), ("dddd", 4), ("eeee", 4)] {
            let Poll::Ready(Some(Some((item, total)))) = read(&queue, |f| f.take_run(&mut buffer))
            else {
                panic!("there is a run");
            };
            assert_eq!((&buffer[..total], item.len), (text.as_bytes(), len));
        }
        assert!(read(&queue, |f| f.take_one(&mut buffer)).is_pending());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let queue = PortQueue::new(8 + 2 * ITEM_BYTES);
        queue.push(from(1), b"12345");
        queue.push(from(1), b"1234");
        assert_eq!(queue.dropped(), 1);
        queue.push(from(1), b"");
        queue.push(from(1), b"");
        assert_eq!(queue.dropped(), 2, "empty datagrams are bounded as well");
        queue.close();
        let mut buffer = [0; 3];
        let Poll::Ready(Some(Some(item))) = read(&queue, |f| f.take_one(&mut buffer)) else {
            panic!("what was queued is still read");
        };
        assert_eq!((item.len, &buffer), (3, b"123"));
        let Poll::Ready(Some(Some(item))) = read(&queue, |f| f.take_one(&mut buffer)) else {
            panic!("an empty datagram is one as well");
        };
        assert_eq!(item.len, 0);
        assert!(matches!(read(&queue, |_| ()), Poll::Ready(None)));
    }
}
