//! The egress scheduler in a running node: who may send when a pace is known.
//!
//! Owns the turns of QUIC connections and the packets that wait unsealed. Without a pace nothing comes
//! here: what is sent is sealed at once. docs/priority.md.
//!
//! A connection is a *flow*. quinn asks its poller and then sends, in one go on one thread; so the
//! flow is noted for the thread when the poller says yes, and taken from there by the send.

use crate::tunnel::{State, Tunnel};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::Notify;
use wiremesh_core::{
    ClassDelays, Demand, Egress, EgressConfig, InvalidEgress, Ledger, PeerKey, sealed_stream_len,
};
use wiremesh_quic::{Carried, carried};
use wiremesh_wire::{Instant, Now, Priority, ip};

/// Segments that quinn puts in one transmit; its own limit is 10.
const TRANSMIT_SEGMENTS: usize = 10;
/// Bytes of a stream packet of the usual size on the wire.
const PACKET_BYTES: u64 = 1_500;
/// Bytes of one class that a connection may have unsent, so that there is always room in its
/// window for what is more urgent. Above 25 Mbit/s it is what leaves in 20 ms.
const UNSENT_MAX: u64 = 64 * 1024;
/// After this long without a packet, what a ledger still holds was lost sight of: a stream was
/// reset.
pub(crate) const LEDGER_DOUBTED_AFTER: Duration = Duration::from_secs(1);
/// What IP and UDP add to a datagram.
const OUTER_V4: usize = ip::IPV4_UDP_HEADER_LEN;
const OUTER_V6: usize = ip::IPV6_UDP_HEADER_LEN;

thread_local! {
    /// The flow whose poller has just said yes, or was just made; 0 for none.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// What the egress scheduler of a node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressStatus {
    /// The pace that was set, bits per second.
    pub rate_bits: Option<u64>,
    /// What left under a pace, by [`Priority::index`].
    pub classes: [ClassDelays; Priority::ALL.len()],
}

enum Waiting {
    Turn(u64),
    Packet(Vec<u8>),
}

#[derive(Default)]
struct Flow {
    /// Its turn has come.
    granted: bool,
    /// It waits for its turn.
    waits_for: Option<PeerKey>,
    waker: Option<Waker>,
    ledger: Ledger,
    sent_at: Instant,
    /// Wakes writers that wait until less is unsent.
    room: Arc<Notify>,
}

/// Who sends, and what is to be known of it.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    /// A QUIC connection.
    Connection(FlowTransmit<'a>),
    /// A socket; it is woken when there may be room again.
    Socket(Priority, Option<&'a Waker>),
}

/// A transmit of a connection.
#[derive(Clone, Copy)]
pub(crate) struct FlowTransmit<'a> {
    /// Whose it is; 0 for an answer of the endpoint itself.
    pub(crate) flow: u64,
    pub(crate) contents: &'a [u8],
    /// The length of each packet but the last.
    pub(crate) size: usize,
}

impl FlowTransmit<'_> {
    fn packets(&self) -> usize {
        self.contents.len().div_ceil(self.size)
    }
}

/// What a connection was given to send.
#[derive(Clone, Copy)]
pub(crate) enum Given {
    /// Bytes of a stream, which end at this offset.
    Stream {
        id: u64,
        end: u64,
        bytes: usize,
    },
    Datagram(usize),
}

impl Sender<'_> {
    /// Whether more is about to follow.
    pub(crate) fn has_more(&self) -> bool {
        matches!(self, Self::Connection(transmit) if transmit.packets() >= TRANSMIT_SEGMENTS)
    }
}

/// The scheduler and those who wait for it.
pub(crate) struct Pacer {
    egress: Egress<Waiting>,
    flows: HashMap<u64, Flow>,
    /// Sources of packets that wait for room.
    writers: Vec<Waker>,
    serial: u64,
}

impl Pacer {
    pub(crate) fn new(config: &EgressConfig) -> Self {
        Self {
            egress: Egress::new(config),
            flows: HashMap::new(),
            writers: Vec::new(),
            serial: 0,
        }
    }

    pub(crate) fn is_paced(&self, peer: PeerKey) -> bool {
        self.egress.is_paced(peer)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.egress.poll_timeout()
    }

    pub(crate) fn charge(&mut self, now: Now, wire_len: usize) {
        self.egress.charge_uplink(now.instant, wire_len);
    }

    pub(crate) fn status(&self) -> EgressStatus {
        let delays = self.egress.delays();
        EgressStatus {
            rate_bits: self.egress.rate(),
            classes: Priority::ALL.map(|class| delays.of(class)),
        }
    }

