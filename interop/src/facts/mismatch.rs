//! Two sides with different PSKs: what the handshake that fails does to the sessions there are.

use std::time::{Duration, Instant};

use crate::capture::{Capture, Kind, kind_of};
use crate::facts::pace;
use crate::facts::probe::{ANSWER, Bench, Probe};
use crate::facts::wg;
use crate::keys::generate_psk;
use crate::outcome::{Outcome, Stop, ensure, fail};
use crate::runner::Context;

/// The subject initiates while it has a session, and gets a response under another PSK.
pub fn of_initiator(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, true)?;
    let capture = Capture::start(&context.arena.ours)?;
    let (place, to) = (
        bench.subject.place().clone(),
        bench.subject.settings().peer_addresses.1,
    );
    // Data without an answer, so that the subject initiates again and again.
    let pinging = std::thread::spawn(move || place.ping(to.into(), 130, "0.25"));
    let outcome = initiator(context, &mut bench, &capture, &psk);
    let pings = pinging.join();
    outcome?;
    match pings {
        Ok(pings) => pings.map(drop),
        Err(_) => Err(Stop::Failed("the pinging thread panicked".to_owned())),
    }
}

fn initiator(context: &Context<'_>, bench: &mut Bench, capture: &Capture, psk: &str) -> Outcome {
    let first = next_initiation(&bench.probe, 10)?;
    let session = bench.probe.accept(&first, psk)?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "the first session does not work",
    )?;
    let silent = Instant::now();
    let second = next_initiation(&bench.probe, 30)?;
    let (sent, gap) = (Instant::now(), silent.elapsed());
    context.say(format!(
        "no answer to its data for {:.1} s: it initiates",
        gap.as_secs_f32()
    ));
    let before = wg::show(&bench.subject)?;
    bench.probe.forget_received()?;
    let wrong = bench.probe.answer(&second, &generate_psk()?)?;
    let mut data = 0;
    while let Some(datagram) = bench
        .probe
        .receive_any(Duration::from_secs(3).saturating_sub(sent.elapsed()))?
    {
        let session_seen = bench.probe.session_of(&datagram);
        ensure(
            kind_of(&datagram) == Kind::TransportData && session_seen == Some(session),
            format!("it sent {:?} of {session_seen:?}", kind_of(&datagram)),
        )?;
        data += 1;
    }
    let after = wg::show(&bench.subject)?;
    ensure(
        (after.rx_bytes, after.last_handshake) == (before.rx_bytes, before.last_handshake),
        format!("the wrong response shows: {before:?} {after:?}"),
    )?;
    ensure(data > 0, "it stopped to send on its session")?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "its session did not stay",
    )?;
    context.say(format!(
        "response under another PSK: no reaction, rx_bytes unchanged, {data} packets on the old session"
    ));
    let third = next_initiation(&bench.probe, 10)?;
    let next = bench.probe.accept(&third, psk)?;
    ensure(
        bench.probe.ask(next)? == Some(next) && bench.probe.ask(wrong)?.is_none(),
        "under the right PSK it must work, and under the other one not",
    )?;
    let again = second_gap(bench, capture)?;
    ensure(
        (4.5..6.5).contains(&again.as_secs_f32()),
        format!("the next initiation came after {again:?}"),
    )?;
    let stamps = [&first, &second, &third].map(|message| bench.probe.timestamp_of(message));
    for nanos in stamps {
        pace::ensure_rounded(nanos?)?;
    }
    context.say(format!(
        "next initiation after {:.1} s, under the right PSK a new session; timestamps are multiples of 2^24 ns",
        again.as_secs_f32()
    ));
    Ok(())
}

/// The time between the second and the third initiation of the subject.
fn second_gap(bench: &Bench, capture: &Capture) -> Outcome<Duration> {
    let seen = capture.seen_with_port(bench.subject.settings().listen_port)?;
    let mut initiations = seen
        .iter()
        .filter(|message| message.kind() == Kind::Initiation)
        .skip(1);
    match (initiations.next(), initiations.next()) {
        (Some(second), Some(third)) => Ok(third.at.saturating_sub(second.at)),
        _ => fail("fewer than three initiations"),
    }
}

fn next_initiation(probe: &Probe, seconds: u64) -> Outcome<Vec<u8>> {
    match probe.receive(Kind::Initiation, Duration::from_secs(seconds))? {
        Some(initiation) => Ok(initiation),
        None => fail(format!("no initiation within {seconds} s")),
    }
}

/// The subject answers an initiation that is never confirmed, as one under another PSK is not.
pub fn of_responder(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, false)?;
    let probe = &mut bench.probe;
    let previous = probe.connect(&psk)?;
    let current = probe.connect(&psk)?;
    ensure(
        probe.ask(previous)? == Some(current),
        "what comes on the session before is not accepted",
    )?;
    ensure(probe.knock()?, "an initiation was not answered")?;
    ensure(
        probe.ask(current)? == Some(current),
        "an unconfirmed initiation killed the current session",
    )?;
    let begin = Instant::now();
    let left = probe.ask(previous)?;
    ensure(
        begin.elapsed() >= ANSWER && left.is_none(),
        "the session before is still accepted",
    )?;
    context.say("an unconfirmed initiation: the current session stays, the one before it is gone");
    Ok(())
}
