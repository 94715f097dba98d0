//! The ceiling on memory: floods of every kind at once, against what docs/performance.md states.
//!
//! The nodes under attack run on a thread of their own, and what that thread holds is counted:
//! the attackers' memory is not in it. Limits are set low, so that each one is reached.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/heap.rs"]
mod heap;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/raw.rs"]
mod raw;

use bare::Bare;
use nodes::{ECHO, builder, introduce, pattern, plain_node, until};
use raw::{Raw, dropped, serve_markers};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;
use wiremesh::{
    Admission, ConnectError, Connection, Endpoint, Node, NodeId, PeerConfig, UdpSocket,
};
use wiremesh_wire::address::overlay_address;

/// The port that nobody reads.
const UNREAD_PORT: u16 = 5_000;
const STRANGERS_MAX: u32 = 40;
const UNREAD_MAX: u64 = 8 << 20;
/// What goes with [`UNREAD_MAX`], 128 KiB for each in half of it.
const CONNECTIONS_MAX: usize = 32;
const STAGED_MAX: usize = 1 << 20;
const SILENT_PEERS: usize = 150;
const MIB: usize = 1 << 20;

/// The nodes under attack, on their own thread.
struct Victims {
    runtime: Handle,
    /// Lets strangers in.
    open: Node,
    /// Lets nobody in.
    closed: Node,
    unread: UdpSocket,
    sender: Arc<UdpSocket>,
    silent: Vec<NodeId>,
}

fn secret(kind: u8, number: usize) -> [u8; 32] {
    let mut secret = [kind; 32];
    // Not in the first byte, of which three bits mean nothing in a key.
    secret[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    secret
}

impl Victims {
    /// Starts a thread whose allocations are counted, and the nodes on it.
    async fn start() -> Self {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            heap::count_this_thread();
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let handle = runtime.handle().clone();
            runtime.block_on(async move {
                let victims = Self::on_this_thread(handle).await;
                assert!(sender.send(victims).is_ok());
                std::future::pending::<()>().await;
            });
        });
        receiver.await.expect("they start")
    }

    async fn on_this_thread(runtime: Handle) -> Self {
        let open = builder()
            .admission(Admission::AllowAll {
                provisional_max: STRANGERS_MAX,
            })
            .protocol(ECHO)
            .unread_max(UNREAD_MAX)
            .staged_max(STAGED_MAX)
            .bind();
        let open = open.await.expect("binds");
        let closed = builder().admission(Admission::AllowList).bind();
        serve_markers(&open);
        Self {
            runtime,
            closed: closed.await.expect("binds"),
            unread: open.udp_socket(UNREAD_PORT).expect("free"),
            sender: Arc::new(open.udp_socket(0).expect("free")),
            open,
            silent: Vec::new(),
        }
    }

    /// Runs `work` on their thread.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.expect("no panic")
    }

    /// Configures peers at an address where nobody answers.
    async fn know_silent_peers(&mut self, address: SocketAddr) {
        let node = self.open.clone();
        let silent = async move {
            let add = |number| {
                let mut config = PeerConfig::new(Bare::id(secret(3, number)));
                config.endpoints = vec![Endpoint::Address(address)];
                let id = config.node_id;
                node.add_peer(config).expect("a new peer");
                id
            };
            (0..SILENT_PEERS).map(add).collect()
        };
        self.silent = self.run(silent).await;
    }

    /// The formula of docs/performance.md, "Memory", with what can be reached here: one port, the
    /// queue of the streams, connections whose data nobody reads, packets that wait, peers with a
    /// session or a handshake, the outbox and what the engine queues.
    fn ceiling(&self) -> usize {
        let queues = 2 * 8 * MIB;
        let streams = UNREAD_MAX as usize * 5 / 4 + CONNECTIONS_MAX * (90 + 384) * 1_024;
        let peers = (SILENT_PEERS + 8 + 2 * STRANGERS_MAX as usize) * 8_192;
        queues + streams + STAGED_MAX + peers + 2 * MIB
    }
}

