//! Cutting messages into frames and putting them together: tables of the edges, and a comparison
//! with a slow model.

use core::time::Duration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wiremesh_control::frame::{
    ExchangeId, FRAME_BODY_MAX, FrameError, HEADER_LEN, MESSAGE_MAX, Message, MessageType,
    REASSEMBLY_TIME, Reassembly, fragment,
};
use wiremesh_wire::Instant;

const ID: ExchangeId = ExchangeId(*b"exchange");
const NOW: Instant = Instant::from_nanos(5_000_000_000);

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn frames(kind: MessageType, id: ExchangeId, body: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    fragment(kind, id, body, |frame| frames.push(frame));
    frames
}

fn offer(len: usize) -> Vec<Vec<u8>> {
    frames(MessageType::Offer, ID, &body(len))
}

fn message(len: usize) -> Message {
    Message {
        kind: MessageType::Offer,
        id: ID,
        body: body(len),
    }
}

/// Hands over frames of which only the last completes a message.
fn feed(reassembly: &mut Reassembly, frames: &[Vec<u8>]) -> Option<Message> {
    let (last, before) = frames.split_last().expect("a frame");
    for frame in before {
        assert_eq!(reassembly.handle_frame(NOW, frame), Ok(None));
    }
    reassembly.handle_frame(NOW, last).expect("a valid frame")
}

#[test]
fn messages_up_to_8_kib_take_one_frame_for_each_begun_kib() {
    for (len, count) in [
        (0, 1),
        (1, 1),
        (1023, 1),
        (1024, 1),
        (1025, 2),
        (2048, 2),
        (2049, 3),
        (8191, 8),
        (8192, 8),
    ] {
        let frames = offer(len);
        assert_eq!(frames.len(), count, "{len} bytes");
        assert!(frames.iter().all(|f| f.len() <= HEADER_LEN + 1024));
        let mut reassembly = Reassembly::default();
        assert_eq!(feed(&mut reassembly, &frames), Some(message(len)));
        assert!(reassembly.is_empty());
    }
}

#[test]
#[should_panic(expected = "no layout is that long")]
fn a_longer_message_is_our_own_mistake() {
    let _ = offer(MESSAGE_MAX + 1);
}

#[test]
fn every_type_has_its_number_and_no_other_is_known() {
    let kinds: Vec<Option<MessageType>> = (0..=255).map(MessageType::from_number).collect();
    for (number, kind) in kinds.iter().enumerate() {
        assert_eq!(kind.map(|k| k as usize).unwrap_or(number), number);
        assert_eq!(kind.is_some(), (1..=9).contains(&number));
    }
}

/// A frame of the third fragment of four, with one change.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = offer(3500).swap_remove(2);
    change(&mut frame);
    frame
}

#[test]
fn bad_frames_are_refused_and_change_nothing() {
    use FrameError as E;
    let cases: [(&str, Vec<u8>, FrameError); 18] = [
        ("empty", Vec::new(), E::TooShort),
        (
            "no header",
            changed(|f| f.truncate(HEADER_LEN - 1)),
            E::TooShort,
        ),
        ("version 0", changed(|f| f[0] = 0), E::UnknownVersion(0)),
        ("version 2", changed(|f| f[0] = 2), E::UnknownVersion(2)),
        ("type 0", changed(|f| f[1] = 0), E::UnknownType(0)),
        ("type 10", changed(|f| f[1] = 10), E::UnknownType(10)),
        ("beyond the end", changed(|f| f[2] = 4), E::WrongFragments),
        ("fragment 255", changed(|f| f[2] = 255), E::WrongFragments),
        ("no fragments", changed(|f| f[3] = 0), E::WrongFragments),
        ("one fewer", changed(|f| f[3] = 3), E::WrongFragments),
        ("one more", changed(|f| f[3] = 5), E::WrongFragments),
        (
            "9 KiB",
            changed(|f| {
                f[3] = 9;
                f[12..14].copy_from_slice(&9000_u16.to_be_bytes());
            }),
            E::WrongFragments,
        ),
        (
            "body cut",
            changed(|f| f.truncate(HEADER_LEN + 1023)),
            E::WrongLength,
        ),
        ("body longer", changed(|f| f.push(0)), E::WrongLength),
        (
            "shorter than full",
            changed(|f| {
                f.truncate(HEADER_LEN + 1000);
                f[14..16].copy_from_slice(&1000_u16.to_be_bytes());
            }),
            E::WrongLength,
        ),
        ("other body length", changed(|f| f[15] = 1), E::WrongLength),
        ("other total", changed(|f| f[13] -= 1), E::Inconsistent),
        ("again", offer(3500).swap_remove(1), E::Duplicate),
    ];
    let mut reassembly = Reassembly::default();
    let good = offer(3500);
    assert_eq!(feed(&mut reassembly, &good[..2]), None);
    for (name, frame, error) in cases {
        let refused = reassembly.handle_frame(NOW, &frame);
        assert_eq!(refused, Err(error), "{name}");
    }
    assert_eq!(feed(&mut reassembly, &good[2..]), Some(message(3500)));
}

#[test]
fn an_incomplete_message_expires_10_s_after_its_first_frame() {
    let frames = offer(2500);
    for (late, complete) in [
        (REASSEMBLY_TIME - Duration::from_nanos(1), true),
        (REASSEMBLY_TIME, false),
    ] {
        let mut reassembly = Reassembly::default();
        let halfway = NOW + Duration::from_secs(5);
        assert_eq!(reassembly.handle_frame(NOW, &frames[0]), Ok(None));
        assert_eq!(reassembly.handle_frame(halfway, &frames[1]), Ok(None));
        let given = reassembly.handle_frame(NOW + late, &frames[2]);
        assert_eq!(given, Ok(complete.then(|| message(2500))));
    }
}

