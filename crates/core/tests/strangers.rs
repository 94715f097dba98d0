//! Strangers that must show a proof: the order of cost, and floods.
#![allow(clippy::unwrap_used)]

#[path = "support/net.rs"]
mod net;

use net::{Net, Sent};
use wiremesh_control::{Level, PeerSettings, WaitReason};
use wiremesh_core::{Admission, ControlConfig, DropReason, Event, NodeConfig, PeerConfig, Usage};
use wiremesh_noise::{LocalIdentity, RemoteIdentity, create_initiation};
use wiremesh_wire::{SecretKey, Tai64n};

const PENDING_MAX: u32 = 64;
const PROOF: &[u8] = b"let me in";

fn with_control(config: &mut NodeConfig) {
    config.control = Some(ControlConfig::default());
}

/// Node 0 demands a proof; nodes 1 to `newcomers` know it and show one.
fn hub(newcomers: usize) -> Net {
    hub_with_capacity(newcomers, 100)
}

/// The same, where so many handshakes a second are answered without a cookie.
fn hub_with_capacity(newcomers: usize, handshakes: u32) -> Net {
    let mut net = Net::new();
    net.add(|config| {
        with_control(config);
        config.admission = Admission::Proof {
            pending_max: PENDING_MAX,
        };
        config.limits.handshakes_per_second_max = handshakes;
    });
    for _ in 0..newcomers {
        newcomer(&mut net, Some(PROOF));
    }
    net
}

fn newcomer(net: &mut Net, proof: Option<&[u8]>) -> usize {
    let at = net.add(with_control);
    let endpoint = Some(net.hosts[0].addr);
    let proof = proof.map(<[u8]>::to_vec);
    net.introduce_with(at, 0, |config: &mut PeerConfig| {
        config.endpoint = endpoint;
        config.security = PeerSettings {
            proof,
            ..PeerSettings::default()
        };
    });
    at
}

/// Answers what the hub asks: admits who shows the right proof.
fn decide(net: &mut Net) -> usize {
    let mut asked = 0;
    for event in std::mem::take(&mut net.hosts[0].events) {
        let Event::AdmissionRequested { node_id, proof, .. } = event else {
            continue;
        };
        asked += 1;
        let now = net.now;
        let node = &mut net.hosts[0].node;
        match proof.as_deref() == Some(PROOF) {
            true => drop(node.admit(now, PeerConfig::new(node_id)).unwrap()),
            false => node.refuse(now, &node_id),
        }
        net.drain();
    }
    asked
}

fn run_and_decide(net: &mut Net, ms: u64) -> usize {
    (0..ms)
        .map(|_| {
            net.run(1);
            decide(net)
        })
        .sum()
}

#[test]
fn a_stranger_with_the_proof_comes_in_and_one_without_is_told_and_forgotten() {
    for _ in 0..2 {
        let mut net = hub(1);
        let liar = newcomer(&mut net, Some(b"open sesame"));
        net.send(1, 0, b"honest");
        net.send(liar, 0, b"liar");
        assert_eq!(run_and_decide(&mut net, 1_000), 2);
        assert_eq!(net.payloads(0), [b"honest".to_vec()]);
        let key = net.key(1, 0);
        let security = net.hosts[1].node.security(net.now, key).unwrap();
        assert_eq!(security.level, Some(Level::PostQuantum));
        let key = net.key(liar, 0);
        let security = net.hosts[liar].node.security(net.now, key).unwrap();
        assert!(
            matches!(
                security.waiting,
                Some((WaitReason::PeerRefused { code: 7, .. }, _))
            ),
            "{:?}",
            security.waiting
        );
        assert_eq!(net.hosts[0].node.usage().peers, 1);
    }
}

