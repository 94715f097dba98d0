//! Cookies: our node under load wants one from the stock program, and the other way round.

use std::time::Duration;

use crate::capture::{Capture, Kind, Seen};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// Our node is always under load: the stock program gets in only with our cookie.
pub fn from_us(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let options = Options {
        always_under_load: true,
        ..Options::default()
    };
    let pair = Pair::start(context.arena, Initiator::They, &options)?;
    let ping = || {
        pair.they_ping(true, 1, "1")
            .ok()
            .filter(|pings| pings.answered == 1)
    };
    let (_, took) = wait_for("their ping", Duration::from_secs(40), ping)?;
    let seen = capture.seen_with_port(pair.our_port)?;
    check(&seen)?;
    context.say(format!(
        "they were sent a cookie, came back with mac2 and got in after {:.1} s",
        took.as_secs_f32()
    ));
    pair.we_reach_them()
}

/// The stock program is flooded until it is under load: our node gets in with its cookie.
pub fn from_them(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let mut pair = Pair::start(context.arena, Initiator::We, &Options::default())?;
    let flood = pair.flood_them(&context.arena.ours)?;
    std::thread::sleep(Duration::from_secs(2));
    // Programs that count by the second let a few in before they want cookies: try until it is us
    // who is asked for one.
    for attempt in 1..=5 {
        let before = capture.seen_with_port(pair.our_port)?.len();
        let ping = || {
            pair.ours
                .ping(pair.their_address(true), 8)
                .ok()
                .filter(|answer| *answer)
        };
        let (_, took) = wait_for("our ping", Duration::from_secs(40), ping)?;
        let seen = capture.seen_with_port(pair.our_port)?;
        if seen[before..]
            .iter()
            .any(|message| message.kind() == Kind::CookieReply)
        {
            drop(flood);
            check(&seen[before..])?;
            context.say(format!(
                "we were sent a cookie, came back with mac2 and got in after {:.1} s \
                 (attempt {attempt})",
                took.as_secs_f32()
            ));
            return Ok(());
        }
        pair.ours.restart()?;
    }
    fail("the flooded program let us in without a cookie five times")
}

/// In this order: an initiation without mac2, a cookie reply, one with mac2, a response.
fn check(seen: &[Seen]) -> Outcome {
    let handshake: Vec<&Seen> = seen
        .iter()
        .filter(|message| message.kind() != Kind::TransportData)
        .collect();
    let Some(cookie) = handshake
        .iter()
        .position(|one| one.kind() == Kind::CookieReply)
    else {
        return fail(format!("no cookie reply in {:?}", story(&handshake)));
    };
    let (before, after) = handshake.split_at(cookie);
    let plain = before
        .iter()
        .any(|one| one.kind() == Kind::Initiation && !one.has_mac2());
    ensure(plain, "the cookie reply answers no initiation")?;
    ensure(
        before.iter().all(|one| one.kind() != Kind::Response),
        format!("a response came before the cookie: {:?}", story(&handshake)),
    )?;
    let proof = after
        .iter()
        .position(|one| one.kind() == Kind::Initiation && one.has_mac2());
    let Some(proof) = proof else {
        return fail(format!(
            "no initiation with mac2 in {:?}",
            story(&handshake)
        ));
    };
    let answered = after[proof..]
        .iter()
        .any(|one| one.kind() == Kind::Response);
    ensure(
        answered,
        format!("the cookie did not help: {:?}", story(&handshake)),
    )
}

fn story(handshake: &[&Seen]) -> Vec<String> {
    let word = |one: &&Seen| {
        let mac2 = if one.has_mac2() { " with mac2" } else { "" };
        format!("{} {:?}{mac2}", one.source, one.kind())
    };
    handshake.iter().map(word).collect()
}
