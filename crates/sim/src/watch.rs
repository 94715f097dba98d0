//! The checks of the control protocol: the spy's findings against what is owed.
//!
//! Owns the spy, the levels, and how long each pair has been below its level. Never asks a node
//! what may pass; the level that a pair has reached it is told, and only to see that all get there.

use crate::check::Check;
use crate::disk::Disk;
use crate::levels::{Common, Levels, Terms};
use crate::link::SECOND;
use crate::options::Rule;
use crate::spy::{Heard, Inside, Spy};
use crate::transitions;
use std::collections::BTreeMap;
use wiremesh_control::exchange::Role;
use wiremesh_control::{Level, Phase, Policy};
use wiremesh_wire::{NodeId, Now, PresharedKey};

/// Two live nodes that talk reach their level within this time.
const LEVEL_TIME: u64 = 200 * SECOND;
/// What was sent until the peer knows of a higher gate still passes for 5 s, and has to travel.
const GRACE: u64 = 8 * SECOND;

/// What a node is to the watch.
pub(crate) struct Person {
    pub(crate) id: NodeId,
    pub(crate) secret: [u8; 32],
    pub(crate) seed: [u8; 32],
    pub(crate) policy: Option<Policy>,
}

/// The watch.
pub(crate) struct Watch {
    ids: Vec<NodeId>,
    pub(crate) spy: Spy,
    pub(crate) levels: Levels,
    terms: BTreeMap<(usize, usize), Terms>,
    /// When the operator changed his mind last, and what he thought before.
    before: BTreeMap<(usize, usize), (u64, Terms)>,
    below_since: BTreeMap<(usize, usize), u64>,
}

impl Watch {
    pub(crate) fn new(people: &[Person]) -> Self {
        Self {
            ids: people.iter().map(|person| person.id).collect(),
            spy: Spy::new(people.iter().map(|person| (person.secret, person.seed))),
            levels: Levels::new(people.iter().map(|person| person.policy)),
            terms: BTreeMap::new(),
            before: BTreeMap::new(),
            below_since: BTreeMap::new(),
        }
    }

    /// What the operator of the first wrote down about the second.
    pub(crate) fn set_terms(&mut self, pair: (usize, usize), time: u64, terms: Terms) {
        let before = self.terms.insert(pair, terms).unwrap_or(terms);
        self.before.insert(pair, (time, before));
    }

    pub(crate) fn set_boot_key(&mut self, pair: (usize, usize), psk: PresharedKey) {
        self.spy.set_boot_key(pair, psk);
    }

    pub(crate) fn on_restart(&mut self, host: usize, time: u64, seed: [u8; 32]) {
        self.spy.on_restart(host, seed);
        self.levels.on_restart(host, time);
    }

    pub(crate) fn on_step(&mut self, host: usize, now: Now, draws: u64) {
        self.spy.on_step(host, now, draws);
    }

    fn terms(&self, pair: (usize, usize)) -> Terms {
        self.terms.get(&pair).copied().unwrap_or_default()
    }

    /// A datagram leaves a node whose disk is `disk`.
    pub(crate) fn on_sent(
        &mut self,
        host: usize,
        time: u64,
        datagram: &[u8],
        disk: &Disk,
    ) -> Result<Heard, (Rule, String)> {
        let heard = self.spy.on_sent(host, time, datagram);
        let heard = heard.map_err(|detail| (Rule::SpyFollows, detail))?;
        match &heard {
            Heard::Boot {
                to,
                inside: Inside::Control { kind, exchange },
            } => self.levels.on_control(time, (host, *to), *kind, *exchange),
            Heard::Boot {
                to,
                inside: Inside::Other,
            } => {
                let pair = (host, *to);
                let pin = disk.pins.get(&self.ids[*to]);
                if !self.levels.may_be_classical(pair, self.terms(pair), pin) {
                    let detail = format!(
                        "node {host} sent {} bytes to node {to} under the boot key: policy {:?}, \
                         pin {pin:?}",
                        datagram.len(),
                        self.levels.policy(host),
                    );
                    return Err((Rule::NothingBelowLevel, detail));
                }
            }
            _ => {}
        }
        Ok(heard)
    }

    /// A node delivers what came from another in this datagram.
    pub(crate) fn on_delivered(
        &self,
        host: usize,
        from: usize,
        time: u64,
        datagram: &[u8],
    ) -> Check {
        if !self.spy.is_boot(from, datagram) {
            return Ok(());
        }
        let since = time.saturating_sub(GRACE);
        let recent = |(until, _): &&(u64, Terms)| *until >= since;
        let before = self.before.get(&(host, from)).filter(recent);
        let mut terms = [
            Some(self.terms((host, from))),
            before.map(|(_, terms)| *terms),
        ]
        .into_iter()
        .flatten();
        if terms.any(|terms| self.levels.may_take_classical((host, from), terms, since)) {
            return Ok(());
        }
        let detail = format!("node {host} took data of node {from} under the boot key");
        Err((Rule::NothingBelowLevel, detail))
    }

    /// What a pair can agree on.
    pub(crate) fn common(&self, (a, b): (usize, usize), disks: [&Disk; 2]) -> Common {
        let pins = [
            disks[0].pins.get(&self.ids[b]).copied(),
            disks[1].pins.get(&self.ids[a]).copied(),
        ];
        self.levels
            .common([a, b], [self.terms((a, b)), self.terms((b, a))], pins)
    }

    /// The first of the pair has reached this level with the second.
    pub(crate) fn on_level(
        &mut self,
        time: u64,
        pair: (usize, usize),
        common: Common,
        level: Option<Level>,
    ) -> Check {
        let owed = match common {
            Common::Level(owed) if level < Some(owed) => owed,
            _ => {
                self.below_since.remove(&pair);
                return Ok(());
            }
        };
        let since = *self.below_since.entry(pair).or_insert(time);
        if time - since <= LEVEL_TIME {
            return Ok(());
        }
        let (host, other) = pair;
        let detail = format!("node {host} is at {level:?} with node {other}, {owed} is possible");
        Err((Rule::LevelReached, detail))
    }

    /// Counting begins anew: everything has just been put right.
    pub(crate) fn on_healed(&mut self) {
        self.below_since.clear();
    }

    /// A machine says which way it went.
    pub(crate) fn on_moved(
        host: usize,
        role: Role,
        (from, event, to): (Phase, &str, Phase),
    ) -> Check {
        if transitions::allows(role, from, event, to) {
            return Ok(());
        }
        let detail = format!("node {host}: {}", transitions::line(role, from, event, to));
        Err((Rule::KnownTransition, detail))
    }
}
