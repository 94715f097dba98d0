//! Messages that are none of WireGuard v1: another first word, another length.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use wiremesh_noise::constants::LABEL_MAC1;
use wiremesh_noise::crypto::{hash, mac};
use wiremesh_wire::{HandshakeInitiation, NodeId};

use crate::arena::OUR_V4;
use crate::capture::Capture;
use crate::facts::probe::{Bench, receive_from, socket_at};
use crate::facts::wg;
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure, fail};
use crate::runner::Context;

/// Each strange message gets no answer, moves no counter and leaves the session as it is.
pub fn dropped(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, false)?;
    let session = bench.probe.connect(&psk)?;
    let capture = Capture::start(&context.arena.ours)?;
    let before = wg::show(&bench.subject)?;
    let mut strange = meaningless();
    let subject = bench.probe.subject_id();
    // Whole initiations of the known peer, and only the first word or the length is off.
    for word in [0x0101_u32, 0x0100_0001, 0x8000_0001, 5, 0] {
        let (initiation, _) = bench.probe.initiation()?;
        strange.push(with_first_word(&initiation, word, &subject));
    }
    let (mut longer, _) = bench.probe.initiation()?;
    strange.push([&longer[..], &[0]].concat());
    longer[0] = 1;
    strange.push(longer[..147].to_vec());
    let connected = connected_socket(context, &bench)?;
    for message in &strange {
        connected.send(message)?;
        bench.probe.send(message)?;
        std::thread::sleep(Duration::from_millis(25));
    }
    std::thread::sleep(Duration::from_secs(1));
    match receive_from(&connected, Duration::from_secs(1)) {
        Ok(None) => {}
        Ok(Some((answer, _))) => return fail(format!("it answered with {} bytes", answer.len())),
        Err(_) => return fail("it answered with an ICMP error"),
    }
    let sent = bench.sent_by_subject(&capture)?;
    ensure(sent == 0, format!("it sent {sent} datagrams"))?;
    let after = wg::show(&bench.subject)?;
    ensure(
        after == before,
        format!("the counters moved: {before:?} {after:?}"),
    )?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "the session did not stay",
    )?;
    // The same construction with the right first word is an initiation like any other.
    let (initiation, pending) = bench.probe.initiation()?;
    bench
        .probe
        .send(&with_first_word(&initiation, 1, &subject))?;
    bench.probe.finish(&pending, &psk)?;
    context.say(format!(
        "{} strange messages, from the peer and from a stranger: no answer, no ICMP, no counter moved",
        strange.len()
    ));
    Ok(())
}

/// First words from 0 to 10 and some others in the lengths of the messages of v1 and of the native
/// handshake, and the messages of v1 in lengths that are off.
fn meaningless() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![],
        vec![1],
        vec![4, 0, 0],
        vec![1, 0, 0, 0],
        vec![4, 0, 0, 0],
    ];
    for word in [
        0_u32,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        0x0104,
        0x0001_0004,
        0xffff_ffff,
    ] {
        for len in [32, 64, 92, 124, 148, 168, 1120, 1216] {
            all.push(message(word, len));
        }
    }
    for (word, len) in [(1, 148), (2, 92), (3, 64)] {
        all.extend([len - 1, len + 1, len + 16].map(|len| message(word, len)));
    }
    all.extend([8, 16, 31].map(|len| message(4, len)));
    all
}

fn message(word: u32, len: usize) -> Vec<u8> {
    let mut message = word.to_le_bytes().to_vec();
    message.resize(len, 0x5a);
    message
}

/// An initiation with another first word and a mac1 that is right for it.
fn with_first_word(
    initiation: &[u8; HandshakeInitiation::LEN],
    word: u32,
    responder: &NodeId,
) -> Vec<u8> {
    let mut message = initiation.to_vec();
    message[..4].copy_from_slice(&word.to_le_bytes());
    let key = hash(&[&LABEL_MAC1[..], responder.as_bytes()]);
    let mac1 = mac(&key, &message[..HandshakeInitiation::MAC1_OFFSET]);
    message[HandshakeInitiation::MAC1_RANGE].copy_from_slice(&mac1);
    message
}

/// A stranger's socket that hears ICMP errors.
fn connected_socket(context: &Context<'_>, bench: &Bench) -> Outcome<std::net::UdpSocket> {
    let own = SocketAddr::new(OUR_V4.parse()?, bench.probe_address.port() + 5000);
    let socket = socket_at(&context.arena.ours, own)?;
    // It does hear them: nothing listens on port 9 there.
    socket.connect(SocketAddr::new(bench.probe.subject_address().ip(), 9))?;
    socket.send(b"?")?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => return fail(format!("a closed port answered {other:?}")),
    }
    socket.connect(bench.probe.subject_address())?;
    Ok(socket)
}
