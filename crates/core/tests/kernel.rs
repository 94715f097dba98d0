//! Nodes in kernel mode: whole networks in virtual time, and one node under arbitrary input.
#![allow(clippy::unwrap_used)]

#[path = "kernel/agreeing.rs"]
mod agreeing;
#[path = "kernel/changes.rs"]
mod changes;
#[path = "kernel/failures.rs"]
mod failures;
#[path = "kernel/figures.rs"]
mod figures;
#[path = "kernel/host.rs"]
mod host;
#[path = "kernel/orders.rs"]
mod orders;
#[path = "kernel/world.rs"]
mod world;

use wiremesh_core::{ControlConfig, KernelNode, KernelTask, NodeConfig, PeerConfig};
use wiremesh_wire::{Instant, NodeId, Now, SecretKey, UnixTime};

/// The time, seconds after the start of a test of one node.
fn at(seconds: u64) -> Now {
    Now::new(
        Instant::from_nanos(seconds * 1_000_000_000),
        UnixTime::from_secs_nanos(1_700_000_000 + seconds, 0),
    )
}

fn config(n: u8) -> NodeConfig {
    let mut config = NodeConfig::new(SecretKey::from_bytes([n; 32]));
    config.control = Some(ControlConfig::default());
    config
}

/// A node alone; what comes of it is for the test to carry out.
fn node(n: u8) -> KernelNode {
    KernelNode::new(config(n), [n; 32], at(0)).unwrap()
}

/// A node's key.
fn id(n: u16) -> NodeId {
    let mut secret = [9; 32];
    // The lowest bits of a secret key do not count.
    secret[1..3].copy_from_slice(&n.to_le_bytes());
    let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped(secret).to_bytes();
    NodeId::from_bytes(&public).unwrap()
}

fn peer(n: u16) -> PeerConfig {
    PeerConfig::new(id(n))
}

fn tasks(node: &mut KernelNode) -> Vec<KernelTask> {
    while node.poll_event().is_some() {}
    std::iter::from_fn(|| node.poll_task()).collect()
}
