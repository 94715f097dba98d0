//! A port on which connections are accepted.
//!
//! Owns the port; gives it back on drop.

use crate::driver::Handle;
use crate::stream::TcpStream;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Accepts connections on a port of all the node's addresses. At most 128 wait to be accepted,
/// handshakes included; further ones get no answer and are asked for again by their peers.
pub struct TcpListener {
    handle: Arc<Handle>,
    port: u16,
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpListener({})", self.port)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.handle.0.stack().unlisten(self.port);
        self.handle.0.wake.notify_one();
    }
}

impl TcpListener {
    pub(crate) fn new(handle: Arc<Handle>, port: u16) -> Self {
        Self { handle, port }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the node is closed.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// The polling form of [`TcpListener::accept`].
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let accepted = self.handle.0.stack().poll_accept(self.port, cx);
        accepted.map(|id| match id {
            Some(id) => Ok(TcpStream::new(Arc::clone(&self.handle), id)),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}