#[test]
fn even_a_bad_frame_lets_the_expired_message_go() {
    let mut reassembly = Reassembly::default();
    assert_eq!(reassembly.handle_frame(NOW, &offer(2500)[0]), Ok(None));
    let refused = reassembly.handle_frame(NOW + REASSEMBLY_TIME, &[]);
    assert_eq!(refused, Err(FrameError::TooShort));
    assert!(reassembly.is_empty());
}

#[test]
fn another_message_takes_the_place_of_an_incomplete_one() {
    let others = [
        frames(MessageType::Reply, ID, &body(2500)),
        frames(MessageType::Offer, ExchangeId(*b"exchangf"), &body(2500)),
    ];
    for other in others {
        let old = offer(2500);
        let mut reassembly = Reassembly::default();
        assert_eq!(feed(&mut reassembly, &old[..2]), None);
        assert_eq!(feed(&mut reassembly, &other[..1]), None);
        // What came before of the old one is forgotten.
        assert_eq!(feed(&mut reassembly, &old[2..]), None);
        assert_eq!(feed(&mut reassembly, &old[..2]), Some(message(2500)));
    }
}

#[test]
fn a_message_of_one_frame_leaves_an_incomplete_one_alone() {
    let mut reassembly = Reassembly::default();
    let offer = offer(1500);
    assert_eq!(feed(&mut reassembly, &offer[..1]), None);
    let poke = frames(MessageType::Poke, ExchangeId([9; 8]), &[]);
    let given = feed(&mut reassembly, &poke).expect("a POKE");
    assert_eq!(given.kind, MessageType::Poke);
    assert_eq!(feed(&mut reassembly, &offer[1..]), Some(message(1500)));
}

/// Keeps every frame since the message changed, and puts the bytes together from those.
#[derive(Default)]
struct Model {
    message: Option<(Vec<u8>, Instant)>,
    pieces: Vec<Option<Vec<u8>>>,
    total: Vec<u8>,
}

impl Model {
    fn handle(&mut self, now: Instant, frame: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        if self.message.as_ref().is_some_and(|(_, end)| now >= *end) {
            self.message = None;
        }
        let (name, count) = ([&frame[1..2], &frame[4..12]].concat(), frame[3]);
        if count == 1 {
            return Ok(Some(frame[16..].to_vec()));
        }
        if self
            .message
            .as_ref()
            .is_none_or(|(known, _)| *known != name)
        {
            self.message = Some((name, now + REASSEMBLY_TIME));
            self.pieces = vec![None; count.into()];
            self.total = frame[12..14].to_vec();
        }
        if self.total != frame[12..14] {
            return Err(());
        }
        let place = &mut self.pieces[usize::from(frame[2])];
        if place.is_some() {
            return Err(());
        }
        *place = Some(frame[16..].to_vec());
        let whole: Option<Vec<Vec<u8>>> = self.pieces.iter().cloned().collect();
        if whole.is_some() {
            self.message = None;
        }
        Ok(whole.map(|pieces| pieces.concat()))
    }
}

fn any_kind() -> impl Strategy<Value = MessageType> {
    (0..9_usize).prop_map(|i| MessageType::ALL[i])
}

proptest! {
    #[test]
    fn frames_in_any_order_give_the_message_once(
        kind in any_kind(),
        id in any::<[u8; 8]>(),
        body in vec(any::<u8>(), 0..=MESSAGE_MAX),
        order in any::<[u32; 8]>(),
    ) {
        let id = ExchangeId(id);
        let mut frames: Vec<_> = frames(kind, id, &body).into_iter().zip(order).collect();
        frames.sort_by_key(|(_, place)| *place);
        let frames: Vec<Vec<u8>> = frames.into_iter().map(|(frame, _)| frame).collect();
        let mut reassembly = Reassembly::default();
        let given = feed(&mut reassembly, &frames);
        prop_assert_eq!(given, Some(Message { kind, id, body }));
        prop_assert!(reassembly.is_empty());
    }

    #[test]
    fn reassembly_equals_the_model(
        lens in vec(0..4 * FRAME_BODY_MAX, 3),
        steps in vec((0..3_usize, any::<Index>(), 0..3_000_u64), 1..60),
    ) {
        // Three messages: two of one exchange and type that disagree on the length, one other.
        let kinds = [MessageType::Offer, MessageType::Offer, MessageType::Reply];
        let messages: Vec<_> = (0..3).map(|i| frames(kinds[i], ID, &body(lens[i]))).collect();
        let (mut reassembly, mut model) = (Reassembly::default(), Model::default());
        let mut now = NOW;
        for (which, frame, pause_millis) in steps {
            now += Duration::from_millis(pause_millis);
            let frame = frame.get(&messages[which]);
            let given = reassembly.handle_frame(now, frame);
            let given = given.map(|m| m.map(|m| m.body)).map_err(|_| ());
            prop_assert_eq!(given, model.handle(now, frame));
        }
    }

    #[test]
    fn no_bytes_panic(
        inputs in vec((vec(any::<u8>(), 0..40), any::<bool>(), 0..2_100_usize), 1..20),
    ) {
        let mut reassembly = Reassembly::default();
        for (mut bytes, plausible, len) in inputs {
            if plausible && bytes.len() >= HEADER_LEN {
                bytes[0] = 1;
                bytes[1] = bytes[1] % 9 + 1;
                bytes[3] %= 9;
                bytes.resize(HEADER_LEN + len, 7);
            }
            let _ = reassembly.handle_frame(NOW, &bytes);
        }
    }
}
