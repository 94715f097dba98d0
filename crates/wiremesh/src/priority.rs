//! Streams and datagrams of a class.
//!
//! Owns what a class means inside one connection: quinn's order of streams, and how much of the worse
//! classes may wait unsent, so that there is room for what is more urgent. docs/priority.md.

use crate::connection::Connection;
use crate::egress::Given;
use quinn::{
    ClosedStream, ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt, WriteError,
};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::sync::Notify;
use wiremesh_core::PeerKey;
use wiremesh_wire::Priority;

/// The sending side of a stream with a class. What it takes goes before all that has a worse class, on this
/// connection and, with a pace ([`crate::EgressConfig`]), before what goes to other peers.
///
/// Everything of [`quinn::SendStream`] is there through `Deref`; what is written past this type is
/// sent in quinn's order but is not known to the scheduler, and counts as normal there.
#[derive(Debug)]
pub struct PrioritySend {
    stream: SendStream,
    class: Priority,
    connection: Connection,
    peer: Option<PeerKey>,
    /// Bytes that were written to it by this type.
    written: u64,
}

/// quinn's number for a class; the greater goes first.
pub(crate) fn order(class: Priority) -> i32 {
    1 - class as i32
}

impl PrioritySend {
    /// The class.
    pub fn class(&self) -> Priority {
        self.class
    }

    /// As [`SendStream::write`]; waits while 64 KiB of a class that is not urgent are unsent.
    ///
    /// # Errors
    ///
    /// As quinn's.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, WriteError> {
        self.wait_to_write().await;
        let written = self.stream.write(bytes).await?;
        self.note(written);
        Ok(written)
    }

    /// As [`SendStream::write_all`].
    ///
    /// # Errors
    ///
    /// As quinn's.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let written = self.write(bytes).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// quinn's stream, for readers of this class's order only.
    pub fn into_inner(self) -> SendStream {
        self.stream
    }

    async fn wait_to_write(&self) {
        while let Some(room) = self.full() {
            let notified = room.notified();
            // Between the look above and here there may have been room.
            if self.full().is_none() {
                return;
            }
            tokio::select! {
                () = notified => {}
                _ = self.connection.closed() => return,
                // Looks again whether the ledger still tells the truth.
                () = tokio::time::sleep(crate::egress::LEDGER_DOUBTED_AFTER) => {}
            }
        }
    }

    fn full(&self) -> Option<Arc<Notify>> {
        let flow = self.connection.linked().flow;
        let tunnel = self.connection.node().tunnel();
        self.peer
            .and_then(|peer| tunnel.wait_to_write(flow, peer, self.class))
    }

    fn note(&mut self, bytes: usize) {
        self.written += bytes as u64;
        let given = Given::Stream {
            id: VarInt::from(self.stream.id()).into_inner(),
            end: self.written,
            bytes,
        };
        self.connection.wrote(self.peer, self.class, given);
    }
}

impl Deref for PrioritySend {
    type Target = SendStream;

    fn deref(&self) -> &SendStream {
        &self.stream
    }
}

impl DerefMut for PrioritySend {
    fn deref_mut(&mut self) -> &mut SendStream {
        &mut self.stream
    }
}

impl Connection {
    /// Opens a unidirectional stream of a class.
    ///
    /// # Errors
    ///
    /// As quinn's.
    pub async fn open_uni_with(&self, class: Priority) -> Result<PrioritySend, ConnectionError> {
        let stream = self.open_uni().await?;
        self.with_class(stream, class).map_err(|_| closed(self))
    }

    /// Opens a bidirectional stream, whose sending side is of a class.
    ///
    /// # Errors
    ///
    /// As quinn's.
    pub async fn open_bi_with(
        &self,
        class: Priority,
    ) -> Result<(PrioritySend, RecvStream), ConnectionError> {
        let (send, recv) = self.open_bi().await?;
        let send = self.with_class(send, class).map_err(|_| closed(self))?;
        Ok((send, recv))
    }

    /// Gives a class to a stream of this connection, such as the answer on one that was accepted.
    ///
    /// # Errors
    ///
    /// The stream has ended.
    pub fn with_class(
        &self,
        stream: SendStream,
        class: Priority,
    ) -> Result<PrioritySend, ClosedStream> {
        stream.set_priority(order(class))?;
        Ok(PrioritySend {
            stream,
            class,
            peer: self.peer_key(),
            connection: self.clone(),
            written: 0,
        })
    }

    /// As quinn's `send_datagram`, in a class. Datagrams go before all streams of their connection;
    /// the class counts beside other connections and peers.
    ///
    /// # Errors
    ///
    /// As quinn's.
    pub fn send_datagram_with(
        &self,
        class: Priority,
        data: bytes::Bytes,
    ) -> Result<(), SendDatagramError> {
        let len = data.len();
        self.send_datagram(data)?;
        self.wrote(self.peer_key(), class, Given::Datagram(len));
        Ok(())
    }

    fn wrote(&self, peer: Option<PeerKey>, class: Priority, given: Given) {
        if let Some(peer) = peer {
            let flow = self.linked().flow;
            self.node().tunnel().wrote(flow, peer, class, given);
        }
    }

    fn peer_key(&self) -> Option<PeerKey> {
        let tunnel = self.node().tunnel();
        tunnel.peek(|state, _| state.engine.peer_by_id(&self.peer()))
    }
}

fn closed(connection: &Connection) -> ConnectionError {
    let reason = connection.close_reason();
    reason.unwrap_or(ConnectionError::LocallyClosed)
}
