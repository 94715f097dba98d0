//! What the owner of a topic chooses, and every limit.
//!
//! Owns the defaults. docs/spec.md section 8.7 has the bound on memory that follows from them.

use core::time::Duration;

use crate::score::SCORES_MAX;

/// Settings of a [`crate::Topic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Neighbours anywhere: wanted, and at most. HyParView's active view. 2 to 16.
    pub far: (usize, usize),
    /// Neighbours nearby besides: wanted, and at most. None to 16.
    pub near: (usize, usize),
    /// Most nodes known besides: HyParView's passive view. Up to 256.
    pub passive_max: usize,
    /// Hops of a newcomer's walk: ARWL of HyParView.
    pub active_walk: u8,
    /// Hops left when the walk leaves the newcomer in a passive view: PRWL of HyParView.
    pub passive_walk: u8,
    /// Between two shuffles, and between two looks for a nearer neighbour; a node that has just
    /// joined does both more often.
    pub shuffle_interval: Duration,
    /// Between two measurements of the round trip to a neighbour.
    pub ping_interval: Duration,
    /// How long ids wait to be announced together.
    pub announce_delay: Duration,
    /// Whether each object waits for [`crate::Topic::verdict`] before it is forwarded and
    /// delivered. A large one is then forwarded only when it is complete.
    pub validate: bool,
    /// Longest lifetime of an object; more is refused.
    pub lifetime_max: Duration,
    /// By how much clocks of nodes may differ.
    pub clock_skew: Duration,
    /// Most ids remembered until their objects expire; what is new is refused beyond.
    pub seen_max: usize,
    /// Most bytes of objects kept for neighbours that miss them; the oldest go first.
    pub store_bytes_max: usize,
    /// Most bytes that wait for one neighbour in one class; more is announced and not sent.
    pub queue_bytes_max: usize,
    /// Most ids that one neighbour announced and that have not come.
    pub missing_max: usize,
    /// Most large objects that are being fetched.
    pub incomplete_max: usize,
    /// Most objects that wait for a verdict.
    pub pending_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            far: (3, 5),
            near: (3, 4),
            passive_max: 30,
            active_walk: 6,
            passive_walk: 3,
            shuffle_interval: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            announce_delay: Duration::from_millis(5),
            validate: false,
            lifetime_max: Duration::from_secs(3_600),
            clock_skew: Duration::from_secs(30),
            seen_max: 65_536,
            store_bytes_max: 160 * 1024 * 1024,
            queue_bytes_max: 1024 * 1024,
            missing_max: 8_192,
            incomplete_max: 16,
            pending_max: 256,
        }
    }
}

impl Config {
    /// What [`crate::Memory::bytes`] never exceeds, whatever peers do.
    #[must_use]
    pub fn memory_max(&self) -> usize {
        let active = self.far.1 + self.near.1 + 2;
        let queue = self.queue_bytes_max + CONTROL_BYTES_MAX;
        let missing = active * self.missing_max;
        PEERS_MAX * (PEER_BYTES + CONTROL_BYTES_MAX)
            + active * 3 * (queue + self.missing_max * 32)
            + (self.passive_max + LOST_MAX) * CONTACT_BYTES
            + self.seen_max * (SEEN_BYTES + HELD_BYTES)
            + self.store_bytes_max
            + missing * MISSING_BYTES
            + self.incomplete_max * PULL_BYTES
            + SCORES_MAX * SCORE_BYTES
    }
}

/// What one entry of each kind takes at most, with its place in a tree.
pub(crate) const PEER_BYTES: usize = 8 * 1024;
pub(crate) const CONTACT_BYTES: usize = 256;
pub(crate) const SEEN_BYTES: usize = 160;
pub(crate) const HELD_BYTES: usize = 400;
pub(crate) const MISSING_BYTES: usize = 400;
pub(crate) const SCORE_BYTES: usize = 96;
/// Places of 4,096 chunks, and which of them each neighbour has.
pub(crate) const PULL_BYTES: usize = 128 * 1024;

/// Nodes that were lost and are looked for now and then.
pub(crate) const LOST_MAX: usize = 32;
/// Most nodes with a link for the topic; what is more is refused. At most 64: sets of them are words.
pub const PEERS_MAX: usize = 64;
/// Most bytes of control messages that wait for one node; one that leaves more unread is dropped.
pub(crate) const CONTROL_BYTES_MAX: usize = 512 * 1024;
/// How long a link may take to come up.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long an answer to JOIN and NEIGHBOR may take.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a link without use stays.
pub(crate) const GUEST_TIME: Duration = Duration::from_secs(10);
/// A contact that refused is not asked again for so long.
pub(crate) const REFUSED_TIME: Duration = Duration::from_secs(30);
/// Of everything that is looked at now and then.
pub(crate) const TICK: Duration = Duration::from_secs(1);
