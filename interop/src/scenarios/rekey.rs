//! The natural rekey, in real time: the initiator of the session makes a new one after 120 s.

use std::net::IpAddr;
use std::time::Duration;

use crate::capture::{Capture, Kind, Seen};
use crate::outcome::{Outcome, Stop, ensure, fail, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// How long traffic flows: the rekey and some seconds of the new session.
const SECONDS: u32 = 132;

/// Two pairs at the same time, one for each initiator.
pub fn both_roles(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let theirs = Pair::start(context.arena, Initiator::They, &Options::default())?;
    let ours = Pair::start(context.arena, Initiator::We, &Options::default())?;
    wait_for("our ping", Duration::from_secs(15), || {
        ours.we_reach_them().ok()
    })?;
    let run = |pair: &Pair| pair.they_ping(true, SECONDS * 4, "0.25");
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&ours));
        let failed = Err(Stop::Failed("the pinging thread ended".to_owned()));
        (run(&theirs), other.join().unwrap_or(failed))
    });
    for (pair, pings, initiator, who) in [
        (&theirs, a?, theirs.outer().1, "they"),
        (&ours, b?, ours.outer().0, "we"),
    ] {
        let lost = pings.sent - pings.answered;
        ensure(
            lost == 0,
            format!("{who} initiate: {lost} of {} pings lost", pings.sent),
        )?;
        let seen = capture.seen_with_port(pair.our_port)?;
        let after = check(&seen, initiator)?;
        context.say(format!(
            "{who} initiate: rekey by the initiator after {:.1} s, none of {} pings lost",
            after.as_secs_f32(),
            pings.sent
        ));
    }
    Ok(())
}

fn check(seen: &[Seen], initiator: IpAddr) -> Outcome<Duration> {
    let initiations: Vec<&Seen> = seen
        .iter()
        .filter(|message| message.kind() == Kind::Initiation)
        .collect();
    let [first, second] = initiations[..] else {
        return fail(format!("{} initiations instead of 2", initiations.len()));
    };
    let by_initiator = [first, second]
        .iter()
        .all(|message| message.source.ip() == initiator);
    ensure(
        by_initiator,
        "the responder of the session made the second handshake",
    )?;
    let after = second.at.saturating_sub(first.at);
    let expected = Duration::from_secs(118)..Duration::from_secs(127);
    ensure(
        expected.contains(&after),
        format!("the second handshake came after {after:?}"),
    )?;
    let last = seen.iter().rev().find(|message| {
        message.kind() == Kind::TransportData && message.destination.ip() == initiator
    });
    // The receiver index of transport data is the sender index of its own handshake.
    let index = last.map(|message| &message.payload[4..8]);
    ensure(
        index == Some(&second.payload[4..8]),
        "the last data is not of the new session",
    )?;
    Ok(after)
}
