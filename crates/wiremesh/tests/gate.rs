//! What passes before two nodes have agreed on a level: the agreement, and nothing else.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;

use bare::Bare;
use nodes::{ECHO, builder, in_time, plain_node, until};
use raw::{dropped, serve_markers, udp};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use wiremesh::{Level, Node, PeerConfig};
use wiremesh_wire::address::{CONTROL_PORT, STREAM_PORT, control_address, overlay_address};
use wiremesh_wire::ip;

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// A node with a bound port, and one that echoes.
async fn victim() -> (Node, wiremesh::UdpSocket) {
    let node = builder().protocol(ECHO).bind().await.expect("binds");
    serve_markers(&node);
    let socket = node.udp_socket(5_000).expect("free");
    (node, socket)
}

#[tokio::test]
async fn a_session_of_plain_wireguard_carries_no_data() {
    in_time(async {
        let (node, socket) = victim().await;
        let mut bare = Bare::connected(&node, [1; 32]).await;
        let own = overlay_address(&bare.id);
        let theirs = overlay_address(&node.id());
        let mut packets: Vec<Vec<u8>> = [5_000, STREAM_PORT, CONTROL_PORT, raw::MARKER_PORT, 1]
            .map(|port| udp(at(own, port), at(theirs, port), b"too early"))
            .into();
        let mut echo = vec![0; 100];
        let len = ip::emit_echo(&mut echo, true, own.into(), theirs.into(), 1, 1, b"x");
        packets.push(echo[..len].to_vec());
        for packet in &packets {
            bare.inject(packet).await;
        }
        until("all of it was dropped", || {
            dropped(&node, "below-level") == packets.len() as u64
        })
        .await;
        // In the other direction, what the node has to say waits.
        let to = at(own, 5_000);
        socket.send_to(b"later", to).await.expect("it has a peer");
        let status = node.status().peers.remove(0);
        assert_eq!((status.level, status.suite), (None, None));
        assert_eq!(status.required, Some(Level::PostQuantum));
        let (reason, _) = status.waiting.expect("it waits for the agreement");
        assert!(!reason.to_string().is_empty());
        // Whatever came out of the node meanwhile is WireGuard's own or the control protocol's:
        // frames of the agreement are as long as these, and the datagram above is shorter.
        let mut buffer = [0; 2_000];
        while let Ok(len) = bare.socket.try_recv(&mut buffer) {
            assert!(len == 32 || len > 100, "{len} bytes");
        }
        let nothing = tokio::time::timeout(Duration::ZERO, socket.recv_from(&mut buffer));
        assert!(nothing.await.is_err(), "nothing was delivered");
    })
    .await;
}

/// Whatever a peer sends from or to control addresses that is not the control protocol's.
fn control_packets(from: wiremesh::NodeId, node: &Node, friend: &Node) -> Vec<Vec<u8>> {
    let (own, own_control) = (overlay_address(&from), control_address(&from));
    let theirs = overlay_address(&node.id());
    let their_control = control_address(&node.id());
    let friends = control_address(&friend.id());
    let mut packets: Vec<Vec<u8>> = [
        (at(own_control, 5_000), at(their_control, 5_000)),
        (at(own_control, CONTROL_PORT), at(their_control, 5_000)),
        (at(own_control, 5_000), at(their_control, CONTROL_PORT)),
        (
            at(own_control, CONTROL_PORT),
            at(their_control, STREAM_PORT),
        ),
        (at(own_control, STREAM_PORT), at(theirs, STREAM_PORT)),
        (at(own, STREAM_PORT), at(their_control, STREAM_PORT)),
        (at(own, CONTROL_PORT), at(their_control, CONTROL_PORT)),
        (at(own_control, CONTROL_PORT), at(theirs, CONTROL_PORT)),
        (at(own_control, CONTROL_PORT), at(friends, CONTROL_PORT)),
        (at(friends, CONTROL_PORT), at(their_control, CONTROL_PORT)),
        (at(own, 5_000), at(friends, 5_000)),
    ]
    .map(|(from, to)| udp(from, to, b"not for you"))
    .into();
    let mut echo = vec![0; 100];
    for (from, to) in [(own_control, their_control), (own, their_control)] {
        let len = ip::emit_echo(&mut echo, true, from.into(), to.into(), 1, 1, b"x");
        packets.push(echo[..len].to_vec());
    }
    // Another protocol than UDP between the right addresses: TCP.
    let mut tcp = udp(
        at(own_control, CONTROL_PORT),
        at(their_control, CONTROL_PORT),
        &[0; 20],
    );
    tcp[6] = 6;
    packets.push(tcp);
    packets
}

#[tokio::test]
async fn between_control_addresses_only_the_agreement_passes() {
    in_time(async {
        let friend = plain_node().await;
        for stock in [true, false] {
            let (node, socket) = victim().await;
            let mut config = PeerConfig::new(Bare::id([1; 32]));
            config.stock = stock;
            node.add_peer(config).expect("a new peer");
            node.add_peer(PeerConfig::new(friend.id()))
                .expect("another");
            let mut bare = Bare::connected(&node, [1; 32]).await;
            let packets = control_packets(bare.id, &node, &friend);
            for packet in &packets {
                bare.inject(packet).await;
            }
            until("all of it was dropped", || {
                let count = |reason| dropped(&node, reason);
                // One comes from an address of somebody else.
                count("control-only") + 1 == packets.len() as u64
                    && count("source-not-allowed") == 1
            })
            .await;
            let mut buffer = [0; 100];
            let nothing = tokio::time::timeout(Duration::ZERO, socket.recv_from(&mut buffer));
            assert!(nothing.await.is_err(), "nothing was delivered");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stock_peer_that_was_named_has_its_data_delivered() {
    in_time(async {
        let (node, socket) = victim().await;
        let mut config = PeerConfig::new(Bare::id([1; 32]));
        config.stock = true;
        let peer = node.add_peer(config).expect("a new peer");
        let mut bare = Bare::connected(&node, [1; 32]).await;
        let (own, theirs) = (overlay_address(&bare.id), overlay_address(&node.id()));
        let from = at(own, 7);
        bare.inject(&udp(from, at(theirs, 5_000), b"plain")).await;
        let mut buffer = [0; 100];
        let (len, source) = socket.recv_from(&mut buffer).await.expect("delivered");
        assert_eq!((&buffer[..len], source), (&b"plain"[..], from));
        let security = peer.security().expect("it is there");
        assert_eq!(security.level, Level::Classical);
        assert_eq!(security.required, Level::Classical);
        // The control protocol is not spoken with it.
        let frame = udp(
            at(control_address(&bare.id), CONTROL_PORT),
            at(control_address(&node.id()), CONTROL_PORT),
            &[1; 32],
        );
        bare.inject(&frame).await;
        until("refused", || dropped(&node, "control-unexpected") == 1).await;
    })
    .await;
}
