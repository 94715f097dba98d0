//! A node with a link for the topic: its link, its place in the views and the trees, its queues.
//!
//! Owns that state and the order of what is sent. Never does: decide who is a neighbour.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, Priority};

use crate::header::Header;
use crate::id::ObjectId;
use crate::missing::WINDOW;

/// What is wanted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing, since then.
    Guest(Instant),
    /// It was asked to be a neighbour.
    Asked(Instant),
    /// Its round trip is being measured.
    Probed(Instant),
    /// A neighbour.
    Active,
}

/// The link to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Connecting(Instant),
    Up,
}

/// The place of a neighbour in the tree of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// We send it objects; otherwise we announce them.
    pub push: bool,
    /// It sends us objects; otherwise it announces them.
    pub fed: bool,
    /// In how many of the last objects it was the first, of [`Lane::ONE`].
    pub share: u32,
    /// When we asked it to stop sending.
    pub pruned: Instant,
}

impl Lane {
    pub(crate) const ONE: u32 = 1 << 16;

    pub(crate) const NEW: Self = Self {
        push: true,
        fed: true,
        share: 0,
        pruned: Instant::ZERO,
    };
}

/// What an item takes besides its bytes.
const ITEM_BYTES: usize = 128;

/// What waits to be sent.
pub(crate) enum Item {
    Control(Vec<u8>),
    Object {
        id: ObjectId,
        header: Header,
        body: Arc<[u8]>,
        /// It was asked for, so it is sent whoever else has it.
        asked: bool,
    },
    /// A chunk; its bytes are looked up when it is sent, so that waiting keeps nothing alive.
    Chunk {
        id: ObjectId,
        index: u16,
    },
}

impl Item {
    /// What it keeps in memory.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Control(bytes) => ITEM_BYTES + bytes.len(),
            Self::Object { body, .. } => ITEM_BYTES + body.len(),
            Self::Chunk { .. } => ITEM_BYTES,
        }
    }
}

/// What waits for a node in one class.
#[derive(Default)]
pub(crate) struct Queue {
    pub items: VecDeque<Item>,
    pub bytes: usize,
    /// The owner knows that there is something.
    pub told: bool,
    /// When something was last taken, or it stopped being empty.
    pub moved: Instant,
}

impl Queue {
    pub(crate) fn push(&mut self, now: Instant, item: Item) {
        if self.items.is_empty() {
            self.moved = now;
        }
        self.bytes += item.len();
        self.items.push_back(item);
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.len();
        self.moved = now;
        Some(item)
    }
}

/// See the module.
pub(crate) struct Peer {
    /// Its bit in sets of nodes.
    pub slot: u8,
    pub link: Link,
    pub role: Role,
    /// It is a neighbour, or asked to be one, because it is near.
    pub near: bool,
    /// Since when it is a neighbour.
    pub active_since: Instant,
    pub addresses: Vec<u8>,
    pub lanes: [Lane; 3],
    pub queues: [Queue; 3],
    /// Ids to announce, by class, and when.
    pub announce: [Vec<ObjectId>; 3],
    pub flush: Option<Instant>,
    pub rtt: Option<Duration>,
    pub ping: Option<(u64, Instant)>,
    pub ping_due: Instant,
    /// Ids that it announced and that have not come.
    pub missing: usize,
    /// Objects that it is being asked for.
    pub asked: usize,
    /// Most of them at a time.
    pub window: usize,
    /// Chunks that it is being asked for.
    pub wanted: usize,
    /// Chunks that it was asked for and that were then asked for elsewhere.
    pub owed: usize,
    /// Chunks that wait for it.
    pub serving: usize,
}

impl Peer {
    pub(crate) fn new(slot: u8, link: Link, role: Role, addresses: Vec<u8>) -> Self {
        Self {
            slot,
            link,
            role,
            near: false,
            active_since: Instant::ZERO,
            addresses,
            lanes: [Lane::NEW; 3],
            queues: Default::default(),
            announce: Default::default(),
            flush: None,
            rtt: None,
            ping: None,
            ping_due: Instant::ZERO,
            missing: 0,
            asked: 0,
            window: WINDOW.1,
            wanted: 0,
            owed: 0,
            serving: 0,
        }
    }

    /// Objects and chunks that wait are not wanted any more.
    pub(crate) fn clear_data(&mut self) {
        self.serving = 0;
        for queue in &mut self.queues {
            queue.items.retain(|item| matches!(item, Item::Control(_)));
            queue.bytes = queue.items.iter().map(Item::len).sum();
        }
    }

    pub(crate) fn bit(&self) -> u64 {
        1 << self.slot
    }

    pub(crate) fn is_active(&self) -> bool {
        self.role == Role::Active
    }

    pub(crate) fn lane(&mut self, class: Priority) -> &mut Lane {
        &mut self.lanes[class.index()]
    }

    /// The round trip, smoothed; a guess before it was measured.
    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(Duration::from_millis(100))
    }

    pub(crate) fn on_pong(&mut self, now: Instant, token: u64) {
        let Some((_, sent)) = self.ping.take_if(|(wanted, _)| *wanted == token) else {
            return;
        };
        let sample = now.saturating_since(sent);
        self.rtt = Some(match self.rtt {
            Some(rtt) => rtt - rtt / 4 + sample / 4,
            None => sample,
        });
    }
}
