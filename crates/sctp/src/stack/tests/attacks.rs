//! A peer that is admitted and means harm: it knows the tag and the numbers of its association.

use super::*;

/// What the client's next packet of data says: the tag of the server, and the TSN.
struct Known {
    header: Vec<u8>,
    tsn: u32,
}

impl Known {
    /// Sends a message over the link, and looks.
    fn of(pair: &mut Pair, client: (Key, u64)) -> Self {
        pair.give(0, client, 1, numbered(1, 10), SendMode::default());
        pair.send();
        let data = pair.link.values().rev().find(|(to, packet)| {
            *to == 1 && matches!(packet.get(12), Some(0 | 64)) // DATA, I-DATA
        });
        let (_, packet) = data.expect("it was sent");
        let tsn = packet[16..20].first_chunk::<4>().expect("four");
        Self {
            header: packet[..12].to_vec(),
            tsn: u32::from_be_bytes(*tsn),
        }
    }

    fn packet(&self, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut packet = self.header.clone();
        for chunk in chunks {
            packet.extend_from_slice(chunk);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }
}

fn chunk(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + body.len()).expect("short");
    [&[kind, flags], len.to_be_bytes().as_slice(), body].concat()
}

const FROM_CLIENT: Remote = Remote {
    address: CLIENT,
    udp_port: None,
};

/// A chunk of a kind that an open association knows, with numbers near those that are right.
fn hostile_chunk(pair: &mut Pair, tsn: u32) -> Vec<u8> {
    let near = |pair: &mut Pair| match pair.below(8) {
        0 => pair.below(1 << 32) as u32,
        1 => tsn.wrapping_add(1 << 31),
        _ => tsn.wrapping_add(pair.below(6) as u32).wrapping_sub(1),
    };
    let kinds = [
        0, 64, 0, 64, 3, 192, 194, 130, 4, 5, 7, 9, 14, 1, 2, 10, 11, 255,
    ];
    let kind = kinds[pair.below(kinds.len() as u64) as usize];
    let mut body = near(pair).to_be_bytes().to_vec();
    match kind {
        3 => {
            body.extend((pair.below(1 << 20) as u32).to_be_bytes());
            let (gaps, duplicates) = (pair.below(4) as u16, pair.below(3) as u16);
            body.extend(gaps.to_be_bytes());
            body.extend(duplicates.to_be_bytes());
            for _ in 0..gaps * 2 {
                body.extend((pair.below(9) as u16).to_be_bytes());
            }
            for _ in 0..duplicates {
                body.extend(near(pair).to_be_bytes());
            }
        }
        130 => {
            let parameter = 13 + pair.below(6) as u16;
            body.clear();
            let mut inner = Vec::new();
            for _ in 0..3 {
                inner.extend(near(pair).to_be_bytes());
            }
            inner.extend((pair.below(4) as u16).to_be_bytes());
            body.extend(parameter.to_be_bytes());
            body.extend((4 + inner.len() as u16).to_be_bytes());
            body.extend(inner);
        }
        _ => {
            let len = pair.below(40);
            body.extend((0..len).map(|_| pair.below(5) as u8));
        }
    }
    let flags = pair.below(16) as u8;
    let mut chunk = chunk(kind, flags, &body);
    if pair.below(10) == 0 {
        let wrong = pair.below(9) as u8;
        chunk[3] = chunk[3].wrapping_add(wrong).wrapping_sub(4);
    }
    chunk
}

#[test]
fn no_chunk_of_a_peer_does_harm() {
    let seeds = if cfg!(debug_assertions) { 300 } else { 20_000 };
    for seed in 1..=seeds {
        let config = SctpConfig {
            interleaving: seed % 2 == 0,
            ..SctpConfig::default()
        };
        let mut pair = Pair::new(&config);
        let [client, server] = pair.connect();
        let known = Known::of(&mut pair, client);
        pair.random = seed;
        pair.give(1, server, 2, numbered(2, 5_000), SendMode::default());
        for _ in 0..60 {
            let count = 1 + pair.below(3);
            let chunks: Vec<_> = (0..count)
                .map(|_| hostile_chunk(&mut pair, known.tsn))
                .collect();
            let mut packet = known.packet(&chunks);
            let now = pair.now;
            pair.ends[1].handle_packet(now, FROM_CLIENT, &mut packet);
            pair.ends[1].send_all(|_| true);
            let now = pair.now + Duration::from_millis(pair.below(400));
            pair.now = now;
            pair.ends[1].handle_timeout(now);
            if pair.ends[1].held(server.0, server.1).is_some() {
                let _ = pair.take(1, server);
            }
        }
    }
}

#[test]
fn others_are_served_while_one_peer_floods() {
    let mut pair = Pair::new(&SctpConfig::default());
    let [client, server] = pair.connect();
    let [second, served] = pair.connect();
    let known = Known::of(&mut pair, client);
    let mut tsn = known.tsn;
    for _ in 0..20_000 {
        tsn = tsn.wrapping_add(1);
        // Of a message that never ends, one byte at a time: the beginning, and what is not the end.
        let flags = if tsn == known.tsn.wrapping_add(1) {
            2
        } else {
            0
        };
        let mut body = tsn.to_be_bytes().to_vec();
        body.extend([0, 9, 0, 0, 0, 0, 0, 0]);
        body.extend(tsn.wrapping_sub(known.tsn).wrapping_sub(1).to_be_bytes());
        body.push(1);
        let mut packet = known.packet(&[chunk(64, flags, &body)]);
        let now = pair.now;
        pair.ends[1].handle_packet(now, FROM_CLIENT, &mut packet);
        pair.ends[1].send_all(|_| true);
    }
    assert!(pair.take(1, server).is_none_or(|(stream, _)| stream == 1));
    pair.give(0, second, 3, numbered(3, 1_000), SendMode::default());
    let mut got = None;
    pair.run_until(|pair| {
        got = got.take().or_else(|| pair.take(1, served));
        got.is_some()
    });
    assert_eq!(got, Some((3, numbered(3, 1_000))));
}
