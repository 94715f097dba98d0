//! Two quinn endpoints joined by a pretended network with virtual time.
//!
//! Owns the clock, the datagrams on their way and a trace of all that were sent. Never sleeps and
//! never touches a socket.
#![allow(dead_code)] // Each test file uses another part of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, ServerConfig, StreamId, Transmit,
};
use wiremesh_quic::{CheckedTransport, HandshakeData, Provider};

/// Time of a datagram from one end to the other.
pub const ONE_WAY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Client,
    Server,
}

/// What the network does to a datagram that it may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Deliver,
    Drop,
}

/// One datagram that was sent, before the network touched it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Duration,
    pub from: End,
    pub bytes: Vec<u8>,
}

/// One endpoint with its connections and what they reported.
pub struct Node {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub connections: BTreeMap<ConnectionHandle, Box<Connection>>,
    pub connected: Vec<ConnectionHandle>,
    pub lost: Vec<(ConnectionHandle, ConnectionError)>,
    pub refused: Vec<ConnectionError>,
}

impl Node {
    pub fn new(config: EndpointConfig, server: Option<ServerConfig>, address: &str) -> Self {
        Self {
            endpoint: Endpoint::new(Arc::new(config), server.map(Arc::new), true, None),
            address: address.parse().expect("address"),
            connections: BTreeMap::new(),
            connected: Vec::new(),
            lost: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The only connection.
    pub fn only(&mut self) -> &mut Connection {
        assert_eq!(self.connections.len(), 1, "connections");
        self.connections
            .values_mut()
            .next()
            .expect("one connection")
    }

    pub fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut response = Vec::new();
        let event = self
            .endpoint
            .handle(now, from, None, None, bytes.into(), &mut response);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, now, &mut response, None) {
                    Ok((handle, connection)) => {
                        self.connections.insert(handle, Box::new(connection));
                        return Vec::new();
                    }
                    Err(error) => {
                        self.refused.push(error.cause);
                        return split(error.response, &response);
                    }
                }
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(transmit)) => return split(Some(transmit), &response),
            None => {}
        }
        Vec::new()
    }

    /// Runs timers and events, and collects what is to be sent.
    pub fn drive(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let handles: Vec<_> = self.connections.keys().copied().collect();
        for handle in handles {
            let connection = self.connections.get_mut(&handle).expect("still there");
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            let mut drained = false;
            while let Some(event) = connection.poll_endpoint_events() {
                drained |= event.is_drained();
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = connection.poll_transmit(now, 8, &mut buffer) {
                out.extend(split(Some(transmit), &buffer));
                buffer.clear();
            }
            while let Some(event) = connection.poll() {
                match event {
                    Event::Connected => self.connected.push(handle),
                    Event::ConnectionLost { reason } => self.lost.push((handle, reason)),
                    _ => {}
                }
            }
            if drained {
                self.connections.remove(&handle);
            }
        }
        out
    }

    fn deadline(&mut self) -> Option<Instant> {
        self.connections
            .values_mut()
            .filter_map(|connection| connection.poll_timeout())
            .min()
    }
}

fn split(transmit: Option<Transmit>, buffer: &[u8]) -> Vec<Vec<u8>> {
    let Some(transmit) = transmit else {
        return Vec::new();
    };
    let bytes = &buffer[..transmit.size];
    bytes
        .chunks(transmit.segment_size.unwrap_or(bytes.len()))
        .map(<[u8]>::to_vec)
        .collect()
}

/// Decides about a datagram, which it may change.
pub type Network = Box<dyn FnMut(End, usize, &mut Vec<u8>) -> Fate>;

/// The two endpoints and the network between them.
pub struct Pair {
    pub client: Node,
    pub server: Node,
    pub now: Instant,
    pub start: Instant,
    /// Decides about each datagram, by sender and its number from that sender.
    pub network: Network,
    pub trace: Vec<Sent>,
    on_the_way: BTreeMap<(Instant, usize), (End, Vec<u8>)>,
    sent: [usize; 2],
}

/// A provider for tests.
pub fn provider(seed: u8) -> Provider {
    Provider::new([seed; 32], CheckedTransport::default())
}

