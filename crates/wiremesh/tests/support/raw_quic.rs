//! A QUIC client without sockets, so that a test holds each of its packets in its hands.
#![allow(dead_code)] // each test takes what it needs

use crate::raw::{Raw, udp};
use bytes::BytesMut;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamId,
    Transmit,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use wiremesh_quic::{CheckedTransport, Provider};
use wiremesh_wire::address::STREAM_PORT;
use wiremesh_wire::ip;

pub struct RawQuic {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub connection: Connection,
    from: SocketAddr,
    to: SocketAddr,
}

impl RawQuic {
    /// A client that is about to connect from the raw peer's own address.
    pub fn new(raw: &Raw, seed: [u8; 32], protocol: &str) -> Self {
        let provider = Provider::new(seed, CheckedTransport::default());
        let config = Arc::new(provider.endpoint_config());
        let mut endpoint = Endpoint::new(config, None, false, None);
        let client = provider.client_config(&[protocol]).expect("a name");
        let to = SocketAddr::new(raw.theirs().into(), STREAM_PORT);
        let (handle, connection) = endpoint
            .connect(Instant::now(), client, to, "raw")
            .expect("a free id");
        Self {
            endpoint,
            handle,
            connection,
            from: SocketAddr::new(raw.own().into(), STREAM_PORT),
            to,
        }
    }

    /// The UDP payloads that it wants to send now.
    pub fn payloads(&mut self) -> Vec<Vec<u8>> {
        self.payloads_at(Instant::now())
    }

    /// The same at another time.
    pub fn payloads_at(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let mut buffer = Vec::new();
        while let Some(Transmit { size, .. }) = self.connection.poll_transmit(now, 1, &mut buffer) {
            payloads.push(buffer[..size].to_vec());
            buffer.clear();
        }
        payloads
    }

    /// Sends what it wants to send.
    pub async fn flush(&mut self, raw: &mut Raw) {
        for payload in self.payloads() {
            raw.inject(&udp(self.from, self.to, &payload)).await;
        }
    }

    /// Takes a packet that came out of the tunnel.
    pub fn take(&mut self, packet: &[u8]) {
        let Ok(datagram) = ip::parse_udp(packet) else {
            return;
        };
        let payload = BytesMut::from(&packet[datagram.payload]);
        let mut out = Vec::new();
        let event = self.endpoint.handle(
            Instant::now(),
            datagram.source,
            None,
            None,
            payload,
            &mut out,
        );
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    /// Why the connection ended, if it did.
    pub fn lost(&mut self) -> Option<ConnectionError> {
        std::iter::from_fn(|| self.connection.poll()).find_map(|event| match event {
            Event::ConnectionLost { reason } => Some(reason),
            _ => None,
        })
    }

    /// Runs until the handshake is done.
    pub async fn connect(&mut self, raw: &mut Raw) {
        loop {
            self.flush(raw).await;
            while let Some(event) = self.connection.poll() {
                match event {
                    Event::Connected => return self.flush(raw).await,
                    Event::ConnectionLost { reason } => panic!("lost: {reason}"),
                    _ => {}
                }
            }
            if let Some(packet) = raw.receive().await {
                self.take(&packet);
            }
        }
    }

    /// Writes to a new stream and ends it.
    pub fn write(&mut self, data: &[u8]) -> StreamId {
        let id = self.connection.streams().open(Dir::Uni).expect("credit");
        let mut stream = self.connection.send_stream(id);
        assert_eq!(stream.write(data), Ok(data.len()));
        stream.finish().expect("once");
        id
    }
}
