//! A host that sends, written without any of the code that is tested.
//!
//! Owns whole packets and super-packets of a flow, and all the ways to get one wrong.

use crate::vnet;
use proptest::collection::vec;
use proptest::prelude::*;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

/// What all packets of a flow have, and what the next one has.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) is_ipv4: bool,
    pub(super) is_udp: bool,
    pub(super) ports: [u16; 2],
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    pub(super) no_fragments: bool,
    pub(super) id: u16,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) window: u16,
    /// Of TCP, in words of four bytes.
    pub(super) options: Vec<u8>,
    /// IPv4 options or an IPv6 destination-options header, in steps of eight bytes.
    pub(super) extension: usize,
}

/// The sum as RFC 1071 defines it, one 16-bit word after the other.
pub(super) fn naive_sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    words.fold(0, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

impl Flow {
    fn protocol(&self) -> u8 {
        if self.is_udp { 17 } else { 6 }
    }

    fn addresses(&self) -> Vec<u8> {
        let len = if self.is_ipv4 { 8 } else { 32 };
        (0..len).map(|at| at ^ self.ports[0] as u8).collect()
    }

    fn ip_header(&self, payload_len: usize) -> Vec<u8> {
        let extension = self.extension * 8;
        if !self.is_ipv4 {
            let [high, low] = ((payload_len + extension) as u16).to_be_bytes();
            let class = self.traffic_class;
            let next = if extension == 0 { self.protocol() } else { 60 };
            let start = [
                0x60 | class >> 4,
                class << 4,
                7,
                9,
                high,
                low,
                next,
                self.hop_limit,
            ];
            let mut header = [&start[..], &self.addresses()].concat();
            if extension != 0 {
                header.extend([self.protocol(), (self.extension - 1) as u8, 1]);
                header.push(extension as u8 - 4);
                header.resize(40 + extension, 0);
            }
            return header;
        }
        let header_len = 20 + extension;
        let [high, low] = ((header_len + payload_len) as u16).to_be_bytes();
        let [id_high, id_low] = self.id.to_be_bytes();
        let fragments = if self.no_fragments { 0x40 } else { 0 };
        let first = 0x40 | (header_len / 4) as u8;
        let start = [
            first,
            self.traffic_class,
            high,
            low,
            id_high,
            id_low,
            fragments,
            0,
        ];
        let end = [self.hop_limit, self.protocol(), 0, 0];
        let mut header = [&start[..], &end, &self.addresses(), &vec![1; extension]].concat();
        let sum = !naive_sum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// A header of TCP or UDP with the checksum field zero.
    fn transport_header(&self, flags: u8, payload_len: usize) -> Vec<u8> {
        let ports = self.ports.map(u16::to_be_bytes).concat();
        if self.is_udp {
            let len = (8 + payload_len) as u16;
            return [&ports[..], &len.to_be_bytes(), &[0, 0]].concat();
        }
        let offset = ((20 + self.options.len()) as u8 / 4) << 4;
        [
            &ports[..],
            &self.sequence.to_be_bytes(),
            &self.acknowledged.to_be_bytes(),
            &[offset, flags],
            &self.window.to_be_bytes(),
            &[0, 0, 0, 0],
            &self.options,
        ]
        .concat()
    }

    fn checksum_at(&self) -> usize {
        if self.is_udp { 6 } else { 16 }
    }

    pub(super) fn pseudo_sum(&self, len: usize) -> u16 {
        let len = (len as u16).to_be_bytes();
        naive_sum(&[&self.addresses(), &[0, self.protocol()], &len])
    }

    /// The next packet.
    pub(super) fn packet(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut transport = self.transport_header(flags, payload.len());
        let len = transport.len() + payload.len();
        let pseudo = self.pseudo_sum(len).to_be_bytes();
        let mut sum = !naive_sum(&[&pseudo, &transport, payload]);
        if self.is_udp && sum == 0 {
            sum = u16::MAX;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let packet = [&self.ip_header(len)[..], &transport, payload].concat();
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        self.id = self.id.wrapping_add(1);
        packet
    }

    /// All of it in one, as the host leaves it to us: with the device's header.
    pub(super) fn super_packet(&self, flags: u8, payload: &[u8], segment_bytes: usize) -> Vec<u8> {
        let mut transport = self.transport_header(flags, payload.len());
        let len = transport.len() + payload.len();
        let at = self.checksum_at();
        let pseudo = self.pseudo_sum(len).to_be_bytes();
        transport[at..at + 2].copy_from_slice(&pseudo);
        let ip = self.ip_header(len);
        let gso_type = match (self.is_udp, self.is_ipv4) {
            (true, _) => vnet::GSO_UDP_L4,
            (false, true) => vnet::GSO_TCPV4,
            (false, false) => vnet::GSO_TCPV6,
        };
        let header = vnet::Header {
            flags: vnet::NEEDS_CSUM,
            gso_type: gso_type | if flags & CWR != 0 { vnet::GSO_ECN } else { 0 },
            // Where the host forwards, this is more than the headers.
            hdr_len: (ip.len() + len) as u16,
            gso_size: segment_bytes as u16,
            csum_start: ip.len() as u16,
            csum_offset: at as u16,
        };
        [&header.emit()[..], &ip, &transport, payload].concat()
    }
}

pub(super) fn flows() -> impl Strategy<Value = Flow> {
    let bits = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<[u16; 2]>(),
    );
    let ip = (any::<u8>(), any::<u8>(), any::<u16>());
    let near_the_end = prop_oneof![
        any::<u32>(),
        (0..3000u32).prop_map(|back| 0u32.wrapping_sub(back))
    ];
    let tcp = (
        near_the_end,
        any::<u32>(),
        any::<u16>(),
        vec(any::<u8>(), 0..10),
    );
    (bits, ip, tcp).prop_map(|((is_ipv4, is_udp, no_fragments, ports), ip, tcp)| Flow {
        is_ipv4,
        is_udp,
        ports,
        traffic_class: ip.0,
        hop_limit: ip.1,
        no_fragments,
        id: ip.2,
        sequence: tcp.0,
        acknowledged: tcp.1,
        window: tcp.2,
        options: tcp.3.iter().flat_map(|byte| [*byte; 4]).collect(),
        extension: 0,
    })
}

/// One step of a host that sends.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Data {
        flags: u8,
        len: usize,
    },
    /// A bit of the packet is wrong.
    Damaged {
        len: usize,
        bit: usize,
    },
    /// More bytes than the packet has.
    Padded {
        len: usize,
    },
    Fragment {
        len: usize,
    },
    Extended {
        len: usize,
    },
    Changed(Change),
    Noise(Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Sequence,
    Acknowledged,
    Window,
    TrafficClass,
    HopLimit,
    Id,
    NoFragments,
    Options,
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        20 => Just(ACK), 2 => Just(ACK | PSH), 1 => Just(ACK | FIN), 1 => Just(SYN),
        1 => Just(ACK | ECE), 1 => Just(ACK | CWR), 1 => Just(ACK | URG), 1 => Just(0),
    ];
    let len = || prop_oneof![8 => Just(100usize), 1 => 0..100usize, 1 => 101..200usize];
    let change = prop_oneof![
        Just(Change::Sequence),
        Just(Change::Acknowledged),
        Just(Change::Window),
        Just(Change::TrafficClass),
        Just(Change::HopLimit),
        Just(Change::Id),
        Just(Change::NoFragments),
        Just(Change::Options),
    ];
    prop_oneof![
        20 => (flags, len()).prop_map(|(flags, len)| Step::Data { flags, len }),
        1 => (len(), any::<usize>()).prop_map(|(len, bit)| Step::Damaged { len, bit }),
        1 => len().prop_map(|len| Step::Padded { len }),
        1 => len().prop_map(|len| Step::Fragment { len }),
        1 => len().prop_map(|len| Step::Extended { len }),
        2 => change.prop_map(Step::Changed),
        1 => vec(any::<u8>(), 1..90).prop_map(Step::Noise),
    ]
}

