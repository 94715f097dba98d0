//! What a subscriber has not taken yet.
//!
//! Owns the bound: when the application is slow, the oldest object of the lowest class goes, and
//! is counted. The most urgent is given first.

use super::Object;
use crate::port::lock;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;
use wiremesh_gossip::OBJECT_MAX;
use wiremesh_wire::Priority;

/// Most objects in a buffer.
pub(super) const OBJECTS_MAX: usize = 4_096;
/// Most bytes in a buffer: two objects of the greatest size.
pub(super) const BYTES_MAX: usize = 2 * OBJECT_MAX;

/// The buffer of one subscription.
#[derive(Default)]
pub(super) struct Buffer(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    lanes: [VecDeque<Object>; 3],
    objects: usize,
    bytes: usize,
    missed: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Inner {
    fn take(&mut self, class: usize) -> Option<Object> {
        let object = self.lanes[class].pop_front()?;
        self.objects -= 1;
        self.bytes -= object.content.len();
        Some(object)
    }
}

impl Buffer {
    /// Takes an object in; another one may go for it, or it goes itself.
    pub(super) fn push(&self, object: Object) {
        let mut inner = lock(&self.0);
        inner.objects += 1;
        inner.bytes += object.content.len();
        inner.lanes[object.priority.index()].push_back(object);
        while inner.objects > OBJECTS_MAX || inner.bytes > BYTES_MAX {
            let lowest = (0..Priority::ALL.len()).rev();
            if lowest
                .into_iter()
                .find_map(|class| inner.take(class))
                .is_none()
            {
                break;
            }
            inner.missed += 1;
        }
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// The next object that has not expired; `None` once the node is closed.
    pub(super) fn poll(&self, cx: &mut Context<'_>, now: SystemTime) -> Poll<Option<Object>> {
        let mut inner = lock(&self.0);
        for class in 0..Priority::ALL.len() {
            while let Some(object) = inner.take(class) {
                if object.expires > now {
                    return Poll::Ready(Some(object));
                }
                inner.missed += 1;
            }
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn missed(&self) -> u64 {
        lock(&self.0).missed
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let mut inner = lock(&self.0);
        inner.closed = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}
