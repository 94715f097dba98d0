//! Cutting and joining beside the plain path: the same packets, one by one, built without either.

mod replay;
mod sender;

use self::sender::{ACK, CWR, ECE, FIN, Flow, PSH, flows, naive_sum, perform, steps};
use crate::arrival::Arrival;
use crate::departures::{Departures, Flushed};
use crate::tun::{Offloads, Taken};
use crate::vnet;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ALL: Offloads = Offloads {
    tcp: true,
    udp: true,
};

/// What must stay in order among itself: addresses, protocol and ports where they can be read.
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

/// What is in a capture, by flow; the identification is nothing where there are no fragments
/// (RFC 6864, section 4.1), and so neither is the checksum over it.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        let key = flow_key(packet);
        let mut packet = packet.clone();
        if packet.len() >= 20 && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 && !key.is_empty() {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(key).or_default().push(packet);
    }
    flows
}

/// What a device is given: each super-packet with its header.
fn depart(packets: &[Vec<u8>], offloads: Offloads) -> (Vec<Vec<u8>>, Flushed) {
    let mut departures = Departures::new(offloads);
    for packet in packets {
        departures.push(packet);
    }
    let mut given = Vec::new();
    let flushed = departures.drain(offloads, 0, |parts| {
        given.push(parts.iter().flat_map(|part| part.to_vec()).collect());
        Taken::Yes
    });
    (given, flushed)
}

/// What comes out of one read.
fn arrive(arrival: &mut Arrival, bytes: &[u8]) -> Vec<Vec<u8>> {
    let read = |buffer: &mut [u8]| {
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    };
    arrival.fill(true, read).expect("it fits");
    let write = |segment: crate::Segment<'_>| {
        let mut packet = vec![0xaa; segment.len()];
        segment.write(&mut packet);
        packet
    };
    arrival.segments().map(write).collect()
}

fn show(packets: &[Vec<u8>]) -> String {
    format!("{packets:02x?}")
}

proptest! {
    /// All packets come out again as they were, each flow in order, whatever was joined.
    #[test]
    fn joined_and_cut_is_as_it_was(
        mut all in vec(flows(), 1..4),
        script in vec((any::<prop::sample::Index>(), steps()), 1..80),
        tcp in any::<bool>(),
        udp in any::<bool>(),
    ) {
        let mut sent = Vec::new();
        for (which, step) in &script {
            let which = which.index(all.len());
            sent.extend(perform(&mut all[which], step));
        }
        let (given, flushed) = depart(&sent, Offloads { tcp, udp });
        prop_assert_eq!(flushed, Flushed { written: sent.len(), dropped: 0 });
        let mut arrival = Arrival::default();
        let came: Vec<_> = given.iter().flat_map(|one| arrive(&mut arrival, one)).collect();
        prop_assert_eq!(by_flow(&came), by_flow(&sent), "{}", show(&sent));
        // What has been joined has right headers of IPv4 too.
        for packet in came.iter().filter(|packet| !sent.contains(packet)) {
            prop_assert_eq!(naive_sum(&[&packet[..20]]), 0xffff);
        }
        if !tcp && !udp {
            prop_assert_eq!(came, sent);
        }
    }

    /// A super-packet is cut into the packets that the sender would have sent one by one.
    #[test]
    fn cut_is_as_if_sent_one_by_one(
        mut flow in flows(),
        extension in 0usize..3,
        extra_flags in prop::sample::select(vec![0, PSH, FIN, CWR, ECE, PSH | FIN | CWR]),
        payload in vec(any::<u8>(), 1..6000),
        segment_bytes in 1usize..2000,
    ) {
        flow.extension = extension;
        let flags = ACK | extra_flags;
        let whole = flow.super_packet(flags, &payload, segment_bytes);
        let parts: Vec<&[u8]> = payload.chunks(segment_bytes).collect();
        let mut expected = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let mut flags = flags;
            if index != 0 {
                flags &= !CWR;
            }
            if index + 1 != parts.len() {
                flags &= !(PSH | FIN);
            }
            expected.push(flow.packet(flags, part));
        }
        let mut arrival = Arrival::default();
        let came = arrive(&mut arrival, &whole);
        prop_assert_eq!(arrival.segments().count(), expected.len());
        let mut headers = arrival.segments().map(|segment| segment.header());
        prop_assert!(headers.all(|header| whole[vnet::LEN..].starts_with(header)));
        prop_assert_eq!(came, expected);
    }

    /// A single packet whose checksum the host left to us.
    #[test]
    fn checksum_that_is_missing_is_made(mut flow in flows(), payload in vec(any::<u8>(), 0..2000)) {
        let mut whole = flow.super_packet(ACK, &payload, 1);
        whole[1] = vnet::GSO_NONE;
        let mut expected = flow.packet(ACK, &payload);
        let came = arrive(&mut Arrival::default(), &whole);
        // Zero and all ones are the same number.
        let behind = if flow.is_udp { 2 } else { 4 + flow.options.len() };
        let at = expected.len() - payload.len() - behind;
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(came, [expected]);
    }

    /// No bytes from the device can make us panic.
    #[test]
    fn any_read_is_cut_or_nothing(
        header in any::<[u8; vnet::LEN]>(),
        start in 0u16..80,
        size in 0u16..300,
        gso_type in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81), any::<u8>()],
        mut packet in vec(any::<u8>(), 0..500),
        version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        cut in 0usize..20,
    ) {
        let mut header = vnet::Header::parse(&header);
        header.csum_start = start;
        header.gso_size = size;
        header.gso_type = gso_type;
        if let Some(first) = packet.first_mut() {
            *first = version;
        }
        let mut bytes = [&header.emit()[..], &packet].concat();
        let came = arrive(&mut Arrival::default(), &bytes);
        prop_assert!(came.iter().all(|segment| segment.len() <= packet.len()));
        bytes.truncate(cut);
        arrive(&mut Arrival::default(), &bytes);
    }

    /// No packet of a peer can either, and what makes no sense is for the host to refuse.
    #[test]
    fn any_packet_passes(packets in vec(vec(any::<u8>(), 0..100), 0..20)) {
        let (given, _) = depart(&packets, ALL);
        let given: Vec<_> = given.iter().map(|one| one[vnet::LEN..].to_vec()).collect();
        prop_assert_eq!(given, packets);
    }
}

