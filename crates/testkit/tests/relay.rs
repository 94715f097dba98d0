//! The relay with real sockets on loopback.
//!
//! Nothing here pauses; time limits only turn a hang into a failure.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use wiremesh_testkit::impair::{ConfigError, Impair, ImpairConfig, ImpairError, LinkConfig};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("no hang")
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("loopback binds")
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}

fn relay(target: &UdpSocket, link: LinkConfig) -> Impair {
    Impair::start(ImpairConfig::new(address(target)).with_link(link)).expect("loopback binds")
}

async fn send(from: &UdpSocket, to: SocketAddr, data: &[u8]) {
    from.send_to(data, to).await.expect("loopback has room");
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let received = within(socket.recv_from(&mut buffer)).await;
    let (length, source) = received.expect("the socket works");
    buffer.truncate(length);
    (buffer, source)
}

#[tokio::test]
async fn questions_and_answers_pass_unchanged() {
    let (client, target) = (socket().await, socket().await);
    let relay = relay(&target, LinkConfig::default());
    for number in 0..100_u8 {
        let question = vec![number; usize::from(number) * 14];
        send(&client, relay.local_addr(), &question).await;
        let (data, source) = receive(&target).await;
        assert_eq!(data, question);
        assert_eq!(relay.upstream_addresses(), [(address(&client), source)]);
        send(&target, source, &data).await;
        assert_eq!(receive(&client).await, (question, relay.local_addr()));
    }
    let stats = relay.stats();
    assert_eq!(stats.clients, 1);
    assert_eq!(stats.to_target.delivered_datagrams, 100);
    assert_eq!(stats.to_client.delivered_datagrams, 100);
    assert_eq!(
        stats.to_target.dropped() + stats.to_client.dropped() + stats.socket_errors,
        0
    );
}

#[tokio::test]
async fn ipv6_is_relayed_with_its_larger_header() {
    let bind = || UdpSocket::bind("[::1]:0");
    let client = bind().await.expect("loopback binds");
    let target = bind().await.expect("loopback binds");
    let link = LinkConfig {
        mtu_bytes: Some(1360),
        ..LinkConfig::default()
    };
    let mut config = ImpairConfig::new(address(&target)).with_link(link);
    config.listen = "[::1]:0".parse().expect("valid address");
    let relay = Impair::start(config).expect("loopback binds");
    send(&client, relay.local_addr(), &[1; 1313]).await;
    send(&client, relay.local_addr(), &[2; 1312]).await;
    assert_eq!(receive(&target).await.0, [2; 1312]);
    assert_eq!(relay.stats().to_target.too_large, 1);
}

#[tokio::test]
async fn each_client_has_its_own_port_toward_the_target() {
    let (first, second, target) = (socket().await, socket().await, socket().await);
    let relay = relay(&target, LinkConfig::default());
    send(&first, relay.local_addr(), b"first").await;
    let (_, first_port) = receive(&target).await;
    send(&second, relay.local_addr(), b"second").await;
    let (_, second_port) = receive(&target).await;
    assert_ne!(first_port, second_port);
    send(&target, second_port, b"to second").await;
    send(&target, first_port, b"to first").await;
    assert_eq!(receive(&second).await.0, b"to second");
    assert_eq!(receive(&first).await.0, b"to first");
}

#[tokio::test]
async fn a_rebind_changes_the_port_and_loses_the_old_one() {
    let (client, target) = (socket().await, socket().await);
    let relay = relay(&target, LinkConfig::default());
    send(&client, relay.local_addr(), b"before").await;
    let (_, old) = receive(&target).await;
    relay.rebind_upstream().expect("a port is free");
    send(&client, relay.local_addr(), b"after").await;
    let (data, new) = receive(&target).await;
    assert_eq!(data, b"after");
    assert_ne!(old, new);
    // Whether the system reports that nobody hears the old port is its choice.
    let _ = target.send_to(b"lost", old).await;
    send(&target, new, b"heard").await;
    assert_eq!(receive(&client).await.0, b"heard");
    assert_eq!(relay.stats().to_client.received_datagrams, 1);
}