/// The packet of a step, if it sends one.
pub(super) fn perform(flow: &mut Flow, step: &Step) -> Option<Vec<u8>> {
    let payload = |len: usize| -> Vec<u8> { (0..len).map(|at| (at * 7) as u8).collect() };
    Some(match step {
        Step::Data { flags, len } => flow.packet(*flags, &payload(*len)),
        Step::Damaged { len, bit } => {
            let mut packet = flow.packet(ACK, &payload(*len));
            let bit = bit % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            packet
        }
        Step::Padded { len } => {
            let mut packet = flow.packet(ACK, &payload(*len));
            packet.extend([0; 3]);
            packet
        }
        Step::Fragment { len } => {
            let mut packet = flow.packet(ACK, &payload(*len));
            if flow.is_ipv4 {
                packet[6] |= 0x20;
                packet[10..12].fill(0);
                let sum = !naive_sum(&[&packet[..20]]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                let header = [packet[6], 0, 0, 1, 0, 0, 0, 1];
                packet[6] = 44;
                packet.splice(40..40, header);
                let len = (packet.len() - 40) as u16;
                packet[4..6].copy_from_slice(&len.to_be_bytes());
            }
            packet
        }
        Step::Extended { len } => {
            flow.extension = 1;
            let packet = flow.packet(ACK, &payload(*len));
            flow.extension = 0;
            packet
        }
        Step::Changed(change) => {
            match change {
                Change::Sequence => flow.sequence = flow.sequence.wrapping_add(1),
                Change::Acknowledged => flow.acknowledged = flow.acknowledged.wrapping_add(1),
                Change::Window => flow.window ^= 1,
                Change::TrafficClass => flow.traffic_class ^= 3,
                Change::HopLimit => flow.hop_limit ^= 1,
                Change::Id => flow.id = flow.id.wrapping_add(1),
                Change::NoFragments => flow.no_fragments ^= true,
                Change::Options => flow.options.iter_mut().for_each(|byte| *byte ^= 1),
            }
            return None;
        }
        Step::Noise(bytes) => bytes.clone(),
    })
}
