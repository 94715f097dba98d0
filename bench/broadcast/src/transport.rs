//! How packets wait for the wire: the one thing in which the stacks below the protocols differ.
//!
//! Owns a node's uplink. Never touches streams: it says which of them sends next. What is paced is
//! paced by the scheduler of `wiremesh-core` itself.

use std::collections::VecDeque;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wiremesh_core::{Demand, Egress, EgressConfig, PeerKey};
use wiremesh_wire::{Instant, Priority};

use crate::net::Class;
use crate::time::{Nanos, SEC};

/// What stands below a stream when the socket never pushes back: quinn over a drop-tail link of
/// 50 KB keeps 37.5 KB of it filled in the middle (its window falls to 70 % and grows again).
const FIFO_BYTES: u64 = 37_500;

/// The pace is a little below the uplink's rate, so that the queue is ours.
const PACE_PERCENT: u64 = 95;

/// A kind of transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A socket as it is: streams in turn fill a queue that nobody sees into
    Fifo,
    /// Wiremesh's pacing without its classes: data waits in streams, and streams send in turn
    Paced,
    /// Wiremesh's scheduler: paced, and urgent streams go before others
    Classes,
}

impl Transport {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Paced => "paced",
            Self::Classes => "classes",
        }
    }
}

/// A stream with something to send.
pub struct Turn {
    /// Which.
    pub stream: u32,
    /// To which node.
    pub to: u32,
    /// In which class.
    pub class: Class,
    /// The next packet, on the wire.
    pub bytes: u64,
}

/// Who sends next.
pub enum Next {
    /// This stream, now.
    Stream(u32),
    /// Ask again then.
    At(Nanos),
    /// Nobody wants to.
    Nothing,
}

enum Waiting {
    Fifo(VecDeque<u32>),
    Egress {
        egress: Box<Egress<u32>>,
        classes: bool,
    },
}

/// A node's uplink and the streams that wait for it.
pub struct Uplink {
    /// When the next stream is asked for, if that is known.
    pub pump_at: Option<Nanos>,
    /// How long the wire was taken.
    pub busy: Nanos,
    rate: u64,
    wire_free: Nanos,
    waiting: Waiting,
}

impl Uplink {
    /// An idle one of `rate` bit/s.
    pub fn new(transport: Transport, rate: u64) -> Self {
        let egress = || {
            Box::new(Egress::new(&EgressConfig {
                rate_bits: Some(rate * PACE_PERCENT / 100),
                ..EgressConfig::default()
            }))
        };
        let waiting = match transport {
            Transport::Fifo => Waiting::Fifo(VecDeque::new()),
            Transport::Paced | Transport::Classes => Waiting::Egress {
                egress: egress(),
                classes: transport == Transport::Classes,
            },
        };
        Self {
            pump_at: None,
            busy: 0,
            rate,
            wire_free: 0,
            waiting,
        }
    }

    /// A stream has data.
    pub fn queue(&mut self, now: Nanos, turn: Turn) {
        match &mut self.waiting {
            Waiting::Fifo(streams) => streams.push_back(turn.stream),
            Waiting::Egress { egress, classes } => {
                let class = if *classes {
                    Priority::ALL[turn.class]
                } else {
                    Priority::Normal
                };
                let demand = Demand {
                    peer: PeerKey::detached(turn.to),
                    flow: u64::from(turn.stream) + 1,
                    class,
                    len: turn.bytes as usize,
                    expiry: None,
                };
                let taken = egress.offer(Instant::from_nanos(now), demand, turn.stream);
                taken.expect("a turn always finds room");
            }
        }
    }

    /// The stream whose turn it is.
    pub fn next(&mut self, now: Nanos) -> Next {
        match &mut self.waiting {
            Waiting::Fifo(streams) => {
                let room = FIFO_BYTES * 8 * SEC / self.rate;
                if streams.is_empty() {
                    Next::Nothing
                } else if self.wire_free > now + room {
                    Next::At(self.wire_free - room)
                } else {
                    streams.pop_front().map_or(Next::Nothing, Next::Stream)
                }
            }
            Waiting::Egress { egress, .. } => match egress.poll(Instant::from_nanos(now)) {
                Some(departure) => Next::Stream(departure.item),
                None => match egress.poll_timeout() {
                    Some(at) => Next::At(at.as_nanos().max(now + 1)),
                    None => Next::Nothing,
                },
            },
        }
    }

    /// Takes the wire for `bytes`; when the last of them has left.
    pub fn occupy(&mut self, now: Nanos, bytes: u64) -> Nanos {
        let span = bytes * 8 * SEC / self.rate;
        self.wire_free = self.wire_free.max(now) + span;
        self.busy += span;
        self.wire_free
    }

    /// Sends an acknowledgement, before everything that waits and whatever the transport.
    pub fn acknowledge(&mut self, now: Nanos, bytes: u64) {
        self.occupy(now, bytes);
        if let Waiting::Egress { egress, .. } = &mut self.waiting {
            egress.charge_uplink(Instant::from_nanos(now), bytes as usize);
        }
    }
}