    /// Whether a flow may send a transmit now. If not, it waits for its turn from now on.
    fn may_send(
        &mut self,
        now: Now,
        peer: PeerKey,
        transmit: FlowTransmit<'_>,
        wire_len: usize,
    ) -> bool {
        let id = transmit.flow;
        let Some(flow) = self.flows.get_mut(&id) else {
            return true;
        };
        if flow.waits_for.is_some() {
            return false;
        }
        let demand = Demand {
            peer,
            flow: id,
            class: class_of_transmit(&flow.ledger, transmit),
            len: wire_len,
            expiry: None,
        };
        if flow.granted || self.egress.admit(now.instant, &demand) {
            flow.granted = false;
            note_sent(&mut flow.ledger, transmit);
            flow.sent_at = now.instant;
            flow.room.notify_waiters();
            return true;
        }
        flow.waits_for = Some(peer);
        // A turn always finds room.
        let _ = self.egress.offer(now.instant, demand, Waiting::Turn(id));
        false
    }

    /// Whether a flow has to wait; its poller is woken when its turn comes.
    fn must_wait(&mut self, id: u64, waker: &Waker) -> bool {
        let flow = self.flows.get_mut(&id);
        let Some(flow) = flow.filter(|flow| flow.waits_for.is_some()) else {
            return false;
        };
        flow.waker = Some(waker.clone());
        true
    }

    fn grant(&mut self, id: u64) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.granted = true;
            flow.waits_for = None;
            if let Some(waker) = flow.waker.take() {
                waker.wake();
            }
        }
    }

    fn end_flow(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            flow.room.notify_waiters();
            if let Some(peer) = flow.waits_for {
                self.egress.cancel(peer, id);
            }
        }
    }

    /// Takes note of what a connection was given to send.
    /// `true` if it waits for its turn.
    fn wrote(&mut self, now: Now, id: u64, class: Priority, given: Given) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else {
            return false;
        };
        match given {
            Given::Stream { id, end, bytes } => flow.ledger.wrote(id, class, end, bytes),
            Given::Datagram(bytes) => flow.ledger.wrote_datagram(class, bytes),
        }
        let Some(peer) = flow.waits_for else {
            return false;
        };
        self.egress.promote(now.instant, peer, id, class);
        true
    }

    /// Forgets a peer: who waits for it finds no route.
    pub(crate) fn remove_peer(&mut self, peer: PeerKey) {
        for waiting in self.egress.remove_peer(peer) {
            if let Waiting::Turn(flow) = waiting {
                self.grant(flow);
            }
        }
        self.wake_all();
    }

    /// Lets everybody go on and find that the node is closed.
    pub(crate) fn close(&mut self) {
        let waits = |(id, flow): (&u64, &Flow)| flow.waits_for.map(|_| *id);
        let waiting: Vec<u64> = self.flows.iter().filter_map(waits).collect();
        waiting.into_iter().for_each(|id| self.grant(id));
        self.egress = Egress::new(&EgressConfig::default());
        self.wake_all();
    }

    /// Wakes everybody: what they wait for may have changed.
    fn wake_all(&mut self) {
        self.writers.drain(..).for_each(Waker::wake);
        for flow in self.flows.values_mut() {
            flow.room.notify_waiters();
        }
    }
}

/// Runs `f`, in which quinn makes a connection, and gives its flow.
pub(crate) fn flow_of<T>(f: impl FnOnce() -> T) -> (T, u64) {
    MADE.set(0);
    let made = f();
    (made, MADE.take())
}

/// The flow whose poller has just said yes on this thread.
pub(crate) fn asking_flow() -> u64 {
    ASKED.take()
}

/// The class in which a transmit goes: that of what it carries, or a better one that is behind it in
/// its connection. One that only acknowledges is urgent.
fn class_of_transmit(ledger: &Ledger, transmit: FlowTransmit<'_>) -> Priority {
    let mut class: Option<Priority> = None;
    let mut note = |other: Priority| class = Some(class.map_or(other, |class| class.min(other)));
    for packet in transmit.contents.chunks(transmit.size) {
        carried(packet, |carried| match carried {
            Carried::Stream { id, .. } => note(ledger.class_of(id).unwrap_or_default()),
            Carried::Datagram(_) => note(ledger.best().unwrap_or_default()),
            Carried::Reset(_) => {}
        });
    }
    match (class, ledger.best()) {
        (None, _) => Priority::Urgent,
        (Some(class), behind) => class.min(behind.unwrap_or(class)),
    }
}

