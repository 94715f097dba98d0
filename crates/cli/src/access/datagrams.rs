//! UDP between programs of this host and peers.
//!
//! Owns the flows: one socket per sender, so that answers find their way back, until it is idle.

use super::{Access, PER_PEER_MAX};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wiremesh::Node;

/// The longest UDP payload.
pub const DATAGRAM_MAX: usize = 65_535;
/// Senders at a time, of one peer at most [`PER_PEER_MAX`]; the datagrams of further ones are lost until one has been idle long enough.
const FLOWS_MAX: usize = 256;
/// Datagrams that wait for a flow's socket.
const QUEUE_MAX: usize = 128;
/// How long a flow lasts without a datagram (RFC 4787, REQ-5: at least two minutes).
const IDLE_MAX: Duration = Duration::from_secs(120);

/// A UDP socket on either side.
#[derive(Debug)]
pub enum Socket {
    /// Of this host.
    Local(tokio::net::UdpSocket),
    /// Inside the tunnel.
    Overlay(wiremesh::UdpSocket),
}

impl Socket {
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Local(socket) => socket.recv_from(buffer).await,
            Self::Overlay(socket) => socket.recv_from(buffer).await,
        }
    }

    /// What cannot be sent is lost, as on any network.
    async fn send_to(&self, payload: &[u8], to: SocketAddr) {
        let result = match self {
            Self::Local(socket) => socket.send_to(payload, to).await.map(drop),
            Self::Overlay(socket) => socket.send_to(payload, to).await.map_err(io::Error::other),
        };
        if let Err(error) = result {
            tracing::debug!(%to, %error, "a datagram was lost");
        }
    }

    /// A socket from which this one is reached, on the same side.
    async fn opposite(&self, node: &Node, target: SocketAddr) -> io::Result<Self> {
        match self {
            Self::Local(_) => node
                .udp_socket(0)
                .map(Self::Overlay)
                .map_err(io::Error::other),
            Self::Overlay(_) => {
                let any: SocketAddr = match target {
                    SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                    SocketAddr::V6(_) => ([0u16; 8], 0).into(),
                };
                let socket = tokio::net::UdpSocket::bind(any).await?;
                // From elsewhere nothing is taken.
                socket.connect(target).await?;
                Ok(Self::Local(socket))
            }
        }
    }

    /// Whether a failure to receive is about one datagram only.
    fn survives(&self, error: &io::Error) -> bool {
        // The kernel tells a UDP socket about a port that is closed on the other side.
        matches!(self, Self::Local(_)) && error.kind() == io::ErrorKind::ConnectionRefused
    }
}

/// What goes out for one sender.
struct Flow {
    owner: IpAddr,
    queue: mpsc::Sender<Vec<u8>>,
}

/// Carries what arrives at `listening` to `target` on the other side, and the answers back; ends
/// when the socket does.
pub async fn forward(access: &Access, listening: Socket, target: SocketAddr) {
    let listening = Arc::new(listening);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (len, from) = match listening.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) if listening.survives(&error) => continue,
            Err(error) => return tracing::warn!(%error, "a UDP forward ended"),
        };
        let known = flows.get(&from).filter(|flow| !flow.queue.is_closed());
        let queue = match known {
            Some(flow) => flow.queue.clone(),
            None => {
                flows.retain(|_, flow| !flow.queue.is_closed());
                let owner = access.owner_of(from.ip());
                let same = flows.values().filter(|flow| flow.owner == owner).count();
                // Programs of this host have one address in common.
                let has_all = matches!(*listening, Socket::Overlay(_)) && same >= PER_PEER_MAX;
                if flows.len() >= FLOWS_MAX || has_all {
                    continue;
                }
                let Ok(socket) = listening.opposite(&access.node, target).await else {
                    continue;
                };
                let (queue, receiver) = mpsc::channel(QUEUE_MAX);
                let back = Arc::clone(&listening);
                tokio::spawn(async move { carry(socket, target, receiver, &back, from).await });
                let flow = Flow {
                    owner,
                    queue: queue.clone(),
                };
                flows.insert(from, flow);
                queue
            }
        };
        // A full queue loses, as a socket buffer does.
        let _ = queue.try_send(buffer[..len].to_vec());
    }
}

/// One flow, until it is idle.
async fn carry(
    socket: Socket,
    target: SocketAddr,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    back: &Socket,
    from: SocketAddr,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            payload = outgoing.recv() => match payload {
                Some(payload) => send(&socket, &payload, target).await,
                None => return,
            },
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, source)) if source == target => back.send_to(&buffer[..len], from).await,
                Ok(_) => {}
                Err(error) if socket.survives(&error) => {}
                Err(_) => return,
            },
            () = tokio::time::sleep(IDLE_MAX) => return,
        }
    }
}

/// Sends to the target of a flow, to which a local socket is connected.
async fn send(socket: &Socket, payload: &[u8], target: SocketAddr) {
    match socket {
        Socket::Local(socket) => {
            // Lost, as on any network.
            let _ = socket.send(payload).await;
        }
        Socket::Overlay(_) => socket.send_to(payload, target).await,
    }
}
