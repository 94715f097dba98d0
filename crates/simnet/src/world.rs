//! The runtime of a simulation, its network, and nodes on it.
//!
//! Owns how a node's address and key follow from its number, and everything from the seed.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wiremesh::{Connection, Node, NodeBuilder, SecretKey};
use wiremesh_udp::memory::{Host, LinkId, Network};

/// The protocol that all nodes of a simulation speak.
pub const PROTOCOL: &str = "simnet/1";

/// Runs a simulation; the same seed gives the same run.
///
/// # Panics
///
/// Where the simulation does.
pub fn run<F, Out>(seed: u64, simulation: impl FnOnce(World) -> F + Send + 'static) -> Out
where
    F: Future<Output = Out> + Send,
    Out: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        // Everything that can run does so before the clock is looked at.
        .event_interval(u32::MAX)
        .build()
        .expect("a runtime takes one file descriptor");
    runtime.block_on(async move {
        let world = World {
            network: Network::new(seed),
            seed,
            nodes: Arc::default(),
        };
        // A task like all others, so that all have their turns in order.
        let done = tokio::spawn(async move { simulation(world).await });
        done.await.expect("the simulation runs to its end")
    })
}

/// A network with nodes.
#[derive(Clone, Debug)]
pub struct World {
    /// The network.
    pub network: Network,
    seed: u64,
    nodes: Arc<AtomicU32>,
}

impl World {
    /// The virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.network.elapsed()
    }

    /// Another host, 10.0.0.1 and so on.
    ///
    /// # Panics
    ///
    /// After 16 million hosts.
    pub fn host(&self, uplink: LinkId) -> Host {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number < 1 << 24, "10.0.0.0/8 is full");
        let address = IpAddr::from((0x0a00_0000 | number).to_be_bytes());
        self.network.host(&[address], uplink)
    }

    /// Settings of a node on this host: its key and its randomness follow from the seed and from the
    /// address, and everybody may come in.
    pub fn builder(&self, host: &Host) -> NodeBuilder {
        let address = host.address().expect("hosts of a world have an address");
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        if let IpAddr::V4(v4) = address {
            seed[8..12].copy_from_slice(&v4.octets());
        }
        let mut key = seed;
        key[31] = 1;
        Node::builder()
            .secret_key(SecretKey::from_bytes(key))
            .listen((address, 51_820).into())
            .protocol(PROTOCOL)
            .admission(wiremesh::Admission::AllowAll {
                provisional_max: 10_000,
            })
            .virtual_network(host, seed)
    }

    /// A node with the settings of [`World::builder`].
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn node(&self, uplink: LinkId) -> Node {
        let builder = self.builder(&self.host(uplink));
        builder.bind().await.expect("the port is free")
    }

    /// A connection between two nodes, as each of them has it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn connect(&self, from: &Node, to: &Node) -> (Connection, Connection) {
        let ticket = to.ticket();
        let (made, accepted) = tokio::join!(from.connect(&ticket, PROTOCOL), to.accept());
        let made = made.expect("the network carries it");
        (made, accepted.expect("the node runs"))
    }
}
