//! Messages are read as they are written, and nothing else is read.

use proptest::collection::vec;
use proptest::prelude::*;
use wiremesh_gossip::message::{IDS_MAX, Range, Wish};
use wiremesh_gossip::{
    CHUNK_LEN, Contact, HEADER_LEN, Header, MESSAGE_MAX, Message, MessageError, OBJECT_MAX,
    ObjectId,
};
use wiremesh_wire::{NodeId, Priority};

fn header(size: usize) -> Header {
    Header {
        priority: Priority::Bulk,
        expiry_ms: 5,
        size_bytes: size as u32,
        salt: 7,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut node = [0; 32];
    node[0] = 9;
    let node = NodeId::from_bytes(&node).expect("the base point");
    let contact = Contact {
        node,
        addresses: vec![1; 64],
    };
    let (addresses, priority) = (&[2; 6][..], Priority::Normal);
    let (id, contacts) = (ObjectId::from_bytes([3; 32]), vec![contact.clone(); 8]);
    let ranges = vec![
        Range {
            start: 4_095,
            count: 1
        };
        64
    ];
    let wishes = [Wish::Low, Wish::High, Wish::Near(65_535)];
    let mut samples: Vec<Vec<u8>> = wishes
        .map(|wish| Message::Neighbor { wish, addresses }.emit())
        .into();
    let others = [
        Message::Join { addresses },
        Message::ForwardJoin { hops: 16, contact },
        Message::NeighborReply { accepted: true },
        Message::Disconnect,
        Message::Shuffle {
            hops: 0,
            nonce: 1,
            contacts: contacts.clone(),
        },
        Message::ShuffleReply { nonce: 1, contacts },
        Message::Ping { token: 1 },
        Message::Pong { token: 1 },
        Message::Object {
            header: header(3),
            body: &[1; 3],
        },
        Message::Object {
            header: header(CHUNK_LEN + 1),
            body: &[1; 64],
        },
        Message::IHave {
            priority,
            ids: vec![id; IDS_MAX],
        },
        Message::Graft {
            priority,
            push: true,
            ids: Vec::new(),
        },
        Message::Prune { priority },
        Message::Lack { ids: vec![id] },
        Message::Have {
            id,
            ranges: ranges.clone(),
        },
        Message::Want { id, ranges },
        Message::Chunk {
            id,
            index: 4_095,
            bytes: &[1; CHUNK_LEN],
        },
    ];
    samples.extend(others.iter().map(Message::emit));
    samples
}

#[test]
fn every_message_comes_back_and_no_part_of_one_is_a_message() {
    for bytes in samples() {
        let message = Message::parse(&bytes).expect("a sample");
        assert_eq!(message.emit(), bytes);
        // What ends in a list, or in a chunk's bytes, may be shorter by whole entries.
        let list = matches!(bytes[0], 6 | 7 | 11 | 12 | 14..=17);
        for len in 0..bytes.len().min(200) {
            let shorter = Message::parse(&bytes[..len]);
            assert!(shorter.is_err() || list, "{len} bytes of type {}", bytes[0]);
        }
    }
}

#[test]
fn limits_are_where_the_specification_says() {
    assert_eq!(MESSAGE_MAX, 131_094);
    let body = vec![0; header(OBJECT_MAX).body_len()];
    let largest = Message::Object {
        header: header(OBJECT_MAX),
        body: &body,
    }
    .emit();
    assert_eq!(largest.len(), MESSAGE_MAX);
    assert!(Message::parse(&largest).is_ok());
    assert_eq!(
        Message::parse(&[10; MESSAGE_MAX + 1]),
        Err(MessageError::TooLong)
    );
    assert_eq!(Message::parse(&[18]), Err(MessageError::UnknownType(18)));
    for size in [0, OBJECT_MAX + 1] {
        assert_eq!(Header::parse(&header(size).emit()), None);
    }
    assert_eq!(header(1).emit().len(), HEADER_LEN);
    let id = ObjectId::from_bytes([3; 32]);
    for (start, count) in [(0, 0), (4_096, 1), (4_095, 2), (65_535, 65_535)] {
        let ranges = vec![Range { start, count }];
        assert!(Message::parse(&Message::Want { id, ranges }.emit()).is_err());
    }
}

proptest! {
    #[test]
    fn what_can_be_read_is_written_the_same_way(kind in 0u8..20, mut bytes in vec(0u8..4, 0..200)) {
        bytes.insert(0, kind);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.emit(), bytes);
        }
    }

    #[test]
    fn a_damaged_message_is_refused_or_another_message(which in 0usize..20, at: u16, to: u8) {
        let samples = samples();
        let mut bytes = samples[which % samples.len()].clone();
        let at = usize::from(at) % bytes.len();
        bytes[at] = to;
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.emit(), bytes);
        }
    }
}
