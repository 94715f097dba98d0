//! Packets of ordinary programs, as they were on a wire: `tests/data/record.sh` says of which.

use super::{ALL, arrive, by_flow, depart};
use crate::arrival::Arrival;
use crate::departures::Flushed;
use crate::tun::Offloads;

const CAPTURE: &[u8] = include_bytes!("../../tests/data/replay.pcap");
const ETHERNET_HEADER: usize = 14;

/// The IP packets of a capture in the classic format, little-endian, of Ethernet frames.
fn packets() -> Vec<Vec<u8>> {
    let (header, mut rest) = CAPTURE.split_at(24);
    assert_eq!(header[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    assert_eq!(header[20..], 1_u32.to_le_bytes());
    let mut packets = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(record[8..12].try_into().expect("four bytes"));
        let (frame, after) = after.split_at(length as usize);
        // ARP is not IP.
        if matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]) {
            packets.push(without_padding(&frame[ETHERNET_HEADER..]).to_vec());
        }
        rest = after;
    }
    packets
}

/// Ethernet fills short frames up.
fn without_padding(packet: &[u8]) -> &[u8] {
    let field = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet[0] >> 4 {
        4 => &packet[..field(2)],
        _ => &packet[..40 + field(4)],
    }
}

#[test]
fn recorded_packets_are_the_same_behind_the_fast_path() {
    let sent = packets();
    assert!(sent.len() > 300, "{} packets", sent.len());
    // As many between two flushes as one receive call brings, and more.
    for batch in [1, 2, 7, 45, 360, sent.len()] {
        for offloads in [
            ALL,
            Offloads {
                tcp: true,
                udp: false,
            },
            Offloads::default(),
        ] {
            let mut arrival = Arrival::default();
            let (mut came, mut given) = (Vec::new(), 0);
            for batch in sent.chunks(batch) {
                let (supers, flushed) = depart(batch, offloads);
                let written = batch.len();
                assert_eq!(
                    flushed,
                    Flushed {
                        written,
                        dropped: 0
                    }
                );
                given += supers.len();
                let cut = supers.iter().flat_map(|one| arrive(&mut arrival, one));
                came.extend(cut.collect::<Vec<_>>());
            }
            assert_eq!(
                by_flow(&came),
                by_flow(&sent),
                "{batch} at a time, {offloads:?}"
            );
            if batch >= 45 && offloads.tcp {
                let joined = sent.len() - given;
                assert!(joined > 100, "{joined} packets joined");
            }
        }
    }
}