impl Pair {
    /// Joins two nodes; the client has a server configuration for `serves` too.
    pub fn new(client: &Provider, server: &Provider, serves: &[&str]) -> Self {
        let config = server.server_config(serves).expect("valid protocols");
        let start = Instant::now();
        Self {
            client: Node::new(client.endpoint_config(), None, "[fd77:6d00::1]:2708"),
            server: Node::new(
                server.endpoint_config(),
                Some(config),
                "[fd77:6d00::2]:2708",
            ),
            now: start,
            start,
            network: Box::new(|_, _, _| Fate::Deliver),
            trace: Vec::new(),
            on_the_way: BTreeMap::new(),
            sent: [0, 0],
        }
    }

    /// Two default nodes that both speak `test/1`, and a connection that was only begun.
    pub fn begun() -> Self {
        let mut pair = Self::new(&provider(1), &provider(2), &["test/1"]);
        pair.connect(
            provider(1)
                .client_config(&["test/1"])
                .expect("valid protocols"),
        );
        pair
    }

    /// Like [`Self::begun`], run until both ends are connected.
    pub fn connected() -> Self {
        let mut pair = Self::begun();
        pair.run_until_connected();
        pair
    }

    pub fn connect(&mut self, config: ClientConfig) -> ConnectionHandle {
        let remote = self.server.address;
        let (handle, connection) = self
            .client
            .endpoint
            .connect(self.now, config, remote, "peer")
            .expect("connects");
        self.client.connections.insert(handle, Box::new(connection));
        handle
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn run_until_connected(&mut self) {
        assert!(self.run_until(Duration::from_secs(60), |pair| {
            !pair.client.connected.is_empty() && !pair.server.connected.is_empty()
        }));
    }

    /// Runs for `time` from now.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, for at most `limit`; tells whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.drive();
            if done(self) {
                return true;
            }
            let arrival = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
            let deadlines = [arrival, self.client.deadline(), self.server.deadline()];
            let Some(next) = deadlines
                .into_iter()
                .flatten()
                .min()
                .filter(|at| *at <= end)
            else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            self.deliver();
        }
    }

    fn drive(&mut self) {
        for bytes in self.client.drive(self.now) {
            self.send(End::Client, bytes);
        }
        for bytes in self.server.drive(self.now) {
            self.send(End::Server, bytes);
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.on_the_way.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, bytes) = entry.remove();
            let (source, node, to) = match from {
                End::Client => (self.client.address, &mut self.server, End::Server),
                End::Server => (self.server.address, &mut self.client, End::Client),
            };
            for response in node.handle(self.now, source, &bytes) {
                self.send(to, response);
            }
        }
    }

    fn send(&mut self, from: End, mut bytes: Vec<u8>) {
        let number = self.sent[from as usize];
        self.sent[from as usize] += 1;
        self.trace.push(Sent {
            at: self.now - self.start,
            from,
            bytes: bytes.clone(),
        });
        if (self.network)(from, number, &mut bytes) == Fate::Deliver {
            let key = (self.now + ONE_WAY, self.trace.len());
            self.on_the_way.insert(key, (from, bytes));
        }
    }

    /// Forgets datagrams on their way, as a dead network does.
    pub fn lose_all(&mut self) {
        self.on_the_way.clear();
    }
}

/// Opens a stream and writes all of `data` with its end.
pub fn send(connection: &mut Connection, data: &[u8]) -> StreamId {
    let id = connection.streams().open(Dir::Bi).expect("stream limit");
    assert_eq!(
        connection.send_stream(id).write(data).expect("writable"),
        data.len()
    );
    connection.send_stream(id).finish().expect("open");
    id
}

/// Reads what the peer's next stream holds so far; `None` when there is no stream.
pub fn receive(connection: &mut Connection) -> Option<Vec<u8>> {
    let id = connection.streams().accept(Dir::Bi)?;
    Some(read(connection, id))
}

/// Reads what a stream holds so far.
pub fn read(connection: &mut Connection, id: StreamId) -> Vec<u8> {
    let mut stream = connection.recv_stream(id);
    let mut data = Vec::new();
    let Ok(mut chunks) = stream.read(true) else {
        return data;
    };
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        data.extend_from_slice(&chunk.bytes);
    }
    let _ = chunks.finalize();
    data
}

/// The negotiated protocol.
pub fn protocol(connection: &Connection) -> Option<String> {
    let data = connection.crypto_session().handshake_data()?;
    let data = data.downcast::<HandshakeData>().expect("our type");
    Some(String::from_utf8(data.protocol).expect("test names are text"))
}
