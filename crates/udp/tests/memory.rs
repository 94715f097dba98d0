//! A network in memory: times exact to the nanosecond, queues, losses, shared uplinks, rebinding.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wiremesh_udp::memory::{Host, LinkConfig, LinkId, Network};
use wiremesh_udp::{BindError, DropReason, RecvBatch, SendError, Transmit, UdpConfig, UdpSockets};

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn bind(host: &Host, address: &str) -> Result<UdpSockets, BindError> {
    let config = UdpConfig {
        host: Some(host.clone()),
        ..UdpConfig::default()
    };
    UdpSockets::bind_with(&[address.parse().expect("valid address")], config)
}

fn bound(host: &Host, address: &str) -> UdpSockets {
    bind(host, address).expect("the port is free")
}

fn send(sockets: &UdpSockets, to: SocketAddr, contents: &[u8], segment: Option<usize>) {
    let transmit = Transmit {
        destination: to,
        source: None,
        ecn: 2,
        segment_size: segment,
        contents,
    };
    sockets.try_send(&transmit).expect("it never blocks");
}

/// Receives so many datagrams: when each came, its length, from whom.
async fn receive(
    network: &Network,
    sockets: &UdpSockets,
    count: usize,
) -> Vec<(Duration, usize, SocketAddr)> {
    let mut batch = RecvBatch::default();
    let mut got = Vec::new();
    while got.len() < count {
        sockets.recv(&mut batch).await.expect("the port works");
        let at = network.elapsed();
        got.extend(batch.datagrams_mut().map(|d| {
            assert_eq!(d.ecn, 2);
            (at, d.data.len(), d.source)
        }));
    }
    got
}

/// 10 Mbit/s and 20 ms.
fn modem() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(20),
        rate: Some(10_000_000),
        queue_bytes: 5_000,
        ..LinkConfig::default()
    }
}

/// Two hosts, the first behind a modem.
fn pair(network: &Network, uplink: LinkConfig) -> (Host, Host, LinkId) {
    let modem = network.link(uplink);
    let direct = network.link(LinkConfig::default());
    let one = network.host(&[ip(1)], modem);
    let other = network.host(&[ip(2)], direct);
    (one, other, modem)
}

#[tokio::test(start_paused = true)]
async fn packets_wait_for_each_other_and_come_when_they_must() {
    let network = Network::new(1);
    let (one, other, modem) = pair(&network, modem());
    let (from, to) = (bound(&one, "0.0.0.0:7"), bound(&other, "10.0.0.2:7"));
    // 1,250 bytes with headers are 1 ms; 125 are 0.1 ms.
    send(&from, (ip(2), 7).into(), &[0; 2 * 1_222 + 97], Some(1_222));
    let got = receive(&network, &to, 3).await;
    let source: SocketAddr = (ip(1), 7).into();
    let at = |micros| Duration::from_micros(micros);
    let expected = [(21_000, 1_222), (22_000, 1_222), (22_100, 97)];
    assert_eq!(got, expected.map(|(micros, len)| (at(micros), len, source)));
    assert_eq!(network.counters(modem).wait_max, at(2_000));
    assert_eq!(network.counters(modem).bytes, 2 * 1_250 + 125);
}

