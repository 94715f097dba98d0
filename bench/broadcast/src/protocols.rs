//! The three protocols, each as all nodes of a network at once.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::net::{Arrived, Class, Net, Writable};

mod fabric;
pub mod gossipsub;
pub mod iroh;
pub mod ours;

/// What applications on a rival divide large objects into.
const PART_BYTES_MAX: usize = 16 * 1024;

/// All nodes that run one protocol.
pub trait Fleet {
    /// What it sends.
    type Payload;

    /// To how many earlier nodes a new one is introduced.
    const CONTACTS: usize;

    /// A node joins its topics.
    fn join(&mut self, net: &mut Net<Self::Payload>, node: usize, contacts: &[usize]);

    /// A node publishes an object.
    fn publish(
        &mut self,
        net: &mut Net<Self::Payload>,
        node: usize,
        class: Class,
        content: Vec<u8>,
    );

    /// A message arrived.
    fn receive(&mut self, net: &mut Net<Self::Payload>, message: Arrived<Self::Payload>);

    /// A timer is due.
    fn timer(&mut self, net: &mut Net<Self::Payload>, node: usize, key: u64);

    /// A stream became empty.
    fn writable(&mut self, _net: &mut Net<Self::Payload>, _writable: Writable) {}

    /// The largest content that it takes in one piece; an application divides what is larger.
    fn part_bytes_max(&self) -> usize;
}

/// A protocol to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Wiremesh's gossip: HyParView and Plumtree, with classes
    Wiremesh,
    /// iroh-gossip's proto: HyParView and Plumtree
    Iroh,
    /// libp2p's gossipsub: a mesh of six neighbours
    Gossipsub,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wiremesh, Self::Iroh, Self::Gossipsub];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wiremesh => "wiremesh",
            Self::Iroh => "iroh-gossip",
            Self::Gossipsub => "gossipsub",
        }
    }
}
