//! Sequence numbers where smoltcp errs, put right on their way to it and from it.
//!
//! Both ends of a connection are repaired by one that does this. Three things, and each leaves a
//! connection silent for a minute or for good:
//!
//! - After a timeout smoltcp stamps its pure ACKs with the number that it repeats from. The peer has
//!   that already and discards the ACK as outside its window (RFC 9293, 3.10.7.4); where both ends
//!   repeat, neither ever hears the other. They get SND.NXT as it was before the timeout.
//! - It discards a segment with data because its ACK was overtaken, where only the ACK is to be
//!   ignored. The segment gets the newest ACK.
//! - The third duplicate ACK stops the timer that repeats a FIN, and repeats nothing. While only a
//!   FIN is on its way, duplicates are kept from it.
//!
//! It owns what is known of the numbers that were sent and acknowledged.

use crate::probe::{Bare, Probe};
use crate::recovery::DUPLICATE_ACKS;
use crate::segment::{ACK, FIN, Header, RST, SYN, Segment, is_after};
use smoltcp::time::Instant;
use smoltcp::wire::TcpControl;

/// Room at a peer of which only a SYN was seen.
const WINDOW_UNSCALED_MAX: u16 = 1_024;

/// What was sent and acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The number after the last that was ever sent.
    sent: Option<u32>,
    /// The newest number acknowledged.
    acked: Option<u32>,
    /// The number after our FIN.
    fin: Option<u32>,
    /// What we acknowledged last, and the room that we told with it.
    told: (u32, u16),
    /// The peer's room, as it was last told; with none, a single byte only asks for some.
    window: u16,
    pub(crate) probe: Probe,
}

impl Numbers {
    /// Takes note of a packet of ours.
    pub(crate) fn on_sent(&mut self, packet: &mut [u8], now: Instant) {
        let Some(Segment { header, .. }) = Segment::parse(packet) else {
            return;
        };
        let takes = header.takes();
        if header.flags & ACK != 0 {
            self.told = (header.ack, header.window);
        }
        if header.flags & RST != 0 || (header.payload_bytes == 1 && self.window == 0) {
            return;
        }
        if takes == 0 {
            if let Some(sent) = self.sent.filter(|sent| is_after(*sent, header.seq)) {
                header.set_seq(packet, sent);
            }
            return;
        }
        let end = header.seq.wrapping_add(takes);
        let new = self.sent.is_none_or(|sent| is_after(end, sent));
        if new {
            self.sent = Some(end);
        }
        self.probe.on_sent(end, new, now);
        if header.flags & SYN != 0 {
            self.acked.get_or_insert(header.seq);
        }
        if header.flags & FIN != 0 {
            self.fin = Some(end);
        }
    }

    /// Takes note of a packet of the peer's; gives whether it is for smoltcp. `queued_bytes` is
    /// what smoltcp holds to send or to repeat.
    pub(crate) fn on_received(
        &mut self,
        header: &Header,
        packet: &mut [u8],
        queued_bytes: usize,
        now: Instant,
    ) -> bool {
        let (Some(sent), Some(acked)) = (self.sent, self.acked) else {
            return true;
        };
        if header.flags & (ACK | RST) != ACK {
            return true;
        }
        // That of a SYN is not scaled: take less until another comes.
        self.window = match header.flags & SYN {
            0 => header.window,
            _ => header.window.min(WINDOW_UNSCALED_MAX),
        };
        if is_after(header.ack, acked) {
            if !is_after(header.ack, sent) {
                self.acked = Some(header.ack);
                self.probe.on_acked(header.ack, header.ack == sent, now);
            }
            return true;
        }
        if header.flags & SYN != 0 {
            return true;
        }
        if header.ack != acked && header.takes() > 0 {
            header.set_ack(packet, acked);
            return true;
        }
        header.takes() > 0 || (header.ack == acked && !self.is_only_fin_out(queued_bytes))
    }

    /// Whether all that the peer lacks is our FIN.
    fn is_only_fin_out(&self, queued_bytes: usize) -> bool {
        let next = self.acked.map(|acked| acked.wrapping_add(1));
        queued_bytes == 0 && self.fin.is_some() && self.fin == next
    }

    /// Our FIN once more, if it is all that the peer lacks.
    pub(crate) fn bare_fin(&self, queued_bytes: usize) -> Option<Bare> {
        let (ack, window) = self.told;
        let seq = self.acked.filter(|_| self.is_only_fin_out(queued_bytes))?;
        Some(Bare {
            control: TcpControl::Fin,
            seq,
            ack,
            window,
        })
    }

