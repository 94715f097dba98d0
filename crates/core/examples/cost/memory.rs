//! Memory that one node holds for each of its peers, and for an exchange.
//!
//! Counts what is allocated, with what glibc's allocator adds to it: 8 bytes in front, rounded up to
//! 16, at least 32.

use crate::Report;
use crate::cpu::{Sides, key};
use crate::nodes::{Host, meet, start};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use wiremesh_control::{Level, Machine, Policy};
use wiremesh_wire::NodeId;

/// Peers that never had a session.
const CONFIGURED: u32 = 20_000;
/// Peers with a session: as many as can be met within the life of one.
const LIVE: u32 = 500;

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

/// Bytes that `make` leaves behind, without the value itself.
fn held_by<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    let made = make();
    (HELD.get().wrapping_sub(before), made)
}

/// Adds all figures.
pub fn measure(report: &mut Report) {
    const GROUP: &str = "memory per peer of one node";
    let l3 = Policy {
        static_kem: true,
        ..Policy::default()
    };
    let planes = [
        ("plain WireGuard", None),
        ("L2", Some(Policy::default())),
        ("L3", Some(l3)),
    ];
    let ids: Vec<NodeId> = (0..CONFIGURED).map(|n| key(n + 1_000).1).collect();
    for (name, policy) in planes {
        let idle = configured(policy, &ids);
        let [live, gone] = met(policy);
        let mut add = |what: &str, bytes| report.add(GROUP, &format!("{name}: {what}"), bytes, "B");
        add("configured, never seen", idle);
        add("with a live session", live);
        add("with none any more", gone);
    }
    exchange(report);
}

fn configured(policy: Option<Policy>, ids: &[NodeId]) -> f64 {
    let now = start();
    let mut hub = Host::new(1, policy, now);
    let (held, ()) = held_by(|| {
        for (number, id) in ids.iter().enumerate() {
            hub.add(now, *id, number as u32);
        }
    });
    held as f64 / ids.len() as f64
}

/// Bytes per peer while its session lives, and 20 minutes later.
fn met(policy: Option<Policy>) -> [f64; 2] {
    let mut now = start();
    let mut hub = Host::new(1, policy, now);
    let before = HELD.get();
    for number in 0..LIVE {
        let mut remote = Host::new(number + 1_000, policy, now);
        let (hub_id, id) = (hub.node.node_id(), remote.node.node_id());
        remote.add(now, hub_id, hub.number);
        hub.add(now, id, remote.number);
        let reached = meet([&mut remote, &mut hub], &mut now, 0);
        assert!(
            reached[1] >= policy.map(|_| Level::PostQuantum),
            "{reached:?}"
        );
    }
    let per_peer = || HELD.get().wrapping_sub(before) as f64 / f64::from(LIVE);
    let live = per_peer();
    for _ in 0..120 {
        now = now + Duration::from_secs(10);
        hub.node.handle_timeout(now);
        while hub.node.poll_event().is_some() {}
        while hub.node.poll_transmit().is_some() {}
    }
    [live, per_peer()]
}

/// What is held beyond that while an exchange runs: the message is kept to be repeated.
fn exchange(report: &mut Report) {
    const GROUP: &str = "memory of one exchange";
    let mut add = |name: &str, bytes: usize| report.add(GROUP, name, bytes as f64, "B");
    for (level, is_static) in [("L2", false), ("L3", true)] {
        let sides = Sides::new(is_static);
        let (by_a, (offered, offer)) = held_by(|| {
            let (offered, offer) = sides.offer();
            (Box::new(offered), offer)
        });
        let parsed = Sides::parse_offer(&offer);
        let (by_b, (replied, reply)) = held_by(|| {
            let (replied, reply) = sides.reply(&parsed, &offer);
            (Box::new(replied), reply)
        });
        add(&format!("{level}: A, OFFER is out"), by_a);
        add(&format!("{level}: B, REPLY is out"), by_b);
        drop((offered, replied, reply));
    }
    add(
        "Machine alone, in the figures above once a session was there",
        size_of::<Machine>(),
    );
}
