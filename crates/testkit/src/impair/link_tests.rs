//! Tables and virtual time for [`Impairment`].

use super::*;

const HEADER: usize = 28;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn link(config: LinkConfig) -> Impairment {
    config.validate().expect("the test's settings are valid");
    Impairment::new(config, 7, HEADER)
}

/// Takes out everything due by `until`, each at its time.
fn collect(link: &mut Impairment, until: Duration) -> Vec<(Duration, Vec<u8>)> {
    let mut arrived = Vec::new();
    while let Some(due) = link.poll_timeout().filter(|&due| due <= until) {
        if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
            assert_eq!(link.poll_datagram(before), None, "nothing arrives early");
        }
        arrived.push((due, link.poll_datagram(due).expect("it is due")));
    }
    arrived
}

/// Sends numbered datagrams, one each `gap`; gives arrival times and numbers in order.
fn run(link: &mut Impairment, count: u32, gap: Duration) -> Vec<(Duration, u32)> {
    let mut arrived = Vec::new();
    for number in 0..count {
        let now = gap * number;
        arrived.extend(collect(link, now));
        link.handle_datagram(now, &number.to_be_bytes());
    }
    arrived.extend(collect(link, Duration::MAX));
    let number = |data: Vec<u8>| u32::from_be_bytes(data.try_into().expect("four bytes"));
    arrived
        .into_iter()
        .map(|(due, data)| (due, number(data)))
        .collect()
}

fn balanced(stats: &LinkStats) -> bool {
    stats.received_datagrams + stats.duplicated == stats.delivered_datagrams + stats.dropped()
}

#[test]
fn the_default_link_changes_nothing() {
    let mut link = link(LinkConfig::default());
    let arrived = run(&mut link, 100, ms(1));
    let expected: Vec<_> = (0..100).map(|n| (ms(u64::from(n)), n)).collect();
    assert_eq!(arrived, expected);
    let stats = LinkStats {
        received_datagrams: 100,
        received_bytes: 400,
        delivered_datagrams: 100,
        delivered_bytes: 400,
        ..LinkStats::default()
    };
    assert_eq!(link.stats(), stats);
}

