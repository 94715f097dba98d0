//! Levels: the default, minimums that are refused, policy at run time, demands before the first
//! byte, and pins that outlive the node.

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{ECHO, builder, echo_node, exchange, in_time, introduce, pattern, plain_node, until};
use std::path::Path;
use std::time::{Duration, SystemTime};
use wiremesh::{
    Admission, BindError, ConnectError, Level, Node, NodeBuilder, PeerConfig, PeerStatus, Policy,
    SecretKey, SecurityError, SetPolicyError, Stage, StateError, SuiteId, WaitReason,
};

/// A policy of the default minimum.
fn strict() -> Policy {
    Policy::default()
}

fn at(stage: Stage) -> Policy {
    Policy::at(stage)
}

async fn node_with(policy: Policy) -> Node {
    let node = builder().security(policy).protocol(ECHO);
    let node = node.bind().await.expect("binds");
    nodes::serve_echo(&node);
    node
}

/// One that gives up soon.
fn impatient() -> NodeBuilder {
    builder().connect_timeout(Duration::from_millis(1_500))
}

fn peer_of(node: &Node, other: &Node) -> PeerStatus {
    let peer = node.peer(other.id()).expect("it is a peer");
    peer.status().expect("it is there")
}

#[tokio::test]
async fn nodes_end_at_l2_without_any_setting() {
    in_time(async {
        let began = SystemTime::now() - Duration::from_secs(1);
        let (server, client) = (echo_node().await, plain_node().await);
        let connection = client.connect(&server.ticket(), ECHO).await;
        let connection = connection.expect("connects");
        exchange(&connection, pattern(100_000, 1)).await;
        let security = connection.security();
        assert_eq!(security.suite, Some(SuiteId::HYBRID));
        assert_eq!(security.level, Level::PostQuantum);
        assert_eq!(security.required, Level::PostQuantum);
        assert!(security.psk_epoch > 0, "{security:?}");
        for (node, other) in [(&client, &server), (&server, &client)] {
            let status = peer_of(node, other);
            assert_eq!(status.suite, Some(SuiteId::HYBRID));
            assert_eq!(status.level, Some(Level::PostQuantum));
            assert_eq!(status.required, Some(Level::PostQuantum));
            assert_eq!(status.psk_epoch, Some(security.psk_epoch));
            assert_eq!((&status.waiting, &status.reason), (&None, &None));
            for time in [status.since, status.last_rotation] {
                let time = time.expect("it is known");
                assert!(began <= time && time <= SystemTime::now(), "{time:?}");
            }
            let known = node.known_suites();
            assert_eq!(known.len(), 1);
            assert_eq!(known[0].0, other.id());
            assert!(known[0].1.contains(SuiteId::HYBRID));
        }
        assert_eq!(client.policy(), strict());
        assert_eq!(server.status().policy, strict());
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_told_on_both_sides() {
    in_time(async {
        // Whichever has the smaller id makes the offer: both ways round.
        for swapped in [false, true] {
            let key = |first: bool| SecretKey::from_bytes([1 + u8::from(first != swapped); 32]);
            let old = impatient()
                .security(at(Stage::OldOnly))
                .secret_key(key(false));
            let old = old.bind().await.expect("binds");
            let new = builder().protocol(ECHO).secret_key(key(true));
            let new = new.bind().await.expect("binds");
            let error = old.connect(&new.ticket(), ECHO).await;
            let error = error.expect_err("no level in common");
            let ConnectError::Security {
                required, reason, ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!(required, Level::PostQuantum, "never without an agreement");
            assert!(reason.is_some(), "{error}");
            let told = error.to_string();
            assert!(
                told.contains("suite in common") || told.contains("refuses"),
                "{told}"
            );
            for (node, other) in [(&old, &new), (&new, &old)] {
                until("both know why", || {
                    let waiting = peer_of(node, other).waiting;
                    waiting.is_some_and(|(reason, _)| reason != WaitReason::Exchanging)
                })
                .await;
                let status = peer_of(node, other);
                assert_eq!((status.level, status.suite), (None, None));
                let (reason, since) = status.waiting.expect("as above");
                assert!(since <= SystemTime::now());
                assert_eq!(status.reason, Some(reason.to_string()));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_old_node_is_let_in_where_the_policy_says_so() {
    in_time(async {
        let old = node_with(at(Stage::OldOnly)).await;
        let new = node_with(at(Stage::Both)).await;
        let connection = new.connect(&old.ticket(), ECHO).await;
        let connection = connection.expect("both allow L1");
        exchange(&connection, pattern(50_000, 1)).await;
        let security = connection.security();
        assert_eq!(security.level, Level::Classical);
        assert_eq!(security.suite, Some(SuiteId::WIREGUARD));
        assert_eq!(peer_of(&new, &old).last_rotation, None);
        // Beside it, whoever lists more gets more.
        let third = node_with(at(Stage::Both)).await;
        let connection = third.connect(&new.ticket(), ECHO).await;
        let level = connection.expect("connects").security().level;
        assert_eq!(level, Level::PostQuantum);
    })
    .await;
}

#[tokio::test]
async fn a_policy_changes_at_run_time_and_no_stream_breaks() {
    in_time(async {
        let (one, two) = (
            node_with(at(Stage::OldOnly)).await,
            node_with(at(Stage::OldOnly)).await,
        );
        let connection = one.connect(&two.ticket(), ECHO).await.expect("connects");
        let (mut send, mut recv) = connection.open_bi().await.expect("open");
        let mut sent = 0u32;
        let mut say = async |count: u32| {
            for _ in 0..count {
                let text = sent.to_be_bytes();
                send.write_all(&text).await.expect("the stream lives");
                let mut back = [0; 4];
                recv.read_exact(&mut back).await.expect("the stream lives");
                assert_eq!(back, text);
                sent += 1;
            }
        };
        say(50).await;
        assert_eq!(connection.security().level, Level::Classical);
        for (node, stage) in [
            (&one, Stage::Both),
            (&two, Stage::BothPreferOld),
            (&two, Stage::Both),
            (&one, Stage::NewOnly),
            (&two, Stage::NewOnly),
        ] {
            node.set_policy(at(stage)).expect("consistent");
            assert_eq!(node.policy(), at(stage));
            say(50).await;
        }
        assert_eq!(connection.security().level, Level::PostQuantum);
        for (node, other) in [(&one, &two), (&two, &one)] {
            until("the promise is remembered", || {
                peer_of(node, other)
                    .pin
                    .is_some_and(|pin| pin.level == Level::PostQuantum)
            })
            .await;
        }
        say(50).await;
        assert!(connection.close_reason().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_contradicts_itself_is_refused() {
    let wrong = Policy {
        stage: Stage::OldOnly,
        ..Policy::default()
    };
    let error = builder().security(wrong).bind().await;
    assert!(matches!(error, Err(BindError::Policy(_))), "{error:?}");
    let node = plain_node().await;
    let error = node.set_policy(wrong);
    assert!(matches!(error, Err(SetPolicyError::Policy(_))), "{error:?}");
    assert_eq!(node.policy(), Policy::default(), "nothing has changed");
}

#[tokio::test]
async fn a_level_is_demanded_before_the_first_byte() {
    in_time(async {
        // Both would be content with L1.
        let server = node_with(at(Stage::OldOnly)).await;
        let client = impatient().security(at(Stage::Both)).bind();
        let client = client.await.expect("binds");
        let mut config = PeerConfig::new(server.id());
        config.endpoints = server.ticket().endpoints.clone();
        config.minimum = Some(Level::PostQuantum);
        let peer = client.add_peer(config).expect("a new peer");
        let error = peer.connection(ECHO).await.expect_err("it lists L1 only");
        assert!(matches!(error, ConnectError::Security { .. }), "{error}");
        assert_eq!(peer.security().expect("there").required, Level::PostQuantum);
        // Once the peer moves on, the same connects.
        server.set_policy(at(Stage::Both)).expect("consistent");
        let security = peer.require(Level::PostQuantum).await.expect("reached");
        assert_eq!(security.suite, Some(SuiteId::HYBRID));
        let connection = peer.connection(ECHO).await.expect("connects");
        exchange(&connection, pattern(1_000, 1)).await;
        assert_eq!(connection.security().level, Level::PostQuantum);
    })
    .await;
}

#[tokio::test]
async fn a_demand_is_met_or_told_why_not_and_stays() {
    in_time(async {
        let server = node_with(at(Stage::OldOnly)).await;
        let client = impatient().security(at(Stage::Both)).bind();
        let client = client.await.expect("binds");
        let peer = introduce(&client, &server);
        let connection = peer.connection(ECHO).await.expect("L1 will do");
        exchange(&connection, pattern(1_000, 1)).await;
        let security = connection.require(Level::Classical).await.expect("it is");
        assert_eq!(security.level, Level::Classical);

        let error = connection.require(Level::PostQuantum).await;
        let error = error.expect_err("the server lists L1 only");
        assert!(matches!(error, SecurityError::Refused(_)), "{error}");
        // It stays demanded: not a byte more at L1.
        let before = connection.stats().frame_rx.stream;
        let (mut send, _recv) = connection.open_bi().await.expect("open");
        send.write_all(b"not at L1").await.expect("it is kept");
        send.finish().expect("once");
        let dropped = peer.status().expect("there");
        assert_eq!(
            (dropped.level, dropped.required),
            (None, Some(Level::PostQuantum))
        );
        assert_eq!(connection.stats().frame_rx.stream, before);

        // The server moves on: the demand is met and what waited arrives.
        server.set_policy(at(Stage::Both)).expect("consistent");
        let security = client.require(server.id(), Level::PostQuantum).await;
        assert_eq!(security.expect("reached").level, Level::PostQuantum);
        exchange(&connection, pattern(1_000, 2)).await;

        let error = peer.require(Level::PostQuantumAuthenticated).await;
        let not_offered = SecurityError::NotOffered {
            wanted: Level::PostQuantumAuthenticated,
            best: Level::PostQuantum,
        };
        assert_eq!(error, Err(not_offered));
        exchange(&connection, pattern(1_000, 3)).await;
        let nobody = plain_node().await.id();
        let error = client.require(nobody, Level::PostQuantum).await;
        assert_eq!(error, Err(SecurityError::UnknownPeer(nobody)));
        // The operator takes the demand back.
        peer.set_minimum(None);
        exchange(&connection, pattern(1_000, 4)).await;
    })
    .await;
}

#[tokio::test]
async fn a_demand_wakes_up_when_the_node_is_closed_or_nobody_answers() {
    in_time(async {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let there = silent.local_addr().expect("bound");
        let client = impatient().bind().await.expect("binds");
        let mut config = PeerConfig::new(plain_node().await.id());
        config.endpoints = vec![wiremesh::Endpoint::Address(there)];
        let peer = client.add_peer(config).expect("a new peer");
        let error = peer.require(Level::PostQuantum).await;
        let nobody = SecurityError::Timeout {
            reason: None,
            waited: Duration::from_millis(1_500),
        };
        assert_eq!(error, Err(nobody));
        let waiting = tokio::spawn(async move { peer.require(Level::PostQuantum).await });
        tokio::task::yield_now().await;
        client.close().await;
        assert_eq!(waiting.await.expect("no panic"), Err(SecurityError::Closed));
    })
    .await;
}

/// A server whose key, address and promises outlive it.
fn server_at(stage: Stage) -> NodeBuilder {
    builder()
        .secret_key(SecretKey::from_bytes([9; 32]))
        .security(at(stage))
        .protocol(ECHO)
}

fn client_with(dir: &Path) -> NodeBuilder {
    impatient()
        .secret_key(SecretKey::from_bytes([8; 32]))
        .security(at(Stage::Both))
        .state_dir(dir)
}

async fn serving(server: NodeBuilder) -> Node {
    let node = server.bind().await.expect("binds");
    nodes::serve_echo(&node);
    node
}

#[tokio::test]
async fn a_promise_outlives_the_node_that_heard_it() {
    in_time(async {
        let dir = tempfile::tempdir().expect("a directory");
        let id = {
            let server = serving(server_at(Stage::NewOnly)).await;
            let client = client_with(dir.path()).bind().await.expect("binds");
            let connection = client.connect(&server.ticket(), ECHO).await;
            exchange(&connection.expect("connects"), pattern(1_000, 1)).await;
            let pin = client.pins()[0];
            assert_eq!((pin.0, pin.1.level), (server.id(), Level::PostQuantum));
            client.close().await;
            server.close().await;
            server.id()
        };

        // The server goes back, or somebody who has its key: the client lets no data through.
        let server = serving(server_at(Stage::OldOnly)).await;
        let client = client_with(dir.path()).bind().await.expect("binds");
        assert_eq!(
            client.pins()[0].1.level,
            Level::PostQuantum,
            "read from the disk"
        );
        let error = client.connect(&server.ticket(), ECHO).await;
        let error = error.expect_err("it has promised L2");
        assert!(matches!(error, ConnectError::Security { .. }), "{error}");
        let reason = peer_of(&client, &server).reason.expect("a reason");
        assert!(
            reason.contains("promised L2") || reason.contains("refuses"),
            "{reason}"
        );
        // Nothing was delivered meanwhile, whoever connects.
        assert_eq!(peer_of(&client, &server).level, None);

        // The operator lowers the pin, at run time: the same node is let in again.
        assert!(client.lower_pin(id, Level::Classical));
        assert!(!client.lower_pin(id, Level::Classical), "it is low");
        let connection = client.connect(&server.ticket(), ECHO).await;
        let connection = connection.expect("the pin is lowered");
        exchange(&connection, pattern(1_000, 2)).await;
        assert_eq!(connection.security().level, Level::Classical);
        client.close().await;

        // And it stays lowered.
        let client = client_with(dir.path()).bind().await.expect("binds");
        assert_eq!(client.pins()[0].1.level, Level::Classical);
        let connection = client.connect(&server.ticket(), ECHO).await;
        exchange(&connection.expect("connects"), pattern(1_000, 3)).await;
    })
    .await;
}

#[tokio::test]
async fn a_pin_is_lowered_in_the_directory_of_a_node_that_does_not_run() {
    in_time(async {
        let dir = tempfile::tempdir().expect("a directory");
        let server = serving(server_at(Stage::NewOnly)).await;
        let client = client_with(dir.path()).bind().await.expect("binds");
        let connection = client.connect(&server.ticket(), ECHO).await;
        exchange(&connection.expect("connects"), pattern(1_000, 1)).await;
        let busy = wiremesh::PinStore::open(dir.path());
        assert!(matches!(busy, Err(StateError::InUse(_))), "{busy:?}");
        let second = builder().state_dir(dir.path()).bind().await;
        let in_use = matches!(second, Err(BindError::State(StateError::InUse(_))));
        assert!(in_use, "{second:?}");
        client.close().await;
        server.close().await;

        let mut store = wiremesh::PinStore::open(dir.path()).expect("it is free");
        let pin = store.pin(&server.id()).expect("it was heard");
        assert_eq!((pin.level, pin.max_seq > 0), (Level::PostQuantum, true));
        assert_eq!(store.pins().count(), 1);
        assert!(
            store
                .lower(&server.id(), Level::Classical)
                .expect("writable")
        );
        assert!(
            !store
                .lower(&server.id(), Level::Classical)
                .expect("writable")
        );
        assert!(
            !store
                .lower(&client.id(), Level::Classical)
                .expect("writable")
        );
        drop(store);
        let server = serving(server_at(Stage::OldOnly)).await;
        let client = client_with(dir.path()).bind().await.expect("binds");
        let connection = client.connect(&server.ticket(), ECHO).await;
        exchange(&connection.expect("the pin is lowered"), pattern(1_000, 2)).await;
    })
    .await;
}

/// The number of the newest record in a state directory.
fn saved_seq(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("pins")).expect("there");
    let numbers = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("seq ")?;
        rest.split(' ').next()?.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

#[tokio::test]
async fn the_number_of_the_own_record_rises_with_each_start_and_change() {
    in_time(async {
        let dir = tempfile::tempdir().expect("a directory");
        // A number far ahead, as after a clock that was wrong.
        let mut last = 9_000_000_000_u64;
        std::fs::write(dir.path().join("pins"), seq_file(last)).expect("ours");
        for _ in 0..3 {
            let node = client_with(dir.path()).bind().await.expect("binds");
            let server = echo_node().await;
            let connection = node.connect(&server.ticket(), ECHO).await;
            exchange(&connection.expect("connects"), pattern(1_000, 1)).await;
            assert!(saved_seq(dir.path()) > last, "saved before it was sent");
            last = saved_seq(dir.path());
            node.set_policy(at(Stage::NewOnly)).expect("consistent");
            assert!(saved_seq(dir.path()) > last);
            last = saved_seq(dir.path());
            node.close().await;
        }
    })
    .await;
}

/// A file of pins that holds a number only, as the library writes it.
fn seq_file(number: u64) -> String {
    let line = format!("seq {number}");
    let sum = wiremesh_noise::crypto::hash(&[b"wiremesh pins v1", line.as_bytes()]);
    let sum: String = sum[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("wiremesh-pins 1\n{line} {sum}\n")
}

#[tokio::test]
async fn damaged_pins_stop_a_node_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("{}pin garbage\n", seq_file(5));
    std::fs::write(dir.path().join("pins"), text).expect("ours");
    let error = builder().state_dir(dir.path()).bind().await;
    let error = error.expect_err("damaged").to_string();
    assert!(
        error.contains("pins, line 3") && error.contains("backup"),
        "{error}"
    );
}

#[tokio::test]
async fn l3_is_an_option_and_its_key_is_kept() {
    in_time(async {
        let policy = Policy {
            static_kem: true,
            ..Policy::default()
        };
        let demanding = Policy {
            minimum: Level::PostQuantumAuthenticated,
            ..policy
        };
        let dir = tempfile::tempdir().expect("a directory");
        let mut hashes = Vec::new();
        for _ in 0..2 {
            let server = serving(
                server_at(Stage::Both)
                    .security(policy)
                    .state_dir(dir.path()),
            )
            .await;
            let client = node_with(demanding).await;
            let connection = client.connect(&server.ticket(), ECHO).await;
            let connection = connection.expect("both list it");
            exchange(&connection, pattern(1_000, 1)).await;
            let security = connection.security();
            assert_eq!(security.level, Level::PostQuantumAuthenticated);
            assert_eq!(security.suite, Some(SuiteId::HYBRID_STATIC));
            let pin = peer_of(&client, &server).pin.expect("it was heard");
            hashes.push(pin.kem_pk_hash.expect("it has a key"));
            server.close().await;
        }
        assert_eq!(hashes[0], hashes[1], "the key outlives the node");
        let seed = std::fs::read_to_string(dir.path().join("kem-seed")).expect("made");
        assert_eq!(seed.trim().len(), 128);
        // Where nobody asks for L3, no seed is made.
        let other = tempfile::tempdir().expect("a directory");
        let node = builder()
            .state_dir(other.path())
            .bind()
            .await
            .expect("binds");
        assert!(!other.path().join("kem-seed").exists());
        node.close().await;
    })
    .await;
}

#[tokio::test]
async fn keys_rotate_and_no_stream_breaks() {
    in_time(async {
        let brisk = || {
            builder()
                .rotate_after(Duration::from_secs(1))
                .protocol(ECHO)
        };
        let server = serving(brisk()).await;
        let client = brisk().bind().await.expect("binds");
        let peer = introduce(&client, &server);
        let connection = peer.connection(ECHO).await.expect("connects");
        exchange(&connection, pattern(10_000, 1)).await;
        let first = connection.security();
        let rotated = peer.status().expect("there").last_rotation;
        let mut round = 0;
        while connection.security().psk_epoch < first.psk_epoch + 2 {
            // A key is replaced when a session begins, and used when the next one does; they begin
            // every two minutes by themselves.
            peer.rekey();
            round += 1;
            exchange(&connection, pattern(10_000, round)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = connection.security();
        assert_eq!(now.since, first.since, "the level was never lost");
        assert_eq!(now.suite, Some(SuiteId::HYBRID));
        assert!(peer.status().expect("there").last_rotation > rotated);
        assert!(connection.close_reason().is_none());
    })
    .await;
}

#[tokio::test]
async fn pins_of_strangers_are_not_kept_until_they_are_peers() {
    in_time(async {
        let dir = tempfile::tempdir().expect("a directory");
        let node = builder()
            .admission(Admission::AllowAll {
                provisional_max: 10,
            })
            .protocol(ECHO)
            .state_dir(dir.path());
        let node = serving(node).await;
        let stranger = builder().protocol(ECHO).bind().await.expect("binds");
        let connection = stranger.connect(&node.ticket(), ECHO).await;
        exchange(&connection.expect("connects"), pattern(1_000, 1)).await;
        let pinned = || {
            let text = std::fs::read_to_string(dir.path().join("pins")).expect("there");
            text.contains(&format!("pin {} ", stranger.id()))
        };
        assert!(!pinned(), "a stranger must not fill the disk");
        // From now on it is one of ours, and what it said counts.
        let connection = node.connect(&stranger.ticket(), ECHO).await;
        connection.expect("connects");
        assert!(pinned());
    })
    .await;
}
