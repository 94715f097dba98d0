//! Work to count the instructions of: `cargo xtask instructions` runs it under valgrind.
//!
//! Called with `--list` it names the cases, each with how many operations it does; with the name of
//! a case it only prepares them, and with `run` behind the name it does them too: what lies between
//! the two counts is theirs. Keys, times and packets are always the same.

#[path = "scale/far.rs"]
mod far;

use far::{Far, Numbers, add, address, connect, deliver, hub, open_hub, packet, sealed, start};
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;
use wiremesh_core::{Node, Path, PeerConfig, PeerKey};
use wiremesh_noise::Sealer;
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{IpNet, Message, NodeId, Now};

/// The operations, when they are prepared.
type Work = Box<dyn FnMut()>;

/// A name, how many operations, and what prepares them.
type Case = (&'static str, usize, fn(usize) -> Work);

const CASES: [Case; 13] = [
    ("seal-1420", 64, |count| seal(count, 1_420)),
    ("seal-64", 256, |count| seal(count, 64)),
    ("open-1420", 64, |count| open(count, 1_420)),
    ("open-64", 256, |count| open(count, 64)),
    ("find-receiver-index", 256, find_receiver_index),
    ("find-node-id", 1_000, find_node_id),
    ("find-overlay-address", 1_000, find_overlay_address),
    ("find-allowed-ip", 1_000, find_allowed_ip),
    ("respond-first-contact", 8, |count| respond(count, false)),
    ("respond-known", 8, |count| respond(count, true)),
    ("respond-stranger", 8, respond_to_strangers),
    ("initiate-first-contact", 8, |count| initiate(count, false)),
    ("initiate-known", 8, |count| initiate(count, true)),
];

/// Peers among which one is found.
const PEERS: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, runs) = match words.as_slice() {
        ["--list"] => return list(),
        [name] => (*name, false),
        [name, "run"] => (*name, true),
        _ => panic!("usage: instructions --list | CASE [run]"),
    };
    let case = CASES.iter().find(|(known, ..)| *known == name);
    let (_, count, prepare) = case.expect("a case of the list");
    let mut work = prepare(*count);
    if runs {
        work();
    }
    // To free what was prepared is no part of the work.
    std::mem::forget(work);
}

fn list() {
    let lines = CASES
        .iter()
        .map(|(name, count, _)| format!("{name} {count}\n"));
    let text: String = lines.collect();
    std::io::stdout()
        .write_all(text.as_bytes())
        .expect("standard output is open");
}

fn connected() -> (Node, PeerKey, Far, Sealer) {
    let mut hub = hub(PEERS);
    let far = Far::new(1, hub.node_id());
    let key = add(&mut hub, &far);
    let sealer = connect(&mut hub, start(), &far);
    (hub, key, far, sealer)
}

fn seal(count: usize, len: usize) -> Work {
    let (mut hub, key, far, _) = connected();
    let packet = packet(&hub.node_id(), &far.local.node_id(), len);
    let mut out = Vec::with_capacity(2_000);
    let mut seal_one = move || {
        out.clear();
        let fill = |room: &mut [u8]| room.copy_from_slice(&packet);
        let sealed = hub.seal_packet(start(), key, len, &mut out, fill);
        sealed.expect("a live session");
    };
    seal_one();
    Box::new(move || (0..count).for_each(|_| seal_one()))
}

fn open(count: usize, len: usize) -> Work {
    let (mut hub, _, far, mut sealer) = connected();
    let packet = packet(&far.local.node_id(), &hub.node_id(), len);
    let mut all: Vec<_> = (0..=count).map(|_| sealed(&mut sealer, &packet)).collect();
    let mut open_one = move |datagram: &mut [u8]| {
        let received = hub.handle_datagram(start(), Path::to(address(1)), datagram);
        assert!(received.is_some());
    };
    open_one(&mut all[count]);
    Box::new(move || all[..count].iter_mut().for_each(|one| open_one(one)))
}

/// A datagram that was there before: it is looked up and goes no further.
fn find_receiver_index(count: usize) -> Work {
    let (mut hub, _, far, mut sealer) = connected();
    let packet = packet(&far.local.node_id(), &hub.node_id(), 64);
    let mut datagram = sealed(&mut sealer, &packet);
    let path = Path::to(address(1));
    let first = hub.handle_datagram(start(), path, &mut datagram);
    assert!(first.is_some());
    Box::new(move || {
        for _ in 0..count {
            assert!(hub.handle_datagram(start(), path, &mut datagram).is_none());
        }
    })
}