/// Those who attack; they go on from round to round.
struct Attackers {
    raw: Raw,
    clients: Vec<Node>,
    held: Vec<Connection>,
    writers: Vec<AbortHandle>,
    /// Writers that have used the credit of which every connection is sure.
    full: Arc<AtomicU64>,
    strangers: usize,
}

impl Attackers {
    /// Bytes that are no WireGuard message, or the beginning of one.
    async fn garbage(&mut self, victim: &Node) {
        let address = victim.listen_addresses()[0];
        for seed in 0..1_500_u32 {
            let mut datagram = pattern(seed as usize % 200, seed);
            if let Some(first) = datagram.first_chunk_mut::<4>() {
                *first = [(seed % 6) as u8, 0, 0, 0];
            }
            let sent = self.raw.socket.send_to(&datagram, address);
            sent.await.expect("loopback");
            if seed % 100 == 0 {
                // Bounds what waits in the node's socket, so that none of it is lost there.
                self.raw.settle().await;
            }
        }
        // Whole initiations of random bytes, and data on sessions that are not there.
        for (kind, len) in [(1, 148), (4, 200)] {
            let mut datagram = pattern(len, kind);
            datagram[..4].copy_from_slice(&[kind as u8, 0, 0, 0]);
            for _ in 0..100 {
                let sent = self.raw.socket.send_to(&datagram, address);
                sent.await.expect("loopback");
            }
            self.raw.settle().await;
        }
    }

    /// Initiations of keys that nobody knows.
    async fn strangers(&mut self, victims: &Victims) {
        for _ in 0..2 * STRANGERS_MAX {
            self.strangers += 1;
            Bare::unanswered(&victims.open, secret(1, self.strangers)).await;
            Bare::unanswered(&victims.closed, secret(2, self.strangers)).await;
        }
        self.raw.settle().await;
    }

    /// Datagrams of a live peer to a port that nobody reads: large ones, and empty ones.
    async fn unread_datagrams(&mut self) {
        let from = SocketAddr::new(self.raw.own().into(), UNREAD_PORT);
        let to = SocketAddr::new(self.raw.theirs().into(), UNREAD_PORT);
        for number in 0..300 {
            self.raw.inject_udp(from, to, &[7; 50_000]).await;
            self.raw.inject_udp(from, to, &[]).await;
            if number % 3 == 0 {
                self.raw.settle().await;
            }
        }
    }

