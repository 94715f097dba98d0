//! One stream of a link: the messages of one class and topic, in one direction.
//!
//! Owns the layout of the stream (docs/spec.md section 9.1): a header, then messages with their
//! length in front. Never reads ahead of what the topic takes, and never takes a message from the
//! topic before the one before it is quinn's.

use super::link::Link;
use super::running::Running;
use crate::egress::Given;
use crate::priority::order;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::futures::OwnedNotified;
use wiremesh_gossip::{MESSAGE_MAX, TopicId};
use wiremesh_wire::{NodeId, Priority};

const VERSION: u8 = 1;
/// Version, class, instance, topic.
pub(super) const HEADER_LEN: usize = 1 + 1 + 8 + 32;
const LENGTH_LEN: usize = 4;
/// Bytes asked of a stream at a time.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) class: Priority,
    /// Random, drawn when a node starts: another one is a node that was restarted.
    pub(super) instance: u64,
    pub(super) topic: TopicId,
}

impl Header {
    pub(super) fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION;
        out[1] = self.class as u8;
        out[2..10].copy_from_slice(&self.instance.to_be_bytes());
        out[10..].copy_from_slice(self.topic.as_bytes());
        out
    }

    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut instance = [0; 8];
        instance.copy_from_slice(&bytes[2..10]);
        let mut topic = [0; 32];
        topic.copy_from_slice(&bytes[10..]);
        let class = Priority::from_byte(bytes[1]).filter(|_| bytes[0] == VERSION)?;
        Some(Self {
            class,
            instance: u64::from_be_bytes(instance),
            topic: TopicId::from_bytes(topic),
        })
    }
}

/// What came in on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Header(Header),
    /// In [`Reader::message`].
    Message,
    /// Bytes that no honest node sends.
    Nonsense,
    /// The peer has ended it, or the connection is gone.
    End,
}

/// A stream that the peer opened.
pub(super) struct Reader {
    stream: RecvStream,
    /// What was read and not given out; at most a message and a read.
    buffer: Vec<u8>,
    /// Where in it the next item begins.
    at: usize,
    message: std::ops::Range<usize>,
    pub(super) topic: Option<Arc<Running>>,
    /// That of its header.
    pub(super) class: Priority,
    /// Turns of the link's clock since it was opened.
    pub(super) age: u32,
}