/// A node with many peers, each with a prefix of its own.
fn crowded() -> (Node, Vec<NodeId>) {
    let mut hub = hub(PEERS);
    let mut numbers = Numbers(1);
    let ids: Vec<NodeId> = (0..PEERS).map(|_| numbers.node_id()).collect();
    for (number, id) in ids.iter().enumerate() {
        let mut config = PeerConfig::new(*id);
        let [.., high, low] = (number as u32).to_be_bytes();
        let net = IpNet::new([10, high, low, 0].into(), 24);
        config.allowed_ips.push(net.expect("a prefix"));
        hub.add_peer(start(), config).expect("a new peer");
    }
    (hub, ids)
}

fn find_node_id(count: usize) -> Work {
    let (hub, ids) = crowded();
    Box::new(move || {
        for id in &ids[..count] {
            black_box(hub.peer_by_id(black_box(id))).expect("known");
        }
    })
}

fn find_overlay_address(count: usize) -> Work {
    let (hub, ids) = crowded();
    let addresses: Vec<_> = ids.iter().map(overlay_address).collect();
    Box::new(move || {
        for address in &addresses[..count] {
            black_box(hub.peer_by_address((*black_box(address)).into())).expect("known");
        }
    })
}

fn find_allowed_ip(count: usize) -> Work {
    let (hub, _) = crowded();
    Box::new(move || {
        for number in 0..count as u32 {
            let [.., high, low] = number.to_be_bytes();
            let address = black_box([10, high, low, 9]).into();
            black_box(hub.peer_by_address(address)).expect("known");
        }
    })
}

fn all_far(hub: &Node, count: usize) -> Vec<Far> {
    let id = hub.node_id();
    let numbers = 1..=count as u32;
    numbers.map(|number| Far::new(number, id)).collect()
}

/// A node and those that it has as peers, after a minute with a session if they are known.
fn company(count: usize, known: bool) -> (Node, Vec<Far>, Vec<PeerKey>, Now) {
    let mut hub = hub(PEERS);
    let far = all_far(&hub, count);
    let keys = far.iter().map(|far| add(&mut hub, far)).collect();
    let mut now = start();
    if known {
        for far in &far {
            connect(&mut hub, now, far);
        }
        now = now + Duration::from_secs(60);
    }
    (hub, far, keys, now)
}

/// Until the response is made.
fn respond(count: usize, known: bool) -> Work {
    let (hub, far, _, now) = company(count, known);
    respond_to(hub, now, &far)
}

fn respond_to_strangers(count: usize) -> Work {
    let hub = open_hub(PEERS as u32);
    let far = all_far(&hub, count);
    respond_to(hub, start(), &far)
}

fn respond_to(mut hub: Node, now: Now, far: &[Far]) -> Work {
    let initiation = |far: &Far| (far.number, far.initiate(now).0);
    let mut initiations: Vec<_> = far.iter().map(initiation).collect();
    Box::new(move || {
        for (number, initiation) in &mut initiations {
            let response = deliver(&mut hub, now, *number, initiation);
            assert!(response.is_some());
        }
    })
}

fn initiation(hub: &mut Node, now: Now, key: PeerKey) -> Vec<u8> {
    hub.rekey(now, key);
    let transmit = hub.poll_transmit().expect("an initiation");
    transmit.datagram
}

/// From the initiation to the session, with the first keepalive.
fn initiate(count: usize, known: bool) -> Work {
    // A node with the same seed sends the same: its twin gets the responses to what it will send.
    let (mut twin, far, keys, now) = company(count, known);
    let mut exchanges = Vec::new();
    for (far, key) in far.iter().zip(keys) {
        let sent = initiation(&mut twin, now, key);
        let Ok(Message::Initiation(message)) = Message::parse(&sent) else {
            panic!("not an initiation");
        };
        let response = far.answer(&message).emit().to_vec();
        deliver(&mut twin, now, far.number, &mut response.clone());
        exchanges.push((key, far.number, sent, response));
    }
    let (mut hub, ..) = company(count, known);
    Box::new(move || {
        for (key, number, expected, response) in &mut exchanges {
            assert_eq!(initiation(&mut hub, now, *key), *expected);
            let keepalive = deliver(&mut hub, now, *number, response);
            assert!(keepalive.is_some());
        }
    })
}
