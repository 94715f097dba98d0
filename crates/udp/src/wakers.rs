//! One waker that stands for many tasks.
//!
//! A tokio socket remembers one waker per direction. The sockets register this one there, so that
//! any number of tasks may wait, and so that a rebind can wake them all although the socket that
//! they waited for is gone. Owns the list of waiting tasks; it grows with their number only.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
pub(crate) struct WakerList {
    waiting: Mutex<Vec<Waker>>,
}

impl WakerList {
    /// Adds a task, once.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Wakes and forgets all tasks.
    pub(crate) fn wake_all(&self) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        // Woken outside the lock: a waker may run code that registers again.
        for waker in waiting {
            waker.wake();
        }
    }
}

impl Wake for WakerList {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}
