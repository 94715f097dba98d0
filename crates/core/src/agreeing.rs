//! What the control protocol of a node keeps beside its peers, whoever carries its packets.
//!
//! Owns our side of every exchange and the pins. Never touches a peer.

use crate::config::ControlConfig;
use crate::drbg::Drbg;
use crate::event::Event;
use crate::node::GATE_CLOSED;
use alloc::collections::BTreeMap;
use wiremesh_control::machine::Gate;
use wiremesh_control::{Level, Local, LocalConfig, Pin, Plane, PolicyError, Random, SuiteId};
use wiremesh_noise::LocalIdentity;
use wiremesh_wire::{NodeId, Now};

/// See the module.
pub(crate) struct Agreeing {
    pub(crate) local: Local,
    pub(crate) pins: BTreeMap<NodeId, Pin>,
    pub(crate) trace: bool,
}

/// The node's generator as the machines see it.
pub(crate) struct Drawn<'a> {
    pub(crate) drbg: &'a mut Drbg,
    pub(crate) now: Now,
}

impl Random for Drawn<'_> {
    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(32) {
            part.copy_from_slice(&self.drbg.draw32(self.now)[..part.len()]);
        }
    }
}

impl Agreeing {
    pub(crate) fn new(
        config: ControlConfig,
        plane: Plane,
        identity: &LocalIdentity,
        drbg: &mut Drbg,
        now: Now,
    ) -> Result<Self, PolicyError> {
        let local = LocalConfig {
            secret_key: identity.secret().clone(),
            network: config.network,
            policy: config.policy,
            kem_seed: config.kem_seed,
            plane,
            bare_streams: config.bare_streams,
            record_seq_floor: config.record_seq_floor,
            rotate_after: config.rotate_after,
        };
        let mut random = Drawn { drbg, now };
        Ok(Self {
            local: Local::new(local, identity.node_id(), now.unix, &mut random)?,
            pins: config.pins.into_iter().collect(),
            trace: config.trace,
        })
    }

    /// The number of our newest record is to be on disk before the record is sent.
    pub(crate) fn save_record_seq(&self) -> Event {
        Event::SaveRecordSeq(self.local.record().record().seq)
    }

    pub(crate) fn pin(&self, id: &NodeId) -> Pin {
        self.pins.get(id).copied().unwrap_or_default()
    }
}

/// The suite that makes sessions of a level.
pub(crate) fn suite_of(level: Level) -> SuiteId {
    match level {
        Level::Classical => SuiteId::WIREGUARD,
        Level::PostQuantum => SuiteId::HYBRID,
        _ => SuiteId::HYBRID_STATIC,
    }
}

pub(crate) fn gate_number(gate: Gate) -> u8 {
    match gate {
        Gate::Level(level) => level as u8,
        Gate::Closed => GATE_CLOSED,
    }
}
