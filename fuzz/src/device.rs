//! Super-packets: packets that are joined come out as they were when they are cut, and whatever a
//! device says that it read, what comes of it are packets.

use std::collections::BTreeMap;

use wiremesh_device::{Arrival, Departures, Flushed, Offloads};

use crate::input::Input;

/// The header that a device puts in front.
const VNET_LEN: usize = 10;
const PACKETS_MAX: usize = 300;
/// A payload is this long at most: 64 KiB are reached with few packets.
const PAYLOAD_MAX: usize = 2_000;

/// The protocols of the flows, and what their next packet begins with.
#[derive(Clone, Copy)]
struct Flow {
    is_ipv4: bool,
    is_udp: bool,
    port: u8,
    id: u16,
    sequence: u32,
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let setting = input.u8();
    if setting & 1 != 0 {
        return read(input.rest());
    }
    let packets = packets(&mut input);
    let offloads = |bits: u8| Offloads {
        tcp: bits & 1 != 0,
        udp: bits & 2 != 0,
    };
    let (joined_for, given_to) = (offloads(setting >> 1), offloads(setting >> 3));
    if setting & 32 == 0 {
        join_and_cut(&packets, joined_for, given_to);
    } else {
        refuse(&packets, joined_for, given_to, setting);
    }
}

/// What a device gives makes packets within it, each with the length that it states.
fn read(bytes: &[u8]) {
    let mut arrival = Arrival::default();
    arrival.test_read(bytes);
    let Some(whole) = bytes.get(VNET_LEN..) else {
        assert_eq!(arrival.segments().count(), 0);
        return;
    };
    let cut = cut(&mut arrival, bytes);
    assert_eq!(cut.len(), arrival.segments().count());
    let [one, _, ..] = &cut[..] else {
        // At most its checksum is another one.
        assert!(cut.iter().all(|packet| packet.len() == whole.len()));
        return;
    };
    let headers: Vec<&[u8]> = arrival.segments().map(|segment| segment.header()).collect();
    let header_len = headers[0].len();
    assert!(headers.iter().all(|header| whole[..header_len] == **header));
    let payloads: Vec<u8> = cut
        .iter()
        .flat_map(|packet| packet[header_len..].to_vec())
        .collect();
    assert_eq!(payloads, whole[header_len..], "bytes are lost");
    let is_ipv4 = one[0] >> 4 == 4;
    for packet in &cut {
        let stated = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        let stated = if is_ipv4 { stated(2) } else { stated(4) + 40 };
        assert_eq!(stated, packet.len());
        let header_len = usize::from(packet[0] & 15) * 4;
        assert!(!is_ipv4 || sum(&packet[..header_len]) == 0xffff);
    }
}

fn cut(arrival: &mut Arrival, bytes: &[u8]) -> Vec<Vec<u8>> {
    arrival.test_read(bytes);
    let segments = arrival.segments().map(|segment| {
        let mut packet = vec![0xaa; segment.len()];
        segment.write(&mut packet);
        packet
    });
    segments.collect()
}

/// Each flow comes out in its order, byte for byte.
fn join_and_cut(packets: &[Vec<u8>], joined_for: Offloads, given_to: Offloads) {
    let mut departures = Departures::new(joined_for);
    packets.iter().for_each(|packet| departures.push(packet));
    let mut given = Vec::new();
    let flushed = departures.test_drain(given_to, 0, |bytes| {
        given.push(bytes);
        Some(true)
    });
    assert_eq!(flushed.written, packets.len());
    assert_eq!(flushed.dropped, 0);
    let mut arrival = Arrival::default();
    let came: Vec<_> = given
        .iter()
        .flat_map(|one| cut(&mut arrival, one))
        .collect();
    assert_eq!(by_flow(&came), by_flow(packets));
    if joined_for == Offloads::default() {
        assert_eq!(came, packets);
    }
}

/// A device that takes some, refuses some and is full now and then: nothing is counted twice.
fn refuse(packets: &[Vec<u8>], joined_for: Offloads, given_to: Offloads, how: u8) {
    let mut departures = Departures::new(joined_for);
    for round in 0..2u8 {
        packets.iter().for_each(|packet| departures.push(packet));
        let mut calls = round;
        let Flushed { written, dropped } = departures.test_drain(given_to, VNET_LEN, |_| {
            calls = calls.wrapping_add(how | 1);
            match calls & 3 {
                0 => None,
                1 => Some(false),
                _ => Some(true),
            }
        });
        assert_eq!(written + dropped, packets.len());
    }
    let nothing = departures.test_drain(given_to, 0, |_| Some(true));
    assert_eq!(nothing, Flushed::default());
}

