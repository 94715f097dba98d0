//! Two stacks and a network between them, under virtual time.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Waker;

mod faults;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const DELAY: Duration = Duration::from_millis(10);
const MTU_BYTES: usize = 1_420;

/// What becomes of a packet: who sends it, its number, and the packet.
type Fate = dyn FnMut(usize, u64, &[u8]) -> Vec<Duration>;

/// The two, and the packets on their way: when, to whom, and what.
struct Network {
    stacks: [Stack; 2],
    flying: BTreeSet<(Instant, u64, usize, Vec<u8>)>,
    sent: u64,
    now: Instant,
    /// How long each copy takes of the packet with this number from one of the two; none if lost.
    fate: Box<Fate>,
}

impl Network {
    /// One that loses packets of A's.
    fn new(loses: fn(u64, &[u8]) -> bool) -> Self {
        Self::with_fate(move |from, number, packet| match from {
            0 if loses(number, packet) => Vec::new(),
            _ => vec![DELAY],
        })
    }

    fn with_fate(fate: impl FnMut(usize, u64, &[u8]) -> Vec<Duration> + 'static) -> Self {
        let stack = |seed| Stack::new(TcpConfig::default(), MTU_BYTES, seed);
        Self {
            stacks: [stack(1), stack(2)],
            flying: BTreeSet::new(),
            sent: 0,
            now: Instant::from_secs(1),
            fate: Box::new(fate),
        }
    }

    /// Lets both have their turn, then goes on to what happens next.
    fn step(&mut self) {
        let next = self.turn();
        self.go_on(next);
    }

    /// Lets both have their turn; gives when the next is.
    fn turn(&mut self) -> Instant {
        let mut next = self.now + Duration::from_secs(3_600);
        for from in 0..2 {
            let pause = self.stacks[from].turn(self.now);
            next = pause.map_or(next, |pause| next.min(self.now + pause));
            let outgoing = std::mem::take(&mut self.stacks[from].outgoing);
            for packet in outgoing.iter_from(0) {
                self.sent += 1;
                for takes in (self.fate)(from, self.sent, packet) {
                    let at = self.now + takes;
                    let copy = packet.to_vec();
                    self.flying.insert((at, self.sent, 1 - from, copy));
                }
            }
        }
        match self.flying.first() {
            Some((at, ..)) => next.min(*at),
            None => next,
        }
    }

    /// Has it be this time, and what has come by then arrive.
    fn go_on(&mut self, next: Instant) {
        self.now = next;
        while let Some((_, _, to, mut packet)) = self.flying.pop_first_if(|(at, ..)| *at <= next) {
            self.stacks[to].ingest(&mut packet, next);
        }
    }

    /// A connection from A to B, open at both ends.
    fn connect(&mut self) -> [Id; 2] {
        let mut cx = Context::from_waker(Waker::noop());
        let port = self.stacks[1].listen(80).expect("free");
        let begun = self.stacks[0].connect(A, SocketAddr::new(B, port));
        let ours = begun.expect("there is room");
        loop {
            let next = self.turn();
            let theirs = self.stacks[1].poll_accept(port, &mut cx);
            if let Poll::Ready(Some(theirs)) = theirs {
                assert!(self.stacks[0].poll_connected(ours, &mut cx).is_ready());
                return [ours, theirs];
            }
            self.go_on(next);
        }
    }

    /// Sends this many bytes from A to B; gives the time it takes.
    fn transfer(&mut self, [ours, theirs]: [Id; 2], bytes: usize) -> Duration {
        let begun = self.now;
        let data: Vec<u8> = (0..bytes).map(|n| (n / 251) as u8).collect();
        let (mut written, mut read) = (0, Vec::new());
        let mut buffer = [0; 65_536];
        while read.len() < bytes {
            let socket = self.stacks[0].held(ours).socket();
            written += socket.send_slice(&data[written..]).expect("open");
            self.stacks[0].enqueue(ours);
            self.step();
            let socket = self.stacks[1].held(theirs).socket();
            let len = socket.recv_slice(&mut buffer).expect("open");
            read.extend_from_slice(&buffer[..len]);
            self.stacks[1].enqueue(theirs);
        }
        assert!(read == data);
        self.now - begun
    }
}

/// Removal of the first element if a condition holds.
trait PopFirstIf<T> {
    fn pop_first_if(&mut self, condition: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        condition(self.first()?).then(|| self.pop_first()).flatten()
    }
}

#[test]
fn several_losses_in_one_window_are_repaired_without_a_timeout() {
    // Fifteen full segments of one round trip, once each.
    let lost = |number: u64, packet: &[u8]| {
        packet.len() > 1_000 && (300..360).contains(&number) && number.is_multiple_of(4)
    };
    let mut network = Network::new(lost);
    let ends = network.connect();
    let took = network.transfer(ends, 400_000);
    assert!(
        took < Duration::from_millis(600),
        "{took}: a timeout takes a second"
    );
}

