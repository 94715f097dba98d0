//! A UDP socket that takes no more for seconds: the node waits for it and goes on with the rest.
//!
//! Loopback never fills a send buffer; a neighbour that does not answer does, since datagrams wait
//! for its link address and count against the sender.

#[path = "support/nodes.rs"]
mod nodes;

use nodes::{ECHO, echo_node, exchange, in_time, introduce, pattern};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh::{Admission, Node};

/// Set to an address on a directly attached network at which no host answers.
const NEIGHBOUR: &str = "WIREMESH_SILENT_NEIGHBOUR";

/// Run it in a network of its own, which needs no root:
///
/// ```sh
/// unshare --user --map-root-user --net sh -c '
///   ip link add v0 type veth peer v1 && ip addr add 192.0.2.1/24 dev v0 &&
///   ip link set v0 up && ip link set v1 up && ip link set lo up &&
///   WIREMESH_SILENT_NEIGHBOUR=192.0.2.2 \
///     cargo test --offline -p wiremesh --test full_socket -- --ignored'
/// ```
#[tokio::test]
#[ignore = "needs a network of its own with a neighbour that does not answer"]
async fn a_full_socket_is_waited_for_and_holds_up_nothing_else() {
    let host = std::env::var(NEIGHBOUR).expect("the variable names the silent neighbour");
    let silent = SocketAddr::new(host.parse().expect("an IP address"), 9);
    in_time(async {
        let server = echo_node().await;
        let home = server.listen_addresses()[0];
        let client = Node::builder()
            .listen(SocketAddr::from(([0, 0, 0, 0], 0)))
            .admission(Admission::AllowList)
            .socket_buffers(16 * 1024)
            .bind()
            .await
            .expect("binds");
        let peer = introduce(&client, &server);
        let connection = peer.connection(ECHO).await.expect("connects");
        peer.set_endpoint(silent);
        let socket = client.udp_socket(0).expect("a free port");
        let to = SocketAddr::new(server.address(), 7);
        let payload = vec![0; 1_300];
        let blocked = async {
            loop {
                let sent = socket.send_to(&payload, to);
                if tokio::time::timeout(Duration::from_millis(200), sent)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        blocked.await;
        // One thread runs everything here, so a driver that spins would have stopped this test.
        // How much processor time the wait takes shows one that spins politely.
        let spent = cpu_ticks();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = cpu_ticks() - spent;
        assert!(spent <= 10, "{spent} ticks of 10 ms in half a second");
        peer.set_endpoint(home);
        socket
            .send_to(&payload, to)
            .await
            .expect("there is room again");
        exchange(&connection, pattern(100_000, 1)).await;
    })
    .await;
}

/// User and system time of this process, in hundredths of a second (proc(5), fields 14 and 15).
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |index: usize| fields[index].parse::<u64>().expect("a number");
    number(11) + number(12)
}
