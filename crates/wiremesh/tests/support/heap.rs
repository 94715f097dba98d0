//! What the threads that ask for it hold on the heap.
//!
//! Counts what is asked of the allocator, and the most since [`forget_peak`]. An allocation counts
//! where it is made and where it is freed, so data must not be handed from a counted thread to
//! another one, nor the other way.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counting what some threads hold.
struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

fn count(bytes: isize) {
    if COUNTED.get() {
        let held = HELD.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(held, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; the flag is of this thread, needs
// no destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as of our caller; the pointer is from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Counts what this thread allocates and frees from now on.
pub fn count_this_thread() {
    COUNTED.set(true);
}

/// Bytes that the counted threads hold.
pub fn held() -> usize {
    HELD.load(Relaxed).max(0).cast_unsigned()
}

/// The most since [`forget_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed).max(0).cast_unsigned()
}

pub fn forget_peak() {
    PEAK.store(HELD.load(Relaxed), Relaxed);
}
