//! The scheduler's promises, in virtual time on a link of 8 Mbit/s: a thousand bytes take 1 ms.

use super::*;
use Priority::{Bulk, Normal, Urgent};
use alloc::vec;

const RATE: u64 = 8_000_000;

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn peer(index: u32) -> PeerKey {
    PeerKey::for_test(index)
}

fn demand(to: u32, flow: u64, class: Priority, len: usize) -> Demand {
    Demand {
        peer: peer(to),
        flow,
        class,
        len,
        expiry: None,
    }
}

fn paced(shares_percent: [u8; 3]) -> Egress<u32> {
    Egress::new(&EgressConfig {
        rate_bits: Some(RATE),
        shares_percent,
    })
}

/// Lets the link run from `from` until `until`, as a driver would.
fn run(egress: &mut Egress<u32>, from: Instant, until: Instant) -> Vec<(Instant, Departure<u32>)> {
    let (mut now, mut left) = (from, Vec::new());
    loop {
        while let Some(departure) = egress.poll(now) {
            left.push((now, departure));
        }
        match egress.poll_timeout() {
            Some(at) if at < until => now = at.max(now + Duration::from_nanos(1)),
            _ => return left,
        }
    }
}

fn items(left: &[(Instant, Departure<u32>)]) -> Vec<u32> {
    left.iter().map(|(_, departure)| departure.item).collect()
}

#[test]
fn without_a_pace_nothing_waits() {
    let mut egress: Egress<u32> = Egress::new(&EgressConfig::default());
    assert!(!egress.is_paced(peer(1)));
    assert!(egress.admit(ms(1), &demand(1, 0, Bulk, 60_000)));
    assert!(egress.admit(ms(1), &demand(1, 0, Bulk, 60_000)));
    assert_eq!(egress.poll_timeout(), None);
}

#[test]
fn better_classes_go_first_and_the_pace_is_kept() {
    let mut egress = paced([0; 3]);
    for (item, class) in [Bulk, Normal, Urgent, Bulk, Urgent].into_iter().enumerate() {
        let item = item as u32;
        assert_eq!(
            egress.offer(ms(100), demand(1, 0, class, 1_000), item),
            Ok(())
        );
    }
    let left = run(&mut egress, ms(100), ms(1_000));
    assert_eq!(items(&left), [2, 4, 1, 0, 3]);
    // A millisecond to catch up with, then one each.
    let times: Vec<u64> = left
        .iter()
        .map(|(at, _)| at.as_nanos() / 1_000_000)
        .collect();
    assert_eq!(times, [100, 100, 101, 102, 103]);
    assert_eq!(egress.delays().of(Urgent).packets, 2);
    assert!(egress.delays().of(Bulk).max >= Duration::from_millis(3));
}

#[test]
fn a_class_gets_its_minimum_share_and_no_more() {
    let mut egress = paced([0, 10, 5]);
    let (mut now, mut bytes, mut serial) = (ms(0), [0; 3], 0);
    while now < ms(10_000) {
        for class in Priority::ALL {
            while egress.has_room(peer(1), class) {
                serial += 1;
                assert!(
                    egress
                        .offer(now, demand(1, 0, class, 1_000), serial)
                        .is_ok()
                );
            }
        }
        while let Some(departure) = egress.poll(now) {
            bytes[departure.class.index()] += 1_000;
        }
        now = egress.poll_timeout().expect("something waits");
    }
    let share = |class: Priority| bytes[class.index()] * 1_000 / bytes.iter().sum::<i32>();
    assert!((99..=101).contains(&share(Normal)), "{bytes:?}");
    assert!((49..=51).contains(&share(Bulk)), "{bytes:?}");
}

#[test]
fn a_source_of_turns_gets_its_minimum_share_although_it_answers_late() {
    let mut egress = paced([0, 0, 5]);
    let (mut now, mut bulk, mut all) = (ms(0), 0, 0);
    let turn = |class| demand(1, 1 + class as u64, class, 1_000);
    let _ = egress.offer(now, turn(Bulk), 0);
    while now < ms(10_000) {
        while egress.has_room(peer(2), Urgent) {
            let _ = egress.offer(now, demand(2, 0, Urgent, 1_000), 0);
        }
        let mut answers = 0;
        while let Some(departure) = egress.poll(now) {
            all += 1;
            answers += i32::from(departure.class == Bulk);
        }
        // What is urgent may all have left in advance.
        let soon = now + Duration::from_micros(100);
        now = egress.poll_timeout().unwrap_or(soon).max(soon);
        bulk += answers;
        if answers > 0 {
            let _ = egress.offer(now, turn(Bulk), 0);
        }
    }
    assert!((49..=51).contains(&(bulk * 1_000 / all)), "{bulk} of {all}");
}

