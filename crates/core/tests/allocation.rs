//! The path of a data packet allocates nothing, whatever the gate says.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;
#[path = "support/raw.rs"]
#[allow(dead_code)]
mod raw;

use net::{Net, packet};
use raw::{Raw, udp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wiremesh_core::{DropReason, Path};
use wiremesh_wire::PresharedKey;
use wiremesh_wire::address::control_address;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread asks for.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the counter is of this thread,
// needs no destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as of our caller; the pointer is from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// How often `what` allocates.
fn allocations(what: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    what();
    ALLOCATIONS.get() - before
}

#[test]
fn data_in_and_out_allocates_nothing_at_any_level() {
    assert_eq!(allocations(|| drop(vec![1u8; 100])), 1, "it is counted");
    for gate in [1, 2] {
        let mut net = Net::pair();
        for at in 0..2 {
            let (key, now) = (net.key(at, 1 - at), net.now);
            let node = &mut net.hosts[at].node;
            node.set_gate_level(now, key, gate);
            if gate == 2 {
                node.install_psk(key, PresharedKey::from_bytes([1; 32]), 1, 2);
            }
        }
        net.connect(0, 1);
        net.run(100);
        // Timers are armed by the first packets.
        net.send(0, 1, &[0; 1_000]);
        net.send(1, 0, &[0; 1_000]);
        net.run(100);

        let data = packet(&net.id(0), &net.id(1), &[7; 1_000]);
        let (key, now) = (net.key(0, 1), net.now);
        let path = Path::to(net.hosts[0].addr);
        let (from, to) = net.hosts.split_at_mut(1);
        let mut out = Vec::with_capacity(2_000);
        let mut received = 0;
        let count = allocations(|| {
            for _ in 0..100 {
                out.clear();
                let fill = |room: &mut [u8]| room.copy_from_slice(&data);
                let sealed = from[0]
                    .node
                    .seal_packet(now, key, data.len(), &mut out, fill);
                assert!(sealed.is_ok());
                let got = to[0].node.handle_datagram(now, path, &mut out);
                received += usize::from(got.is_some());
            }
        });
        assert_eq!((count, received), (0, 100), "gate {gate}");
    }
}

#[test]
fn what_the_gate_refuses_allocates_nothing() {
    let mut net = Net::new();
    let mut raw = Raw::connect(&mut net);
    let now = net.now;
    net.hosts[0].node.set_gate_level(now, raw.key, 2);
    net.run(6_000);
    raw.send_data(&mut net, b"arms the timers");
    let (own, peer) = (net.id(0), raw.id);
    let data = packet(&peer, &own, &[7; 1_000]);
    let control = udp(
        (control_address(&peer), 1),
        (control_address(&own), 1),
        b"x",
    );
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for _ in 0..50 {
        datagrams.push(raw.sealed(&data));
        datagrams.push(raw.sealed(&control));
    }
    let path = net.hosts[0].node.path_of(raw.key).unwrap();
    let (node, now) = (&mut net.hosts[0].node, net.now);
    let count = allocations(|| {
        for datagram in &mut datagrams {
            assert!(node.handle_datagram(now, path, datagram).is_none());
        }
    });
    assert_eq!(count, 0);
    let counters = node.counters();
    assert_eq!(counters.dropped(DropReason::BelowLevel), 51);
    assert_eq!(counters.dropped(DropReason::ControlOnly), 50);
}
