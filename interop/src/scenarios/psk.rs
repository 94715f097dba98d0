//! Preshared keys: the same on both sides, and different ones until one side is mended.

use std::time::Duration;

use crate::capture::{Capture, Kind};
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// Both sides have the same PSK; each side begins once.
pub fn the_same(context: &Context<'_>) -> Outcome {
    for initiator in [Initiator::They, Initiator::We] {
        let psk = Some(generate_psk()?);
        let options = Options {
            our_psk: psk.clone(),
            their_psk: psk,
            ..Options::default()
        };
        let pair = Pair::start(context.arena, initiator, &options)?;
        if initiator == Initiator::They {
            pair.they_reach_us()?;
            pair.we_reach_them()?;
        } else {
            pair.we_reach_them()?;
            pair.they_reach_us()?;
        }
        context.say(format!("{initiator:?} initiate: ping works both ways"));
    }
    Ok(())
}

/// Their initiation is fine, but our response does not open under their PSK.
pub fn wrong_when_they_initiate(context: &Context<'_>) -> Outcome {
    wrong(context, Initiator::They)
}

/// Our initiation is fine, but their response does not open under our PSK.
pub fn wrong_when_we_initiate(context: &Context<'_>) -> Outcome {
    wrong(context, Initiator::We)
}

fn wrong(context: &Context<'_>, initiator: Initiator) -> Outcome {
    let options = Options {
        our_psk: Some(generate_psk()?),
        their_psk: Some(generate_psk()?),
        ..Options::default()
    };
    let capture = Capture::start(&context.arena.ours)?;
    let mut pair = Pair::start(context.arena, initiator, &options)?;
    let reached = |pair: &Pair| match initiator {
        Initiator::They => pair.they_ping(true, 1, "1").map(|pings| pings.answered > 0),
        Initiator::We => pair.ours.ping(pair.their_address(true), 3),
    };
    ensure(
        !reached(&pair)? && !reached(&pair)?,
        "a ping got through under different PSKs",
    )?;
    let seen = capture.seen_with_port(pair.our_port)?;
    let count = |kind| seen.iter().filter(|message| message.kind() == kind).count();
    ensure(
        count(Kind::Response) > 0,
        "nobody responded, so no PSK was tried",
    )?;
    ensure(
        count(Kind::TransportData) == 0,
        "transport data was sent under different PSKs",
    )?;
    ensure(
        pair.theirs.report()?.last_handshake == 0,
        "they count a handshake as done",
    )?;
    context.say(format!(
        "different PSKs: {} initiations, {} responses, no transport data",
        count(Kind::Initiation),
        count(Kind::Response)
    ));
    let how = pair
        .theirs
        .change(|settings| settings.psk.clone_from(&options.our_psk))?;
    let again = || reached(&pair).ok().filter(|reached| *reached);
    let (_, took) = wait_for(
        "ping after the PSK was mended",
        Duration::from_secs(30),
        again,
    )?;
    context.say(format!(
        "their PSK changed {how}: ping works after {:.1} s",
        took.as_secs_f32()
    ));
    Ok(())
}
