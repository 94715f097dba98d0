//! Two stacks and a link between them, in virtual time.

use super::*;
use crate::association::End;
use crate::handle::SendMode;
use dcsctp::api::{Message, PpId, SendOptions, StreamId};
use std::time::Instant;

mod attacks;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 5000;
const MTU: usize = 1_380;

/// What the link does to packets, in a thousand.
#[derive(Clone, Copy, Default)]
struct Faults {
    loss: u64,
    duplicate: u64,
    reorder: u64,
}

/// Two ends of a link.
struct Pair {
    ends: [Stack; 2],
    /// Packets under way: when they arrive, to whom.
    link: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    now: Duration,
    delay: Duration,
    /// Bytes per second; the link takes nothing while it is busy.
    rate: Option<u64>,
    busy_until: [Duration; 2],
    faults: Faults,
    random: u64,
    serial: u64,
}

impl Pair {
    fn new(config: &SctpConfig) -> Self {
        let mut ends = [0, 1].map(|_| Stack::new(config.clone(), MTU));
        ends[1].listen(PORT).expect("free");
        Self {
            ends,
            link: BTreeMap::new(),
            now: Duration::ZERO,
            delay: Duration::from_millis(20),
            rate: None,
            busy_until: [Duration::ZERO; 2],
            faults: Faults::default(),
            random: 1,
            serial: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Puts on the link what it takes.
    fn send(&mut self) {
        for end in 0..2 {
            let mut taken = Vec::new();
            let (now, rate, busy) = (self.now, self.rate, &mut self.busy_until[end]);
            self.ends[end].send_all(|outgoing| {
                if *busy > now {
                    return false;
                }
                let time = rate.map_or(0, |rate| {
                    outgoing.packet.len() as u64 * 1_000_000_000 / rate
                });
                *busy = now + Duration::from_nanos(time);
                taken.push((*busy, outgoing.packet.to_vec()));
                true
            });
            for (sent, packet) in taken {
                if self.below(1_000) < self.faults.loss {
                    continue;
                }
                let copies = 1 + u64::from(self.below(1_000) < self.faults.duplicate);
                for _ in 0..copies {
                    let held = match self.below(1_000) < self.faults.reorder {
                        true => Duration::from_millis(self.below(30)),
                        false => Duration::ZERO,
                    };
                    self.serial += 1;
                    let at = (sent + self.delay + held, self.serial);
                    self.link.insert(at, (1 - end, packet.clone()));
                }
            }
        }
    }

    /// Goes on to what happens next; `false` if nothing will.
    fn step(&mut self) -> bool {
        self.send();
        let arrival = self.link.first_key_value().map(|((at, _), _)| *at);
        let timers = self.ends.iter().filter_map(Stack::poll_timeout);
        let free = (0..2).filter(|end| self.ends[*end].has_packets());
        let free = free.map(|end| self.busy_until[end]);
        let Some(at) = arrival.into_iter().chain(timers).chain(free).min() else {
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.link.first_entry().filter(|e| e.key().0 <= self.now) {
            let (to, mut packet) = entry.remove();
            let from = [SERVER, CLIENT][to];
            let from = Remote {
                address: from,
                udp_port: None,
            };
            self.ends[to].handle_packet(self.now, from, &mut packet);
        }
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
        true
    }

    fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2_000_000 {
            if done(self) {
                return;
            }
            assert!(self.step(), "nothing happens any more");
        }
        panic!("too many steps");
    }

    /// The names of an open association at both ends.
    fn connect(&mut self) -> [(Key, u64); 2] {
        let to = Remote {
            address: SERVER,
            udp_port: None,
        };
        let client = self.ends[0].connect(self.now, to, PORT).expect("room");
        let mut server = None;
        self.run_until(|pair| {
            if let Ok(Some((key, serial, _))) = pair.ends[1].accept(PORT) {
                server = Some((key, serial));
            }
            let open = pair.ends[0].held(client.0, client.1).map(|it| it.phase());
            server.is_some() && open == Some(Phase::Open)
        });
        [client, server.expect("it was waited for")]
    }

    fn at(&mut self, end: usize, name: (Key, u64)) -> &mut Association {
        self.ends[end].held(name.0, name.1).expect("it is there")
    }

    fn give(&mut self, end: usize, name: (Key, u64), stream: u16, bytes: Vec<u8>, mode: SendMode) {
        let options = SendOptions {
            unordered: mode.unordered,
            lifetime: mode.lifetime,
            max_retransmissions: mode.retransmissions_max,
            lifecycle_id: None,
        };
        let message = Message::new(StreamId(stream), PpId(0), bytes);
        let it = self.at(end, name);
        it.touch(stream);
        it.send(message, &options).expect("room");
        self.ends[end].settle(name.0);
    }

    fn take(&mut self, end: usize, name: (Key, u64)) -> Option<(u16, Vec<u8>)> {
        let message = self.at(end, name).receive();
        self.ends[end].settle(name.0);
        message.map(|message| (message.stream_id.0, message.payload))
    }
}

fn numbered(number: u8, len: usize) -> Vec<u8> {
    vec![number; len]
}

#[test]
fn ordered_streams_come_in_order_over_a_bad_link() {
    for seed in 1..=20 {
        let mut pair = Pair::new(&SctpConfig::default());
        let [client, server] = pair.connect();
        pair.random = seed;
        pair.faults = Faults {
            loss: 50,
            duplicate: 50,
            reorder: 100,
        };
        for number in 0..60 {
            for stream in 0..4 {
                let bytes = numbered(number, 1 + usize::from(number) * 97);
                pair.give(0, client, stream, bytes, SendMode::default());
            }
        }
        let mut got: [Vec<u8>; 4] = Default::default();
        pair.run_until(|pair| {
            while let Some((stream, bytes)) = pair.take(1, server) {
                assert_eq!(bytes.len(), 1 + usize::from(bytes[0]) * 97);
                got[usize::from(stream)].push(bytes[0]);
            }
            got.iter().all(|stream| stream.len() == 60)
        });
        for stream in &got {
            assert_eq!(*stream, (0..60).collect::<Vec<u8>>(), "seed {seed}");
        }
    }
}

#[test]
fn what_is_given_up_is_skipped_and_the_rest_arrives() {
    let mut pair = Pair::new(&SctpConfig::default());
    let [client, server] = pair.connect();
    pair.faults.loss = 1_000;
    let once = SendMode {
        retransmissions_max: Some(0),
        ..SendMode::default()
    };
    pair.give(0, client, 1, numbered(1, 100), once);
    pair.send();
    pair.faults.loss = 0;
    pair.give(0, client, 1, numbered(2, 100), SendMode::default());
    let mut got = Vec::new();
    pair.run_until(|pair| {
        got.extend(pair.take(1, server).map(|(_, bytes)| bytes[0]));
        !got.is_empty()
    });
    assert_eq!(got, [2], "the first was given up after its only try");
}

/// When an urgent message of 1,000 bytes arrives that is given while bulk messages of a megabyte
/// fill a link of 10 Mbit/s and 20 ms.
fn urgent_delays(interleaving: bool) -> Vec<Duration> {
    let config = SctpConfig {
        interleaving,
        ..SctpConfig::default()
    };
    let mut pair = Pair::new(&config);
    pair.rate = Some(1_250_000);
    let [client, server] = pair.connect();
    pair.at(0, client).set_class(1, Priority::Urgent);
    pair.at(0, client).set_class(2, Priority::Bulk);
    assert_eq!(pair.at(0, client).interleaves(), interleaving);
    let (mut next, mut given, mut delays) = (pair.now + Duration::from_secs(3), None, Vec::new());
    pair.run_until(|pair| {
        if pair.at(0, client).unsent(2) < 500_000 {
            pair.give(0, client, 2, numbered(2, 1_000_000), SendMode::default());
        }
        if given.is_none() && pair.now >= next {
            given = Some(pair.now);
            pair.give(0, client, 1, numbered(1, 1_000), SendMode::default());
        }
        while let Some((stream, _)) = pair.take(1, server) {
            if stream == 1 {
                delays.push(pair.now - given.take().expect("one is under way"));
                next = pair.now + Duration::from_millis(37);
            }
        }
        delays.len() == 100
    });
    delays.sort();
    delays
}

#[test]
fn an_urgent_message_does_not_wait_for_a_large_one() {
    let delays = urgent_delays(true);
    println!("interleaved: p50 {:?}, p99 {:?}", delays[50], delays[98]);
    // 20 ms and its own 0.8 ms; then what has begun, and what waits already: two packets.
    assert!(delays[98] < Duration::from_micros(23_800), "{delays:?}");
    let blocked = urgent_delays(false);
    println!("without: p50 {:?}, p99 {:?}", blocked[50], blocked[98]);
    assert!(blocked[50] > Duration::from_millis(200), "{blocked:?}");
}

#[test]
fn bulk_fills_the_link_though_it_waits_in_streams() {
    let mut pair = Pair::new(&SctpConfig::default());
    pair.rate = Some(1_250_000);
    let [client, server] = pair.connect();
    let (began, mut bytes) = (pair.now, 0);
    pair.run_until(|pair| {
        if pair.at(0, client).unsent(2) < 500_000 {
            pair.give(0, client, 2, numbered(2, 100_000), SendMode::default());
        }
        while let Some((_, message)) = pair.take(1, server) {
            bytes += message.len();
        }
        bytes >= 10_000_000
    });
    let rate = bytes as f64 / (pair.now - began).as_secs_f64();
    assert!(rate > 0.85 * 1_250_000.0, "{rate}");
}

#[test]
fn a_peer_has_so_many_associations_and_no_more() {
    let config = SctpConfig {
        associations_per_peer_max: 3,
        ..SctpConfig::default()
    };
    let mut pair = Pair::new(&config);
    let open: Vec<_> = (0..3).map(|_| pair.connect()).collect();
    let to = Remote {
        address: SERVER,
        udp_port: None,
    };
    assert_eq!(
        pair.ends[0].connect(pair.now, to, PORT),
        Err(ConnectError::TooMany(3))
    );
    // The other end holds to it too, whatever this one does.
    pair.ends[0].config.associations_per_peer_max = 4;
    pair.ends[0].connect(pair.now, to, PORT).expect("room");
    pair.run_until(|pair| pair.ends[1].refused > 0);
    // One that ends makes room.
    let [client, server] = open[0];
    pair.ends[0].let_go(pair.now, client.0, client.1);
    pair.run_until(|pair| pair.at(1, server).end == Some(End::Shutdown));
    let now = pair.now;
    pair.ends[1].let_go(now, server.0, server.1);
    assert_eq!(pair.ends[1].check_room(CLIENT), Ok(()));
}

#[test]
fn what_was_given_before_a_shutdown_arrives() {
    for seed in 1..=5 {
        let mut pair = Pair::new(&SctpConfig::default());
        pair.rate = Some(12_500_000);
        let [client, server] = pair.connect();
        pair.random = seed;
        pair.faults.loss = 10;
        for stream in 0..3 {
            pair.give(0, client, stream, numbered(7, 900_000), SendMode::default());
        }
        pair.at(0, client).shut_down();
        pair.ends[0].settle(client.0);
        pair.run_until(|pair| pair.at(1, server).end == Some(End::Shutdown));
        let got: Vec<_> = std::iter::from_fn(|| pair.take(1, server)).collect();
        assert_eq!(got.len(), 3, "seed {seed}");
        assert!(got.iter().all(|(_, message)| message.len() == 900_000));
    }
}

#[test]
fn a_flood_of_inits_leaves_nothing_behind() {
    let mut pair = Pair::new(&SctpConfig::default());
    let to = Remote {
        address: SERVER,
        udp_port: None,
    };
    let from = Remote {
        address: CLIENT,
        udp_port: None,
    };
    pair.ends[0].connect(pair.now, to, PORT).expect("room");
    let mut init = Vec::new();
    pair.ends[0].send_all(|outgoing| {
        init = outgoing.packet.to_vec();
        true
    });
    for port in 1..10_000_u16 {
        init[..2].copy_from_slice(&port.to_be_bytes());
        pair.ends[1].handle_packet(pair.now, from, &mut init);
    }
    assert_eq!(pair.ends[1].len(), 0);
    assert_eq!(pair.ends[1].answers.len(), ANSWERS_MAX);
    assert!(pair.ends[1].deadlines.is_empty());
}

#[test]
fn damaged_packets_do_no_harm() {
    for seed in 1..200_u64 {
        let mut pair = Pair::new(&SctpConfig::default());
        let [client, server] = pair.connect();
        pair.random = seed;
        pair.give(0, client, 1, numbered(1, 3_000), SendMode::default());
        pair.send();
        let from = Remote {
            address: CLIENT,
            udp_port: None,
        };
        let packets: Vec<_> = pair
            .link
            .values()
            .map(|(_, packet)| packet.clone())
            .collect();
        for packet in packets {
            for _ in 0..8 {
                let mut packet = packet.clone();
                let at = pair.below(packet.len() as u64) as usize;
                packet[at] ^= 1 << pair.below(8);
                packet.truncate(1 + pair.below(packet.len() as u64) as usize);
                pair.ends[1].handle_packet(pair.now, from, &mut packet);
            }
        }
        let _ = pair.take(1, server);
    }
}

#[test]
fn in_memory_throughput() {
    let mut pair = Pair::new(&SctpConfig::default());
    pair.delay = Duration::ZERO;
    let [client, server] = pair.connect();
    let messages = if cfg!(debug_assertions) { 20 } else { 2_000 };
    let (began, mut given, mut got) = (Instant::now(), 0, 0);
    pair.run_until(|pair| {
        while given < messages && pair.at(0, client).unsent(1) < 1_000_000 {
            pair.give(0, client, 1, numbered(1, 1_000_000), SendMode::default());
            given += 1;
        }
        while let Some((_, message)) = pair.take(1, server) {
            assert_eq!(message.len(), 1_000_000);
            got += 1;
        }
        got == messages
    });
    let rate = f64::from(messages) / began.elapsed().as_secs_f64();
    println!("in memory: {rate:.0} MB/s, both ends on one thread");
}
