//! What a libp2p swarm needs below it: connections and substreams between swarms of one process.
//!
//! Owns the bytes between what a swarm wrote and what the simulated network took, and between what
//! the network gave and what a swarm reads. Never knows of time: a connection is there at once, and
//! the network delays its first bytes by a round trip.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::future::{Ready, ready};
use futures::{AsyncRead, AsyncWrite};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p_core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p_identity::PeerId;

/// A swarm, by its place.
pub type Slot = usize;

/// What a stream takes before it pushes back.
const STREAM_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a substream under way.
pub struct Payload {
    substream: usize,
    /// By which end they were written: 0 is who opened the connection.
    end: usize,
    bytes: Vec<u8>,
}

impl Payload {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Bytes that a swarm wrote, for another.
pub struct Sent {
    /// The writer.
    pub from: Slot,
    /// The reader.
    pub to: Slot,
    /// The bytes.
    pub payload: Payload,
}

struct Connection {
    ends: [(Slot, PeerId); 2],
    accept: [VecDeque<usize>; 2],
    wakers: [Option<Waker>; 2],
}

struct Substream {
    connection: usize,
    opener: usize,
    accepted: bool,
    /// By the end that reads.
    arrived: [VecDeque<u8>; 2],
    readers: [Option<Waker>; 2],
}

#[derive(Default)]
struct Listener {
    peer: Option<PeerId>,
    id: Option<ListenerId>,
    announced: bool,
    incoming: VecDeque<usize>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Backlog {
    bytes: usize,
    writers: Vec<Waker>,
}

/// All connections of all swarms.
pub struct Fabric {
    listeners: Vec<Listener>,
    connections: Vec<Connection>,
    substreams: Vec<Substream>,
    backlogs: HashMap<(Slot, Slot), Backlog>,
    outbox: Vec<Sent>,
}

impl Fabric {
    /// One without connections.
    pub fn new(slots: usize) -> Self {
        Self {
            listeners: (0..slots).map(|_| Listener::default()).collect(),
            connections: Vec::new(),
            substreams: Vec::new(),
            backlogs: HashMap::new(),
            outbox: Vec::new(),
        }
    }

    /// What was written since the last call.
    pub fn take_outbox(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.outbox)
    }

    /// Bytes came to their reader.
    pub fn receive(&mut self, payload: Payload) {
        let reader = 1 - payload.end;
        let substream = &mut self.substreams[payload.substream];
        substream.arrived[reader].extend(payload.bytes);
        if let Some(waker) = substream.readers[reader].take() {
            waker.wake();
        }
        if reader != substream.opener && !substream.accepted {
            substream.accepted = true;
            let connection = &mut self.connections[substream.connection];
            connection.accept[reader].push_back(payload.substream);
            if let Some(waker) = connection.wakers[reader].take() {
                waker.wake();
            }
        }
    }

    /// Everything that one swarm wrote to another is sent; true when a writer waited for it.
    pub fn drained(&mut self, from: Slot, to: Slot) -> bool {
        let Some(backlog) = self.backlogs.get_mut(&(from, to)) else {
            return false;
        };
        backlog.bytes = 0;
        let writers = std::mem::take(&mut backlog.writers);
        let waited = !writers.is_empty();
        writers.into_iter().for_each(Waker::wake);
        waited
    }

    fn connect(&mut self, from: (Slot, PeerId), to: Slot) -> Option<usize> {
        let listener = self.listeners.get_mut(to)?;
        let place = self.connections.len();
        self.connections.push(Connection {
            ends: [from, (to, listener.peer?)],
            accept: Default::default(),
            wakers: Default::default(),
        });
        listener.incoming.push_back(place);
        if let Some(waker) = listener.waker.take() {
            waker.wake();
        }
        Some(place)
    }

