//! Urgent messages beside bulk over SCTP and topics: what they wait for, in figures.

use std::time::Duration;

use wiremesh_simnet::message::{Carrier, measure};

/// A pace a little below the modem's.
const PACE: u64 = 9_500_000;
const MESSAGES: u32 = 100;

fn urgent_beside_bulk(carrier: Carrier) {
    let idle = measure("nothing else is sent", carrier, Some(PACE), false, MESSAGES);
    println!("{idle}");
    let loaded = measure("beside bulk", carrier, Some(PACE), true, MESSAGES);
    println!("{loaded}");
    for figures in [&idle, &loaded] {
        assert_eq!(figures.urgent.count(), MESSAGES as usize, "{figures}");
    }
    let waited = loaded.urgent.p99() - idle.urgent.p50();
    assert!(waited < Duration::from_millis(3), "{loaded}");
    // Counted by whole objects of 8 Mbit.
    assert!(loaded.bulk_rate > 6_000_000, "{loaded}");
}

#[test]
fn an_urgent_sctp_message_hardly_waits_for_bulk_on_another_stream() {
    urgent_beside_bulk(Carrier::Sctp);
}

#[test]
fn an_urgent_object_of_a_topic_hardly_waits_for_a_large_one() {
    urgent_beside_bulk(Carrier::Topic);
}
