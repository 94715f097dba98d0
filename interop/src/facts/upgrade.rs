//! The first upgrade of two nodes in kernel mode (docs/spec.md section 7.3), done by hand with `wg`:
//! the order of the steps, and what each of them does to traffic.

use std::time::Duration;

use crate::capture::{Capture, Kind};
use crate::facts::duo::{Duo, Options, Who};
use crate::facts::wg::{self, Readd};
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure, wait_for};
use crate::runner::Context;

/// The subject once as A, which offers, and once as B; each with either as the initiator of the
/// session under the boot PSK.
pub fn first(context: &Context<'_>) -> Outcome {
    for a in [Who::Subject, Who::Other] {
        for initiator in [Who::Subject, Who::Other] {
            upgrade(context, a, initiator)?;
        }
    }
    Ok(())
}

fn upgrade(context: &Context<'_>, a: Who, initiator: Who) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let duo = Duo::start(context, initiator, &Options::default())?;
    let b = a.peer();
    for who in [a, b] {
        allow(&duo, who, false)?;
    }
    duo.reach(initiator)?;
    duo.reach(initiator.peer())?;
    gate_is_closed(&duo)?;
    let psk = generate_psk()?;
    // (2) B sets the PSK in place; DONE still goes over the old session.
    wg::set_psk(duo.side(b), &psk)?;
    duo.reach(b)?;
    duo.reach(a)?;
    ensure(
        duo.initiations(&capture)? == 1,
        "a PSK in place made a handshake",
    )?;
    // (3) and (4): A, then B, removes and adds its peer; LIVE goes over the new session.
    for (who, kept) in [(a, b), (b, a)] {
        let before = duo.count(&capture, who, Kind::Initiation)?;
        replace(&duo, who, &psk)?;
        duo.reach(who)?;
        duo.reach(kept)?;
        let made = duo.count(&capture, who, Kind::Initiation)? - before;
        ensure(made == 1, format!("{who:?} made {made} initiations"))?;
    }
    ensure(
        duo.initiations(&capture)? == 3,
        "more than three handshakes for the whole upgrade",
    )?;
    gate_is_closed(&duo)?;
    // (5) The gate opens in place.
    for who in [a, b] {
        allow(&duo, who, true)?;
    }
    for who in [a, b] {
        duo.reach_address(who, duo.application(who.peer()))?;
    }
    ensure(
        duo.initiations(&capture)? == 3,
        "opening the gate made a handshake",
    )?;
    context.say(format!(
        "A is {a:?}, {initiator:?} connected: three handshakes; control goes through in each step, \
         applications only at the end"
    ));
    Ok(())
}

/// Sets the allowed IPs of the peer in place: control, or control and applications.
fn allow(duo: &Duo, who: Who, applications: bool) -> Outcome {
    let settings = duo.side(who).settings();
    let (v6, v4) = settings.peer_addresses;
    let mut words = format!("peer {} allowed-ips {v6}/128", settings.peer);
    if applications {
        words.push_str(&format!(",{v4}/32"));
    }
    wg::set(duo.side(who), None, &words)
}

/// Removes the peer and adds it with the PSK, only for control, where it was last seen; then waits
/// for the new session.
fn replace(duo: &Duo, who: Who, psk: &str) -> Outcome {
    let stock = duo.side(who);
    let readd = Readd {
        psk: Some(psk.to_owned()),
        allowed_ips: format!("{}/128", stock.settings().peer_addresses.0),
        keepalive: Some(25),
        endpoint: wg::show(stock)?.endpoint,
    };
    readd.run(stock)?;
    wait_for("the session", Duration::from_secs(5), || {
        (wg::show(stock).ok()?.last_handshake > 0).then_some(())
    })
    .map(drop)
}

fn gate_is_closed(duo: &Duo) -> Outcome {
    for who in [Who::Subject, Who::Other] {
        let to = duo.application(who.peer());
        let pings = duo.side(who).place().ping(to, 1, "1")?;
        ensure(
            pings.answered == 0,
            format!("an application of {who:?} got through"),
        )?;
    }
    Ok(())
}