/// Packets of a few flows, right or damaged, and such as the input says.
fn packets(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut flows =
        [(false, false), (false, true), (true, false), (true, true)].map(|(is_ipv4, is_udp)| {
            [1, 2].map(|port| Flow {
                is_ipv4,
                is_udp,
                port,
                id: 0xfff0,
                sequence: 0xffff_f000,
            })
        });
    let mut packets = Vec::new();
    while !input.is_empty() && packets.len() < PACKETS_MAX {
        let how = input.u8();
        if how & 0x80 != 0 {
            packets.push(input.block().to_vec());
            continue;
        }
        let flow = &mut flows[usize::from(how & 3)][usize::from(how >> 2 & 1)];
        let len = usize::from(input.u16()) % PAYLOAD_MAX;
        let flags = if how & 8 != 0 { input.u8() } else { 0x10 };
        let repeat = if how & 16 != 0 { input.u8() % 140 } else { 0 };
        for _ in 0..=repeat {
            packets.push(flow.packet(flags, len));
        }
        if let (true, Some(packet)) = (how & 32 != 0, packets.last_mut()) {
            let place = usize::from(input.u16()) % packet.len();
            packet[place] ^= input.u8();
        }
        if how & 64 != 0 {
            flow.sequence = flow.sequence.wrapping_add(u32::from(input.u8()));
        }
    }
    packets.truncate(PACKETS_MAX);
    packets.retain(|packet| !packet.is_empty());
    packets
}

impl Flow {
    fn packet(&mut self, flags: u8, payload_len: usize) -> Vec<u8> {
        let mut transport = vec![0x10, 0, 0x20, self.port];
        let checksum_at = if self.is_udp {
            transport.extend((8 + payload_len as u16).to_be_bytes());
            transport.extend([0, 0]);
            6
        } else {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend([0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
            16
        };
        transport.extend((0..payload_len).map(|at| at as u8));
        let addresses: Vec<u8> = (0..if self.is_ipv4 { 8 } else { 32 }).collect();
        let protocol = if self.is_udp { 17 } else { 6 };
        let len = transport.len() as u16;
        let [high, low] = len.to_be_bytes();
        let pseudo = [&addresses[..], &[0, protocol, high, low], &transport].concat();
        let checksum = match !sum(&pseudo) {
            0 if self.is_udp => 0xffff,
            checksum => checksum,
        };
        transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = if self.is_ipv4 {
            let [high, low] = (20 + len).to_be_bytes();
            let [id_high, id_low] = self.id.to_be_bytes();
            vec![
                0x45, 0, high, low, id_high, id_low, 0, 0, 64, protocol, 0, 0,
            ]
        } else {
            vec![0x60, 0, 0, 0, high, low, protocol, 64]
        };
        packet.extend(addresses);
        if self.is_ipv4 {
            let checksum = !sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        packet.extend(transport);
        self.id = self.id.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(payload_len as u32);
        packet
    }
}

/// RFC 1071, one 16-bit word after the other.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    words.fold(0, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

/// What must stay in order among itself: protocol, addresses and ports where they can be read.
fn flow_key(packet: &[u8]) -> Vec<u8> {
    let (addresses, protocol, transport) = match packet[0] >> 4 {
        4 if packet.len() >= 20 => (12..20, packet[9], usize::from(packet[0] & 15) * 4),
        6 if packet.len() >= 40 => (8..40, packet[6], 40),
        _ => return Vec::new(),
    };
    let is_fragment = packet[0] >> 4 == 4 && (packet[6] & 0x3f, packet[7]) != (0, 0);
    let Some(header) = packet.get(transport..transport + 8) else {
        return Vec::new();
    };
    if is_fragment || transport < 20 || ![6, 17].contains(&protocol) {
        return Vec::new();
    }
    [&packet[addresses], &[protocol], &header[..4]].concat()
}

/// The packets of each flow. Where there are no fragments the identification means nothing
/// (RFC 6864, section 4.1), and so neither does the checksum over it.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        let key = flow_key(packet);
        let mut packet = packet.clone();
        if packet[0] >> 4 == 4 && !key.is_empty() && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(key).or_default().push(packet);
    }
    flows
}
