//! A send buffer that is really full.
//!
//! Loopback never fills one, since it hands each datagram to the receiver at once. A neighbour that
//! does not answer does: datagrams wait for its link address and count against the sender.

use std::net::SocketAddr;
use std::time::Duration;

use wiremesh_udp::{SendError, Transmit, UdpConfig, UdpSockets};

/// Set to an address on a directly attached network at which no host answers.
const NEIGHBOUR: &str = "WIREMESH_SILENT_NEIGHBOUR";

/// Run it in a network of its own, which needs no root:
///
/// ```sh
/// unshare --user --map-root-user --net sh -c '
///   ip link add v0 type veth peer v1 && ip addr add 192.0.2.1/24 dev v0 &&
///   ip link set v0 up && ip link set v1 up && ip link set lo up &&
///   WIREMESH_SILENT_NEIGHBOUR=192.0.2.2 \
///     cargo test --offline -p wiremesh-udp --test full_buffer -- --ignored'
/// ```
#[tokio::test]
#[ignore = "needs a network of its own with a neighbour that does not answer"]
async fn a_full_buffer_is_reported_and_its_end_as_well() {
    let host = std::env::var(NEIGHBOUR).expect("the variable names the silent neighbour");
    let destination = SocketAddr::new(host.parse().expect("an IP address"), 9);
    let config = UdpConfig {
        send_buffer_bytes: 16 * 1024,
        ..UdpConfig::default()
    };
    let sockets = UdpSockets::bind_with(&["0.0.0.0:0".parse().expect("valid address")], config)
        .expect("a port is free");
    let contents = [0; 12_000];
    let transmit = Transmit {
        destination,
        source: None,
        ecn: 0,
        segment_size: Some(1200),
        contents: &contents,
    };
    let blocked = (0..100).find_map(|_| sockets.try_send(&transmit).err());
    assert!(
        matches!(blocked, Some(SendError::WouldBlock { .. })),
        "{blocked:?}"
    );
    assert_eq!(sockets.counters().send_would_block, 1);
    // The kernel gives the neighbour up after three seconds and forgets the datagrams.
    let writable = tokio::time::timeout(Duration::from_secs(20), sockets.writable()).await;
    writable.expect("the wait ends").expect("the runtime runs");
    let again = sockets.try_send(&transmit);
    assert!(
        !matches!(again, Err(SendError::WouldBlock { .. })),
        "{again:?}"
    );
}
