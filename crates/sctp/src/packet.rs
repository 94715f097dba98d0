//! What of an SCTP packet (RFC 9260, section 3) is looked at here: ports, chunks, streams, and the
//! window in a SACK.
//!
//! Owns no state. Everything else in a packet is dcsctp's matter.

use wiremesh_wire::Priority;

pub(crate) const HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;
const DATA: u8 = 0;
pub(crate) const INIT: u8 = 1;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
pub(crate) const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;
const I_DATA: u8 = 64;
/// Where the advertised receiver window is in a SACK chunk.
const WINDOW: std::ops::Range<usize> = 8..12;

/// Source and destination port.
pub(crate) fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d, ..] = packet else {
        return None;
    };
    let whole = packet.len() >= HEADER_LEN + CHUNK_HEADER_LEN;
    whole.then(|| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
}

/// The ranges of the chunks, without padding; ends at the first that is not whole.
fn chunks(packet: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = HEADER_LEN;
    std::iter::from_fn(move || {
        let header = packet.get(at..)?.first_chunk::<CHUNK_HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if len < CHUNK_HEADER_LEN || at + len > packet.len() {
            return None;
        }
        let range = at..at + len;
        at += len.next_multiple_of(4);
        Some(range)
    })
}

/// The type of the first chunk.
pub(crate) fn first_chunk(packet: &[u8]) -> Option<u8> {
    packet.get(HEADER_LEN).copied()
}

/// Whether there is a chunk with which an association may end.
pub(crate) fn may_end(packet: &[u8]) -> bool {
    let ends = [ABORT, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE];
    chunks(packet).any(|range| ends.contains(&packet[range.start]))
}

/// The best class among the streams whose data is in the packet; a packet without data is urgent,
/// as others wait for it.
pub(crate) fn class(packet: &[u8], of: impl Fn(u16) -> Priority) -> Priority {
    let streams = chunks(packet).filter_map(|range| {
        let chunk = &packet[range];
        let is_data = matches!(chunk[0], DATA | I_DATA);
        let stream = chunk.get(8..10).filter(|_| is_data)?;
        Some(of(u16::from_be_bytes([stream[0], stream[1]])))
    });
    streams.min().unwrap_or(Priority::Urgent)
}

/// The last SACK of a packet, alone in a packet of its own.
pub(crate) fn sack(packet: &[u8]) -> Option<Vec<u8>> {
    let is_sack = |range: &std::ops::Range<usize>| {
        packet[range.start] == SACK && range.len() >= WINDOW.end + CHUNK_HEADER_LEN
    };
    let range = chunks(packet).filter(is_sack).last()?;
    let mut alone = packet[..HEADER_LEN].to_vec();
    alone.extend_from_slice(&packet[range]);
    Some(alone)
}

/// The cumulative TSN that a packet of [`sack`] acknowledges.
pub(crate) fn cumulative_tsn(sack: &[u8]) -> u32 {
    let bytes = sack.get(HEADER_LEN + CHUNK_HEADER_LEN..);
    let bytes = bytes.and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Makes the windows in all SACKs of a packet zero: nothing more may be sent for now.
pub(crate) fn close_window(packet: &mut [u8]) {
    let ranges: Vec<_> = chunks(packet).collect();
    for range in ranges {
        let chunk = &mut packet[range];
        if chunk[0] == SACK && chunk.len() >= WINDOW.end {
            chunk[WINDOW].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of ports 1 and 2 with these chunks.
    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 2, 9, 9, 9, 9, 0, 0, 0, 0];
        for chunk in chunks {
            packet.extend_from_slice(chunk);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    const SACK_CHUNK: &[u8] = &[SACK, 0, 0, 16, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0];

    fn data(kind: u8, stream: u8) -> Vec<u8> {
        vec![
            kind, 3, 0, 17, 0, 0, 0, 1, 0, stream, 0, 0, 0, 0, 0, 0, b'x',
        ]
    }

    #[test]
    fn a_packet_is_of_the_best_class_in_it() {
        let of = |stream: u16| match stream {
            1 => Priority::Urgent,
            2 => Priority::Normal,
            _ => Priority::Bulk,
        };
        let (bulk, normal) = (data(DATA, 3), data(I_DATA, 2));
        assert_eq!(class(&packet(&[&bulk]), of), Priority::Bulk);
        assert_eq!(class(&packet(&[&bulk, &normal]), of), Priority::Normal);
        assert_eq!(class(&packet(&[SACK_CHUNK, &bulk]), of), Priority::Bulk);
        assert_eq!(class(&packet(&[SACK_CHUNK]), of), Priority::Urgent);
    }

    #[test]
    fn a_window_is_closed_and_nothing_else_is_changed() {
        let with = packet(&[SACK_CHUNK, &data(DATA, 3)]);
        let mut closed = with.clone();
        close_window(&mut closed);
        let differing = with.iter().zip(&closed).filter(|(a, b)| a != b).count();
        assert_eq!((differing, closed[20..24].to_vec()), (1, vec![0; 4]));
        let alone = sack(&with).expect("there is one");
        assert_eq!(alone, packet(&[SACK_CHUNK]));
        assert_eq!(cumulative_tsn(&alone), 7);
        assert_eq!(sack(&packet(&[&data(DATA, 3)])), None);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let whole = packet(&[SACK_CHUNK, &data(DATA, 3), &data(I_DATA, 1)]);
        for len in 0..whole.len() {
            for byte in [0, 1, 3, 255] {
                let mut cut = whole[..len].to_vec();
                if let Some(last) = cut.last_mut() {
                    *last = byte;
                }
                let _ = (ports(&cut), first_chunk(&cut), sack(&cut));
                let _ = class(&cut, |_| Priority::Bulk);
                close_window(&mut cut);
            }
        }
    }
}
