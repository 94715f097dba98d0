//! Whole exchanges byte for byte, against vectors/pskx.txt, which an independent program in another
//! language (vectors/pskx.py) has made.

use crate::support::{Node, Script};
use wiremesh_control::exchange::{self, Role};
use wiremesh_control::frame::{ExchangeId, MessageType, fragment};
use wiremesh_control::message::{Abort, Hello, Key, Offer, Reply};
use wiremesh_control::schedule::{self, Keys, Secret, Shared};
use wiremesh_control::{Level, SuiteId, Suites, choose};
use wiremesh_wire::NetworkId;

const VECTORS: &str = include_str!("../vectors/pskx.txt");

fn find(name: &str) -> Option<Vec<u8>> {
    let value = VECTORS.lines().find_map(|line| {
        let (key, value) = line.split_once(" =")?;
        (key == name).then(|| value.trim())
    })?;
    let byte = |at| u8::from_str_radix(&value[at..at + 2], 16).expect("hexadecimal");
    Some((0..value.len()).step_by(2).map(byte).collect())
}

fn bytes(name: &str) -> Vec<u8> {
    find(name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn array<const N: usize>(name: &str) -> [u8; N] {
    let bytes = bytes(name);
    bytes.try_into().unwrap_or_else(|_| panic!("{name}"))
}

fn number(name: &str) -> u64 {
    let bytes = bytes(name);
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn network() -> NetworkId {
    NetworkId::from_bytes(array("network"))
}

fn node(letter: &str) -> Node {
    let name = |field| format!("{letter}.{field}");
    let mut node = Node::new(array(&name("secret")), array(&name("static_seed")));
    node.network = network();
    assert_eq!(node.id.as_bytes(), &array::<32>(&name("id")));
    node
}

/// What one side says of itself in one case.
fn hello(side: &str) -> Hello {
    let name = |field| format!("{side}.{field}");
    let list = bytes(&name("suites"));
    let list = list.as_chunks::<2>().0.iter().copied();
    Hello {
        nonce: array(&name("nonce")),
        min_level: Level::from_number(number(&name("min_level")) as u16).expect("a level"),
        suites: Suites::new(list.map(|s| SuiteId(u16::from_be_bytes(s)))).expect("a list"),
        own_seq: number(&name("own_seq")),
        peer_record: array(&name("peer_record")),
        caps: array::<1>(&name("caps"))[0],
        record: find(&name("record")),
        proof: find(&name("proof")),
        network: Hello::network_prefix(&network()),
    }
}

/// The random bytes of one step, in the order in which it draws them; those that a case has not
/// are left out.
fn script(case: &str, names: &[&str]) -> Script {
    let drawn = names
        .iter()
        .filter_map(|name| find(&format!("{case}.{name}")));
    Script(drawn.flatten().collect())
}

fn check(case: &str) {
    let [a, b] = [node("a"), node("b")];
    let name = |field: &str| format!("{case}.{field}");
    let (suite, epoch) = (
        SuiteId(number(&name("suite")) as u16),
        number(&name("epoch")) as u32,
    );
    let [hello_a, hello_b] = ["a", "b"].map(|side| hello(&name(side)));
    assert_eq!(choose(&hello_a.suites, &hello_b.suites), Some(suite));

    let random = &mut script(case, &["a.ephemeral", "a.kem_seed", "a.static_m"]);
    let ek = find(&name("a.static_m")).map(|_| b.kem.encapsulation_key());
    let (offered, offer) = exchange::offer(&a.party(), hello_a, epoch, &b.id, ek, random);
    assert_eq!(offer, bytes(&name("offer")));
    assert!(random.0.is_empty());

    let random = &mut script(case, &["b.ephemeral", "b.m", "b.static_m", "b.sign_random"]);
    let parsed = Offer::parse(&offer).expect("an OFFER");
    let ek = Some(a.kem.encapsulation_key());
    let (replied, reply) = exchange::reply(
        &b.party(),
        hello_b,
        suite,
        &a.id,
        &parsed,
        &offer,
        ek,
        random,
    )
    .expect("a REPLY");
    assert_eq!(reply, bytes(&name("reply")));
    assert!(random.0.is_empty());

    let random = &mut script(case, &["a.sign_random"]);
    let parsed = Reply::parse(&reply).expect("a REPLY");
    let (at_a, fin) = offered
        .accept_reply(&a.party(), &b.id, &parsed, &reply, random)
        .expect("an agreement");
    assert_eq!(fin, bytes(&name("fin")));

    let at_b = replied.accept_fin(&a.id, &fin).expect("an agreement");
    for agreement in [at_a, at_b] {
        assert_eq!((agreement.suite(), agreement.epoch()), (suite, epoch));
        assert_eq!(agreement.psk().as_bytes(), &array::<32>(&name("psk")));
        assert_eq!(agreement.done().as_slice(), bytes(&name("done")));
        assert_eq!(agreement.live(Role::A), bytes(&name("live_a")));
        assert_eq!(agreement.live(Role::B), bytes(&name("live_b")));
        for (role, field) in [(Role::A, "abort_a"), (Role::B, "abort_b")] {
            let abort = Abort::parse(&bytes(&name(field))).expect("an ABORT");
            let mac = agreement.abort_mac(role, abort.code, abort.highest);
            assert_eq!(abort.mac, Some(mac));
            assert_eq!(abort.emit(), bytes(&name(field)));
        }
    }
}

#[test]
fn suite_1_agrees_and_the_key_is_not_used() {
    check("suite1");
}

#[test]
fn suite_2_gives_the_bytes_of_the_script() {
    check("suite2");
}

#[test]
fn a_static_ciphertext_in_suite_2_is_in_the_transcript_only() {
    check("unused_static");
}

#[test]
fn suite_3_gives_the_bytes_of_the_script() {
    check("suite3");
}

#[test]
fn each_step_of_the_schedule_is_that_of_the_script() {
    let [a, b] = [node("a"), node("b")];
    for case in ["suite1", "suite2", "unused_static", "suite3"] {
        let name = |field: &str| format!("{case}.{field}");
        let value = |field: &str| array::<32>(&name(field));
        let secret = |field: &str| Secret::new(value(field));
        let optional =
            |field: &str| (!bytes(&name(field)).is_empty()).then(|| Secret::new(value(field)));

        let th0 = schedule::th0(&network(), &a.id, &b.id);
        assert_eq!(th0, value("th0"));
        let th1 = schedule::absorb(&th0, &bytes(&name("offer")));
        assert_eq!(th1, value("th1"));
        let reply = bytes(&name("reply"));
        let th2 = schedule::absorb(&th1, Reply::signed_part(&reply));
        assert_eq!(th2, value("th2"));
        let parsed = Reply::parse(&reply).expect("a REPLY");
        let th3 = schedule::absorb_proof(&th2, &parsed.signature, &parsed.confirmation);
        assert_eq!(th3, value("th3"));

        let shared = Shared {
            ephemeral_kem: secret("ss_eph"),
            ephemeral_dh: secret("dh"),
            static_a: optional("ss_a"),
            static_b: optional("ss_b"),
        };
        let prk = shared.extract(&th2);
        assert_eq!(*prk, value("prk"));
        let suite = SuiteId(number(&name("suite")) as u16);
        let keys = Keys::expand(&prk, suite, number(&name("epoch")) as u32);
        assert_eq!(keys.psk.as_bytes(), &value("psk"));
        assert_eq!(*keys.confirm_b, value("k_b"));
        assert_eq!(*keys.confirm_a, value("k_a"));
        assert_eq!(*keys.done, value("k_d"));
        assert_eq!(*keys.live, value("k_l"));
    }
}

#[test]
fn key_has_the_bytes_of_the_script() {
    let ek = Box::new(*node("a").kem.encapsulation_key());
    for (ek, name) in [(Some(ek), "key.with_ek"), (None, "key.without_ek")] {
        let record = bytes("key.record");
        let key = Key { record, ek };
        assert_eq!(key.emit(), bytes(name));
        assert_eq!(Key::parse(&bytes(name)), Ok(key));
    }
}

#[test]
fn frames_have_the_bytes_of_the_script() {
    let id = ExchangeId(array("frames.id"));
    let frames = |kind, body: &[u8]| {
        let mut frames = Vec::new();
        fragment(kind, id, body, |frame| frames.push(frame));
        frames
    };
    assert_eq!(frames(MessageType::Poke, &[]), [bytes("frames.poke")]);
    let done = bytes("suite3.done");
    assert_eq!(frames(MessageType::Done, &done), [bytes("frames.done")]);
    let of_script: Vec<Vec<u8>> = (0..8).map(|i| bytes(&format!("frames.offer{i}"))).collect();
    assert_eq!(
        frames(MessageType::Offer, &bytes("suite3.offer")),
        of_script
    );
}