fn note_sent(ledger: &mut Ledger, transmit: FlowTransmit<'_>) {
    for packet in transmit.contents.chunks(transmit.size) {
        let (mut streams, mut datagrams) = (false, false);
        carried(packet, |carried| match carried {
            Carried::Stream { id, end } => {
                ledger.sent(id, end);
                streams = true;
            }
            Carried::Datagram(len) => {
                ledger.sent_datagram(len);
                datagrams = true;
            }
            Carried::Reset(id) => ledger.ended(id),
        });
        if streams && !datagrams {
            ledger.no_datagrams();
        }
    }
}

/// How many segments make up a millisecond.
pub(crate) fn segments_at(rate_bits: Option<u64>) -> usize {
    rate_bits.map_or(TRANSMIT_SEGMENTS, |rate| {
        let segments = rate / 8 / 1_000 / PACKET_BYTES;
        usize::try_from(segments).map_or(TRANSMIT_SEGMENTS, |n| n.clamp(1, TRANSMIT_SEGMENTS))
    })
}

/// The class that a packet's DSCP asks for: EF (RFC 3246), VOICE-ADMIT (RFC 5865) and CS5 to CS7
/// are urgent, CS1 (RFC 3662) and LE (RFC 8622) bulk.
pub(crate) fn class_of_packet(packet: &[u8]) -> Priority {
    let traffic_class = match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => *second,
        _ => 0,
    };
    match traffic_class >> 2 {
        40 | 44 | 46 | 48 | 56 => Priority::Urgent,
        1 | 8 => Priority::Bulk,
        _ => Priority::Normal,
    }
}

impl Tunnel {
    /// Makes the flow of a connection that quinn is about to have.
    pub(crate) fn new_flow(&self) -> u64 {
        self.touch(|state, _| {
            state.pacer.serial += 1;
            let id = state.pacer.serial;
            state.pacer.flows.insert(id, Flow::default());
            MADE.set(id);
            id
        })
    }

    pub(crate) fn end_flow(&self, id: u64) {
        self.state().pacer.end_flow(id);
    }

    /// Whether a flow may send, as far as is known before its transmit is seen.
    pub(crate) fn poll_flow(&self, id: u64, waker: &Waker) -> bool {
        let mut state = self.state();
        let ready = !state.pacer.must_wait(id, waker) && state.poll_writable(waker);
        drop(state);
        if ready {
            ASKED.set(id);
        }
        ready
    }

    /// Whether the transmit of a connection may leave now; with a pace, in its turn.
    pub(crate) fn has_turn(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        transmit: FlowTransmit<'_>,
    ) -> bool {
        let packets = transmit.packets();
        let each = transmit.contents.len().div_ceil(packets.max(1));
        let wire_len = self.wire_len(state, peer, each) * packets;
        state.pacer.may_send(now, peer, transmit, wire_len)
    }

    /// What a stream packet comes to on the wire.
    fn wire_len(&self, state: &mut State, peer: PeerKey, len: usize) -> usize {
        let Some(engine) = state.engine.own() else {
            return len;
        };
        let sealed = match engine.takes_bare_streams(peer) {
            true => sealed_stream_len(len),
            false => engine.sealed_len(len + ip::IPV6_UDP_HEADER_LEN),
        };
        let outer = engine.path_of(peer).map_or(OUTER_V4, outer_of);
        sealed + outer
    }

    /// Offers a packet that goes to a peer with a pace; `false` if it had no room.
    pub(crate) fn offer_packet(
        &self,
        state: &mut State,
        now: Now,
        peer: PeerKey,
        class: Priority,
        packet: Vec<u8>,
    ) -> bool {
        let Some(engine) = state.engine.own() else {
            return false;
        };
        let outer = engine.path_of(peer).map_or(OUTER_V4, outer_of);
        let demand = Demand {
            peer,
            flow: 0,
            class,
            len: engine.sealed_len(packet.len()) + outer,
            expiry: None,
        };
        if state.pacer.egress.admit(now.instant, &demand) {
            self.seal_or_stage(state, now, peer, packet);
            return true;
        }
        let offered = state
            .pacer
            .egress
            .offer(now.instant, demand, Waiting::Packet(packet));
        offered.is_ok()
    }

    /// Whether a packet of a source that can wait has room; if not, `waker` is woken when one may.
    pub(crate) fn has_room(
        &self,
        state: &mut State,
        peer: PeerKey,
        class: Priority,
        waker: Option<&Waker>,
    ) -> bool {
        let room = state.pacer.egress.has_room(peer, class);
        if let Some(waker) = waker.filter(|_| !room) {
            let writers = &mut state.pacer.writers;
            if !writers.iter().any(|known| known.will_wake(waker)) {
                writers.push(waker.clone());
            }
        }
        room
    }