#[test]
fn what_left_at_a_slow_pace_does_not_hold_up_a_fast_one() {
    let mut egress = paced([0; 3]);
    egress.set_rate(Some(8_000));
    egress.set_peer_rate(peer(1), Some(8_000));
    assert!(egress.admit(ms(1_000), &demand(1, 0, Bulk, 1_000)));
    let _ = egress.offer(ms(1_000), demand(1, 0, Bulk, 1_000), 1);
    egress.set_peer_rate(peer(1), Some(8_000));
    assert_eq!(egress.poll(ms(1_500)), None, "a second is not over");
    egress.set_rate(Some(RATE));
    assert_eq!(egress.poll(ms(1_500)), None, "nor the peer's own");
    egress.set_peer_rate(peer(1), Some(RATE));
    assert!(egress.poll_timeout() <= Some(ms(1_001)));
    assert!(egress.poll(ms(1_500)).is_some());
}

#[test]
fn a_packet_that_is_promoted_takes_its_bytes_along() {
    let mut egress = paced([0; 3]);
    let _ = egress.offer(ms(0), demand(1, 0, Bulk, 5_000), 1);
    assert!(!egress.has_room(peer(1), Bulk));
    egress.promote(ms(0), peer(1), 0, Urgent);
    assert!(egress.has_room(peer(1), Bulk));
    assert!(!egress.has_room(peer(1), Urgent));
}

#[test]
fn a_share_is_not_saved_up() {
    let mut egress = paced([0, 10, 5]);
    // Long after the last bulk packet, one more does not go before what is urgent.
    egress
        .offer(ms(60_000), demand(1, 0, Bulk, 1_000), 1)
        .expect("room");
    egress
        .offer(ms(60_000), demand(1, 0, Urgent, 1_000), 2)
        .expect("room");
    assert_eq!(items(&run(&mut egress, ms(60_000), ms(61_000))), [2, 1]);
}

#[test]
fn peers_of_a_class_share_by_bytes() {
    let mut egress = paced([0; 3]);
    let sizes = [1_400, 700, 100];
    let (mut now, mut bytes) = (ms(0), [0_usize; 3]);
    while now < ms(5_000) {
        for (to, len) in sizes.into_iter().enumerate() {
            while egress.has_room(peer(to as u32), Bulk) {
                let _ = egress.offer(now, demand(to as u32, 0, Bulk, len), to as u32);
            }
        }
        while let Some(departure) = egress.poll(now) {
            bytes[departure.item as usize] += sizes[departure.item as usize];
        }
        now = egress.poll_timeout().expect("something waits");
    }
    let most = *bytes.iter().max().expect("three");
    assert!(bytes.iter().all(|b| b * 100 > most * 95), "{bytes:?}");
}

#[test]
fn flows_that_wait_for_turns_share_alike() {
    let mut egress = paced([0; 3]);
    let mut turns = [0_i32; 2];
    for flow in 1..=2 {
        egress
            .offer(ms(0), demand(flow, flow.into(), Bulk, 1_000), flow)
            .expect("room");
    }
    let mut now = ms(0);
    while now < ms(1_000) {
        while let Some(Departure { item, .. }) = egress.poll(now) {
            turns[item as usize - 1] += 1;
            egress
                .offer(now, demand(item, item.into(), Bulk, 1_000), item)
                .expect("room");
        }
        now = egress.poll_timeout().expect("something waits");
    }
    assert!(turns[0] + turns[1] > 990, "{turns:?}");
    assert!((turns[0] - turns[1]).abs() <= 1, "{turns:?}");
}

#[test]
fn a_turn_is_promoted_by_what_its_flow_is_given() {
    let mut egress = paced([0; 3]);
    assert!(egress.admit(ms(0), &demand(9, 0, Bulk, 10_000)));
    for to in 1..=3 {
        egress
            .offer(ms(0), demand(to, 7, Bulk, 1_000), to)
            .expect("room");
    }
    egress.promote(ms(1), peer(3), 7, Urgent);
    egress.promote(ms(1), peer(2), 8, Urgent);
    let left = run(&mut egress, ms(1), ms(100));
    assert_eq!(items(&left), [3, 1, 2]);
    assert_eq!(left[0].1.class, Urgent);
}

