//! Strangers that show a proof: let in, refused, answered late, and bounded.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;

use bare::Bare;
use nodes::{ECHO, PATIENCE, exchange, in_time, pattern, serve_echo, until};
use raw::dropped;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use wiremesh::{
    AddPeerError, Admission, AdmissionRequest, ConnectError, Level, Node, NodeBuilder, PeerConfig,
    SecretKey, Target, WaitReason,
};

fn loopback() -> NodeBuilder {
    Node::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A node that asks about strangers, and the requests.
async fn asking() -> (Node, mpsc::UnboundedReceiver<AdmissionRequest>) {
    asking_at(loopback()).await
}

async fn asking_at(builder: NodeBuilder) -> (Node, mpsc::UnboundedReceiver<AdmissionRequest>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let admission = Admission::proof(move |request| {
        let _ = sender.send(request);
    });
    let node = builder.protocol(ECHO).admission(admission).bind().await;
    let node = node.expect("binds");
    serve_echo(&node);
    (node, requests)
}

/// A guest whose id is greater or smaller than the host's, so that both roles are had.
async fn guest(host: &Node, greater: bool) -> Node {
    guest_at(host, greater, Duration::from_secs(2)).await
}

async fn guest_at(host: &Node, greater: bool, patience: Duration) -> Node {
    for number in 1..=255 {
        let secret = SecretKey::from_bytes([number; 32]);
        let id = wiremesh::node_id(&secret).expect("valid");
        if (id > host.id()) == greater {
            let builder = loopback().connect_timeout(patience);
            return builder.secret_key(secret).bind().await.expect("binds");
        }
    }
    panic!("one of 255 random ids is on each side");
}

async fn next(requests: &mut mpsc::UnboundedReceiver<AdmissionRequest>) -> AdmissionRequest {
    let request = tokio::time::timeout(PATIENCE, requests.recv()).await;
    request.expect("asked in time").expect("the node lives")
}

#[tokio::test]
async fn a_stranger_with_the_right_proof_comes_in() {
    in_time(async {
        for greater in [false, true] {
            let (host, mut requests) = asking().await;
            let guest = guest(&host, greater).await;
            let target = Target::from(host.ticket()).with_proof(b"let me in".to_vec());
            let (connected, ()) = tokio::join!(guest.connect(target, ECHO), async {
                let request = next(&mut requests).await;
                assert_eq!((request.node_id(), request.host()), (guest.id(), host.id()));
                assert_eq!(request.source(), guest.listen_addresses()[0]);
                assert_eq!(request.proof(), b"let me in");
                assert!(!request.under_load());
                // Nothing but the agreement passes until the answer.
                let status = host.peer(guest.id()).and_then(|peer| peer.status());
                let status = status.expect("it stands at the door");
                assert_eq!((status.level, status.required), (None, None));
                assert!(status.provisional);
                request.admit();
            });
            let connection = connected.expect("it was let in");
            exchange(&connection, pattern(20_000, 1)).await;
            assert_eq!(connection.security().level, Level::PostQuantum);
            let status = host.peer(guest.id()).and_then(|peer| peer.status());
            let status = status.expect("a peer");
            assert_eq!(status.level, Some(Level::PostQuantum));
            assert!(!status.provisional, "it is one of ours");
            // It is asked once: the next connection is a peer's.
            let again = guest.connect(host.id(), ECHO).await.expect("known");
            exchange(&again, pattern(1_000, 2)).await;
            assert!(requests.try_recv().is_err());
        }
    })
    .await;
}

#[tokio::test]
async fn a_stranger_with_a_wrong_proof_is_told_so_and_leaves_no_state() {
    in_time(async {
        for greater in [false, true] {
            let (host, mut requests) = asking().await;
            let guest = guest(&host, greater).await;
            let target = Target::from(host.ticket()).with_proof(b"wrong".to_vec());
            let (refused, ()) = tokio::join!(guest.connect(target, ECHO), async {
                next(&mut requests).await.refuse();
            });
            let error = refused.expect_err("it was refused");
            let ConnectError::Security { reason, .. } = error else {
                panic!("{error}");
            };
            let told = matches!(reason, Some(WaitReason::PeerRefused { code: 7, .. }));
            assert!(told, "{reason:?}");
            assert!(error.to_string().contains("did not admit us"), "{error}");
            guest.close().await;
            // Answered by dropping each request.
            tokio::spawn(async move { while requests.recv().await.is_some() {} });
            until("nothing is left of it", || host.status().peers.is_empty()).await;
            let refusals = host.status().refusals;
            assert_eq!(refusals.len(), 1);
            assert_eq!(refusals[0].node_id, guest.id());
            assert!(refusals[0].reason.contains("refused"), "{refusals:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_answer_may_come_later() {
    in_time(async {
        for greater in [false, true] {
            let (host, mut requests) = asking().await;
            let guest = guest(&host, greater).await;
            let mut config = PeerConfig::new(host.id());
            config.endpoints = host.ticket().endpoints.clone();
            config.proof = Some(b"patience".to_vec());
            let peer = guest.add_peer(config).expect("a new peer");
            let error = peer.connection(ECHO).await.expect_err("no answer yet");
            assert!(matches!(error, ConnectError::Security { .. }), "{error}");
            let request = next(&mut requests).await;
            assert_eq!(request.proof(), b"patience");
            request.admit();
            let level = || peer.status().and_then(|status| status.level);
            until("it is let in", || level() == Some(Level::PostQuantum)).await;
            let connection = peer.connection(ECHO).await.expect("let in");
            exchange(&connection, pattern(1_000, 1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn strangers_at_the_door_are_bounded_and_peers_are_not_concerned() {
    in_time(async {
        let (host, _requests) = asking().await;
        let friend = loopback().bind().await.expect("binds");
        nodes::introduce(&host, &friend);
        nodes::introduce(&friend, &host);
        // They have a session and show nothing.
        let (mut standing, mut outside) = (Vec::new(), Vec::new());
        for number in 0..300u16 {
            let mut secret = [7; 32];
            secret[1..3].copy_from_slice(&number.to_be_bytes());
            if number < 256 {
                standing.push(Bare::connected(&host, secret).await);
            } else {
                outside.push(Bare::unanswered(&host, secret).await);
            }
        }
        until("the rest gets no answer", || {
            dropped(&host, "limit-reached") == 44
        })
        .await;
        assert_eq!(host.status().peers.len(), 257);
        let connection = friend.connect(host.id(), ECHO).await.expect("a peer");
        exchange(&connection, pattern(1_000, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn under_load_the_application_is_told() {
    in_time(async {
        let (host, mut requests) = asking_at(loopback().handshakes_per_second_max(0)).await;
        // A cookie costs 5 s: the initiation is repeated with it, no sooner than any other.
        let guest = guest_at(&host, true, PATIENCE).await;
        let target = Target::from(host.ticket()).with_proof(b"x".to_vec());
        let (connected, ()) = tokio::join!(guest.connect(target, ECHO), async {
            let request = next(&mut requests).await;
            assert!(request.under_load());
            request.admit();
        });
        connected.expect("it was let in all the same");
        assert!(
            dropped(&host, "cookie-demanded") >= 1,
            "the cookie came first"
        );
    })
    .await;
}

#[tokio::test]
async fn a_proof_has_a_limit() {
    in_time(async {
        let (host, mut requests) = asking().await;
        let guest = guest(&host, true).await;
        let mut config = PeerConfig::new(host.id());
        config.proof = Some(vec![1; 4_097]);
        let error = guest.add_peer(config).err();
        assert_eq!(error, Some(AddPeerError::ProofTooLong(4_097)));
        let target = Target::from(host.ticket()).with_proof(vec![1; 4_097]);
        let error = guest.connect(target, ECHO).await;
        assert!(matches!(error, Err(ConnectError::ProofTooLong(4_097))));
        let target = Target::from(host.ticket()).with_proof(pattern(4_096, 5));
        let (connected, ()) = tokio::join!(guest.connect(target, ECHO), async {
            let request = next(&mut requests).await;
            assert!(request.proof() == pattern(4_096, 5));
            request.admit();
        });
        connected.expect("as long as it may be");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_panics_is_a_refusal() {
    in_time(async {
        let asked: Arc<Mutex<u32>> = Arc::default();
        let count = Arc::clone(&asked);
        let admission = Admission::proof(move |request| {
            *count.lock().expect("no panic with it held") += 1;
            if request.proof() == b"bug" {
                panic!("a bug of the application");
            }
            request.admit();
        });
        let host = loopback().protocol(ECHO).admission(admission).bind().await;
        let host = host.expect("binds");
        serve_echo(&host);
        let guest = guest(&host, true).await;
        let target = Target::from(host.ticket()).with_proof(b"bug".to_vec());
        guest.connect(target, ECHO).await.expect_err("refused");
        assert!(*asked.lock().expect("no panic with it held") >= 1);
        let target = Target::from(host.ticket()).with_proof(b"fine".to_vec());
        let connection = guest.connect(target, ECHO).await.expect("let in");
        exchange(&connection, pattern(1_000, 1)).await;
    })
    .await;
}
