//! The QUIC session without cryptography: arbitrary handshake bytes to both roles, and packets
//! that the network invents, changes, loses and repeats.
//!
//! Nothing may panic, handshake data is announced once, and no connection outlives its idle
//! timeout.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use quinn_proto::crypto::Session;
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ServerConfig, Side, Transmit,
};
use wiremesh_quic::{Attachment, CheckedTransport, Provider, QUIC_VERSION};

use crate::input::Input;

const PROTOCOLS: [&str; 2] = ["a", "b"];
const OPERATIONS_MAX: usize = 64;

/// An origin; only differences of times reach the endpoints.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The first byte says whether one session is fed, or two endpoints and a network.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.bool() {
        feed_server_session(&mut input);
    } else {
        Pair::new(&mut input).run(&mut input);
    }
}

fn provider(seed: u8) -> Provider {
    Provider::new([seed; 32], CheckedTransport::default())
}

fn server_config() -> ServerConfig {
    let config = provider(2).server_config(&PROTOCOLS);
    config.expect("valid protocol names")
}

/// Feeds handshake bytes in pieces to the server's session, without packets around them.
fn feed_server_session(input: &mut Input<'_>) {
    let crypto = server_config().crypto;
    // Read from no bytes, all have their defaults.
    let parameters = TransportParameters::read(Side::Server, &mut &[][..]);
    let parameters = parameters.expect("no parameter is required");
    let mut session = crypto.start_session(QUIC_VERSION, &parameters);
    let (mut failed, mut announced, mut keys) = (false, 0, flush(&mut *session));
    while !input.is_empty() {
        match session.read_handshake(input.block()) {
            Ok(data_ready) => {
                assert!(!failed, "a failed session reads on");
                assert!(!data_ready || session.handshake_data().is_some());
                announced += usize::from(data_ready);
                keys += flush(&mut *session);
            }
            Err(_) => {
                failed = true;
                assert_eq!(flush(&mut *session), 0, "a failed session gives keys");
            }
        }
        let _ = session.transport_parameters();
        assert!(session.next_1rtt_keys().is_some());
        assert!(Attachment::of(session.peer_identity()).is_some());
    }
    assert!(announced <= 1, "handshake data is announced once");
    assert!(keys <= 2, "there are two spaces to enter");
}

/// Lets the session write; tells how many keys it gave.
fn flush(session: &mut dyn Session) -> usize {
    let mut keys = 0;
    loop {
        let mut out = Vec::new();
        match session.write_handshake(&mut out) {
            Some(_) => keys += 1,
            None if out.is_empty() => return keys,
            None => {}
        }
    }
}

struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    connections: BTreeMap<ConnectionHandle, Connection>,
    /// Datagrams on their way to the other end.
    sent: VecDeque<Vec<u8>>,
}

struct Pair {
    ends: [End; 2],
    now: Instant,
}

impl End {
    fn new(seed: u8, server: Option<ServerConfig>) -> Self {
        let config = Arc::new(provider(seed).endpoint_config());
        Self {
            endpoint: Endpoint::new(config, server.map(Arc::new), true, None),
            address: SocketAddr::from(([0xfd77, 0x6d00, 0, 0, 0, 0, 0, u16::from(seed)], 2708)),
            connections: BTreeMap::new(),
            sent: VecDeque::new(),
        }
    }

    fn send(&mut self, transmit: Option<Transmit>, buffer: &[u8]) {
        let Some(transmit) = transmit else { return };
        let bytes = &buffer[..transmit.size];
        let segments = bytes.chunks(transmit.segment_size.unwrap_or(transmit.size));
        self.sent.extend(segments.map(<[u8]>::to_vec));
        self.sent.truncate(256);
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let mut response = Vec::new();
        let event = self
            .endpoint
            .handle(now, from, None, None, bytes.into(), &mut response);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, now, &mut response, None) {
                    Ok((handle, connection)) => {
                        self.connections.insert(handle, connection);
                    }
                    Err(error) => self.send(error.response, &response),
                }
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.send(Some(transmit), &response),
            None => {}
        }
    }

    fn drive(&mut self, now: Instant) {
        let handles: Vec<_> = self.connections.keys().copied().collect();
        for handle in handles {
            let Some(mut connection) = self.connections.remove(&handle) else {
                continue;
            };
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
                self.send(Some(transmit), &buffer);
                buffer.clear();
            }
            while let Some(event) = connection.poll() {
                if let Event::HandshakeDataReady = event {
                    assert!(connection.crypto_session().handshake_data().is_some());
                }
            }
            use_streams(&mut connection);
            if !drained {
                self.connections.insert(handle, connection);
            }
        }
    }
}

/// Reads what there is, and echoes a little of it.
fn use_streams(connection: &mut Connection) {
    while let Some(id) = connection.streams().accept(Dir::Bi) {
        if let Ok(mut chunks) = connection.recv_stream(id).read(true) {
            while let Ok(Some(_)) = chunks.next(usize::MAX) {}
            let _ = chunks.finalize();
        }
        let _ = connection.send_stream(id).write(b"echo");
        let _ = connection.send_stream(id).finish();
    }
    while connection.datagrams().recv().is_some() {}
}

