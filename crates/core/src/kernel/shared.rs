//! What all peers of a node in kernel mode share: our side of the agreement, prefixes, queues.
//!
//! Owns when the figures are read. Tasks that change the kernel are never dropped: what is queued
//! is bounded by what came in. Messages of the control protocol are, beyond a limit.

use super::{KERNEL_PEERS_MAX, KernelFigures, KernelTask};
use crate::agreeing::{Agreeing, Drawn};
use crate::clock::WallClock;
use crate::config::{Limits, NewNodeError, NodeConfig};
use crate::counters::{Counters, DropReason};
use crate::drbg::Drbg;
use crate::event::Event;
use crate::prefixes::Prefixes;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;
use wiremesh_control::Plane;
use wiremesh_noise::LocalIdentity;
use wiremesh_wire::{Instant, NodeId, Now};

/// Figures that were asked for and have not come by then are asked for again.
const READING_TIME: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Shared {
    pub(super) agreeing: Option<Agreeing>,
    pub(super) drbg: Drbg,
    pub(super) prefixes: Prefixes,
    pub(super) clock: WallClock,
    pub(super) events: VecDeque<Event>,
    pub(super) tasks: VecDeque<KernelTask>,
    pub(super) counters: Counters,
    /// Peers that were removed, until figures show that the kernel has them no more.
    pub(super) left: BTreeSet<NodeId>,
    /// Counts the figures that came, so that a peer knows whether it was among them.
    pub(super) round: u64,
    /// When the figures were asked for that have not come yet.
    asked_at: Option<Instant>,
    /// When they are to be asked for.
    read_at: Instant,
    limits: Limits,
}

impl Shared {
    pub(super) fn new(
        config: NodeConfig,
        identity: &LocalIdentity,
        mut drbg: Drbg,
        now: Now,
    ) -> Result<Self, NewNodeError> {
        let agreeing = config
            .control
            .map(|control| Agreeing::new(control, Plane::Kernel, identity, &mut drbg, now))
            .transpose()
            .map_err(NewNodeError::Policy)?;
        let mut events = VecDeque::new();
        events.extend(agreeing.as_ref().map(Agreeing::save_record_seq));
        Ok(Self {
            agreeing,
            drbg,
            prefixes: Prefixes::new(config.routing),
            clock: WallClock::new(now),
            events,
            tasks: VecDeque::new(),
            counters: Counters::default(),
            left: BTreeSet::new(),
            round: 0,
            asked_at: None,
            read_at: now.instant,
            limits: config.limits,
        })
    }

    pub(super) fn peers_max(&self) -> usize {
        KERNEL_PEERS_MAX.min(self.limits.peers_max as usize)
    }

    pub(super) fn push_event(&mut self, event: Event) {
        if self.events.len() < self.limits.events_max {
            self.events.push_back(event);
        } else {
            self.counters.drop_for(DropReason::EventsFull);
        }
    }

    /// Queues an event that must not be lost: it is to be on disk before the tasks are carried out.
    pub(super) fn push_vital_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn send(&mut self, to: Ipv6Addr, payload: Vec<u8>) {
        if self.tasks.len() >= self.limits.transmits_max {
            return self.counters.drop_for(DropReason::LimitReached);
        }
        self.tasks.push_back(KernelTask::Send { to, payload });
    }

    /// Signs our record anew where it is due.
    pub(super) fn renew_record(&mut self, now: Now, stepped: bool) {
        let mut random = Drawn {
            drbg: &mut self.drbg,
            now,
        };
        let Some(agreeing) = &mut self.agreeing else {
            return;
        };
        let renewed = match stepped {
            true => {
                agreeing.local.sign_anew(now.unix, &mut random);
                true
            }
            false => agreeing.local.renew(now.unix, &mut random),
        };
        if renewed {
            let event = agreeing.save_record_seq();
            self.push_vital_event(event);
        }
    }

    /// Has the kernel forget a peer, and sees to it that it does.
    pub(super) fn remove_peer(&mut self, id: NodeId) {
        self.left.insert(id);
        self.tasks.push_back(KernelTask::RemovePeer(id));
    }

    /// Removes again what these figures show.
    pub(super) fn remove_left(&mut self, figures: &[KernelFigures]) {
        if self.left.is_empty() {
            return;
        }
        let shown = figures.iter().map(|figures| figures.node_id);
        self.left = shown.filter(|id| self.left.contains(id)).collect();
        let again = self.left.iter().copied().map(KernelTask::RemovePeer);
        self.tasks.extend(again);
    }

    /// Figures that were read before now may still come.
    pub(super) fn is_reading(&self) -> bool {
        self.asked_at.is_some()
    }

    /// The figures are to be read by then at the latest.
    pub(super) fn read_by(&mut self, at: Instant) {
        self.read_at = self.read_at.min(at);
    }

    /// The figures have come, and are to be read again then.
    pub(super) fn read_next(&mut self, at: Instant) {
        self.asked_at = None;
        self.read_at = at;
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Some(match self.asked_at {
            Some(at) => at + READING_TIME,
            None => self.read_at,
        })
    }

    pub(super) fn ask_if_due(&mut self, now: Instant) {
        if self.next_deadline().is_some_and(|at| now >= at) {
            self.asked_at = Some(now);
            self.tasks.push_back(KernelTask::ReadFigures);
        }
    }
}
