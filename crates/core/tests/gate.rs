//! The gate of a peer: which preshared keys make a session, and what a session may carry. Keys are
//! installed by the tests, as an exchange would; the control protocol itself is off.
#![allow(clippy::unwrap_used)]

#[path = "gate/control_packets.rs"]
mod control_packets;
#[path = "gate/keys.rs"]
mod keys;
#[path = "support/net.rs"]
mod net;
#[path = "gate/passage.rs"]
mod passage;
#[path = "support/raw.rs"]
mod raw;
#[path = "gate/retries.rs"]
mod retries;
#[path = "gate/upkeep.rs"]
mod upkeep;

use net::Net;
use wiremesh_core::{DropReason, Event};
use wiremesh_wire::PresharedKey;

/// The level of the keys that these tests install.
const L2: u8 = 2;

/// The preshared key of an epoch.
fn psk(epoch: u32) -> PresharedKey {
    PresharedKey::from_bytes([epoch as u8; 32])
}

/// As an exchange between the two hosts would, at one of them.
fn install(net: &mut Net, at: usize, epoch: u32) {
    let key = net.key(at, 1 - at);
    let node = &mut net.hosts[at].node;
    assert!(node.install_psk(key, psk(epoch), epoch, L2));
}

fn install_alternate(net: &mut Net, at: usize, epoch: u32) {
    let key = net.key(at, 1 - at);
    let node = &mut net.hosts[at].node;
    assert!(node.install_alternate_psk(key, psk(epoch), epoch, L2));
}

fn forget(net: &mut Net, at: usize) {
    let key = net.key(at, 1 - at);
    assert!(net.hosts[at].node.forget_psks(key));
}

fn set_gate(net: &mut Net, at: usize, gate: u8) {
    let key = net.key(at, 1 - at);
    let now = net.now;
    assert!(net.hosts[at].node.set_gate_level(now, key, gate));
    net.drain();
}

fn set_gates(net: &mut Net, gate: u8) {
    set_gate(net, 0, gate);
    set_gate(net, 1, gate);
}

/// Two nodes that demand L2, without a key for it.
fn gated_pair() -> Net {
    let mut net = Net::pair();
    set_gates(&mut net, L2);
    net
}

/// Two nodes that demand L2, with a session that carries control packets only.
fn pair_below_the_gate() -> Net {
    let mut net = gated_pair();
    net.connect(0, 1);
    net.run(100);
    assert_eq!(made_with(&net, 0), Some((0, 1)));
    assert_eq!(made_with(&net, 1), Some((0, 1)));
    net
}

/// Two nodes that demand L2 and have it.
fn upgraded_pair() -> Net {
    let mut net = gated_pair();
    install(&mut net, 0, 1);
    install(&mut net, 1, 1);
    net.connect(0, 1);
    net.run(100);
    assert!(net.ready(0, 1) && net.ready(1, 0), "no session");
    net
}

/// Beside their session at L2 the two nodes have a younger one below the gate, made by host 1,
/// which has lost its key.
fn pair_with_both() -> Net {
    let mut net = upgraded_pair();
    net.run(60_000);
    forget(&mut net, 1);
    net.rekey(1, 0);
    net.run(6_000);
    net
}

/// Epoch and level of the session in use.
fn made_with(net: &Net, at: usize) -> Option<(u32, u8)> {
    let status = net.status(at, 1 - at);
    status.session_psk_epoch.zip(status.session_level)
}

fn dropped(net: &Net, at: usize, reason: DropReason) -> u64 {
    net.hosts[at].node.counters().dropped(reason)
}

fn lost_sessions(net: &Net, at: usize) -> usize {
    let lost = |event: &&Event| matches!(event, Event::SessionLost { .. });
    net.hosts[at].events.iter().filter(lost).count()
}

fn send_control(net: &mut Net, from: usize, payload: &[u8]) -> bool {
    let key = net.key(from, 1 - from);
    let now = net.now;
    let sent = net.hosts[from].node.test_send_control(now, key, payload);
    net.drain();
    sent
}

fn initiations(net: &Net) -> usize {
    net.initiations_of(0).len() + net.initiations_of(1).len()
}

#[track_caller]
fn talk(net: &mut Net) {
    net.send(0, 1, b"there");
    net.send(1, 0, b"back");
    net.run(100);
    assert_eq!(net.payloads(1), [b"there".to_vec()]);
    assert_eq!(net.payloads(0), [b"back".to_vec()]);
}
