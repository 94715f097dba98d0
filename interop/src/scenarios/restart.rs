//! A restart of either side: keys stay, sessions are lost, and the survivor's session is stale.

use std::time::Duration;

use crate::outcome::{Outcome, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// The survivor notices after 15 s without an answer, plus one retry and its jitter.
const STALE: Duration = Duration::from_secs(45);
/// Whoever restarted has no session and begins at once.
const FRESH: Duration = Duration::from_secs(15);

/// The stock program is killed and comes back.
pub fn they_restart(context: &Context<'_>) -> Outcome {
    let mut pair = Pair::start(context.arena, Initiator::They, &Options::default())?;
    pair.they_reach_us()?;
    pair.theirs.restart()?;
    let took = they_come_back(&pair, FRESH)?;
    context.say(format!(
        "they restarted and send: traffic after {took:.1} s"
    ));
    pair.we_reach_them()?;
    pair.theirs.restart()?;
    let took = we_come_back(&pair, STALE)?;
    context.say(format!(
        "they restarted and only we send: traffic after {took:.1} s"
    ));
    Ok(())
}

/// Our node is killed and comes back.
pub fn we_restart(context: &Context<'_>) -> Outcome {
    let mut pair = Pair::start(context.arena, Initiator::We, &Options::default())?;
    pair.we_reach_them()?;
    pair.they_reach_us()?;
    pair.ours.restart()?;
    let took = we_come_back(&pair, FRESH)?;
    context.say(format!("we restarted and send: traffic after {took:.1} s"));
    pair.they_reach_us()?;
    pair.ours.restart()?;
    let took = they_come_back(&pair, STALE)?;
    context.say(format!(
        "we restarted and only they send: traffic after {took:.1} s"
    ));
    Ok(())
}

fn they_come_back(pair: &Pair, limit: Duration) -> Outcome<f32> {
    let ping = || {
        pair.they_ping(true, 1, "1")
            .ok()
            .filter(|pings| pings.answered == 1)
    };
    Ok(wait_for("their ping", limit, ping)?.1.as_secs_f32())
}

fn we_come_back(pair: &Pair, limit: Duration) -> Outcome<f32> {
    let to = pair.their_address(true);
    let ping = || pair.ours.ping(to, 2).ok().filter(|answered| *answered);
    Ok(wait_for("our ping", limit, ping)?.1.as_secs_f32())
}