fn flow(is_ipv4: bool, is_udp: bool) -> Flow {
    Flow {
        is_ipv4,
        is_udp,
        ports: [4000, 5000],
        traffic_class: 0,
        hop_limit: 64,
        no_fragments: true,
        id: 0,
        sequence: 0,
        acknowledged: 1,
        window: 500,
        options: vec![1; 12],
        extension: 0,
    }
}

/// How many packets of the flow come at once, per super-packet.
fn joined(packets: &[Vec<u8>]) -> Vec<usize> {
    let (given, _) = depart(packets, ALL);
    let mut arrival = Arrival::default();
    let count = |one: &Vec<u8>| arrive(&mut arrival, one).len();
    given.iter().map(count).collect()
}

#[test]
fn packets_that_continue_each_other_are_one() {
    for (is_ipv4, is_udp) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut flow = flow(is_ipv4, is_udp);
        let mut packets: Vec<_> = (0..130).map(|_| flow.packet(ACK, &[7; 100])).collect();
        let limit: &[usize] = if is_udp { &[64, 64, 2] } else { &[128, 2] };
        assert_eq!(joined(&packets), limit, "a limit of packets");
        packets = (0..3).map(|_| flow.packet(ACK, &[7; 100])).collect();
        packets.push(flow.packet(ACK, &[7; 99]));
        packets.push(flow.packet(ACK, &[7; 99]));
        packets.push(flow.packet(ACK, &[7; 100]));
        assert_eq!(joined(&packets), [4, 1, 1], "a short one is the last");
        let large: Vec<_> = (0..50).map(|_| flow.packet(ACK, &[7; 1400])).collect();
        assert_eq!(joined(&large), [46, 4], "a limit of bytes");
    }
}

#[test]
fn flows_side_by_side_are_joined_each_for_itself() {
    let mut flows: Vec<_> = (0..20).map(|_| flow(false, false)).collect();
    for (number, flow) in flows.iter_mut().enumerate() {
        flow.ports[1] = number as u16;
    }
    let mut few = Vec::new();
    let mut many = Vec::new();
    for _ in 0..3 {
        few.extend(
            flows[..16]
                .iter_mut()
                .map(|flow| flow.packet(ACK, &[7; 100])),
        );
    }
    for _ in 0..3 {
        many.extend(flows.iter_mut().map(|flow| flow.packet(ACK, &[7; 100])));
    }
    assert_eq!(joined(&few), [3; 16]);
    // More than can grow at a time: in order all the same.
    assert_eq!(joined(&many).iter().sum::<usize>(), 60);
}

