//! Cookies, the rate of one source, and herds.

use crate::net::{Net, Sent};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_core::{DropReason, Usage};

fn hub(under_load: bool, peers: usize) -> Net {
    let mut net = Net::new();
    net.add(|config| {
        if under_load {
            config.limits.handshakes_per_second_max = 0;
        }
    });
    for n in 1..=peers {
        let n = net.add(|_| ()).max(n);
        net.hosts[n].addr = SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 51_820));
        net.introduce(n, 0);
        net.introduce_with(0, n, |_| ());
    }
    net
}

#[test]
fn handshake_under_load_needs_a_cookie_and_completes() {
    let mut net = hub(true, 1);
    net.send(1, 0, b"through");
    net.run(100);
    assert!(
        net.sent_by(0).all(Sent::is_cookie),
        "no response before the cookie"
    );
    assert_eq!(
        net.hosts[0].node.usage(),
        Usage {
            peers: 1,
            ..Usage::default()
        }
    );
    net.run(6_000);
    assert_eq!(net.payloads(0), [b"through".to_vec()]);
    assert_eq!(net.initiations_of(1).len(), 2);
}

#[test]
fn a_cookie_is_worth_nothing_from_another_address_or_port() {
    let mut net = hub(true, 1);
    net.lost = Box::new(Sent::is_response);
    net.connect(1, 0);
    net.run(6_000);
    let with_cookie = net.last(1, Sent::is_initiation);
    assert_ne!(with_cookie.bytes[132..], [0; 16]);
    let dropped = |net: &Net, reason| net.hosts[0].node.counters().dropped(reason);
    let demanded = dropped(&net, DropReason::CookieDemanded);
    let home = net.hosts[1].addr;
    let port = SocketAddr::new(home.ip(), home.port() + 1);
    let address = SocketAddr::from(([10, 9, 9, 9], home.port()));
    net.deliver(port, 0, &with_cookie.bytes);
    net.deliver(address, 0, &with_cookie.bytes);
    assert_eq!(dropped(&net, DropReason::CookieDemanded), demanded + 2);
    // From its own address it gets as far as the check of the timestamp.
    net.deliver(home, 0, &with_cookie.bytes);
    assert_eq!(dropped(&net, DropReason::CookieDemanded), demanded + 2);
    assert_eq!(dropped(&net, DropReason::HandshakeReplayed), 1);
}

#[test]
fn a_spoofed_cookie_reply_changes_nothing() {
    let mut net = hub(true, 1);
    net.lost = Box::new(Sent::is_cookie);
    net.connect(1, 0);
    net.run(100);
    let genuine = net.last(0, Sent::is_cookie);
    for n in 8..64 {
        let mut forged = genuine.bytes.clone();
        forged[n] ^= 1;
        net.deliver(genuine.from, 1, &forged);
    }
    let counters = net.hosts[1].node.counters();
    assert_eq!(counters.dropped(DropReason::CookieInvalid), 56);
    net.deliver(genuine.from, 1, &genuine.bytes);
    net.run(6_000);
    assert!(net.ready(1, 0), "the genuine one still counts");
}

#[test]
fn one_source_is_limited_under_load_and_others_are_not() {
    let mut net = hub(true, 41);
    // Forty nodes behind one address, one elsewhere. Responses are lost, so that all keep asking.
    for n in 1..=40 {
        net.hosts[n].addr = SocketAddr::from(([10, 1, 1, 1], 40_000 + n as u16));
    }
    net.lost = Box::new(Sent::is_response);
    for n in 1..=41 {
        net.connect(n, 0);
    }
    net.run(4_000);
    net.log.clear();
    net.run(1_500);
    let crowd = |sent: &&Sent| sent.to.ip() == net.hosts[1].addr.ip() && sent.is_response();
    let answered = net.sent_by(0).filter(crowd).count();
    // A burst of 5 and 20 a second, over the third of a second in which they all come.
    assert!((5..=13).contains(&answered), "{answered}");
    let limited = net.hosts[0]
        .node
        .counters()
        .dropped(DropReason::RateLimited);
    assert_eq!(limited as usize, 40 - answered);
    let other = net.hosts[41].addr;
    assert_eq!(
        net.sent_by(0)
            .filter(|s| s.to == other && s.is_response())
            .count(),
        1
    );
}

#[test]
fn load_is_noticed_above_the_limit_only() {
    let mut net = Net::new();
    net.add(|config| config.limits.handshakes_per_second_max = 10);
    for _ in 1..=30 {
        let n = net.add(|_| ());
        net.introduce(n, 0);
        net.introduce_with(0, n, |_| ());
    }
    for n in 1..=10 {
        net.connect(n, 0);
    }
    net.run(900);
    assert_eq!(net.hosts[0].node.counters().cookies_sent, 0);
    for n in 11..=30 {
        net.connect(n, 0);
    }
    net.run(10);
    assert_eq!(net.hosts[0].node.counters().cookies_sent, 20);
    net.run(10_000);
    for n in 1..=30 {
        assert!(net.ready(n, 0), "{n}");
    }
}

#[test]
fn a_herd_of_reconnects_after_a_hub_restarts_is_spread() {
    const PEERS: usize = 200;
    let mut net = hub(false, PEERS);
    for n in 1..=PEERS {
        net.connect(n, 0);
    }
    net.run(5_000);
    assert_eq!(net.hosts[0].node.counters().handshakes, PEERS as u64);
    net.restart(0, 9, true);
    for n in 1..=PEERS {
        net.introduce_with(0, n, |_| ());
    }
    net.log.clear();
    // All speak in the same instant, the hub knows no session of theirs.
    for n in 1..=PEERS {
        net.send(n, 0, b"anyone?");
    }
    net.run(20_000);
    let mut per_10_ms: BTreeMap<u64, usize> = BTreeMap::new();
    for sent in net.log.iter().filter(|sent| sent.is_initiation()) {
        *per_10_ms
            .entry(sent.at.as_nanos() / 10_000_000)
            .or_default() += 1;
    }
    let worst = per_10_ms.values().max().unwrap();
    assert!(*worst <= PEERS / 8, "{worst} of {PEERS} within 10 ms");
    assert!(per_10_ms.len() >= 25, "spread over a third of a second");
    for n in 1..=PEERS {
        assert!(net.ready(n, 0), "{n}");
    }
}

#[test]
fn a_herd_that_finds_the_hub_down_spreads_further_with_each_try() {
    const PEERS: usize = 100;
    let mut net = hub(false, PEERS);
    net.lost = Box::new(|_| true);
    for n in 1..=PEERS {
        net.connect(n, 0);
    }
    net.run_for(Duration::from_secs(80));
    let width = |nth: usize| {
        let times = (1..=PEERS).map(|n| net.initiations_of(n)[nth]);
        times
            .clone()
            .max()
            .unwrap()
            .saturating_since(times.min().unwrap())
    };
    assert!(width(0) < Duration::from_millis(1));
    assert!(width(1) > Duration::from_millis(250));
    assert!(width(10) > width(1));
}