#[test]
fn nothing_but_control_packets_passes_before_the_application_has_answered() {
    let mut net = hub(1);
    net.send(1, 0, b"too early");
    net.run(5_000);
    assert!(net.payloads(0).is_empty());
    let usage = net.hosts[0].node.usage();
    assert_eq!((usage.peers, usage.provisional_peers), (1, 1));
    // Nobody answers: after 30 s it is forgotten, and asks again.
    net.lost = Box::new(|sent: &Sent| sent.is_initiation());
    net.run(200_000);
    assert_eq!(net.hosts[0].node.usage(), Usage::default());
}

/// Initiations of keys that nobody knows, from addresses that are not theirs.
fn spoofed(net: &mut Net, count: usize, serial: &mut u64) {
    let hub = net.id(0);
    for _ in 0..count {
        *serial += 1;
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&serial.to_le_bytes());
        let local = LocalIdentity::new(SecretKey::from_bytes(bytes)).unwrap();
        let remote = RemoteIdentity::new(&local, hub);
        let time = Tai64n::from_unix(net.now.unix);
        let (message, _) = create_initiation(&local, &remote, bytes, *serial as u32, time);
        let [_, a, b, c, ..] = serial.to_be_bytes();
        let source = ([10, 1 + a % 200, b, c], 1_000 + (*serial % 60_000) as u16).into();
        net.deliver(source, 0, &message.emit());
    }
}

#[test]
fn a_newcomer_gets_in_through_a_flood_of_spoofed_handshakes() {
    let mut net = hub(1);
    let mut serial = 0;
    // Ten times the hundred a second that are answered without a cookie.
    for ms in 0..9_000 {
        spoofed(&mut net, 1, &mut serial);
        if ms == 1_000 {
            net.send(1, 0, b"honest");
        }
        run_and_decide(&mut net, 1);
        assert!(net.hosts[0].node.usage().provisional_peers <= PENDING_MAX as usize);
    }
    assert_eq!(net.payloads(0), [b"honest".to_vec()]);
    let counters = net.hosts[0].node.counters();
    assert!(counters.dropped(DropReason::CookieDemanded) > 3_000);
    net.run(60_000);
    let usage = net.hosts[0].node.usage();
    assert_eq!((usage.peers, usage.provisional_peers), (1, 0), "baseline");
}

/// Three tables full of strangers with real addresses and real sessions, who never show a proof,
/// and in the midst of them an honest one.
fn real_flood(capacity: u32) -> Net {
    let mut net = hub_with_capacity(1, capacity);
    let attackers: Vec<usize> = (0..3 * PENDING_MAX).map(|_| net.add(|_| ())).collect();
    for (number, host) in attackers.iter().enumerate() {
        if number == attackers.len() / 2 {
            net.send(1, 0, b"honest");
        }
        net.introduce(*host, 0);
        net.connect(*host, 0);
        run_and_decide(&mut net, 3);
        assert!(net.hosts[0].node.usage().provisional_peers <= PENDING_MAX as usize);
    }
    net
}

#[test]
fn a_newcomer_gets_in_through_a_flood_of_real_handshakes_that_fills_the_table() {
    let mut net = real_flood(1_000_000);
    run_and_decide(&mut net, 1_000);
    assert_eq!(net.payloads(0), [b"honest".to_vec()]);
    net.lost = Box::new(|sent: &Sent| sent.is_initiation());
    net.run(200_000);
    let usage = net.hosts[0].node.usage();
    assert_eq!((usage.peers, usage.provisional_peers), (1, 0), "baseline");
}

#[test]
fn a_newcomer_gets_in_through_a_flood_of_real_handshakes_at_ten_times_the_capacity() {
    // One every 3 ms.
    let mut net = real_flood(30);
    run_and_decide(&mut net, 12_000);
    assert_eq!(net.payloads(0), [b"honest".to_vec()]);
    let counters = net.hosts[0].node.counters();
    assert!(counters.dropped(DropReason::CookieDemanded) > 50);
    net.lost = Box::new(|sent: &Sent| sent.is_initiation());
    net.run(200_000);
    let usage = net.hosts[0].node.usage();
    assert_eq!((usage.peers, usage.provisional_peers), (1, 0), "baseline");
}
