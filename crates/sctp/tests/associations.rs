//! SCTP between two real nodes on loopback.

#[path = "../../wiremesh/tests/support/nodes.rs"]
mod nodes;

use nodes::plain_node;
use std::time::Duration;
use wiremesh::{Endpoint, Node, PeerConfig, Priority};
use wiremesh_sctp::{
    Association, ConnectError, EndError, Sctp, SctpConfig, SctpExt, SendError, SendMode,
};

/// Two nodes with an SCTP each; the first knows where the second is.
async fn pair(config: &SctpConfig) -> ([Node; 2], [Sctp; 2]) {
    let (a, b) = (plain_node().await, plain_node().await);
    let mut peer = PeerConfig::new(b.id());
    peer.endpoints = vec![Endpoint::Address(b.listen_addresses()[0])];
    a.add_peer(peer).expect("a new peer");
    let sctp = [&a, &b].map(|node| Sctp::with_config(node, config.clone()).expect("free"));
    ([a, b], sctp)
}

async fn exchange(from: &Association, to: &Association) {
    let sent: Vec<_> = (0..10_u16)
        .map(|stream| vec![stream as u8; 200_000])
        .collect();
    let send = async {
        for (stream, message) in sent.iter().enumerate() {
            let mode = SendMode {
                unordered: stream % 2 == 1,
                ..SendMode::default()
            };
            let given = from.send(stream as u16, 7, message.clone(), mode).await;
            given.expect("taken");
        }
    };
    let receive = async {
        let mut got = vec![Vec::new(); 10];
        for _ in 0..10 {
            let received = to.recv().await.expect("it comes");
            assert_eq!(received.protocol, 7);
            got[usize::from(received.stream)] = received.message;
        }
        got
    };
    let ((), got) = tokio::join!(send, receive);
    assert!(got == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_on_both_transports_with_and_without_interleaving() {
    for interleaving in [true, false] {
        let config = SctpConfig {
            interleaving,
            ..SctpConfig::default()
        };
        let ([_a, b], [from, to]) = pair(&config).await;
        let listener = to.listen(5000).expect("free");
        for over_udp in [false, true] {
            let connect = async {
                match over_udp {
                    true => from.connect_over_udp(b.id(), 5000).await,
                    false => from.connect(b.id(), 5000).await,
                }
            };
            let (connected, accepted) = tokio::join!(connect, listener.accept());
            let (connected, accepted) = (connected.expect("open"), accepted.expect("open"));
            assert_eq!(accepted.is_over_udp(), over_udp);
            assert_eq!(connected.interleaves(), interleaving);
            connected.set_priority(1, Priority::Urgent);
            exchange(&connected, &accepted).await;
            exchange(&accepted, &connected).await;
            // What was sent before arrives, then both know that it is over.
            let last = connected.send(3, 0, b"last".to_vec(), SendMode::default());
            last.await.expect("taken");
            let (ended, message) = tokio::join!(connected.shutdown(), accepted.recv());
            assert_eq!(message.expect("it comes").message, b"last");
            assert_eq!(ended, Ok(()));
            assert_eq!(accepted.recv().await, Err(EndError::Shutdown));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_or_opened_is_a_clear_error() {
    let config = SctpConfig {
        connect_timeout: Duration::from_millis(300),
        message_max: 1_000,
        ..SctpConfig::default()
    };
    let ([a, b], [from, to]) = pair(&config).await;
    let nobody = from
        .connect(b.id(), 5000)
        .await
        .expect_err("nobody listens");
    assert!(matches!(nobody, ConnectError::TimedOut { .. }), "{nobody}");
    let stranger = from.connect(b.address(), 0).await.expect_err("port 0");
    assert_eq!(stranger, ConnectError::NoPort);
    let listener = to.listen(5000).expect("free");
    let again = to.listen(5000).expect_err("taken").to_string();
    assert!(again.contains("5000"), "{again}");
    let (connected, accepted) = tokio::join!(from.connect(b.id(), 5000), listener.accept());
    let (connected, accepted) = (connected.expect("open"), accepted.expect("open"));
    let send = |bytes| connected.send(0, 0, bytes, SendMode::default());
    assert_eq!(send(Vec::new()).await, Err(SendError::Empty));
    let long = send(vec![0; 1_001]).await.expect_err("too long");
    assert_eq!(
        long,
        SendError::TooLong {
            len: 1_001,
            max: 1_000
        }
    );
    accepted.abort("enough");
    let ended = connected.closed().await;
    assert!(matches!(ended, EndError::Aborted(_)), "{ended}");
    assert!(a.sctp().is_err(), "there is one SCTP per node");
    b.close().await;
    assert!(listener.accept().await.is_none());
}