#[tokio::test]
async fn a_stranger_is_not_heard_by_the_client() {
    let (client, target, stranger) = (socket().await, socket().await, socket().await);
    let relay = relay(&target, LinkConfig::default());
    send(&client, relay.local_addr(), b"hello").await;
    let (_, port) = receive(&target).await;
    let _ = stranger.send_to(b"intrusion", port).await;
    send(&target, port, b"answer").await;
    assert_eq!(receive(&client).await.0, b"answer");
}

#[tokio::test]
async fn delay_is_kept_both_ways() {
    let (client, target) = (socket().await, socket().await);
    let delay = Duration::from_millis(15);
    let relay = relay(
        &target,
        LinkConfig {
            delay,
            ..LinkConfig::default()
        },
    );
    let started = Instant::now();
    send(&client, relay.local_addr(), b"question").await;
    let (_, port) = receive(&target).await;
    assert!(started.elapsed() >= delay);
    send(&target, port, b"answer").await;
    receive(&client).await;
    assert!(started.elapsed() >= delay * 2);
}

/// Sends 200 datagrams through a lossy relay and gives the numbers that arrive.
async fn survivors(seed: u64) -> Vec<u8> {
    let (client, target) = (socket().await, socket().await);
    let link = LinkConfig {
        loss: 0.3,
        ..LinkConfig::default()
    };
    let config = ImpairConfig::new(address(&target))
        .with_link(link)
        .with_seed(seed);
    let relay = Impair::start(config).expect("loopback binds");
    for number in 0..200 {
        send(&client, relay.local_addr(), &[number]).await;
    }
    // The relay keeps the order, so this one comes last; asked for until one is not lost.
    let mut arrived = Vec::new();
    within(async {
        while relay.stats().to_target.received_datagrams < 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    relay
        .set_config(LinkConfig::default(), LinkConfig::default())
        .expect("valid settings");
    send(&client, relay.local_addr(), b"end").await;
    loop {
        match receive(&target).await.0.as_slice() {
            [number] => arrived.push(*number),
            _ => return arrived,
        }
    }
}

#[tokio::test]
async fn the_seed_decides_which_datagrams_are_lost() {
    let first = survivors(3).await;
    assert!((110..170).contains(&first.len()), "{}", first.len());
    assert!(first.is_sorted());
    assert_eq!(first, survivors(3).await);
    assert_ne!(first, survivors(4).await);
}

#[tokio::test]
async fn settings_change_at_run_time_and_bad_ones_are_refused() {
    let (client, target) = (socket().await, socket().await);
    let relay = relay(
        &target,
        LinkConfig {
            loss: 1.0,
            ..LinkConfig::default()
        },
    );
    send(&client, relay.local_addr(), b"lost").await;
    within(async {
        while relay.stats().to_target.lost < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let bad = LinkConfig {
        loss: 2.0,
        ..LinkConfig::default()
    };
    let refused = relay.set_config(bad.clone(), LinkConfig::default());
    assert_eq!(refused, Err(ConfigError::Probability("loss")));
    relay
        .set_config(LinkConfig::default(), bad)
        .expect_err("refused as well");
    relay
        .set_config(LinkConfig::default(), LinkConfig::default())
        .expect("valid settings");
    send(&client, relay.local_addr(), b"passes").await;
    assert_eq!(receive(&target).await.0, b"passes");
}

#[tokio::test]
async fn a_target_that_does_not_listen_yet_is_survived() {
    let client = socket().await;
    let target_address = address(&socket().await);
    let relay = Impair::start(ImpairConfig::new(target_address)).expect("loopback binds");
    for _ in 0..10 {
        send(&client, relay.local_addr(), b"early").await;
    }
    within(async {
        while relay.stats().to_target.delivered_datagrams < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let target = UdpSocket::bind(target_address)
        .await
        .expect("the port is free");
    // A refusal that is still pending may cost one send, as on a real host.
    let (data, _) = within(async {
        loop {
            send(&client, relay.local_addr(), b"late").await;
            tokio::select! {
                received = receive(&target) => return received,
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    assert_eq!(data, b"late");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = socket().await;
    let mut config = ImpairConfig::new(address(&taken));
    config.listen = address(&taken);
    let error = Impair::start(config).expect_err("the address is taken");
    assert!(matches!(error, ImpairError::Listen { .. }));
    assert!(
        error.to_string().contains(&address(&taken).to_string()),
        "{error}"
    );
}
