//! What each pair of nodes owes each other: levels, from policies and promises alone.
//!
//! Owns the history of every node's policy and, from the headers of control messages that a spy
//! can read, when each last learned the list of the other. It never asks a node.

use std::collections::BTreeMap;
use wiremesh_control::frame::MessageType;
use wiremesh_control::{Level, Pin, Policy, Suites, choose};

use crate::link::SECOND;

/// A message may be this old when it arrives: it is repeated for 10 s, and links hold back.
const MESSAGE_AGE: u64 = 20 * SECOND;

/// What data between two nodes should run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// Both can agree on this.
    Level(Level),
    /// They cannot agree: nothing may pass.
    Nothing,
}

/// One node over time.
#[derive(Clone, Debug)]
struct History {
    /// Since when which policy; empty for a node without the control protocol.
    policies: Vec<(u64, Policy)>,
    restarted: u64,
}

/// When the two messages of an exchange that carry lists were made.
#[derive(Clone, Copy, Default)]
struct Exchange {
    offered: Option<u64>,
    replied: Option<u64>,
}

/// What one node thinks of another, as the operators wrote it down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// It is named as stock WireGuard.
    pub(crate) stock: bool,
    pub(crate) minimum: Option<Level>,
}

/// The histories.
pub(crate) struct Levels {
    nodes: Vec<History>,
    exchanges: BTreeMap<[u8; 8], Exchange>,
    /// When the list was made that the first surely knows of the second.
    heard: BTreeMap<(usize, usize), u64>,
}

/// The suites that a policy lists.
pub(crate) fn suites_of(policy: &Policy) -> Suites {
    policy
        .suites()
        .expect("the simulator sets consistent policies")
}

fn best_of(policy: &Policy) -> Level {
    suites_of(policy).best_level().unwrap_or(Level::Classical)
}

impl Levels {
    pub(crate) fn new(policies: impl Iterator<Item = Option<Policy>>) -> Self {
        let node = |policy: Option<Policy>| History {
            policies: policy.into_iter().map(|policy| (0, policy)).collect(),
            restarted: 0,
        };
        Self {
            nodes: policies.map(node).collect(),
            exchanges: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// The policy in force, if the node speaks the control protocol.
    pub(crate) fn policy(&self, host: usize) -> Option<&Policy> {
        self.nodes[host].policies.last().map(|(_, policy)| policy)
    }

    pub(crate) fn on_policy(&mut self, host: usize, time: u64, policy: Policy) {
        self.nodes[host].policies.push((time, policy));
    }

    pub(crate) fn on_restart(&mut self, host: usize, time: u64) {
        self.nodes[host].restarted = time;
    }

    /// A frame of the control protocol leaves `from`, readable on the way.
    pub(crate) fn on_control(
        &mut self,
        time: u64,
        (from, to): (usize, usize),
        kind: MessageType,
        exchange: [u8; 8],
    ) {
        let seen = self.exchanges.entry(exchange).or_default();
        match kind {
            MessageType::Offer => {
                seen.offered.get_or_insert(time);
            }
            MessageType::Reply => {
                seen.replied.get_or_insert(time);
            }
            // B is satisfied, and A was before: each knows the list that the other sent.
            MessageType::Done => {
                if let (Some(offered), Some(replied)) = (seen.offered, seen.replied) {
                    let mut heard = |own, other, at| {
                        let known = self.heard.entry((own, other)).or_insert(at);
                        *known = at.max(*known);
                    };
                    heard(from, to, offered);
                    heard(to, from, replied);
                }
            }
            _ => {}
        }
    }

    /// Whether application data of `from` to `to` may leave at L1. Lenient only where `from`
    /// cannot know better: the newest list that it surely has, or any that followed.
    pub(crate) fn may_be_classical(
        &self,
        (from, to): (usize, usize),
        terms: Terms,
        pin: Option<&Pin>,
    ) -> bool {
        let Some(ours) = self.policy(from) else {
            return true;
        };
        if terms.stock {
            return true;
        }
        let minimum = ours.minimum.max(terms.minimum.unwrap_or(Level::Classical));
        let pinned = pin
            .map_or(Level::Classical, |pin| pin.level)
            .min(best_of(ours));
        if minimum.max(pinned) > Level::Classical {
            return false;
        }
        let known = self.heard.get(&(from, to)).copied().unwrap_or(0);
        let since = known
            .max(self.nodes[from].restarted)
            .saturating_sub(MESSAGE_AGE);
        let theirs = &self.nodes[to].policies;
        let in_force = |n: usize| theirs.get(n + 1).is_none_or(|(until, _)| *until >= since);
        (0..theirs.len()).filter(|n| in_force(*n)).any(|n| {
            let suite = choose(&suites_of(ours), &suites_of(&theirs[n].1));
            suite.and_then(|suite| suite.level()) == Some(Level::Classical)
        })
    }

    /// Whether `own` may deliver what `from` sent at L1, where its rules of the time since `since`
    /// count. Pins are left out: what is on its way when one rises still passes.
    pub(crate) fn may_take_classical(
        &self,
        (own, from): (usize, usize),
        terms: Terms,
        since: u64,
    ) -> bool {
        let ours = &self.nodes[own].policies;
        if ours.is_empty() || terms.stock {
            return true;
        }
        let low = terms.minimum.unwrap_or(Level::Classical) == Level::Classical;
        let recent = |n: usize| ours.get(n + 1).is_none_or(|(until, _)| *until >= since);
        let allowed = (0..ours.len())
            .filter(|n| recent(*n))
            .any(|n| ours[n].1.minimum == Level::Classical);
        low && allowed && self.policy(from).is_some()
    }

    /// What the two can agree on, with what each has pinned of the other.
    pub(crate) fn common(
        &self,
        pair: [usize; 2],
        terms: [Terms; 2],
        pins: [Option<Pin>; 2],
    ) -> Common {
        let policies = pair.map(|host| self.policy(host));
        match policies {
            [None, None] => return Common::Level(Level::Classical),
            [Some(_), None] => return stock(terms[0]),
            [None, Some(_)] => return stock(terms[1]),
            [Some(_), Some(_)] if terms.iter().any(|terms| terms.stock) => return Common::Nothing,
            _ => {}
        }
        let policies = policies.into_iter().flatten().collect::<Vec<_>>();
        let lists: Vec<Suites> = policies.iter().map(|policy| suites_of(policy)).collect();
        let chosen = choose(&lists[0], &lists[1]).and_then(|suite| suite.level());
        let Some(level) = chosen else {
            return Common::Nothing;
        };
        let fine = (0..2).all(|side| {
            let policy = policies[side];
            let minimum = terms[side].minimum.unwrap_or(Level::Classical);
            let pinned = pins[side].map_or(Level::Classical, |pin| pin.level);
            let own_promise = policy.promised();
            level >= policy.minimum.max(minimum)
                && level >= pinned.min(best_of(policy))
                && level >= own_promise
        });
        match fine {
            true => Common::Level(level),
            false => Common::Nothing,
        }
    }
}

/// A node without the control protocol is reached at L1, if the operator names it.
fn stock(terms: Terms) -> Common {
    match terms.stock {
        true => Common::Level(Level::Classical),
        false => Common::Nothing,
    }
}
