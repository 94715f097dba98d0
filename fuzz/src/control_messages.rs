//! The control protocol's bytes: frames and their reassembly, every message body, signed records.
//!
//! What parses is emitted as bytes that parse to the same; nothing exceeds its limit; reassembly
//! equals a naive one that keeps every fragment. Keys and ciphertexts inside a body, and the
//! signature of a record, are made here, so that the search spends its bytes on the rest.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::Duration;

use wiremesh_control::frame::{
    ExchangeId, FRAGMENTS_MAX, FRAME_BODY_MAX, HEADER_LEN, MESSAGE_MAX, Message, MessageType,
    REASSEMBLY_TIME, Reassembly, fragment,
};
use wiremesh_control::kem::{CT_LEN, EK_LEN};
use wiremesh_control::message::{
    Abort, CAP_STATIC_CT, Fin, Hello, Key, Live, MessageError, OFFER_MAX, Offer, PROOF_MAX,
    REPLY_TAIL_LEN, Reply,
};
use wiremesh_control::record::{LIFETIME_SECS_MAX, RECORD_LEN_MAX, RecordError, SKEW_SECS};
use wiremesh_control::suite::SUITES_MAX;
use wiremesh_control::{SIGNATURE_LEN, SignedRecord, sign};
use wiremesh_core::{Node, NodeConfig};
use wiremesh_wire::{Instant, NodeId, Now, SecretKey, UnixTime};

use crate::input::Input;

const FRAMES_MAX: usize = 64;
const SECRET: [u8; 32] = [7; 32];
const RECORD_CONTEXT: &[u8] = b"wiremesh record v1";

static SIGNER: LazyLock<NodeId> = LazyLock::new(|| {
    let now = Now::new(Instant::ZERO, UnixTime::from_secs_nanos(0, 0));
    let config = NodeConfig::new(SecretKey::from_bytes(SECRET));
    Node::new(config, [0; 32], now)
        .expect("a valid secret key")
        .node_id()
});

/// What the first byte selects: 0 frames, 1 a record, 2 a record as it is, then the bodies as they
/// are by their number plus 16, and OFFER, REPLY, KEY with keys filled in.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() {
        0 => frames(&mut input),
        1 => signed_record(input.rest()),
        2 => raw_record(input.rest()),
        32 => filled_offer(&mut input),
        33 => filled_reply(&mut input),
        34 => filled_key(&mut input),
        kind => body(kind.wrapping_sub(16), input.rest()),
    }
}

fn body(kind: u8, bytes: &[u8]) {
    match MessageType::from_number(kind) {
        Some(MessageType::Offer) => offer(bytes),
        Some(MessageType::Reply) => reply(bytes),
        Some(MessageType::Fin) => {
            let fin = agrees(bytes, Fin::parse, Fin::emit);
            assert_eq!(fin.is_some(), bytes.len() == REPLY_TAIL_LEN);
        }
        Some(MessageType::Live) => {
            let live = agrees(bytes, Live::parse, Live::emit);
            assert_eq!(live.is_some(), bytes.len() == 36);
        }
        Some(MessageType::Abort) => abort(bytes),
        Some(MessageType::Key) => key(bytes),
        _ => {}
    }
}

/// What `emit` writes of what `parse` read says the same, is no longer than what was read, and goes
/// through frames.
fn agrees<T: PartialEq + Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, MessageError>,
    emit: impl Fn(&T) -> Vec<u8>,
) -> Option<(T, Vec<u8>)> {
    let parsed = parse(bytes).ok()?;
    let emitted = emit(&parsed);
    assert!(emitted.len() <= bytes.len());
    let again = parse(&emitted).expect("our own message");
    assert_eq!(again, parsed);
    assert_eq!(emit(&again), emitted);
    through_frames(&emitted);
    Some((parsed, emitted))
}

fn check_hello(hello: &Hello) {
    assert!(
        hello
            .record
            .as_ref()
            .is_none_or(|r| r.len() <= RECORD_LEN_MAX)
    );
    assert!(hello.proof.as_ref().is_none_or(|p| p.len() <= PROOF_MAX));
    let suites = hello.suites.as_slice();
    assert!((1..=SUITES_MAX).contains(&suites.len()));
    for (at, suite) in suites.iter().enumerate() {
        assert!(!suites[..at].contains(suite), "a suite twice");
    }
}

fn offer(bytes: &[u8]) {
    if let Some((offer, emitted)) = agrees(bytes, Offer::parse, Offer::emit) {
        assert!(emitted.len() <= OFFER_MAX && offer.epoch != 0);
        let announced = offer.hello.caps & CAP_STATIC_CT != 0;
        assert_eq!(announced, offer.static_ct.is_some());
        check_hello(&offer.hello);
    }
}

