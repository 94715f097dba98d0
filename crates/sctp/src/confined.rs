//! The one thing that dcsctp does not promise: that an association may go to another thread.
//!
//! Owns a socket of dcsctp's. Nothing of the socket leaves but plain values.

use dcsctp::api::{Options, Socket};
use std::ops::{Deref, DerefMut};

/// A socket, boxed since it is large.
pub(crate) struct Confined(Box<Socket>);

// SAFETY: `Socket` is not `Send` because of the `Rc`s between its parts. They all point to what the
// same socket owns: they are made in `Socket::new`, which is called here and nowhere else, and no
// method or event of its public interface gives one out. So all of them move together, and no two
// threads count at once: `Confined` is not `Sync`, and every use goes through `&mut self` or the
// lock of the stack. It has no thread-local state; its randomness (`fastrand`) is per thread but
// carries nothing from one call to the next.
unsafe impl Send for Confined {}

impl Confined {
    pub(crate) fn new(options: &Options) -> Self {
        Self(Box::new(Socket::new("", options)))
    }
}

impl Deref for Confined {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}

impl DerefMut for Confined {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.0
    }
}
