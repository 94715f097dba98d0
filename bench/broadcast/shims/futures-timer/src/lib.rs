//! Stands in for the crate `futures-timer`: delays on the clock of the stand-in for `web-time`.
//!
//! Owns this thread's deadlines. The simulation asks for the earliest with [`next_deadline`], sets
//! the clock and calls [`fire`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Default)]
struct Deadlines {
    next_id: u64,
    waiting: BTreeMap<(u64, u64), Waker>,
}

thread_local! {
    static DEADLINES: RefCell<Deadlines> = RefCell::new(Deadlines::default());
}

/// The earliest deadline that somebody waits for, in nanoseconds since the simulation's start.
#[must_use]
pub fn next_deadline() -> Option<u64> {
    DEADLINES.with_borrow(|all| all.waiting.keys().next().map(|(at, _)| *at))
}

/// Wakes everybody whose deadline is not after the present.
pub fn fire() {
    let now = web_time::nanos();
    loop {
        let due = DEADLINES.with_borrow_mut(|all| {
            let first = all.waiting.first_entry()?;
            (first.key().0 <= now).then(|| first.remove())
        });
        match due {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

/// A future that is ready after a virtual time.
#[derive(Debug)]
pub struct Delay {
    at: u64,
    id: u64,
    waiting: bool,
}

impl Delay {
    /// Ready after `duration`.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let id = DEADLINES.with_borrow_mut(|all| {
            all.next_id += 1;
            all.next_id
        });
        Self {
            at: after(duration),
            id,
            waiting: false,
        }
    }

    /// Starts again, from the present.
    pub fn reset(&mut self, duration: Duration) {
        self.forget();
        self.at = after(duration);
    }

    fn forget(&mut self) {
        if self.waiting {
            self.waiting = false;
            // A thread that ends drops its delays after its deadlines.
            let _ = DEADLINES.try_with(|all| all.borrow_mut().waiting.remove(&(self.at, self.id)));
        }
    }
}

fn after(duration: Duration) -> u64 {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    web_time::nanos().saturating_add(nanos)
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if web_time::nanos() >= self.at {
            self.forget();
            return Poll::Ready(());
        }
        let key = (self.at, self.id);
        let waker = cx.waker().clone();
        let old = DEADLINES.with_borrow_mut(|all| all.waiting.insert(key, waker));
        drop(old);
        self.waiting = true;
        Poll::Pending
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.forget();
    }
}