#[tokio::test(start_paused = true)]
async fn timers_of_others_are_not_held_up_by_packets_inside_their_millisecond() {
    let network = Network::new(1);
    let (one, other, _) = pair(&network, modem());
    let (from, to) = (bound(&one, "0.0.0.0:7"), bound(&other, "0.0.0.0:7"));
    for step in 1..=50u64 {
        // Each comes at an odd time; the sleep in between ends on its millisecond nevertheless.
        send(&from, (ip(2), 7).into(), &[0; 97], None);
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(3)).await;
        assert_eq!(network.elapsed(), Duration::from_millis(3 * step));
    }
    let got = receive(&network, &to, 50).await;
    assert_eq!(got.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_the_newest() {
    let network = Network::new(1);
    let (one, other, modem) = pair(&network, modem());
    let (from, to) = (bound(&one, "0.0.0.0:7"), bound(&other, "0.0.0.0:7"));
    for len in 1_215..1_225 {
        send(&from, (ip(2), 7).into(), &vec![0; len], None);
    }
    let lengths: Vec<_> = receive(&network, &to, 4)
        .await
        .iter()
        .map(|g| g.1)
        .collect();
    assert_eq!(lengths, [1_215, 1_216, 1_217, 1_218]);
    assert_eq!(network.counters(modem).dropped, 6);
    assert_eq!(network.counters(modem).packets, 4);
}

#[tokio::test(start_paused = true)]
async fn hosts_share_an_uplink_and_a_route_comes_behind_it() {
    let network = Network::new(1);
    let uplink = network.link(modem());
    let direct = network.link(LinkConfig::default());
    let far = network.link(LinkConfig {
        delay: Duration::from_millis(100),
        ..LinkConfig::default()
    });
    let (one, two) = (
        network.host(&[ip(1)], uplink),
        network.host(&[ip(2)], uplink),
    );
    let hub = network.host(&[ip(3)], direct);
    network.route(&two, &hub, far);
    let to = bound(&hub, "0.0.0.0:9");
    let (first, second) = (bound(&one, "0.0.0.0:7"), bound(&two, "0.0.0.0:7"));
    send(&second, (ip(3), 9).into(), &[0; 1_222], None);
    send(&first, (ip(3), 9).into(), &[0; 1_222], None);
    let got = receive(&network, &to, 2).await;
    let expected = [
        (Duration::from_millis(22), 1_222, (ip(1), 7).into()),
        (Duration::from_millis(121), 1_222, (ip(2), 7).into()),
    ];
    assert_eq!(got, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_longer_than_the_way_out_is_refused() {
    let network = Network::new(1);
    let (one, _, _) = pair(&network, modem());
    let from = bound(&one, "0.0.0.0:7");
    let transmit = |contents| Transmit {
        destination: (ip(2), 7).into(),
        source: None,
        ecn: 0,
        segment_size: None,
        contents,
    };
    let fits = vec![0; 1_472];
    from.try_send(&transmit(&fits)).expect("1,500 with headers");
    let longer = vec![0; 1_473];
    let refused = from.try_send(&transmit(&longer));
    assert!(matches!(
        refused,
        Err(SendError::Dropped(DropReason::TooLarge))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_port_is_taken_once_and_survives_a_rebind() {
    let network = Network::new(1);
    let (one, other, _) = pair(&network, LinkConfig::default());
    let first = bound(&one, "0.0.0.0:7");
    assert!(bind(&one, "10.0.0.1:7").is_err(), "taken");
    assert!(bind(&one, "10.0.0.9:8").is_err(), "not ours");
    assert!(bind(&one, "[::]:8").is_err(), "no IPv6 here");
    let (a, b) = (bound(&one, "0.0.0.0:0"), bound(&one, "0.0.0.0:0"));
    assert_ne!(a.local_addresses(), b.local_addresses());
    assert!(first.rebind().expect("it is ours").same_port);
    let to = bound(&other, "0.0.0.0:7");
    send(&to, (ip(1), 7).into(), &[0; 5], None);
    assert_eq!(receive(&network, &first, 1).await[0].1, 5);
    drop(first);
    bind(&one, "10.0.0.1:7").expect("free again");
}

/// Sends a thousand datagrams through a lossy link; gives the losses and the trace.
async fn lossy_run(seed: u64) -> (u64, u64) {
    let network = Network::new(seed);
    let lossy = LinkConfig {
        loss_permille: 100,
        ..LinkConfig::default()
    };
    let (one, _, link) = pair(&network, lossy);
    let from = bound(&one, "0.0.0.0:7");
    for number in 0..1_000u32 {
        send(&from, (ip(2), 7).into(), &number.to_be_bytes(), None);
    }
    (network.counters(link).lost, network.trace())
}

#[tokio::test(start_paused = true)]
async fn losses_follow_from_the_seed() {
    let first = lossy_run(1).await;
    assert!((60..140).contains(&first.0), "{first:?}");
    assert_eq!(first, lossy_run(1).await);
    assert_ne!(first, lossy_run(2).await);
}
