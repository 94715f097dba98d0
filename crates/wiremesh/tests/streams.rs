//! Two nodes on loopback: connect, streams, datagrams, protocols, ping, UDP.

use std::time::Duration;
use wiremesh::{Admission, ConnectError, Node};

async fn node(protocols: &[&str]) -> Node {
    let mut builder = Node::builder()
        .listen("127.0.0.1:0".parse().expect("an address"))
        .admission(Admission::AllowAll {
            provisional_max: 10,
        });
    for protocol in protocols {
        builder = builder.protocol(*protocol);
    }
    builder.bind().await.expect("loopback can be bound")
}

fn echo(node: &Node) {
    let node = node.clone();
    tokio::spawn(async move {
        while let Some(connection) = node.accept().await {
            tokio::spawn(async move {
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        let data = recv.read_to_end(1 << 26).await.expect("the stream ends");
                        send.write_all(&data).await.expect("the peer reads");
                        send.finish().expect("once");
                    });
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_data_both_ways() {
    let (server, client) = (node(&["echo/1"]).await, node(&[]).await);
    echo(&server);
    let connection = client
        .connect(&server.ticket(), "echo/1")
        .await
        .expect("connects");
    assert_eq!(connection.peer(), server.id());
    assert_eq!(connection.protocol(), "echo/1");
    let data: Vec<u8> = (0..5_000_000u32).map(|n| (n >> 3) as u8).collect();
    let (mut send, mut recv) = connection.open_bi().await.expect("opens");
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        send.write_all(&sent).await.expect("the peer reads");
        send.finish().expect("once");
    });
    assert!(recv.read_to_end(1 << 26).await.expect("the peer answers") == data);
    writer.await.expect("does not panic");
    assert_eq!(
        connection.path().endpoint,
        server.listen_addresses().first().copied()
    );
    client.close().await;
}

#[tokio::test]
async fn a_protocol_that_the_peer_does_not_speak_is_a_clear_error() {
    let (server, client) = (node(&["echo/1"]).await, node(&[]).await);
    echo(&server);
    let error = client
        .connect(&server.ticket(), "other/1")
        .await
        .expect_err("not spoken");
    assert!(matches!(error, ConnectError::Streams(_)));
    assert!(error.to_string().contains("other/1"), "{error}");
}

#[tokio::test]
async fn early_data_arrives() {
    let (server, client) = (node(&["echo/1"]).await, node(&[]).await);
    echo(&server);
    let connection = client
        .connect_early(&server.ticket(), "echo/1")
        .await
        .expect("begins");
    let (mut send, mut recv) = connection.open_bi().await.expect("opens at once");
    send.write_all(b"early")
        .await
        .expect("fits the assumed window");
    send.finish().expect("once");
    assert_eq!(recv.read_to_end(100).await.expect("an answer"), b"early");
}

#[tokio::test]
async fn ping_and_udp_go_through_the_tunnel() {
    let (server, client) = (node(&[]).await, node(&["x"]).await);
    let socket = server.udp_socket(7_000).expect("free");
    let mut config = wiremesh::PeerConfig::new(server.id());
    config.endpoints = server.ticket().endpoints.clone();
    client.add_peer(config).expect("a new peer");
    let time = client
        .ping(server.address(), 56, Duration::from_secs(5))
        .await
        .expect("a reply");
    assert!(time < Duration::from_secs(5));
    let own = client.udp_socket(0).expect("a free port");
    let to = std::net::SocketAddr::new(server.address(), 7_000);
    own.send_to(b"hello", to).await.expect("sent");
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).await.expect("arrives");
    assert_eq!((&buffer[..len], from), (&b"hello"[..], own.local_addr()));
    socket.send_to(b"back", from).await.expect("sent");
    let (len, from) = own.recv_from(&mut buffer).await.expect("arrives");
    assert_eq!((&buffer[..len], from), (&b"back"[..], to));
}

#[tokio::test]
async fn a_refused_node_gets_silence_and_a_reason_is_kept() {
    let server = Node::builder()
        .listen("127.0.0.1:0".parse().expect("an address"))
        .protocol("echo/1")
        .bind()
        .await
        .expect("binds");
    let client = Node::builder()
        .listen("127.0.0.1:0".parse().expect("an address"))
        .connect_timeout(Duration::from_millis(300))
        .bind()
        .await
        .expect("binds");
    let error = client
        .connect(&server.ticket(), "echo/1")
        .await
        .expect_err("not admitted");
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
    let refusals = server.status().refusals;
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].node_id, client.id());
    assert!(
        server.status().peers.is_empty(),
        "a refused node leaves no state"
    );
}

#[tokio::test]
async fn the_application_decides_on_strangers() {
    let ask = |admit: bool| {
        Admission::ask(move |request| {
            if admit {
                request.admit()
            } else {
                request.refuse()
            }
        })
    };
    for admit in [true, false] {
        let server = Node::builder()
            .listen("127.0.0.1:0".parse().expect("an address"))
            .protocol("echo/1")
            .admission(ask(admit))
            .bind()
            .await
            .expect("binds");
        echo(&server);
        let client = Node::builder()
            .listen("127.0.0.1:0".parse().expect("an address"))
            .connect_timeout(Duration::from_millis(1_000))
            .bind()
            .await
            .expect("binds");
        let connected = client.connect(&server.ticket(), "echo/1").await;
        assert_eq!(connected.is_ok(), admit);
    }
}