impl Reader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            at: 0,
            message: 0..0,
            topic: None,
            class: Priority::Urgent,
            age: 0,
        }
    }

    /// Messages follow, of this topic and class.
    pub(super) fn open_for(&mut self, topic: Arc<Running>, class: Priority) {
        self.topic = Some(topic);
        self.class = class;
    }

    /// The message that [`Arrival::Message`] told of.
    pub(super) fn message(&self) -> &[u8] {
        &self.buffer[self.message.clone()]
    }

    /// The next item; `scratch` is room for what is read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Arrival> {
        loop {
            if let Some(arrival) = self.next() {
                return Poll::Ready(arrival);
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            match std::task::ready!(self.stream.poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(Arrival::End),
                Ok(len) => self.buffer.extend_from_slice(&scratch[..len]),
            }
        }
    }

    /// The next item that is whole.
    fn next(&mut self) -> Option<Arrival> {
        let rest = &self.buffer[self.at..];
        if self.topic.is_none() {
            let header = rest.first_chunk::<HEADER_LEN>()?;
            let parsed = Header::parse(header);
            self.at += HEADER_LEN;
            return Some(parsed.map_or(Arrival::Nonsense, Arrival::Header));
        }
        let length = u32::from_be_bytes(*rest.first_chunk::<LENGTH_LEN>()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(1..=MESSAGE_MAX).contains(&length) {
            return Some(Arrival::Nonsense);
        }
        let start = self.at + LENGTH_LEN;
        let end = start + length;
        if self.buffer.len() < end {
            return None;
        }
        self.message = start..end;
        self.at = end;
        Some(Arrival::Message)
    }

    /// Asks the peer to send nothing more.
    pub(super) fn stop(mut self, code: u32) {
        // It may have ended by itself.
        let _ = self.stream.stop(code.into());
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<SendStream, ConnectionError>> + Send>>;

/// How far a writer came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The topic has nothing more for it now.
    Idle,
    /// The stream takes no more now.
    Full,
    /// The peer does not want it, for this reason.
    Refused(VarInt),
    /// It has ended, or the connection has.
    End,
}

/// A stream of ours; opened when there is something to send.
pub(super) struct Writer {
    pub(super) topic: Arc<Running>,
    pub(super) class: Priority,
    peer: NodeId,
    opening: Option<Opening>,
    /// For room in the egress scheduler.
    waiting: Option<Pin<Box<OwnedNotified>>>,
    stream: Option<SendStream>,
    /// Bytes that were written to the stream.
    written: u64,
    /// What is being written: the header, or one message.
    bytes: Vec<u8>,
    at: usize,
    /// The topic has said that there is something.
    pub(super) ready: bool,
    /// The topic needs the link no more.
    pub(super) ending: bool,
}

impl Writer {
    pub(super) fn new(topic: Arc<Running>, class: Priority, peer: NodeId, instance: u64) -> Self {
        let header = Header {
            class,
            instance,
            topic: topic.id,
        };
        Self {
            topic,
            class,
            peer,
            opening: None,
            waiting: None,
            stream: None,
            written: 0,
            bytes: header.emit().to_vec(),
            at: 0,
            ready: true,
            ending: false,
        }
    }

    /// Whether it would write if it could.
    pub(super) fn wants(&self) -> bool {
        self.ready || self.ending || (self.stream.is_some() && self.at < self.bytes.len())
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<Written> {
        loop {
            if self.at == self.bytes.len() {
                if self.ending {
                    if let Some(mut stream) = self.stream.take() {
                        // The peer may have stopped it.
                        let _ = stream.finish();
                    }
                    return Poll::Ready(Written::End);
                }
                if !self.ready {
                    return Poll::Ready(Written::Idle);
                }
                self.ready = self.take_message();
                continue;
            }
            if self.stream.is_none() {
                let opened = std::task::ready!(self.poll_open(cx, &link.connection));
                let Ok(stream) = opened else {
                    return Poll::Ready(Written::End);
                };
                // The most urgent class goes first inside the connection.
                let _ = stream.set_priority(order(self.class));
                self.stream = Some(stream);
                continue;
            }
            if self.is_held_back(cx, link) {
                return Poll::Ready(Written::Full);
            }
            let Some(stream) = &mut self.stream else {
                continue;
            };
            let id = stream.id();
            match Pin::new(stream).poll_write(cx, &self.bytes[self.at..]) {
                Poll::Ready(Ok(len)) => {
                    self.at += len;
                    self.written += len as u64;
                    let given = Given::Stream {
                        id: VarInt::from(id).into_inner(),
                        end: self.written,
                        bytes: len,
                    };
                    let (flow, key) = link.flow;
                    let tunnel = &self.topic.service.tunnel;
                    tunnel.wrote(flow, key, self.class, given);
                }
                Poll::Ready(Err(WriteError::Stopped(reason))) => {
                    return Poll::Ready(Written::Refused(reason));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Written::End),
                Poll::Pending => return Poll::Ready(Written::Full),
            }
        }
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        link: &quinn::Connection,
    ) -> Poll<Result<SendStream, ConnectionError>> {
        let opening = self.opening.get_or_insert_with(|| {
            let link = link.clone();
            Box::pin(async move { link.open_uni().await })
        });
        let opened = std::task::ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened)
    }

    /// Whether the egress scheduler has enough of the class that is not sent.
    fn is_held_back(&mut self, cx: &mut Context<'_>, link: &Link) -> bool {
        let (flow, key) = link.flow;
        while let Some(room) = self
            .topic
            .service
            .tunnel
            .wait_to_write(flow, key, self.class)
        {
            let waiting = self.waiting.insert(Box::pin(room.notified_owned()));
            // Between the look above and here there may have been room.
            let still = self
                .topic
                .service
                .tunnel
                .wait_to_write(flow, key, self.class);
            if still.is_none() {
                break;
            }
            if waiting.as_mut().poll(cx).is_pending() {
                return true;
            }
        }
        self.waiting = None;
        false
    }

    /// Takes the next message of the topic; false if there is none.
    fn take_message(&mut self) -> bool {
        let Some(message) = self.topic.poll_send(self.peer, self.class) else {
            return false;
        };
        self.at = 0;
        self.bytes.clear();
        let length = u32::try_from(message.len()).expect("a message is far shorter");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(&message);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_another_version_or_class_is_not() {
        let header = Header {
            class: Priority::Bulk,
            instance: 0x0102_0304_0506_0708,
            topic: TopicId::from_bytes([9; 32]),
        };
        let bytes = header.emit();
        assert_eq!(bytes[..10], [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Header::parse(&bytes), Some(header));
        for (place, value) in [(0, 0), (0, 2), (1, 3)] {
            let mut bad = bytes;
            bad[place] = value;
            assert_eq!(Header::parse(&bad), None);
        }
    }
}
