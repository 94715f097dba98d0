//! Roaming: an address or a port of either side changes under a live session.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::arena::{OUR_NEXT_V4, OUR_V4, THEIR_NEXT_V4, THEIR_V4};
use crate::capture::{Capture, Kind};
use crate::outcome::{Outcome, ensure, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// Until the other side has heard of the new address. A roaming side that sticks to its old source
/// address (older wireguard-go on newer kernels does) begins anew after 15 s without an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The stock program's host gets another address.
pub fn their_address(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let options = Options {
        they_roam: true,
        ..Options::default()
    };
    let pair = Pair::start(context.arena, Initiator::They, &options)?;
    pair.they_reach_us()?;
    context.arena.theirs.move_address(THEIR_V4, THEIR_NEXT_V4)?;
    let port = pair.theirs.settings().listen_port;
    let outcome = we_follow(
        context,
        &pair,
        SocketAddr::new(THEIR_NEXT_V4.parse()?, port),
    );
    context.arena.theirs.move_address(THEIR_NEXT_V4, THEIR_V4)?;
    outcome?;
    say_handshakes(context, &capture, &pair)
}

/// The stock program takes another port.
pub fn their_port(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let mut pair = Pair::start(context.arena, Initiator::They, &Options::default())?;
    pair.they_reach_us()?;
    let port = pair.theirs.settings().listen_port + 1000;
    let how = pair.theirs.change(|settings| settings.listen_port = port)?;
    context.say(format!("their port changed {how}"));
    we_follow(context, &pair, SocketAddr::new(THEIR_V4.parse()?, port))?;
    say_handshakes(context, &capture, &pair)
}

/// Our host gets another address.
pub fn our_address(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let pair = Pair::start(context.arena, Initiator::We, &Options::default())?;
    pair.we_reach_them()?;
    context.arena.ours.move_address(OUR_V4, OUR_NEXT_V4)?;
    let outcome = they_follow(context, &pair, OUR_NEXT_V4.parse()?);
    context.arena.ours.move_address(OUR_NEXT_V4, OUR_V4)?;
    outcome?;
    say_handshakes(context, &capture, &pair)
}

fn we_follow(context: &Context<'_>, pair: &Pair, to: SocketAddr) -> Outcome {
    let ping = || {
        pair.they_ping(true, 1, "1")
            .ok()
            .filter(|pings| pings.answered == 1)
    };
    let (_, took) = wait_for("their ping from the new endpoint", LIMIT, ping)?;
    let moved = || {
        pair.ours
            .peer_endpoint()
            .ok()
            .flatten()
            .filter(|endpoint| *endpoint == to)
    };
    wait_for(
        &format!("our node to take {to} as the endpoint"),
        LIMIT,
        moved,
    )?;
    pair.we_reach_them()?;
    let took = took.as_secs_f32();
    context.say(format!(
        "their endpoint is {to} now: ping works both ways after {took:.1} s"
    ));
    Ok(())
}

fn they_follow(context: &Context<'_>, pair: &Pair, to: IpAddr) -> Outcome {
    let inner = pair.their_address(true);
    let ping = || pair.ours.ping(inner, 2).ok().filter(|answered| *answered);
    let (_, took) = wait_for("our ping from the new address", LIMIT, ping)?;
    let endpoint = pair.theirs.report()?.endpoint;
    let expected = SocketAddr::new(to, pair.our_port);
    ensure(
        endpoint == Some(expected),
        format!("they believe us at {endpoint:?}"),
    )?;
    pair.they_reach_us()?;
    let took = took.as_secs_f32();
    context.say(format!(
        "our endpoint is {to} now: ping works both ways after {took:.1} s"
    ));
    Ok(())
}

fn say_handshakes(context: &Context<'_>, capture: &Capture, pair: &Pair) -> Outcome {
    let seen = capture.seen_with_port(pair.our_port)?;
    let count = seen
        .iter()
        .filter(|message| message.kind() == Kind::Initiation)
        .count();
    context.say(format!("handshakes in all: {count}"));
    Ok(())
}