impl Pair {
    /// A client that offers what the input says, and a server.
    fn new(input: &mut Input<'_>) -> Self {
        let now = *START;
        let mut client = End::new(1, None);
        let server = End::new(2, Some(server_config()));
        let offers: &[&str] = match input.u8() % 4 {
            0 => &["a"],
            1 => &["b", "a"],
            2 => &["z", "b"],
            _ => &["z"],
        };
        let config = provider(1).client_config(offers).expect("valid names");
        let begun = client.endpoint.connect(now, config, server.address, "peer");
        let (handle, mut connection) = begun.expect("a new endpoint connects");
        if let Some(id) = connection.streams().open(Dir::Bi) {
            let _ = connection.send_stream(id).write(b"early data");
        }
        client.connections.insert(handle, connection);
        let ends = [client, server];
        Self { ends, now }
    }

    fn run(&mut self, input: &mut Input<'_>) {
        for _ in 0..OPERATIONS_MAX {
            if input.is_empty() {
                break;
            }
            self.drive();
            let operation = input.u8();
            self.step(usize::from(operation >> 7), operation & 7, input);
        }
        self.run_out();
    }

    fn drive(&mut self) {
        self.ends.iter_mut().for_each(|end| end.drive(self.now));
    }

    /// Does one thing to the datagrams from the end `from`.
    fn step(&mut self, from: usize, operation: u8, input: &mut Input<'_>) {
        let queued = self.ends[from].sent.front().cloned();
        match (operation, queued) {
            (0, Some(bytes)) => {
                self.ends[from].sent.pop_front();
                self.deliver(from, &bytes);
            }
            (1, _) => {
                self.ends[from].sent.pop_front();
            }
            (2, Some(bytes)) => self.deliver(from, &bytes),
            (3, Some(mut bytes)) => {
                self.ends[from].sent.pop_front();
                let at = usize::from(input.u16()) % bytes.len();
                let patch = input.block();
                bytes[at..]
                    .iter_mut()
                    .zip(patch)
                    .for_each(|(byte, new)| *byte = *new);
                self.deliver(from, &bytes);
            }
            (4, Some(mut bytes)) => {
                // An inserted byte moves everything behind it.
                self.ends[from].sent.pop_front();
                let at = usize::from(input.u16()) % bytes.len();
                bytes.splice(at..at, input.block().iter().copied());
                bytes.truncate(1_372);
                self.deliver(from, &bytes);
            }
            (5, _) => {
                let space = input.bool();
                let bytes = self.crypto_packet(from, space, input);
                self.deliver(from, &bytes);
            }
            (6, _) => self.deliver(from, input.block()),
            _ => self.now += Duration::from_millis(u64::from(input.u16())),
        }
    }

    /// A long-header packet with a CRYPTO frame, to the connection whose id the last datagram
    /// from the other end shows; nothing in a packet is authenticated.
    fn crypto_packet(&self, from: usize, handshake: bool, input: &mut Input<'_>) -> Vec<u8> {
        let seen = self.ends[1 - from].sent.back().cloned().unwrap_or_default();
        let id_of = |at: usize| {
            let len = usize::from(*seen.get(at)?);
            Some((seen.get(at + 1..at + 1 + len)?.to_vec(), at + 1 + len))
        };
        let (theirs, at) = id_of(5).unwrap_or_default();
        let (own, _) = id_of(at).unwrap_or_default();
        let number = input.u8();
        let offset = input.u8();
        let data = input.block();
        let mut frames = vec![6, offset & 0x3f];
        frames.extend_from_slice(&(0x4000 | data.len() as u16).to_be_bytes());
        frames.extend_from_slice(data);
        // The server refuses small Initial datagrams.
        frames.resize(frames.len().max(1_180), 0);
        let mut packet = vec![if handshake { 0xe0 } else { 0xc0 }];
        packet.extend_from_slice(&QUIC_VERSION.to_be_bytes());
        for id in [&own, &theirs] {
            packet.push(id.len() as u8);
            packet.extend_from_slice(id);
        }
        if !handshake {
            packet.push(0);
        }
        packet.extend_from_slice(&(0x4000 | (frames.len() + 1) as u16).to_be_bytes());
        packet.push(number);
        packet.extend_from_slice(&frames);
        packet
    }

    fn deliver(&mut self, from: usize, bytes: &[u8]) {
        let address = self.ends[from].address;
        self.ends[1 - from].handle(self.now, address, bytes);
    }

    /// Lets time pass without a network: every connection must end.
    fn run_out(&mut self) {
        for _ in 0..10_000 {
            self.drive();
            self.ends.iter_mut().for_each(|end| end.sent.clear());
            let connections = self
                .ends
                .iter_mut()
                .flat_map(|end| end.connections.values_mut());
            let deadlines = connections.filter_map(Connection::poll_timeout);
            match deadlines.min() {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        for end in &self.ends {
            assert!(end.connections.is_empty(), "a connection never ends");
        }
    }
}