#[test]
fn what_ends_a_super_packet() {
    let mut tcp = flow(true, false);
    let packets = [
        tcp.packet(ACK, &[7; 100]),
        tcp.packet(ACK | PSH, &[7; 100]),
        tcp.packet(ACK, &[7; 100]),
        tcp.packet(ACK, &[]),
        tcp.packet(ACK, &[7; 100]),
        tcp.packet(ACK | FIN, &[7; 100]),
    ];
    assert_eq!(joined(&packets), [2, 1, 1, 1, 1]);
    let (given, _) = depart(&packets[..2], ALL);
    let header = vnet::Header::parse(given[0].first_chunk().expect("a header"));
    let expected = vnet::Header {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: 52,
        gso_size: 100,
        csum_start: 20,
        csum_offset: 16,
    };
    assert_eq!(header, expected);
    // The sum of the pseudo header, which the host completes where it sends the packet on.
    let partial = &given[0][vnet::LEN + 36..][..2];
    assert_eq!(partial, tcp.pseudo_sum(32 + 200).to_be_bytes());
}

#[test]
fn wrong_checksum_is_never_hidden_by_joining() {
    let mut tcp = flow(false, false);
    let mut packets: Vec<_> = (0..4).map(|_| tcp.packet(ACK, &[7; 100])).collect();
    packets[2][100] ^= 1;
    assert_eq!(joined(&packets), [2, 1, 1]);
    let mut tcp = flow(true, false);
    let mut packets: Vec<_> = (0..3).map(|_| tcp.packet(ACK, &[7; 100])).collect();
    packets[0][100] ^= 1;
    assert_eq!(joined(&packets), [1, 2], "the first one is looked at too");
}

/// Anybody in the tunnel can send these, and the second one once made us panic.
#[test]
fn header_that_ends_beyond_its_packet_stays_alone() {
    for is_ipv4 in [true, false] {
        let mut tcp = flow(is_ipv4, false);
        let first = tcp.packet(ACK, &[7; 100]);
        for len in [20, 24, 59] {
            let mut next = tcp.packet(ACK, &[]);
            let transport = if is_ipv4 { 20 } else { 40 };
            next.resize(transport + len, 0);
            next[transport + 12] = 0xf0;
            assert_eq!(joined(&[first.clone(), next]), [1, 1], "{len} bytes");
        }
    }
}

#[test]
fn what_is_too_much_or_not_taken_is_dropped_and_counted() {
    let mut departures = Departures::new(ALL);
    let mut tcp = flow(false, false);
    for _ in 0..5000 {
        departures.push(&tcp.packet(ACK | PSH, &[7; 1000]));
    }
    let flushed = departures.drain(ALL, 0, |_| Taken::Yes);
    assert_eq!(flushed.written + flushed.dropped, 5000);
    assert!((3000..4500).contains(&flushed.written), "{flushed:?}");
    departures.push(&tcp.packet(ACK, &[7; 1000]));
    departures.push(&tcp.packet(ACK, &[7; 1000]));
    let dropped = Flushed {
        written: 0,
        dropped: 2,
    };
    assert_eq!(departures.drain(ALL, 0, |_| Taken::No), dropped);
    assert_eq!(departures.drain(ALL, 0, |_| Taken::Yes), Flushed::default());
}

#[test]
fn what_the_kernel_refuses_joined_goes_one_by_one() {
    for is_udp in [false, true] {
        let mut flow = flow(false, is_udp);
        let packets: Vec<_> = (0..5).map(|_| flow.packet(ACK, &[7; 100])).collect();
        let mut departures = Departures::new(ALL);
        // A device without offloads, one that has them and refuses, and the same again.
        let devices = [Offloads::default(), ALL, ALL];
        for (offloads, refusals_max) in devices.into_iter().zip([0, 1, 0]) {
            packets.iter().for_each(|packet| departures.push(packet));
            let mut given = Vec::new();
            let mut refusals = 0;
            let flushed = departures.drain(offloads, vnet::LEN, |parts| {
                let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
                if bytes.len() > packets[0].len() {
                    refusals += 1;
                    return Taken::Refused;
                }
                given.push(bytes);
                Taken::Yes
            });
            let all = Flushed {
                written: 5,
                dropped: 0,
            };
            assert_eq!((flushed, &given, refusals), (all, &packets, refusals_max));
        }
    }
}
