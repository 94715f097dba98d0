//! One end of a connection, as tokio wants it.
//!
//! Owns nothing but the name of its connection, which ends when the stream is dropped.

use crate::driver::Handle;
use crate::segment::Flow;
use crate::stack::{Id, Stack};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A TCP connection inside the tunnel.
///
/// Reading gives 0 bytes once the peer has closed its side, and an error when the connection was
/// reset or timed out; what came before is read first. Shutting down closes our side only. On drop,
/// what was written is still sent, unless something was left unread: then the peer gets a reset, as
/// from any TCP, so that it does not believe that all of it arrived.
pub struct TcpStream {
    handle: Arc<Handle>,
    id: Id,
    flow: Flow,
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpStream({})", self.flow)
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.with(|stack, id| stack.release(id));
    }
}

impl TcpStream {
    pub(crate) fn new(handle: Arc<Handle>, id: Id) -> Self {
        let flow = handle.0.stack().held(id).flow;
        Self { handle, id, flow }
    }

    /// Runs `f` and has the connection looked at: it may have something to send now.
    fn with<T>(&self, f: impl FnOnce(&mut Stack, Id) -> T) -> T {
        let mut stack = self.handle.0.stack();
        let result = f(&mut stack, self.id);
        stack.enqueue(self.id);
        drop(stack);
        self.handle.0.wake.notify_one();
        result
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        self.flow.local
    }

    /// The peer's end; its address belongs to the peer's key.
    pub fn peer_addr(&self) -> SocketAddr {
        self.flow.remote
    }

    /// Ends the connection at once with a reset; reads and writes fail from now on.
    pub fn reset(&self) {
        self.with(|stack, id| stack.held(id).abort(ErrorKind::ConnectionAborted));
    }

    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        self.handle.0.stack().poll_connected(self.id, cx)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stack = self.handle.0.stack();
        let connection = stack.held(self.id);
        let failure = connection.failure;
        let socket = connection.socket();
        if socket.can_recv() && buffer.remaining() > 0 {
            let taken = socket.recv_slice(buffer.initialize_unfilled());
            let taken = taken.map_err(|_| ErrorKind::NotConnected)?;
            buffer.advance(taken);
            drop(stack);
            // The window is wider now.
            self.with(|_, _| ());
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = failure {
            return Poll::Ready(Err(failure.into()));
        }
        if !socket.may_recv() || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        socket.register_recv_waker(cx.waker());
        Poll::Pending
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut stack = self.handle.0.stack();
        let connection = stack.held(self.id);
        if let Some(failure) = connection.failure {
            return Poll::Ready(Err(failure.into()));
        }
        let socket = connection.socket();
        let taken = socket.send_slice(bytes);
        let taken = taken.map_err(|_| ErrorKind::BrokenPipe)?;
        if taken == 0 && !bytes.is_empty() {
            socket.register_send_waker(cx.waker());
            return Poll::Pending;
        }
        drop(stack);
        self.with(|_, _| ());
        Poll::Ready(Ok(taken))
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our side; what was written before still arrives, and the peer may go on sending.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let failure = self.with(|stack, id| {
            let connection = stack.held(id);
            connection.socket().close();
            connection.failure
        });
        Poll::Ready(failure.map_or(Ok(()), |failure| Err(failure.into())))
    }
}