#[test]
fn a_slow_peer_holds_up_nobody() {
    let mut egress = paced([0; 3]);
    egress.set_peer_rate(peer(1), Some(RATE / 100));
    let (mut now, mut packets) = (ms(0), [0; 2]);
    while now < ms(10_000) {
        for to in 0..2_u32 {
            while egress.has_room(peer(to), Urgent) {
                let _ = egress.offer(now, demand(to, 0, Urgent, 1_000), to);
            }
        }
        while let Some(Departure { item, .. }) = egress.poll(now) {
            packets[item as usize] += 1;
        }
        now = egress.poll_timeout().expect("something waits");
    }
    assert!((95..=105).contains(&packets[1]), "{packets:?}");
    assert!(packets[0] > 9_800, "{packets:?}");
    // Without its own pace it waits no longer.
    egress.set_peer_rate(peer(1), None);
    assert_eq!(egress.peer_rate(peer(1)), None);
    let left = run(&mut egress, now, now + Duration::from_millis(10));
    assert!(items(&left).contains(&1));
}

#[test]
fn what_expired_is_dropped_and_counted() {
    let mut egress = paced([0; 3]);
    assert!(egress.admit(ms(0), &demand(1, 0, Bulk, 10_000)));
    let short = Demand {
        expiry: Some(ms(5)),
        ..demand(1, 0, Urgent, 1_000)
    };
    egress.offer(ms(0), short, 1).expect("room");
    egress
        .offer(ms(0), demand(1, 0, Normal, 1_000), 2)
        .expect("room");
    assert_eq!(items(&run(&mut egress, ms(0), ms(100))), [2]);
    let urgent = egress.delays().of(Urgent);
    assert_eq!((urgent.expired, urgent.packets), (1, 0));
}

#[test]
fn more_than_25_ms_of_packets_is_refused_and_counted() {
    let mut egress = paced([0; 3]);
    let taken = (0..100).filter(|item| {
        egress
            .offer(ms(0), demand(1, 0, Bulk, 1_000), *item)
            .is_ok()
    });
    assert_eq!(taken.count(), 25);
    assert_eq!(egress.delays().of(Bulk).dropped, 75);
    assert!(!egress.has_room(peer(1), Bulk));
    assert!(
        egress.has_room(peer(1), Urgent),
        "each class has its own room"
    );
    assert!(egress.has_room(peer(2), Bulk), "and each peer");
    // Turns are promises of sources that wait: as many as there are sources.
    assert!(egress.offer(ms(0), demand(1, 5, Bulk, 1_000), 0).is_ok());
}

#[test]
fn nothing_is_left_behind_when_a_peer_goes() {
    let mut egress = paced([0; 3]);
    egress.set_peer_rate(peer(1), Some(RATE));
    for class in Priority::ALL {
        egress
            .offer(ms(0), demand(1, 0, class, 1_000), class as u32)
            .expect("room");
    }
    assert!(egress.poll(ms(0)).is_some());
    assert_eq!(egress.cancel(peer(1), 0), Some(1));
    assert_eq!(egress.remove_peer(peer(1)), vec![2]);
    assert_eq!(egress.poll_timeout(), None);
    assert_eq!(egress.poll(ms(50)), None);
    assert!(egress.lanes.is_empty() && egress.parked.is_empty());
}

#[test]
fn whatever_happens_every_item_leaves_once_and_the_pace_is_never_exceeded() {
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut egress = paced([0, 10, 5]);
        let (mut now, mut offered, mut gone, mut sent) = (ms(0), 0_u32, Vec::new(), 0_usize);
        for _ in 0..2_000 {
            now += Duration::from_micros(next(3_000));
            let class = Priority::ALL[next(3) as usize];
            let to = next(4) as u32;
            match next(8) {
                0 => egress.set_peer_rate(peer(to), Some(RATE / (1 + next(4)))),
                1 => egress.set_peer_rate(peer(to), None),
                2 => egress.promote(now, peer(to), next(5), class),
                3 => gone.extend(egress.cancel(peer(to), 1 + next(4))),
                4 => gone.extend(egress.remove_peer(peer(to))),
                _ => {
                    let demand = demand(to, next(5), class, 100 + next(1_300) as usize);
                    offered += 1;
                    gone.extend(egress.offer(now, demand, offered).err());
                }
            }
            while let Some(departure) = egress.poll(now) {
                gone.push(departure.item);
                sent += 100;
            }
        }
        let left = run(&mut egress, now, Instant::MAX);
        gone.extend(items(&left));
        gone.sort_unstable();
        assert_eq!(gone, (1..=offered).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(egress.waiting, 0);
        assert!(sent as u64 * 8 <= RATE * now.as_nanos() / 1_000_000_000 + 16_000);
    }
}
