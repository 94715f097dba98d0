//! What the application holds: associations and listeners.
//!
//! Owns the waiting. What is dropped is let go: an association is shut down after what was sent.

use crate::association::{self, Phase};
use crate::driver::Handle;
use crate::error::{EndError, SendError};
use crate::stack::{Key, Remote};
use dcsctp::api::{Message, PpId, SendOptions, StreamId};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use wiremesh::Priority;

/// How a message is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendMode {
    /// It may overtake others of its stream.
    pub unordered: bool,
    /// It is given up after this time (RFC 3758).
    pub lifetime: Option<Duration>,
    /// It is given up after so many retransmissions (RFC 3758).
    pub retransmissions_max: Option<u16>,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// On which stream.
    pub stream: u16,
    /// What the sender says that it is (the payload protocol identifier); 0 if nothing.
    pub protocol: u32,
    /// Its bytes.
    pub message: Vec<u8>,
}

/// An association with a peer. All methods may be called at the same time by reference; a message
/// goes to one of those who receive. On drop it is shut down, after what was sent.
pub struct Association {
    handle: Arc<Handle>,
    key: Key,
    serial: u64,
    remote: Remote,
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key {
            address,
            local_port,
            remote_port,
        } = self.key;
        write!(f, "Association({local_port} to [{address}]:{remote_port})")
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        let now = shared.now();
        shared.stack().let_go(now, self.key, self.serial);
        shared.wake.notify_one();
    }
}

impl Association {
    pub(crate) fn new(handle: Arc<Handle>, key: Key, serial: u64, remote: Remote) -> Self {
        Self {
            handle,
            key,
            serial,
            remote,
        }
    }

    /// Does something with the association, and sees that its packets leave.
    fn with<T>(&self, f: impl FnOnce(&mut association::Association) -> T) -> Result<T, EndError> {
        let shared = &self.handle.0;
        let mut stack = shared.stack();
        let closed = EndError::Aborted("the node was closed".to_owned());
        let association = stack.held(self.key, self.serial).ok_or(closed)?;
        let result = f(association);
        stack.settle(self.key);
        let sends = stack.has_packets();
        drop(stack);
        if sends {
            shared.wake.notify_one();
        }
        Ok(result)
    }

    /// Looks until `look` has found something, each time when something has changed.
    async fn until<T>(
        &self,
        mut look: impl FnMut(&mut association::Association) -> Option<T>,
    ) -> Result<T, EndError> {
        let changed: Arc<Notify> = self.with(|it| Arc::clone(&it.changed))?;
        loop {
            let notified = changed.notified();
            if let Some(found) = self.with(&mut look)? {
                return Ok(found);
            }
            notified.await;
        }
    }

    pub(crate) async fn opened(&self) -> Result<(), EndError> {
        let phase = |it: &mut association::Association| match it.phase() {
            Phase::Opening => None,
            Phase::Open => Some(Ok(())),
            Phase::Over => Some(Err(ended(it))),
        };
        self.until(phase).await?
    }

    /// The other end: its address inside the tunnel and its port.
    pub fn remote(&self) -> (Ipv6Addr, u16) {
        (self.key.address, self.key.remote_port)
    }

    /// Our port.
    pub fn local_port(&self) -> u16 {
        self.key.local_port
    }

    /// Whether it travels in UDP (RFC 6951).
    pub fn is_over_udp(&self) -> bool {
        self.remote.udp_port.is_some()
    }

    /// Whether both sides interleave messages (RFC 8260).
    pub fn interleaves(&self) -> bool {
        self.with(|it| it.interleaves()).unwrap_or(false)
    }

    /// The class of what is sent on a stream; normal by default. Where the peer interleaves, a better
    /// class goes before a worse one within their messages; else between messages.
    pub fn set_priority(&self, stream: u16, class: Priority) {
        let _ = self.with(|it| it.set_class(stream, class));
    }