#[test]
fn a_lost_end_is_repeated_without_a_timeout() {
    // The end of what is sent, twice.
    let lost = |_: u64, packet: &[u8]| {
        static LEFT: AtomicU32 = AtomicU32::new(2);
        let left = |left: u32| left.checked_sub(u32::from(packet.ends_with(b"end")));
        packet.ends_with(b"end") && LEFT.fetch_update(Relaxed, Relaxed, left).is_ok()
    };
    let mut network = Network::new(lost);
    let ends = network.connect();
    let begun = network.now;
    let socket = network.stacks[0].held(ends[0]).socket();
    socket.send_slice(b"the end").expect("open");
    network.stacks[0].enqueue(ends[0]);
    while !network.stacks[1].held(ends[1]).socket().can_recv() {
        network.step();
    }
    let took = network.now - begun;
    assert!(took < Duration::from_millis(900), "{took}");
}

#[test]
fn a_slow_start_slows_down_nothing_behind_it() {
    // The first four SYN, and the first data.
    let lost =
        |number: u64, packet: &[u8]| number <= 4 || (packet.ends_with(b"first") && number < 9);
    let mut network = Network::new(lost);
    let ends = network.connect();
    assert!(network.now > Instant::from_secs(15), "{}", network.now);
    let begun = network.now;
    let socket = network.stacks[0].held(ends[0]).socket();
    socket.send_slice(b"first").expect("open");
    network.stacks[0].enqueue(ends[0]);
    while !network.stacks[1].held(ends[1]).socket().can_recv() {
        network.step();
    }
    let took = network.now - begun;
    let rest = Duration::from_millis(1_500);
    assert!(took > DELAY * 2 && took < rest, "{took}");
}

#[test]
fn a_connection_without_losses_takes_as_long_as_its_round_trips() {
    let mut network = Network::new(|_, _| false);
    let ends = network.connect();
    let took = network.transfer(ends, 400_000);
    assert!(took < Duration::from_millis(300), "{took}");
}

#[test]
fn handshakes_that_nobody_ends_are_bounded_and_forgotten() {
    let mut network = Network::new(|_, _| false);
    let port = network.stacks[1].listen(80).expect("free");
    // A opens many and hears nothing.
    for _ in 0..BACKLOG_MAX + 50 {
        let begun = network.stacks[0].connect(A, SocketAddr::new(B, port));
        begun.expect("there is room");
    }
    network.stacks[0].turn(network.now);
    let outgoing = std::mem::take(&mut network.stacks[0].outgoing);
    for packet in outgoing.iter_from(0) {
        network.stacks[1].ingest(&mut packet.to_vec(), network.now);
    }
    assert_eq!(network.stacks[1].len(), BACKLOG_MAX);
    for seconds in 0..60 {
        network.stacks[1].turn(network.now + Duration::from_secs(seconds));
        network.stacks[1].outgoing.clear();
    }
    assert_eq!(network.stacks[1].len(), 0);
    assert_eq!(network.stacks[1].listeners[&port].members, 0);
}

#[test]
fn a_peer_that_never_closes_its_side_is_given_up_after_a_minute() {
    let mut network = Network::new(|_, _| false);
    let [ours, _theirs] = network.connect();
    network.stacks[0].release(ours);
    let begun = network.now;
    while network.stacks[0].len() > 0 {
        network.step();
    }
    let took = network.now - begun;
    assert!(
        took >= Duration::from_secs(60) && took < Duration::from_secs(62),
        "{took}"
    );
}

#[test]
fn a_lost_fin_is_repeated_whatever_is_acknowledged_twice() {
    let mut network = Network::new(|_, _| false);
    let [_, theirs] = network.connect();
    let stack = &mut network.stacks[1];
    let flow = stack.held(theirs).flow;
    let sent = |stack: &mut Stack, now| {
        stack.turn(now);
        let outgoing = std::mem::take(&mut stack.outgoing);
        let packets = outgoing.iter_from(0).map(<[u8]>::to_vec);
        packets.filter(|packet| packet[33] & 1 != 0).last()
    };
    stack.held(theirs).socket().close();
    stack.enqueue(theirs);
    let fin = sent(stack, network.now).expect("a FIN");
    let number = |at: usize| {
        fin[at..]
            .first_chunk()
            .map_or(0, |b| u32::from_be_bytes(*b))
    };
    let ports = (flow.remote.port(), flow.local.port());
    for _ in 0..5 {
        let mut again = forge(ports, (number(28), number(24)), 16, 1_000, &[]);
        stack.ingest(&mut again, network.now);
        assert_eq!(sent(stack, network.now), None);
    }
    // The last of them is smoltcp's own.
    let mut fins = 0;
    for later_ms in (0..20_000).step_by(10) {
        let later = network.now + Duration::from_millis(later_ms);
        fins += u32::from(sent(stack, later).is_some());
    }
    assert!(fins > 4, "{fins}");
}