    /// Connections beyond the limit, each with more data than anyone reads.
    async fn unread_streams(&mut self, victim: &Node) {
        let mut refused = 0;
        while refused < self.clients.len() {
            match self.clients[refused].connect(&victim.ticket(), ECHO).await {
                Ok(connection) => {
                    let task = tokio::spawn(fill(connection.clone(), self.full.clone()));
                    self.writers.push(task.abort_handle());
                    self.held.push(connection);
                }
                Err(ConnectError::Streams(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(self.held.len() <= CONNECTIONS_MAX);
        }
        let writers = self.writers.len() as u64;
        let is_full = || self.full.load(Ordering::Relaxed) == writers;
        until("every connection is full", is_full).await;
    }
}

/// Sends datagrams, and writes on streams of a connection until no more is taken.
async fn fill(connection: Connection, full: Arc<AtomicU64>) {
    let datagram = bytes::Bytes::from(pattern(1_000, 6));
    for _ in 0..400 {
        let sent = connection.send_datagram_wait(datagram.clone()).await;
        sent.expect("the connection is open");
    }
    let chunk = pattern(16 * 1_024, 5);
    let mut streams = Vec::new();
    let mut written = 0;
    loop {
        let mut stream = connection.open_uni().await.expect("credit");
        for _ in 0..32 {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
            written += chunk.len();
            if written == 128 * 1_024 {
                full.fetch_add(1, Ordering::Relaxed);
            }
        }
        streams.push(stream);
    }
}

/// Packets for peers that never answer.
async fn stage(victims: &Victims) {
    let (sender, silent) = (Arc::clone(&victims.sender), victims.silent.clone());
    let sending = async move {
        for _ in 0..50 {
            for id in &silent {
                let to = SocketAddr::new(overlay_address(id).into(), 9);
                sender.send_to(&[7; 1_200], to).await.expect("a route");
            }
        }
    };
    victims.run(sending).await;
}

#[test]
fn floods_stay_below_the_ceiling_and_their_memory_comes_back() {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(floods());
}

async fn floods() {
    let mut victims = Victims::start().await;
    let silence = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let silence = silence.local_addr().expect("bound");
    let friend = plain_node().await;
    introduce(&friend, &victims.open);
    introduce(&victims.open, &friend);
    let mut attackers = Attackers {
        raw: Raw::connected(&victims.open, [1; 32]).await,
        clients: vec![plain_node().await, plain_node().await],
        held: Vec::new(),
        writers: Vec::new(),
        full: Arc::default(),
        strangers: 0,
    };
    for client in &attackers.clients {
        introduce(&victims.open, client);
    }
    // The application takes half of the connections, and reads nothing of any.
    let node = victims.open.clone();
    let keeper = victims.runtime.spawn(async move {
        let mut kept = Vec::new();
        while kept.len() < CONNECTIONS_MAX / 2 {
            kept.extend(node.accept().await);
        }
        std::future::pending::<()>().await;
    });
    victims.know_silent_peers(silence).await;
    works(&friend, &victims.open).await;
    let start = heap::held();

    let mut peaks = Vec::new();
    for _ in 0..2 {
        heap::forget_peak();
        attackers.unread_streams(&victims.open).await;
        stage(&victims).await;
        attackers.strangers(&victims).await;
        attackers.unread_datagrams().await;
        let open = victims.open.clone();
        attackers.garbage(&open).await;
        peaks.push(heap::peak().saturating_sub(start));
    }
    let ceiling = victims.ceiling();
    println!("start {start}, peaks {peaks:?}, ceiling {ceiling}");
    println!("{:?}", victims.open.status().dropped);
    assert!(peaks[0] <= ceiling, "{peaks:?} above {ceiling}");
    let growth = peaks[1].saturating_sub(peaks[0]);
    assert!(growth <= peaks[0] / 20, "a second round grows: {peaks:?}");

    for reason in [
        "malformed",
        "mac1",
        "unknown-index",
        "limit-reached",
        "staged-full",
        "port-full",
        "connections-full",
    ] {
        assert!(dropped(&victims.open, reason) > 0, "{reason} is counted");
    }
    let turned_away = 4 * u64::from(STRANGERS_MAX);
    until("the closed node has turned all strangers away", || {
        dropped(&victims.closed, "not-admitted") == turned_away
    })
    .await;
    works(&friend, &victims.open).await;

    // Everything that was flooded ends.
    attackers.writers.iter().for_each(AbortHandle::abort);
    attackers.held.clear();
    for client in &attackers.clients {
        client.close().await;
    }
    keeper.abort();
    let Victims {
        open,
        silent,
        unread,
        runtime,
        ..
    } = victims;
    let node = open.clone();
    let ended = runtime.spawn(async move {
        drop(unread);
        while let Ok(Some(connection)) = tokio::time::timeout(Duration::ZERO, node.accept()).await {
            drop(connection);
        }
        silent.iter().for_each(|id| assert!(node.remove_peer(*id)));
    });
    ended.await.expect("no panic");
    until("the memory comes back", || heap::held() < start + 4 * MIB).await;
    works(&friend, &open).await;
}

/// Whether the node still does its work.
async fn works(friend: &Node, node: &Node) {
    let ping = friend.ping(node.address(), 56, Duration::from_secs(20));
    ping.await.expect("a reply");
}