    fn write(&mut self, place: usize, end: usize, bytes: &[u8], cx: &Context<'_>) -> Poll<usize> {
        let connection = self.substreams[place].connection;
        let ends = &self.connections[connection].ends;
        let (from, to) = (ends[end].0, ends[1 - end].0);
        let backlog = self.backlogs.entry((from, to)).or_default();
        if backlog.bytes >= STREAM_BYTES_MAX {
            backlog.writers.push(cx.waker().clone());
            return Poll::Pending;
        }
        backlog.bytes += bytes.len();
        let payload = Payload {
            substream: place,
            end,
            bytes: bytes.to_vec(),
        };
        self.outbox.push(Sent { from, to, payload });
        Poll::Ready(bytes.len())
    }
}

type Shared = Arc<Mutex<Fabric>>;

/// A swarm's transport.
pub struct SlotTransport {
    slot: Slot,
    peer: PeerId,
    fabric: Shared,
}

impl SlotTransport {
    /// The transport of a swarm.
    pub fn new(slot: Slot, peer: PeerId, fabric: Shared) -> Self {
        fabric.lock().expect("one thread").listeners[slot].peer = Some(peer);
        Self { slot, peer, fabric }
    }

    fn output(&self, fabric: &Fabric, connection: usize, end: usize) -> Output {
        let muxer = Muxer {
            connection,
            end,
            fabric: self.fabric.clone(),
        };
        let (_, peer) = fabric.connections[connection].ends[1 - end];
        (peer, StreamMuxerBox::new(muxer))
    }
}

type Output = (PeerId, StreamMuxerBox);

impl Transport for SlotTransport {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Output>>;
    type Dial = Ready<io::Result<Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        _address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        fabric.listeners[self.slot].id = Some(id);
        Ok(())
    }

    fn remove_listener(&mut self, _id: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(Protocol::Memory(place)) = address.iter().next() else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let mut fabric = self.fabric.lock().expect("one thread");
        let connection = fabric.connect((self.slot, self.peer), place as usize - 1);
        Ok(ready(match connection {
            Some(connection) => Ok(self.output(&fabric, connection, 0)),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        let listener = &mut fabric.listeners[self.slot];
        let Some(listener_id) = listener.id else {
            return Poll::Pending;
        };
        let local = Multiaddr::empty().with(Protocol::Memory(self.slot as u64 + 1));
        if !listener.announced {
            listener.announced = true;
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr: local,
            });
        }
        let Some(connection) = listener.incoming.pop_front() else {
            listener.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let (dialler, _) = fabric.connections[connection].ends[0];
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: ready(Ok(self.output(&fabric, connection, 1))),
            local_addr: local,
            send_back_addr: Multiaddr::empty().with(Protocol::Memory(dialler as u64 + 1)),
        })
    }
}

struct Muxer {
    connection: usize,
    end: usize,
    fabric: Shared,
}

impl Muxer {
    fn substream(&self, place: usize) -> SubstreamEnd {
        SubstreamEnd {
            place,
            end: self.end,
            fabric: self.fabric.clone(),
        }
    }
}

impl StreamMuxer for Muxer {
    type Substream = SubstreamEnd;
    type Error = io::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        let connection = &mut fabric.connections[self.connection];
        match connection.accept[self.end].pop_front() {
            Some(place) => Poll::Ready(Ok(self.substream(place))),
            None => {
                connection.wakers[self.end] = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        let place = fabric.substreams.len();
        fabric.substreams.push(Substream {
            connection: self.connection,
            opener: self.end,
            accepted: false,
            arrived: Default::default(),
            readers: Default::default(),
        });
        Poll::Ready(Ok(self.substream(place)))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Poll::Pending
    }
}

/// A swarm's end of a substream.
struct SubstreamEnd {
    place: usize,
    end: usize,
    fabric: Shared,
}

impl AsyncRead for SubstreamEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        let substream = &mut fabric.substreams[self.place];
        let arrived = &mut substream.arrived[self.end];
        if arrived.is_empty() {
            substream.readers[self.end] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(arrived.read(buffer))
    }
}

impl AsyncWrite for SubstreamEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut fabric = self.fabric.lock().expect("one thread");
        fabric.write(self.place, self.end, bytes, cx).map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
