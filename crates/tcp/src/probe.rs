//! Repeating the end of what was sent before smoltcp does, whose timeout is a second and doubles.
//!
//! A lost segment that others follow is found by their ACKs; the last one is followed by none. This
//! owns the time after which it is repeated (RFC 8985, 7.2) and the segments that bring it about.
//! The timeout of smoltcp's stays behind it, and alone lowers the sending rate to its least.

use crate::segment::{Flow, is_after};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

/// How long a receiver may keep an ACK back, at worst (RFC 8985, 7.2: WCDelAckT).
const ACK_DELAY_MAX: Duration = Duration::from_millis(200);
/// The time to the first probe while no round trip is known (RFC 8985, 7.2). smoltcp's may be half a
/// minute then: that of a SYN which had to wait for the tunnel stays for what comes after it.
const AFTER_UNKNOWN: Duration = Duration::from_secs(1);
/// Probes until something new is acknowledged.
const PROBES_MAX: u8 = 4;

/// The timer.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    round_trip: Option<Duration>,
    /// A number that was sent once, and when.
    timed: Option<(u32, Instant)>,
    due: Option<Instant>,
    sent: u8,
}

impl Probe {
    /// A segment that ends with this number was sent: new, or repeated.
    pub(crate) fn on_sent(&mut self, end: u32, new: bool, now: Instant) {
        match new {
            true => _ = self.timed.get_or_insert((end, now)),
            // What an ACK is for now, nobody knows (RFC 6298, 3).
            false => self.timed = None,
        }
        self.rearm(now);
    }

    /// Something new was acknowledged; perhaps all there is.
    pub(crate) fn on_acked(&mut self, ack: u32, all: bool, now: Instant) {
        if let Some((_, at)) = self.timed.take_if(|(end, _)| !is_after(*end, ack)) {
            let took = now - at;
            let smooth = |old: Duration| (old * 7 + took) / 8;
            self.round_trip = Some(self.round_trip.map_or(took, smooth));
        }
        self.sent = 0;
        match all {
            true => self.due = None,
            false => self.rearm(now),
        }
    }

    fn rearm(&mut self, now: Instant) {
        let known = self.round_trip.map(|time| time * 2 + ACK_DELAY_MAX);
        let after = known.unwrap_or(AFTER_UNKNOWN) * (1 << self.sent);
        self.due = (self.sent < PROBES_MAX).then_some(now + after);
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the deadline if it has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due.take_if(|at| *at <= now).is_some();
        self.sent += u8::from(due);
        due
    }
}

/// A segment without data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) control: TcpControl,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
}

impl Bare {
    /// The whole IP packet, from the local to the remote end of `flow`.
    pub(crate) fn packet(&self, flow: &Flow) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: flow.local.port(),
            dst_port: flow.remote.port(),
            control: self.control,
            seq_number: TcpSeqNumber(self.seq as i32),
            ack_number: Some(TcpSeqNumber(self.ack as i32)),
            window_len: self.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (from, to) = (flow.local.ip().into(), flow.remote.ip().into());
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.buffer_len()];
        ip.emit(&mut packet[..], &checksums);
        let mut room = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut room, &from, &to, &checksums);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{ACK, FIN, Segment};

    fn ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn it_is_due_two_round_trips_and_a_late_ack_after_the_last_segment() {
        let mut probe = Probe::default();
        probe.on_sent(100, true, ms(0));
        assert_eq!(probe.due(), Some(ms(1_000)), "no round trip is known");
        probe.on_acked(100, true, ms(10));
        assert_eq!(probe.due(), None, "nothing is on its way");
        probe.on_sent(200, true, ms(20));
        assert!(!probe.take_due(ms(239)));
        for at in [240, 680, 1_560, 3_320] {
            assert_eq!(probe.due(), Some(ms(at)));
            assert!(probe.take_due(ms(at)));
            probe.on_sent(200, false, ms(at));
        }
        assert_eq!(probe.due(), None, "smoltcp's timeout is next");
        probe.on_acked(150, false, ms(5_000));
        assert_eq!(probe.due(), Some(ms(5_220)), "there is news");
    }

    #[test]
    fn what_was_repeated_gives_no_round_trip() {
        let mut probe = Probe::default();
        probe.on_sent(100, true, ms(0));
        probe.on_sent(100, false, ms(5));
        probe.on_acked(100, false, ms(10));
        assert_eq!(probe.due(), Some(ms(1_010)));
    }

    #[test]
    fn a_bare_segment_says_what_it_should() {
        for ends in [["10.0.0.1:5", "10.0.0.2:6"], ["[fd00::1]:5", "[fd00::2]:6"]] {
            let [local, remote] = ends.map(|end| end.parse().expect("an address"));
            let flow = Flow { local, remote };
            let bare = Bare {
                control: TcpControl::Fin,
                seq: u32::MAX,
                ack: 1 << 31,
                window: 7,
            };
            let parsed = Segment::parse(&bare.packet(&flow)).expect("a segment");
            assert_eq!(parsed.flow, flow.reversed(), "as the peer sees it");
            let header = parsed.header;
            assert_eq!((header.seq, header.ack), (u32::MAX, 1 << 31));
            assert_eq!((header.flags, header.window), (FIN | ACK, 7));
            assert_eq!(header.payload_bytes, 0);
        }
    }
}
