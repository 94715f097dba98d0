//! A peer that holds a key and keeps no rules: it speaks WireGuard through the engine and puts
//! whatever bytes it likes into the tunnel.
#![allow(dead_code)] // each test takes what it needs

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use wiremesh::{Node, NodeId, SecretKey};
use wiremesh_core::{
    ControlConfig, Node as Engine, NodeConfig, NotReady, Path, PeerConfig, PeerKey,
};
use wiremesh_wire::address::{STREAM_PORT, overlay_address};
use wiremesh_wire::{Content, Instant, Now, UnixTime, ip};

/// The port of the echo that [`Raw::settle`] uses.
pub const MARKER_PORT: u16 = 9;

/// The raw peer of one node.
pub struct Raw {
    pub engine: Engine,
    pub peer: PeerKey,
    pub socket: UdpSocket,
    pub victim: NodeId,
    began: std::time::Instant,
    markers: u32,
}

impl Raw {
    /// A raw peer that knows the node; nothing is sent yet. It takes no bare stream packets.
    pub async fn new(node: &Node, secret: [u8; 32]) -> Self {
        Self::made(node, secret, false).await
    }

    async fn made(node: &Node, secret: [u8; 32], bare_streams: bool) -> Self {
        let began = std::time::Instant::now();
        let mut config = NodeConfig::new(SecretKey::from_bytes(secret));
        config.control = Some(ControlConfig {
            bare_streams,
            ..ControlConfig::default()
        });
        let mut engine = Engine::new(config, secret, now(began)).expect("a valid key");
        let mut peer = PeerConfig::new(node.id());
        peer.endpoint = node.listen_addresses().first().copied();
        let peer = engine.add_peer(now(began), peer).expect("another key");
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            engine,
            peer,
            socket,
            victim: node.id(),
            began,
            markers: 0,
        }
    }

    /// A raw peer with a session that data may travel on.
    pub async fn connected(node: &Node, secret: [u8; 32]) -> Self {
        Self::new(node, secret).await.ready().await
    }

    /// The same, and it takes bare stream packets; [`Raw::receive`] puts headers in front.
    pub async fn with_bare_streams(node: &Node, secret: [u8; 32]) -> Self {
        let raw = Self::made(node, secret, true).await.ready().await;
        assert!(raw.engine.takes_bare_streams(raw.peer));
        raw
    }

    async fn ready(mut self) -> Self {
        self.handshake().await;
        while !self.engine.is_ready(self.now(), self.peer) {
            self.receive().await;
        }
        self
    }

    pub fn now(&self) -> Now {
        now(self.began)
    }

    pub fn id(&self) -> NodeId {
        self.engine.node_id()
    }

    /// Our own overlay address.
    pub fn own(&self) -> Ipv6Addr {
        overlay_address(&self.engine.node_id())
    }

    /// The node's overlay address.
    pub fn theirs(&self) -> Ipv6Addr {
        overlay_address(&self.victim)
    }

    /// Sends an initiation.
    pub async fn handshake(&mut self) {
        self.engine.connect(self.now(), self.peer);
        self.flush().await;
    }

    async fn flush(&mut self) {
        while self.engine.poll_event().is_some() {}
        while let Some(transmit) = self.engine.poll_transmit() {
            self.outside(&transmit.datagram, transmit.path.remote).await;
        }
    }

    async fn outside(&self, datagram: &[u8], to: SocketAddr) {
        self.socket.send_to(datagram, to).await.expect("loopback");
    }

    /// Sends any bytes as an authenticated packet, except from and to control addresses: those
    /// the engine lets nobody touch, see `support/bare.rs`.
    pub async fn inject(&mut self, packet: &[u8]) {
        let mut datagram = Vec::new();
        let fill = |out: &mut [u8]| out.copy_from_slice(packet);
        let now = self.now();
        let sealed = self
            .engine
            .seal_packet(now, self.peer, packet.len(), &mut datagram, fill);
        match sealed {
            Ok(path) => self.outside(&datagram, path.remote).await,
            Err(NotReady::ControlOnly) => {}
            Err(error) => panic!("there is a session: {error:?}"),
        }
        self.flush().await;
    }

    /// Sends a bare stream packet.
    pub async fn inject_bare(&mut self, packet: &[u8]) {
        let mut datagram = Vec::new();
        let now = self.now();
        let sealed = self
            .engine
            .seal_stream_packet(now, self.peer, packet, &mut datagram);
        let path = sealed.expect("there is a session");
        self.outside(&datagram, path.remote).await;
        self.flush().await;
    }

    /// Sends a UDP datagram with any addresses.
    pub async fn inject_udp(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.inject(&udp(from, to, payload)).await;
    }

    /// Waits for one datagram; gives the packet in it, if there is one.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let waited = self.socket.recv_from(&mut buffer);
        let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
        let (len, from) = waited.expect("an answer").expect("loopback");
        let datagram = &mut buffer[..len];
        let received = self
            .engine
            .handle_datagram(self.now(), Path::to(from), datagram);
        let (from, to) = (self.theirs().into(), self.own().into());
        let ends = [from, to].map(|address| SocketAddr::new(address, STREAM_PORT));
        let packet = received.map(|received| match received.content {
            Content::Stream => udp(ends[0], ends[1], &datagram[received.packet]),
            _ => datagram[received.packet].to_vec(),
        });
        self.flush().await;
        packet
    }

    /// Waits until the node has dealt with everything sent so far; gives what came meanwhile.
    /// Needs [`serve_markers`] on the node.
    pub async fn settle(&mut self) -> Vec<Vec<u8>> {
        self.markers += 1;
        let payload = [&b"marker"[..], &self.markers.to_be_bytes()].concat();
        let from = SocketAddr::new(self.own().into(), MARKER_PORT);
        let to = SocketAddr::new(self.theirs().into(), MARKER_PORT);
        self.inject_udp(from, to, &payload).await;
        let mut others = Vec::new();
        loop {
            let Some(packet) = self.receive().await else {
                continue;
            };
            match ip::parse_udp(&packet) {
                Ok(udp) if packet[udp.payload.clone()] == payload => return others,
                _ => others.push(packet),
            }
        }
    }
}

fn now(began: std::time::Instant) -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later than 1970");
    let elapsed = began.elapsed() + Duration::from_secs(1_000);
    let nanos = u64::try_from(elapsed.as_nanos()).expect("a short test");
    Now::new(Instant::from_nanos(nanos), UnixTime::from_duration(unix))
}

/// An IPv6 UDP packet.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (from.ip(), to.ip()) else {
        panic!("overlay addresses are IPv6");
    };
    let mut packet = vec![0; ip::IPV6_UDP_HEADER_LEN];
    packet.extend_from_slice(payload);
    ip::emit_ipv6_udp(
        &mut packet,
        (source, from.port()),
        (destination, to.port()),
        payload.len(),
        0,
    );
    packet
}

/// Echoes datagrams on the marker port.
pub fn serve_markers(node: &Node) {
    let socket = node.udp_socket(MARKER_PORT).expect("free");
    tokio::spawn(async move {
        let mut buffer = vec![0; 2_000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..len], from).await.expect("a route");
        }
    });
}

/// How often the node dropped something for a reason.
pub fn dropped(node: &Node, reason: &str) -> u64 {
    let dropped = node.status().dropped;
    let found = dropped.iter().find(|(name, _)| *name == reason);
    found.map_or(0, |(_, count)| *count)
}
