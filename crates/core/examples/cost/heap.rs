//! What this thread holds on the heap.
//!
//! Counts what is allocated, with what glibc's allocator adds to it: 8 bytes in front, rounded up to
//! 16, at least 32.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread holds.
struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

const fn with_overhead(layout: Layout) -> usize {
    let len = (layout.size() + 8).next_multiple_of(16);
    if len < 32 { 32 } else { len }
}

// SAFETY: every call goes to the system's allocator as it came; the counter is of this thread,
// needs no destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(with_overhead(layout)));
        // SAFETY: as of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(with_overhead(layout)));
        // SAFETY: as of our caller; the pointer is from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that this thread holds.
pub fn held() -> usize {
    HELD.get()
}

/// Bytes that `make` leaves behind, without the value itself.
pub fn held_by<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = held();
    let made = make();
    (held().wrapping_sub(before), made)
}
