//! Each side as the initiator; ping both ways, both inner families, up to full-size packets.

use std::net::IpAddr;

use crate::capture::{Capture, Kind};
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::Context;

/// Only the stock program knows where the other side is; the tunnel runs over IPv4.
pub fn they_initiate(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let pair = Pair::start(context.arena, Initiator::They, &Options::default())?;
    pair.they_reach_us()?;
    context.say("their ping to our overlay address is answered");
    ping_on(context, &pair)?;
    pair.we_reach_them()?;
    context.say("our ping to their overlay address is answered");
    check_handshake(context, &capture, &pair, pair.outer().1)
}

/// Only our node knows where the other side is; the tunnel runs over IPv6.
pub fn we_initiate(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let options = Options {
        outer_v6: true,
        ..Options::default()
    };
    let pair = Pair::start(context.arena, Initiator::We, &options)?;
    pair.we_reach_them()?;
    context.say("our ping to their overlay address is answered");
    pair.they_reach_us()?;
    context.say("their ping to our overlay address is answered");
    ping_on(context, &pair)?;
    check_handshake(context, &capture, &pair, pair.outer().0)
}

/// Our node is set up by a `wg0.conf`, each side begins once, with a PSK.
pub fn by_wg_conf(context: &Context<'_>) -> Outcome {
    for initiator in [Initiator::They, Initiator::We] {
        let psk = Some(generate_psk()?);
        let options = Options {
            wg_conf: true,
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
        ping_on(context, &pair)?;
    }
    Ok(())
}

fn ping_on(context: &Context<'_>, pair: &Pair) -> Outcome {
    let pings = pair.they_ping(false, 3, "0.3")?;
    ensure(
        pings.answered == pings.sent,
        format!("IPv4: {pings:?}\n{}", pair.state()),
    )?;
    context.say("their ping to our IPv4 address inside the tunnel is answered");
    // 1,420 bytes of packet: 40 of IPv6 header, 8 of ICMPv6 header.
    let to = pair.our_address(true).to_string();
    let words = [
        "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1372", &to,
    ];
    let full = pair.theirs.place().succeeds(20, &words);
    ensure(
        full,
        format!("their ping of 1,420 bytes: no answer\n{}", pair.state()),
    )?;
    context.say("their ping of 1,420 bytes is answered");
    Ok(())
}

fn check_handshake(
    context: &Context<'_>,
    capture: &Capture,
    pair: &Pair,
    initiator: IpAddr,
) -> Outcome {
    let seen = capture.seen_with_port(pair.our_port)?;
    let first = seen
        .first()
        .map(|message| (message.kind(), message.source.ip()));
    ensure(
        first == Some((Kind::Initiation, initiator)),
        format!("the first message is {first:?}, not an initiation from {initiator}"),
    )?;
    let count = |kind| seen.iter().filter(|message| message.kind() == kind).count();
    let (initiations, responses) = (count(Kind::Initiation), count(Kind::Response));
    ensure(
        (initiations, responses) == (1, 1),
        format!("{initiations} initiations and {responses} responses instead of one each"),
    )?;
    ensure(
        count(Kind::Other) == 0,
        "something that is not WireGuard v1 went over the link",
    )?;
    context.say(format!(
        "on the link: one handshake, begun by {initiator}, {} transport data, nothing else",
        count(Kind::TransportData)
    ));
    Ok(())
}
