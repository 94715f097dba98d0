//! Time: arithmetic at the limits, and the order of TAI64N labels.

use core::time::Duration;

use proptest::prelude::*;
use wiremesh_wire::{Instant, Now, Tai64n, UnixTime};

fn tai64n(secs: u64, nanos: u32) -> Tai64n {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&secs.to_be_bytes());
    bytes[8..].copy_from_slice(&nanos.to_be_bytes());
    Tai64n::from_bytes(bytes)
}

#[test]
fn instants_stop_at_the_ends() {
    let second = Duration::from_secs(1);
    assert_eq!(Instant::ZERO + second, Instant::from_nanos(1_000_000_000));
    assert_eq!(Instant::MAX + Duration::from_nanos(1), Instant::MAX);
    assert_eq!(Instant::ZERO + Duration::MAX, Instant::MAX);
    assert_eq!(Instant::MAX.checked_add(Duration::ZERO), Some(Instant::MAX));
    assert_eq!(Instant::MAX.checked_add(Duration::from_nanos(1)), None);
    assert_eq!(Instant::ZERO.checked_add(Duration::MAX), None);
    assert_eq!(Instant::ZERO.saturating_sub(second), Instant::ZERO);
    assert_eq!(
        (Instant::ZERO + second).saturating_sub(second),
        Instant::ZERO
    );
    assert_eq!(Instant::MAX.saturating_sub(Duration::MAX), Instant::ZERO);
    assert_eq!(Instant::ZERO.saturating_since(Instant::MAX), Duration::ZERO);
    assert_eq!(
        (Instant::ZERO + second).saturating_since(Instant::ZERO),
        second
    );
    let mut instant = Instant::ZERO;
    instant += second;
    assert_eq!(instant.as_nanos(), 1_000_000_000);
}

#[test]
fn dates_carry_and_stop() {
    let late = UnixTime::from_secs_nanos(1, 4_000_000_000);
    assert_eq!((late.as_secs(), late.subsec_nanos()), (5, 0));
    assert_eq!(late, UnixTime::from_duration(Duration::from_secs(5)));
    let last = UnixTime::from_duration(Duration::MAX);
    assert_eq!(UnixTime::from_secs_nanos(u64::MAX, u32::MAX), last);
    assert_eq!(last + Duration::from_secs(1), last);
    assert_eq!(UnixTime::EPOCH.saturating_since(late), Duration::ZERO);
    assert_eq!(late.saturating_since(UnixTime::EPOCH), late.as_duration());
}

#[test]
fn now_moves_both_clocks() {
    let now = Now::new(Instant::from_nanos(5), UnixTime::from_secs_nanos(9, 0));
    let later = now + Duration::from_nanos(7);
    assert_eq!(later.instant, Instant::from_nanos(12));
    assert_eq!(later.unix, UnixTime::from_secs_nanos(9, 7));
}

#[test]
fn next_label_carries_and_stops() {
    let table = [
        ((0, 0), (0, 1)),
        ((0, 255), (0, 256)),
        ((7, 999_999_998), (7, 999_999_999)),
        ((7, 999_999_999), (8, 0)),
        // More nanoseconds than a second has: the next well-formed value.
        ((7, 1_000_000_000), (8, 0)),
        ((7, u32::MAX), (8, 0)),
        ((u64::MAX, 999_999_998), (u64::MAX, 999_999_999)),
        ((u64::MAX, 999_999_999), (u64::MAX, 999_999_999)),
        ((u64::MAX, u32::MAX), (u64::MAX, u32::MAX)),
    ];
    for ((secs, nanos), (next_secs, next_nanos)) in table {
        assert_eq!(tai64n(secs, nanos).next(), tai64n(next_secs, next_nanos));
    }
}

#[test]
fn labels_stop_at_the_last_second() {
    let last = Tai64n::from_unix(UnixTime::from_secs_nanos(u64::MAX, 1));
    assert_eq!(last, tai64n(u64::MAX, 1));
    assert!(Tai64n::ZERO < Tai64n::from_unix(UnixTime::EPOCH));
    assert_eq!(Tai64n::default(), Tai64n::ZERO);
}

proptest! {
    #[test]
    fn labels_are_ordered_as_the_dates_are(a: (u64, u32), b: (u64, u32)) {
        let date = |(secs, nanos): (u64, u32)| UnixTime::from_secs_nanos(secs >> 2, nanos);
        let (a, b) = (date(a), date(b));
        prop_assert_eq!(a.cmp(&b), Tai64n::from_unix(a).cmp(&Tai64n::from_unix(b)));
    }

    #[test]
    fn next_label_is_the_smallest_greater_one(secs in 0..u64::MAX, nanos in 0..1_000_000_000u32) {
        let label = tai64n(secs, nanos);
        prop_assert!(label.next() > label);
        // One nanosecond later, so none is between.
        let date = |(secs, nanos)| Duration::from_secs(secs) + Duration::from_nanos(nanos);
        let next = label.next();
        let bytes = next.as_bytes();
        let next_secs = u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"));
        let next_nanos = u32::from_be_bytes(bytes[8..].try_into().expect("4 bytes"));
        let step = date((next_secs, next_nanos.into())) - date((secs, nanos.into()));
        prop_assert_eq!(step, Duration::from_nanos(1));
    }

    #[test]
    fn bytes_come_back(bytes: [u8; 12]) {
        let label = Tai64n::from_bytes(bytes);
        prop_assert_eq!(label.as_bytes(), &bytes);
    }

    #[test]
    fn adding_and_subtracting_agree(start in 0..u64::MAX / 2, nanos in 0..u64::MAX / 2) {
        let (start, step) = (Instant::from_nanos(start), Duration::from_nanos(nanos));
        prop_assert_eq!((start + step).saturating_since(start), step);
        prop_assert_eq!((start + step).saturating_sub(step), start);
        prop_assert_eq!(start.checked_add(step), Some(start + step));
    }
}
