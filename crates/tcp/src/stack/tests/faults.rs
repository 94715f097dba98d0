//! Both ends send at once and close, over a network that loses, delays and doubles.

use super::*;

/// A sequence of numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Whether what happens so many times in a thousand happens now.
    fn in_1000(&mut self, times: u64) -> bool {
        self.below(1_000) < times
    }
}

/// What the network does.
#[derive(Clone, Copy, Debug)]
struct Faults {
    loss_in_1000: u64,
    delay_ms: u64,
    jitter_ms: u64,
    duplicate_in_1000: u64,
}

impl Faults {
    fn network(self, seed: u64) -> Network {
        let mut random = Random(seed);
        Network::with_fate(move |_, _, _| {
            if random.in_1000(self.loss_in_1000) {
                return Vec::new();
            }
            let copies = 1 + usize::from(random.in_1000(self.duplicate_in_1000));
            let mut takes = || {
                let micros = self.delay_ms * 1_000 + random.below(self.jitter_ms * 1_000 + 1);
                Duration::from_micros(micros)
            };
            (0..copies).map(|_| takes()).collect()
        })
    }
}

/// One end: what it has to send, how much of that is written, and what it has read.
struct End {
    data: Vec<u8>,
    written: usize,
    closed: bool,
    read: Vec<u8>,
    ended: bool,
}

impl End {
    fn new(bytes: usize) -> Self {
        Self {
            data: (0..bytes).map(|n| (n / 251) as u8).collect(),
            written: 0,
            closed: false,
            read: Vec::new(),
            ended: false,
        }
    }

    /// Writes and reads what goes.
    fn advance(&mut self, stack: &mut Stack, id: Id) {
        let socket = stack.held(id).socket();
        if !self.closed {
            let rest = &self.data[self.written..];
            self.written += socket.send_slice(rest).expect("open");
            if self.written == self.data.len() {
                socket.close();
                self.closed = true;
            }
        }
        let mut buffer = [0; 65_536];
        while socket.can_recv() {
            let len = socket.recv_slice(&mut buffer).expect("open");
            self.read.extend_from_slice(&buffer[..len]);
        }
        self.ended = !socket.may_recv();
        stack.enqueue(id);
    }
}

/// Sends this many bytes both ways and closes; gives the time until both have read the end.
fn exchange(network: &mut Network, ids: [Id; 2], bytes: usize) -> Duration {
    let begun = network.now;
    let mut ends = [End::new(bytes), End::new(bytes)];
    while !ends.iter().all(|end| end.ended) && network.now - begun < Duration::from_secs(120) {
        for (n, end) in ends.iter_mut().enumerate() {
            end.advance(&mut network.stacks[n], ids[n]);
        }
        network.step();
    }
    for n in 0..2 {
        assert!(!ends[n].ended || ends[n].read == ends[1 - n].data);
    }
    network.now - begun
}

#[test]
fn no_faults_of_the_network_silence_a_connection() {
    const EXCHANGES: u64 = 1_000;
    let mut random = Random(42);
    let mut total = Duration::ZERO;
    for seed in 0..EXCHANGES {
        let delay_ms = random.below(8);
        let faults = Faults {
            loss_in_1000: random.below(50),
            delay_ms,
            jitter_ms: random.below(8).min(delay_ms),
            duplicate_in_1000: random.below(100),
        };
        let bytes = 1 + random.below(80_000) as usize;
        let mut network = faults.network(seed);
        let ids = network.connect();
        let took = exchange(&mut network, ids, bytes);
        assert!(
            took < Duration::from_secs(20),
            "seed {seed}, {faults:?}, {bytes} bytes: {took}"
        );
        total += took;
    }
    let mean = total / EXCHANGES as u32;
    assert!(
        mean < Duration::from_millis(500),
        "{mean}: a timeout takes a second"
    );
}
