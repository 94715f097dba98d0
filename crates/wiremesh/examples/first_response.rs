//! How many round trips there are from `connect` to the first response, on a path of 100 ms.
//!
//! ```sh
//! cargo run --release -p wiremesh --example first_response
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wiremesh::{Endpoint, Node, PeerConfig};
use wiremesh_testkit::impair::{Impair, ImpairConfig, LinkConfig};

const PROTOCOL: &str = "example-first-response/1";
const ONE_WAY: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("From connect to the first response, in round trips of 100 ms:");
    let plain = times(true, Side::Client).await?;
    println!(
        "  {:4.1}  plain WireGuard (L1), without a session",
        plain[0]
    );
    println!("  {:4.1}  the same, with a session", plain[1]);
    for side in [Side::Client, Side::Server] {
        let agreed = times(false, side).await?;
        let smaller = match side {
            Side::Client => "the client's",
            Side::Server => "the server's",
        };
        println!(
            "  {:4.1}  post-quantum (L2), where {smaller} key is the smaller",
            agreed[0]
        );
        println!("  {:4.1}  the same, with a session", agreed[1]);
    }
    Ok(())
}

/// Whose key is smaller: that one begins the agreement on a suite.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

/// Without a session, and then with one.
async fn times(plain: bool, smaller: Side) -> Result<[f64; 2], Box<dyn Error>> {
    let (client, server) = loop {
        let (client, server) = (node().await?, node().await?);
        if (client.id().as_bytes() < server.id().as_bytes()) == (smaller == Side::Client) {
            break (client, server);
        }
    };
    let link = LinkConfig {
        delay: ONE_WAY,
        ..LinkConfig::default()
    };
    let relay = Impair::start(ImpairConfig::new(server.listen_addresses()[0]).with_link(link))?;
    let peer = |id, way: Option<SocketAddr>| PeerConfig {
        endpoints: way.map(Endpoint::Address).into_iter().collect(),
        stock: plain,
        streams: plain,
        ..PeerConfig::new(id)
    };
    server.add_peer(peer(client.id(), None))?;
    client.add_peer(peer(server.id(), Some(relay.local_addr())))?;
    tokio::spawn(async move {
        while let Some(connection) = server.accept().await {
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let request = recv.read_to_end(100).await.unwrap_or_default();
                // Fails only when the client is gone.
                let _ = send.write_all(&request).await;
                let _ = send.finish();
            }
        }
    });
    Ok([
        first_response(&client).await?,
        first_response(&client).await?,
    ])
}

async fn node() -> Result<Node, Box<dyn Error>> {
    let builder = Node::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    Ok(builder.protocol(PROTOCOL).bind().await?)
}

async fn first_response(client: &Node) -> Result<f64, Box<dyn Error>> {
    let server = client.status().peers[0].node_id;
    let begin = Instant::now();
    let connection = client.connect_early(server, PROTOCOL).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"request").await?;
    send.finish()?;
    let response = recv.read_to_end(100).await?;
    assert_eq!(response, b"request");
    Ok(begin.elapsed().as_secs_f64() / (2 * ONE_WAY).as_secs_f64())
}