fn reply(bytes: &[u8]) {
    if let Some((reply, emitted)) = agrees(bytes, Reply::parse, Reply::emit) {
        assert!(emitted.len() <= 7_507);
        check_hello(&reply.hello);
        let signed = Reply::signed_part(bytes);
        assert_eq!(signed.len() + SIGNATURE_LEN + 32, bytes.len());
        let tail = [&reply.signature[..], &reply.confirmation].concat();
        assert_eq!(bytes[signed.len()..], tail);
    }
}

fn abort(bytes: &[u8]) {
    if let Some((abort, emitted)) = agrees(bytes, Abort::parse, Abort::emit) {
        assert!(emitted.len() <= 1_036);
        assert_eq!(abort.mac.is_some(), bytes[4] & 1 != 0);
    }
}

fn key(bytes: &[u8]) {
    if let Some((_, emitted)) = agrees(bytes, Key::parse, Key::emit) {
        assert_eq!(emitted, bytes, "KEY has one form");
    }
}

/// A block, an X25519 share is part of it, a key, perhaps a ciphertext, and TLVs.
fn filled_offer(input: &mut Input<'_>) {
    let mut bytes = input.block().to_vec();
    fill(&mut bytes, EK_LEN);
    filled_rest(&mut bytes, input);
    offer(&bytes);
}

fn filled_reply(input: &mut Input<'_>) {
    let mut bytes = input.block().to_vec();
    fill(&mut bytes, CT_LEN);
    filled_rest(&mut bytes, input);
    fill(&mut bytes, REPLY_TAIL_LEN);
    reply(&bytes);
}

fn filled_key(input: &mut Input<'_>) {
    let mut bytes = input.block().to_vec();
    fill(&mut bytes, EK_LEN);
    key(&bytes);
}

/// Perhaps a ciphertext, perhaps a proof of any length, and the rest of the input.
fn filled_rest(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let what = input.u8();
    if what & 1 != 0 {
        fill(bytes, CT_LEN);
    }
    if what & 2 != 0 {
        let len = input.u16() % (PROOF_MAX as u16 + 2);
        bytes.push(3);
        bytes.extend_from_slice(&len.to_be_bytes());
        fill(bytes, len.into());
    }
    bytes.extend_from_slice(input.rest());
}

fn fill(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend((0..len).map(|n| n as u8));
}

/// Cuts a message up and puts it together again, last fragment first.
fn through_frames(body: &[u8]) {
    let (kind, id) = (MessageType::Offer, ExchangeId([1; 8]));
    let mut frames = Vec::new();
    fragment(kind, id, body, |frame| frames.push(frame));
    assert!((1..=FRAGMENTS_MAX).contains(&frames.len()));
    let mut reassembly = Reassembly::default();
    let mut whole = None;
    for frame in frames.iter().rev() {
        assert!(whole.is_none(), "complete before its last fragment");
        assert!(frame.len() <= HEADER_LEN + FRAME_BODY_MAX);
        whole = reassembly
            .handle_frame(Instant::ZERO, frame)
            .expect("our own frame");
    }
    assert!(reassembly.is_empty());
    assert_eq!(whole.map(|message| message.body).as_deref(), Some(body));
}

/// Signs what claims to be a record, so that all but the signature is searched.
fn signed_record(unsigned: &[u8]) {
    let secret = SecretKey::from_bytes(SECRET);
    let mut bytes = unsigned.to_vec();
    bytes.extend_from_slice(&sign::sign(&secret, RECORD_CONTEXT, unsigned, &[0; 32]));
    let signed = match SignedRecord::open(&bytes, &SIGNER) {
        Ok(signed) => signed,
        Err(error) => return assert_ne!(error, RecordError::Signature),
    };
    let record = signed.record();
    assert!(bytes.len() <= RECORD_LEN_MAX && signed.bytes() == bytes);
    let again = SignedRecord::sign(record.clone(), &secret, &[0; 32]);
    assert_eq!(again.as_ref(), Ok(&signed), "parse and emit agree");
    assert!(record.expiry - record.not_before <= LIFETIME_SECS_MAX);
    let starts = record.not_before.saturating_sub(SKEW_SECS);
    assert_eq!(record.check_fresh(starts), Ok(()));
    assert_eq!(record.check_fresh(record.expiry), Err(RecordError::Expired));
    if let Some(before) = starts.checked_sub(1) {
        let early = record.check_fresh(before);
        assert_eq!(early, Err(RecordError::NotYetValid));
    }
    let at = unsigned.len() % bytes.len();
    bytes[at] ^= 1;
    assert!(SignedRecord::open(&bytes, &SIGNER).is_err(), "changed");
}