/// A segment from A to B with right checksums, whatever it says.
fn forge(ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16, rest: &[u8]) -> Vec<u8> {
    // A part of `rest` is options, in words of four bytes.
    let options = (rest.len() / 4).min(10);
    let mut tcp = Vec::new();
    tcp.extend(ports.0.to_be_bytes());
    tcp.extend(ports.1.to_be_bytes());
    tcp.extend(numbers.0.to_be_bytes());
    tcp.extend(numbers.1.to_be_bytes());
    tcp.extend([(5 + options as u8) << 4, flags]);
    tcp.extend(window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(rest);
    let len = tcp.len() as u16;
    let mut pseudo = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 6];
    pseudo.extend(len.to_be_bytes());
    pseudo.extend(&tcp);
    let sum = checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words =
        words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

proptest::proptest! {
    /// A peer that forges segments of its own connection hurts nothing but that connection.
    #[test]
    fn whatever_a_peer_sends_the_others_go_on(
        segments in proptest::collection::vec(
            (
                -3_000i32..3_000,
                -3_000i32..3_000,
                proptest::prelude::any::<u8>(),
                proptest::prelude::any::<u16>(),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
                proptest::prelude::any::<bool>(),
            ),
            1..60,
        ),
    ) {
        let mut network = Network::new(|_, _| false);
        let ends = network.connect();
        let flow = network.stacks[0].held(ends[0]).flow;
        let ports = (flow.local.port(), flow.remote.port());
        // What A said last tells where the window is.
        let _ = network.stacks[0].held(ends[0]).socket().send_slice(b"hello");
        network.stacks[0].enqueue(ends[0]);
        network.stacks[0].turn(network.now);
        let said = network.stacks[0].outgoing.iter_from(0).last().expect("data").to_vec();
        let number = |at: usize| said[at..].first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        let (seq, ack) = (number(24), number(28));
        let mut forged = forge(ports, (seq, ack), 16, 1_000, b"\x01\x01\x01\x01abc");
        network.stacks[1].ingest(&mut forged, network.now);
        let mut buffer = [0; 10];
        let read = network.stacks[1].held(ends[1]).socket().recv_slice(&mut buffer);
        proptest::prop_assert_eq!((read, &buffer[..3]), (Ok(3), &b"abc"[..]), "it takes them");
        for (seq_by, ack_by, flags, window, rest, answers) in segments {
            let numbers = (seq.wrapping_add_signed(seq_by), ack.wrapping_add_signed(ack_by));
            // Most without SYN and RST, which end it.
            let flags = if window % 8 == 0 { flags } else { flags & !6 | 16 };
            let stack = &mut network.stacks[1];
            let mut forged = forge(ports, numbers, flags, window, &rest);
            stack.ingest(&mut forged, network.now);
            if answers {
                let socket = stack.held(ends[1]).socket();
                let _ = socket.recv_slice(&mut [0; 50]);
                let _ = socket.send_slice(&[1; 50]);
                stack.enqueue(ends[1]);
            }
            stack.turn(network.now);
            stack.outgoing.clear();
            network.now += Duration::from_millis(u64::from(window % 64));
        }
        let broken = network.stacks[1].held(ends[1]).failure;
        proptest::prop_assert_ne!(broken, Some(ErrorKind::ConnectionAborted), "smoltcp panicked");
        network.stacks[1].release(ends[1]);
        let mut turns = 0;
        while network.stacks[1].turn(network.now) == Some(Duration::ZERO) {
            network.stacks[1].outgoing.clear();
            turns += 1;
            proptest::prop_assert!(turns < 1_000, "it comes to rest");
        }
        network.stacks[1].outgoing.clear();
        network.stacks[0] = Stack::new(TcpConfig::default(), MTU_BYTES, 77);
        network.stacks[1].unlisten(80);
        let ends = network.connect();
        network.transfer(ends, 20_000);
    }
}

proptest::proptest! {
    /// Nothing catches a panic here: a reset for nobody's segment is made outside all connections.
    #[test]
    fn segments_of_no_connection_are_harmless(
        ports in proptest::prelude::any::<(u16, u16)>(),
        numbers in proptest::prelude::any::<(u32, u32)>(),
        (flags, window) in proptest::prelude::any::<(u8, u16)>(),
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        change in proptest::option::of((0usize..60, proptest::prelude::any::<u8>())),
    ) {
        let mut stack = Stack::new(TcpConfig::default(), MTU_BYTES, 1);
        let mut packet = forge(ports, numbers, flags, window, &rest);
        if let Some((at, value)) = change
            && let Some(byte) = packet.get_mut(at)
        {
            *byte = value;
        }
        stack.ingest(&mut packet, Instant::from_secs(1));
        proptest::prop_assert!(stack.outgoing.len() <= 1);
        proptest::prop_assert_eq!(stack.len(), 0);
    }
}
