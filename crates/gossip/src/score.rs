//! Points against nodes that misbehave, and bans.
//!
//! Owns what each misdeed costs. Points go by themselves, one a second; [`BAN_AT`] of them are a
//! ban. Never does: close links.

use alloc::collections::BTreeMap;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId};

/// So many points are a ban.
const BAN_AT: u32 = 100;
/// How long a ban lasts.
const BAN_TIME: Duration = Duration::from_secs(600);
/// Nodes with points or a ban; beyond, the one with the fewest points is forgotten.
pub(crate) const SCORES_MAX: usize = 256;

/// What a node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Bytes that are no message, or a message that nobody may send.
    Malformed,
    /// The owner rejected an object.
    Rejected,
    /// An object or chunk again, long after it was asked to stop.
    Duplicate,
    /// An object that expires too late to be honest, or long ago.
    WrongExpiry,
    /// Sent the header of a large object and no chunk.
    FalseHeader,
    /// Announced what it did not give.
    BrokenPromise,
    /// Asks for the same thing again and again.
    Greedy,
}

impl Misdeed {
    const fn points(self) -> u32 {
        match self {
            Self::Malformed => 50,
            Self::Rejected | Self::FalseHeader => 35,
            Self::BrokenPromise => 4,
            Self::Duplicate | Self::WrongExpiry | Self::Greedy => 2,
        }
    }
}

#[derive(Clone, Copy)]
struct Score {
    points: u32,
    /// When the points were right.
    at: Instant,
    banned: bool,
}

impl Score {
    fn at(self, now: Instant) -> u32 {
        let gone = now.saturating_since(self.at).as_secs();
        self.points
            .saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX))
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Scores(BTreeMap<NodeId, Score>);

impl Scores {
    /// Writes a misdeed down; returns whether the node is banned by it.
    pub(crate) fn blame(&mut self, now: Instant, node: &NodeId, misdeed: Misdeed) -> bool {
        if !self.0.contains_key(node) && self.0.len() >= SCORES_MAX {
            let least = self
                .0
                .iter()
                .min_by_key(|(_, score)| (score.banned, score.at(now)));
            if let Some(least) = least.map(|(node, _)| *node) {
                self.0.remove(&least);
            }
        }
        let score = self.0.entry(*node).or_insert(Score {
            points: 0,
            at: now,
            banned: false,
        });
        if score.banned {
            return false;
        }
        score.points = score.at(now).saturating_add(misdeed.points());
        score.at = now;
        score.banned = score.points >= BAN_AT;
        score.banned
    }

    pub(crate) fn is_banned(&self, node: &NodeId) -> bool {
        self.0.get(node).is_some_and(|score| score.banned)
    }

    /// Forgets points that are gone and bans that are over.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.0.retain(|_, score| {
            if score.banned {
                now.saturating_since(score.at) < BAN_TIME
            } else {
                score.at(now) > 0
            }
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
