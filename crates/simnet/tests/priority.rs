//! Urgent messages beside bulk: what they wait for, in figures.

use std::time::Duration;

use wiremesh_simnet::priority::{Carrier, Case, Figures, Pacing, measure};

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

/// With the pace of the modem, a little below its rate.
fn paced(case: Case) -> Figures {
    shown(Case {
        pacing: Pacing::Configured(9_500_000),
        ..case
    })
}

#[test]
fn paced_urgent_messages_hardly_wait_and_bulk_goes_on() {
    for carrier in [Carrier::Stream, Carrier::Datagram] {
        let base = base(carrier);
        for (peers, apart) in [(1, false), (1, true), (4, false), (4, true)] {
            let figures = paced(Case {
                name: "paced",
                carrier,
                peers,
                apart,
                ..Case::default()
            });
            let waited = figures.urgent.p99() - base;
            assert!(waited < Duration::from_millis(3), "{figures}");
            assert_eq!(figures.modem_dropped, 0, "{figures}");
            assert!(figures.bulk_rate > 8_500_000, "{figures}");
        }
    }
}

#[test]
fn urgent_objects_without_end_leave_bulk_of_another_connection_its_minimum_share() {
    let figures = paced(Case {
        name: "urgent without end, connections apart",
        apart: true,
        is_flooded: true,
        ..Case::default()
    });
    // 5 % of the pace, less headers.
    assert!(figures.bulk_rate > 440_000, "{figures}");
    assert!(figures.modem_wait < Duration::from_millis(6), "{figures}");
}