    /// Sends a message; waits while too much is unsent, of the stream or of the association.
    ///
    /// # Errors
    ///
    /// [`SendError`]: it was not taken.
    pub async fn send(
        &self,
        stream: u16,
        protocol: u32,
        message: Vec<u8>,
        mode: SendMode,
    ) -> Result<(), SendError> {
        let (max, room) = {
            let stack = self.handle.0.stack();
            (stack.config.message_max, stack.config.send_bytes)
        };
        if message.is_empty() {
            return Err(SendError::Empty);
        }
        if message.len() > max {
            let len = message.len();
            return Err(SendError::TooLong { len, max });
        }
        let options = SendOptions {
            unordered: mode.unordered,
            lifetime: mode.lifetime,
            max_retransmissions: mode.retransmissions_max,
            lifecycle_id: None,
        };
        let mut message = Some(Message::new(StreamId(stream), PpId(protocol), message));
        let attempt = |it: &mut association::Association| {
            it.touch(stream);
            if it.phase() == Phase::Over {
                return Some(Err(SendError::Ended(ended(it))));
            }
            if !has_room(it, stream, room) {
                return None;
            }
            let sent = it.send(message.take()?, &options);
            Some(sent.map_err(|error| match error {
                dcsctp::api::SendError::EmptyPayload => SendError::Empty,
                dcsctp::api::SendError::MessageTooLarge { len, limit } => {
                    SendError::TooLong { len, max: limit }
                }
                _ => SendError::Ended(ended(it)),
            }))
        };
        let sent = self.until(attempt).await;
        sent.unwrap_or_else(|end| Err(SendError::Ended(end)))
    }

    /// The next message; those of one stream that are ordered come in order.
    ///
    /// # Errors
    ///
    /// The association has ended, and all that came was received.
    pub async fn recv(&self) -> Result<Received, EndError> {
        let next = |it: &mut association::Association| {
            if let Some(message) = it.receive() {
                return Some(Ok(Received {
                    stream: message.stream_id.0,
                    protocol: message.ppid.0,
                    message: message.payload,
                }));
            }
            (it.phase() == Phase::Over).then(|| Err(ended(it)))
        };
        self.until(next).await?
    }

    /// Shuts it down and waits until all that was sent has arrived.
    ///
    /// # Errors
    ///
    /// It was broken off before.
    pub async fn shutdown(&self) -> Result<(), EndError> {
        self.with(association::Association::shut_down)?;
        match self.closed().await {
            EndError::Shutdown => Ok(()),
            end => Err(end),
        }
    }

    /// Breaks it off; what was sent may be lost.
    pub fn abort(&self, why: &str) {
        let _ = self.with(|it| it.abort(why));
    }

    /// Waits until it has ended.
    pub async fn closed(&self) -> EndError {
        let over =
            |it: &mut association::Association| (it.phase() == Phase::Over).then(|| ended(it));
        self.until(over).await.unwrap_or_else(|end| end)
    }
}

fn ended(association: &association::Association) -> EndError {
    let end = association.end.clone();
    end.map_or(EndError::Shutdown, EndError::from)
}

/// Whether a stream may be given another message. A quarter of all is kept for what is urgent.
fn has_room(association: &association::Association, stream: u16, room: usize) -> bool {
    let unsent = association.unsent_in_all();
    match association.class_of(stream) {
        Priority::Urgent => unsent < room,
        _ => unsent < room / 4 * 3 && association.unsent(stream) < room / 4,
    }
}

/// Associations that peers open to one port. The port is free again on drop.
pub struct Listener {
    handle: Arc<Handle>,
    port: u16,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.port)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.0.stack().unlisten(self.port);
        self.handle.0.wake.notify_one();
    }
}

impl Listener {
    pub(crate) fn new(handle: Arc<Handle>, port: u16) -> Self {
        Self { handle, port }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next association; `None` once the node is closed.
    pub async fn accept(&self) -> Option<Association> {
        loop {
            let arrived = match self.handle.0.stack().accept(self.port) {
                Ok(accepted) => {
                    let (key, serial, remote) = accepted?;
                    let handle = Arc::clone(&self.handle);
                    return Some(Association::new(handle, key, serial, remote));
                }
                Err(arrived) => arrived,
            };
            let notified = arrived.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            // Between the look above and here one may have come.
            if let Ok(Some((key, serial, remote))) = self.handle.0.stack().accept(self.port) {
                let handle = Arc::clone(&self.handle);
                return Some(Association::new(handle, key, serial, remote));
            }
            notified.await;
        }
    }
}
