//! The disk of one simulated machine.
//!
//! Owns what a node asked to be kept: a write happens when the event that asks for it is taken, so
//! a crash before that loses it. Backups are copies.

use std::collections::BTreeMap;
use wiremesh_control::Pin;
use wiremesh_core::Event;
use wiremesh_wire::{NodeId, Tai64n};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// No timestamp was sent at or above this.
    pub(crate) floor: Option<Tai64n>,
    /// No record of ours had a number above this.
    pub(crate) record_seq: u64,
    pub(crate) pins: BTreeMap<NodeId, Pin>,
}

impl Disk {
    /// Writes what an event asks for.
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::ReserveTimestamps(floor) => self.floor = Some(*floor),
            Event::SaveRecordSeq(seq) => self.record_seq = *seq,
            Event::SavePin { node_id, pin } => {
                self.pins.insert(*node_id, *pin);
            }
            _ => {}
        }
    }
}
