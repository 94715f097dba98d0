//! Urgent messages beside bulk: what they wait for, in figures.

use std::time::Duration;

use wiremesh_simnet::priority::{Carrier, Case, Figures, measure};

fn shown(case: Case) -> Figures {
    let figures = measure(case);
    println!("{figures}");
    assert_eq!(figures.urgent.count(), figures.sent as usize, "{figures}");
    figures
}

/// The delay of a message when nothing else is sent.
fn base(carrier: Carrier) -> Duration {
    let idle = shown(Case {
        name: "idle",
        carrier,
        is_loaded: false,
        ..Case::default()
    });
    idle.urgent.p50()
}

#[test]
fn without_pacing_urgent_objects_wait_in_the_modem() {
    let base = base(Carrier::Stream);
    let full = shown(Case {
        name: "not paced",
        ..Case::default()
    });
    assert!(base < Duration::from_millis(21), "{base:?}");
    assert!(
        full.urgent.p99() > base + Duration::from_millis(30),
        "{full}"
    );
}