    /// ACKs as if they came from the peer, after which smoltcp repeats what the peer lacks first.
    pub(crate) fn duplicates(&self) -> Option<[Bare; DUPLICATE_ACKS + 2]> {
        let acked = self.acked.filter(|_| self.window != 0)?;
        let mut acks = [Bare {
            control: TcpControl::None,
            seq: self.told.0,
            ack: acked,
            window: self.window,
        }; _];
        // A change of the window, and one back, begin the count of duplicates anew.
        acks[0].window ^= 1;
        Some(acks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    /// A segment without options and with a right checksum.
    fn packet(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        packet[5] = 20 + payload.len() as u8;
        packet[6] = crate::segment::PROTOCOL_TCP;
        packet[44..48].copy_from_slice(&seq.to_be_bytes());
        packet[48..52].copy_from_slice(&ack.to_be_bytes());
        packet[52..56].copy_from_slice(&[5 << 4, flags, 4, 0]);
        packet.extend(payload);
        let sum = !sum(&packet);
        packet[56..58].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The sum over the segment alone, which is 0xFFFF where the checksum is right.
    fn sum(packet: &[u8]) -> u16 {
        let words = packet[40..].chunks(2);
        let words =
            words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |b| (*b).into()));
        let sum: u32 = words.sum();
        (sum % 0xFFFF) as u16
    }

    fn header(packet: &[u8]) -> Header {
        Segment::parse(packet).expect("a segment").header
    }

    /// A connection that has sent three bytes up to 104, all acknowledged up to 101.
    fn numbers() -> Numbers {
        let mut numbers = Numbers::default();
        numbers.on_sent(&mut packet(SYN, 100, 0, b""), NOW);
        let mut answer = packet(SYN | ACK, 700, 101, b"");
        assert!(numbers.on_received(&header(&answer.clone()), &mut answer, 0, NOW));
        numbers.on_sent(&mut packet(ACK, 101, 701, b"abc"), NOW);
        numbers
    }

    #[test]
    fn a_pure_ack_has_the_number_after_all_that_was_sent() {
        let mut numbers = numbers();
        for (seq, expected) in [(101, 104), (104, 104)] {
            let mut ack = packet(ACK, seq, 701, b"");
            numbers.on_sent(&mut ack, NOW);
            assert_eq!(ack, packet(ACK, expected, 701, b""), "the checksum follows");
        }
        let repeated = packet(ACK, 101, 701, b"ab");
        let mut sent = repeated.clone();
        numbers.on_sent(&mut sent, NOW);
        assert_eq!(sent, repeated, "data keeps its place");
    }

    #[test]
    fn data_with_an_overtaken_ack_gets_the_newest() {
        let mut numbers = numbers();
        let mut hear = |flags: u8, ack: u32, payload: &[u8]| {
            let mut heard = packet(flags, 701, ack, payload);
            let wanted = numbers.on_received(&header(&heard.clone()), &mut heard, 3, NOW);
            (wanted, header(&heard).ack, sum(&heard))
        };
        assert_eq!(hear(ACK, 103, b""), (true, 103, 0));
        assert_eq!(hear(ACK, 102, b"xy"), (true, 103, 0));
        assert_eq!(hear(ACK | FIN, 102, b""), (true, 103, 0));
        assert!(!hear(ACK, 102, b"").0, "it says nothing");
        assert_eq!(hear(RST | ACK, 102, b""), (true, 102, 0));
        assert_eq!(hear(ACK, 900, b""), (true, 900, 0), "never sent");
        assert_eq!(
            hear(ACK, 102, b"xy"),
            (true, 103, 0),
            "that counts for nothing"
        );
    }

    #[test]
    fn a_byte_that_asks_for_room_is_not_counted_as_sent() {
        let mut numbers = numbers();
        let mut full = packet(ACK, 701, 104, b"");
        full[54..56].copy_from_slice(&[0, 0]);
        assert!(numbers.on_received(&header(&full.clone()), &mut full, 1, NOW));
        numbers.on_sent(&mut packet(ACK, 104, 701, b"d"), NOW);
        let mut ack = packet(ACK, 104, 701, b"");
        numbers.on_sent(&mut ack, NOW);
        assert_eq!(header(&ack).seq, 104);
    }
}
