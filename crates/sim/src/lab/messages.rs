//! The numbered messages of a lab.
//!
//! Owns their form and what became of each. A message counts as lost on the way where the network
//! lost its own datagram; one that waited for a session has none of its own.

use std::time::Duration;
use wiremesh_wire::address::overlay_address;
use wiremesh_wire::{NodeId, ip};

const PORT: u16 = 7;
const HEADERS: usize = ip::IPV6_UDP_HEADER_LEN;
const PAYLOAD_BYTES: usize = 64;
/// The packet, which is a multiple of 16 long, and what WireGuard adds.
const DATAGRAM_BYTES: usize = HEADERS + PAYLOAD_BYTES + 32;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) sent_at: u64,
    pub(super) arrived_at: Option<u64>,
    /// The network lost the datagram that it was in.
    pub(super) lost_on_the_way: bool,
    /// The node did not take it.
    pub(super) refused: bool,
    pub(super) datagram_len: usize,
}

/// A message that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// Its sender.
    pub from: usize,
    /// Its receiver.
    pub to: usize,
    /// When the sender's node was given it.
    pub sent_at: Duration,
    /// How long it took, waiting for a session included.
    pub took: Duration,
}

/// All messages so far.
#[derive(Debug, Default)]
pub struct Messages {
    all: Vec<Message>,
}

impl Messages {
    pub(super) fn make(
        &mut self,
        time: u64,
        (from, to): (usize, usize),
        ends: (NodeId, NodeId),
    ) -> (usize, Vec<u8>) {
        let number = self.all.len();
        self.all.push(Message {
            from,
            to,
            sent_at: time,
            arrived_at: None,
            lost_on_the_way: false,
            refused: false,
            datagram_len: DATAGRAM_BYTES,
        });
        let mut packet = vec![0; HEADERS + PAYLOAD_BYTES];
        packet[HEADERS..HEADERS + 8].copy_from_slice(&(number as u64).to_le_bytes());
        let ends = [ends.0, ends.1].map(|id| (overlay_address(&id), PORT));
        ip::emit_ipv6_udp(&mut packet, ends[0], ends[1], PAYLOAD_BYTES, 0);
        (number, packet)
    }

    pub(super) fn of(&mut self, number: usize) -> &mut Message {
        &mut self.all[number]
    }

    /// Notes that a message came out of a node.
    pub(super) fn deliver(&mut self, time: u64, packet: &[u8]) -> Result<usize, String> {
        let udp = ip::parse_udp(packet).map_err(|error| format!("no message: {error:?}"))?;
        let payload = &packet[udp.payload];
        let number = payload
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes));
        let number = number.ok_or("no number")? as usize;
        let message = self.all.get_mut(number).ok_or("an unknown number")?;
        match message.arrived_at.replace(time) {
            Some(_) => Err(format!("message {number} was delivered twice")),
            None => Ok(number),
        }
    }

    /// How many were sent.
    pub fn sent(&self) -> usize {
        self.all.len()
    }

    /// How many arrived.
    pub fn delivered(&self) -> usize {
        self.all.iter().filter(|m| m.arrived_at.is_some()).count()
    }

    /// How many datagrams with one message in it the network lost.
    pub fn lost_on_the_way(&self) -> usize {
        self.all.iter().filter(|m| m.lost_on_the_way).count()
    }

    /// How many did not arrive though the network did not lose them, among those between `from`
    /// and `to` that `counts` accepts.
    pub fn lost(&self, counts: impl Fn(usize, usize) -> bool) -> usize {
        let lost = |m: &&Message| m.arrived_at.is_none() && !m.lost_on_the_way;
        let all = self.all.iter().filter(lost);
        all.filter(|m| counts(m.from, m.to)).count()
    }

    /// How many did the node itself not take.
    pub fn refused(&self) -> usize {
        self.all.iter().filter(|m| m.refused).count()
    }

    /// The one that took longest, among those that count: from whom, to whom, when it was sent, and
    /// how long it took.
    pub fn slowest(&self, counts: impl Fn(usize, usize) -> bool) -> Option<Slowest> {
        let slowest = |m: &Message| {
            Some(Slowest {
                from: m.from,
                to: m.to,
                sent_at: Duration::from_nanos(m.sent_at),
                took: Duration::from_nanos(m.arrived_at? - m.sent_at),
            })
        };
        let all = self.all.iter().filter(|m| counts(m.from, m.to));
        all.filter_map(slowest).max_by_key(|slowest| slowest.took)
    }
}