fn raw_record(bytes: &[u8]) {
    if let Ok(signed) = SignedRecord::open(bytes, &SIGNER) {
        assert_eq!(signed.bytes(), bytes);
    }
}

/// Frames one after another, each with time in front of it, into reassembly and into its model.
fn frames(input: &mut Input<'_>) {
    let mut now = Instant::ZERO;
    let mut reassembly = Reassembly::default();
    let mut model = Model::default();
    for _ in 0..FRAMES_MAX {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        now += Duration::from_millis(u64::from(input.u8()) * 64);
        let frame = match how & 1 {
            0 => built_frame(how, input),
            _ => input.block().to_vec(),
        };
        let expected = model.handle(now, &frame);
        let got = reassembly.handle_frame(now, &frame);
        assert_eq!(got.map_err(|_| ()), expected);
        assert_eq!(reassembly.is_empty(), model.incomplete.is_none());
    }
}

/// A frame whose parts fit each other, but for what `how` changes.
fn built_frame(how: u8, input: &mut Input<'_>) -> Vec<u8> {
    let total = usize::from(input.u16()) % (MESSAGE_MAX + 2);
    let number = usize::from(input.u8());
    let count = total.div_ceil(FRAME_BODY_MAX).max(1);
    let number = if how & 2 != 0 { number } else { number % count };
    let rest = total.saturating_sub(number * FRAME_BODY_MAX);
    let len = rest.min(FRAME_BODY_MAX);
    let mut frame = vec![1, 2 + (how >> 2 & 1), number as u8, count as u8];
    frame.extend_from_slice(&[how >> 3 & 1; 8]);
    frame.extend_from_slice(&(total as u16).to_be_bytes());
    frame.extend_from_slice(&(len as u16).to_be_bytes());
    frame.extend((0..len).map(|n| n as u8 ^ how));
    if how & 0x80 != 0 {
        let at = usize::from(input.u8()) % frame.len();
        frame[at] ^= input.u8();
    }
    frame
}

/// Reassembly as docs/spec.md section 7.3 describes it, with every fragment by itself.
#[derive(Default)]
struct Model {
    incomplete: Option<Incomplete>,
}

struct Incomplete {
    /// Type, exchange, total length.
    head: (u8, [u8; 8], usize),
    since: Instant,
    fragments: BTreeMap<usize, Vec<u8>>,
}

impl Model {
    fn handle(&mut self, now: Instant, frame: &[u8]) -> Result<Option<Message>, ()> {
        self.incomplete
            .take_if(|known| now.saturating_since(known.since) >= REASSEMBLY_TIME);
        let (header, body) = frame.split_at_checked(HEADER_LEN).ok_or(())?;
        let number16 = |at: usize| usize::from(header[at]) << 8 | usize::from(header[at + 1]);
        let (total, stated) = (number16(12), number16(14));
        let (number, count) = (usize::from(header[2]), usize::from(header[3]));
        let places: Vec<usize> = (0..total.max(1)).step_by(FRAME_BODY_MAX).collect();
        let fits = header[0] == 1
            && (1..=9).contains(&header[1])
            && total <= 8_192
            && count == places.len()
            && number < count;
        let expected = fits.then(|| 1_024.min(total - places[number])).ok_or(())?;
        if body.len() != expected || stated != expected {
            return Err(());
        }
        let id: [u8; 8] = std::array::from_fn(|at| header[4 + at]);
        let head = (header[1], id, total);
        if count == 1 {
            return Ok(Some(message(&head, body.to_vec())));
        }
        self.incomplete
            .take_if(|known| (known.head.0, known.head.1) != (head.0, head.1));
        let incomplete = self.incomplete.get_or_insert_with(|| Incomplete {
            head,
            since: now,
            fragments: BTreeMap::new(),
        });
        if incomplete.head.2 != total || incomplete.fragments.contains_key(&number) {
            return Err(());
        }
        incomplete.fragments.insert(number, body.to_vec());
        let complete = self
            .incomplete
            .take_if(|known| known.fragments.len() == count);
        Ok(complete.map(|known| {
            let body: Vec<u8> = known.fragments.into_values().flatten().collect();
            assert_eq!(body.len(), total);
            message(&known.head, body)
        }))
    }
}

fn message((kind, id, _): &(u8, [u8; 8], usize), body: Vec<u8>) -> Message {
    Message {
        kind: MessageType::from_number(*kind).expect("one to nine"),
        id: ExchangeId(*id),
        body,
    }
}
