//! Something of the node's that lives as long as the state of one connection.
//!
//! Owns it, and drops it with quinn's state: also when nobody holds the connection any more, only
//! one of its streams. Quinn tells nobody of that moment.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The place for it; clones are the same place.
#[derive(Clone, Default)]
pub struct Attachment(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Attachment {
    /// The place of a connection, from what `peer_identity` gave. `None` for a connection that was
    /// not made with this crate.
    pub fn of(peer_identity: Option<Box<dyn Any>>) -> Option<Self> {
        let place = peer_identity?.downcast::<Self>().ok()?;
        Some(*place)
    }

    /// Keeps `thing`, in place of what was kept before, until quinn forgets the connection.
    pub fn attach(&self, thing: impl Any + Send) {
        let thing = Some(Box::new(thing) as Box<dyn Any + Send>);
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, thing);
        drop(place);
        drop(before);
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attachment")
    }
}