#[test]
fn delay_shifts_and_keeps_the_order() {
    let mut link = link(LinkConfig {
        delay: ms(20),
        ..LinkConfig::default()
    });
    let arrived = run(&mut link, 10, ms(1));
    let expected: Vec<_> = (0..10).map(|n| (ms(20 + u64::from(n)), n)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(link.stats().reordered, 0);
}

#[test]
fn jitter_reorders_within_its_bound() {
    let config = LinkConfig {
        delay: ms(20),
        jitter: ms(10),
        ..LinkConfig::default()
    };
    let mut link = link(config);
    let arrived = run(&mut link, 1000, ms(1));
    assert_eq!(arrived.len(), 1000);
    for (due, number) in &arrived {
        let sent = ms(u64::from(*number));
        assert!(
            (sent + ms(20)..sent + ms(30)).contains(due),
            "{number} at {due:?}"
        );
    }
    assert!(arrived.windows(2).any(|pair| pair[0].1 > pair[1].1));
    assert!(link.stats().reordered > 100);
    assert!(balanced(&link.stats()));
}

#[test]
fn loss_has_the_asked_rate() {
    for (loss, expected) in [(0.0, 0..=0), (0.05, 400..=600), (0.3, 2800..=3200)] {
        let mut link = link(LinkConfig {
            loss,
            ..LinkConfig::default()
        });
        run(&mut link, 10_000, ms(1));
        assert!(
            expected.contains(&link.stats().lost),
            "{loss}: {}",
            link.stats().lost
        );
        assert!(balanced(&link.stats()));
    }
    let mut all = link(LinkConfig {
        loss: 1.0,
        ..LinkConfig::default()
    });
    assert!(run(&mut all, 1000, ms(1)).is_empty());
}

#[test]
fn bursts_have_the_asked_mean_length() {
    let config = LinkConfig {
        burst_loss: 0.01,
        burst_datagrams: 8.0,
        ..LinkConfig::default()
    };
    let mut link = link(config);
    let arrived: Vec<u32> = run(&mut link, 100_000, ms(1))
        .into_iter()
        .map(|a| a.1)
        .collect();
    let gaps: Vec<u32> = arrived
        .windows(2)
        .map(|pair| pair[1] - pair[0] - 1)
        .filter(|&gap| gap > 0)
        .collect();
    let mean = f64::from(gaps.iter().sum::<u32>()) / gaps.len() as f64;
    assert!((7.0..9.0).contains(&mean), "{mean}");
    assert!((700..1200).contains(&gaps.len()), "{}", gaps.len());
    assert!(balanced(&link.stats()));
}

#[test]
fn a_burst_of_mean_one_loses_single_datagrams() {
    let config = LinkConfig {
        burst_loss: 0.2,
        burst_datagrams: 1.0,
        ..LinkConfig::default()
    };
    let mut link = link(config);
    let arrived: Vec<u32> = run(&mut link, 1000, ms(1))
        .into_iter()
        .map(|a| a.1)
        .collect();
    assert!(arrived.windows(2).all(|pair| pair[1] - pair[0] <= 2));
    assert!(link.stats().lost_in_bursts > 100);
}

#[test]
fn duplicates_arrive_twice() {
    let mut link = link(LinkConfig {
        duplicate: 1.0,
        ..LinkConfig::default()
    });
    let numbers: Vec<u32> = run(&mut link, 3, ms(1)).into_iter().map(|a| a.1).collect();
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    assert_eq!(link.stats().duplicated, 3);
    assert_eq!(link.stats().reordered, 0);
}

#[test]
fn corruption_flips_one_to_three_bits() {
    for length in [1, 2, 3, 100, 1400] {
        let mut link = link(LinkConfig {
            corrupt: 1.0,
            ..LinkConfig::default()
        });
        for _ in 0..200 {
            link.handle_datagram(Duration::ZERO, &vec![0; length]);
            let data = link.poll_datagram(Duration::ZERO).expect("no delay");
            let flipped: u32 = data.iter().map(|byte| byte.count_ones()).sum();
            assert!((1..=3).contains(&flipped), "{flipped} of {length} bytes");
        }
    }
    let mut link = link(LinkConfig {
        corrupt: 1.0,
        ..LinkConfig::default()
    });
    link.handle_datagram(Duration::ZERO, &[]);
    assert_eq!(link.poll_datagram(Duration::ZERO), Some(Vec::new()));
    assert_eq!(link.stats().corrupted, 0);
}

#[test]
fn the_mtu_counts_the_headers() {
    for (header_bytes, payload, passes) in [
        (28, 1332, true),
        (28, 1333, false),
        (48, 1312, true),
        (48, 1313, false),
        (28, 0, true),
    ] {
        let config = LinkConfig {
            mtu_bytes: Some(1360),
            ..LinkConfig::default()
        };
        let mut link = Impairment::new(config, 7, header_bytes);
        link.handle_datagram(Duration::ZERO, &vec![0; payload]);
        assert_eq!(
            link.poll_datagram(Duration::ZERO).is_some(),
            passes,
            "{payload}"
        );
        assert_eq!(link.stats().too_large, u64::from(!passes));
    }
}

#[test]
fn the_rate_spaces_datagrams_and_the_queue_drops() {
    // 100-byte packets at 800 bits per millisecond: one each millisecond, four in the queue.
    let config = LinkConfig {
        rate_bits_per_s: Some(800_000),
        queue_bytes: 400,
        ..LinkConfig::default()
    };
    let mut link = link(config);
    for _ in 0..6 {
        link.handle_datagram(Duration::ZERO, &[0; 100 - HEADER]);
    }
    assert_eq!(link.stats().queue_full, 2);
    let times: Vec<_> = collect(&mut link, Duration::MAX)
        .into_iter()
        .map(|a| a.0)
        .collect();
    assert_eq!(times, [ms(1), ms(2), ms(3), ms(4)]);
    // An idle link earns no credit.
    link.handle_datagram(ms(100), &[0; 100 - HEADER]);
    assert_eq!(link.poll_timeout(), Some(ms(101)));
    // Half of the queue has left: room for what was sent meanwhile.
    for _ in 0..3 {
        link.handle_datagram(ms(100), &[0; 100 - HEADER]);
    }
    link.handle_datagram(ms(102), &[0; 100 - HEADER]);
    assert_eq!(link.stats().queue_full, 2);
}

#[test]
fn datagrams_in_flight_are_limited() {
    let mut link = link(LinkConfig {
        delay: ms(1),
        ..LinkConfig::default()
    });
    for _ in 0..IN_FLIGHT_MAX + 5 {
        link.handle_datagram(Duration::ZERO, &[1]);
    }
    assert_eq!(link.stats().queue_full, 5);
}

#[test]
fn settings_change_for_later_datagrams_only() {
    let mut link = link(LinkConfig {
        delay: ms(50),
        ..LinkConfig::default()
    });
    link.handle_datagram(Duration::ZERO, &[1]);
    link.set_config(LinkConfig {
        loss: 1.0,
        ..LinkConfig::default()
    });
    link.handle_datagram(ms(1), &[2]);
    link.set_config(LinkConfig::default());
    link.handle_datagram(ms(2), &[3]);
    let arrived = collect(&mut link, Duration::MAX);
    assert_eq!(arrived, [(ms(2), vec![3]), (ms(50), vec![1])]);
    assert_eq!(link.stats().reordered, 1);
}

#[test]
fn the_seed_decides_and_unrelated_settings_do_not() {
    let lossy = LinkConfig {
        loss: 0.2,
        ..LinkConfig::default()
    };
    let numbers = |config: &LinkConfig, seed| -> Vec<u32> {
        let mut link = Impairment::new(config.clone(), seed, HEADER);
        let mut numbers: Vec<_> = run(&mut link, 500, ms(1))
            .into_iter()
            .map(|arrival| arrival.1)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    assert_eq!(numbers(&lossy, 1), numbers(&lossy, 1));
    assert_ne!(numbers(&lossy, 1), numbers(&lossy, 2));
    let more = LinkConfig {
        jitter: ms(9),
        duplicate: 0.5,
        ..lossy.clone()
    };
    assert_eq!(numbers(&lossy, 1), numbers(&more, 1));
}