    /// Lets go what may go now.
    pub(crate) fn release(&self, state: &mut State, now: Now) {
        let mut packets = false;
        while !state.outbox.is_blocked() && !state.outbox.is_full() {
            let Some(departure) = state.pacer.egress.poll(now.instant) else {
                break;
            };
            match departure.item {
                Waiting::Turn(flow) => state.pacer.grant(flow),
                Waiting::Packet(packet) => {
                    self.seal_or_stage(state, now, departure.peer, packet);
                    packets = true;
                }
            }
        }
        if packets {
            state.pacer.writers.drain(..).for_each(Waker::wake);
        }
    }

    fn seal_or_stage(&self, state: &mut State, now: Now, peer: PeerKey, packet: Vec<u8>) {
        let ecn = ip::ecn(&packet);
        let fill = |out: &mut [u8]| out.copy_from_slice(&packet);
        if !self.seal(state, now, peer, packet.len(), ecn, fill) {
            state.stage(now, packet);
        }
    }

    /// Sets the pace of all that leaves.
    pub(crate) fn set_egress_rate(&self, rate_bits: Option<u64>) -> Result<(), InvalidEgress> {
        let config = EgressConfig {
            rate_bits,
            ..EgressConfig::default()
        };
        config.check()?;
        self.with(|state, _| {
            state.pacer.egress.set_rate(rate_bits);
            self.pace_changed(state);
        });
        Ok(())
    }

    /// To be called after each change of a pace.
    pub(crate) fn pace_changed(&self, state: &mut State) {
        let segments = segments_at(state.pacer.egress.slowest_rate());
        self.transmit_segments.store(segments, Ordering::Relaxed);
        state.pacer.wake_all();
    }

    /// Notes what the application gave to a connection, if anything has to be known of it.
    pub(crate) fn wrote(&self, flow: u64, peer: PeerKey, class: Priority, given: Given) {
        let waits = self.touch(|state, now| {
            state.pacer.is_paced(peer) && state.pacer.wrote(now, flow, class, given)
        });
        if waits {
            // Its turn may come at once now.
            self.with(|_, _| ());
        }
    }

    /// `None` if a connection may be given more of a class; else what to wait for.
    pub(crate) fn wait_to_write(
        &self,
        flow: u64,
        peer: PeerKey,
        class: Priority,
    ) -> Option<Arc<Notify>> {
        self.touch(|state, now| {
            if class == Priority::Urgent || !state.pacer.is_paced(peer) {
                return None;
            }
            let pace = state.pacer.egress.rate_to(peer)?;
            let flow = state.pacer.flows.get_mut(&flow)?;
            if flow.ledger.pending(class) < UNSENT_MAX.max(pace / 8 / 50) {
                return None;
            }
            let silent = now.instant.saturating_since(flow.sent_at);
            if silent >= LEDGER_DOUBTED_AFTER && flow.waits_for.is_none() {
                flow.ledger = Ledger::default();
                return None;
            }
            Some(Arc::clone(&flow.room))
        })
    }
}

fn outer_of(path: wiremesh_core::Path) -> usize {
    match path.remote.is_ipv6() {
        true => OUTER_V6,
        false => OUTER_V4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_a_packet_is_its_dscp() {
        let v4 = |dscp: u8| class_of_packet(&[0x45, dscp << 2 | 3]);
        let v6 = |dscp: u8| class_of_packet(&[0x60 | dscp >> 2, (dscp << 6) | 0x3f]);
        for (dscp, class) in [
            (46, Priority::Urgent),
            (44, Priority::Urgent),
            (48, Priority::Urgent),
            (0, Priority::Normal),
            (10, Priority::Normal),
            (8, Priority::Bulk),
            (1, Priority::Bulk),
        ] {
            assert_eq!((v4(dscp), v6(dscp)), (class, class), "{dscp}");
        }
        assert_eq!(class_of_packet(&[]), Priority::Normal);
    }

    #[test]
    fn a_transmit_is_a_millisecond_at_most_but_never_nothing() {
        assert_eq!(segments_at(None), 10);
        assert_eq!(segments_at(Some(8_000)), 1);
        assert_eq!(segments_at(Some(10_000_000)), 1);
        assert_eq!(segments_at(Some(100_000_000)), 8);
        assert_eq!(segments_at(Some(10_000_000_000)), 10);
    }
}
