//! Settings that are changed in place: the session stays, the next handshake uses the new PSK.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::capture::{Capture, Kind, Seen};
use crate::facts::duo::{Duo, Options, Who};
use crate::facts::probe::{ANSWER, Bench};
use crate::facts::wg;
use crate::keys::generate_psk;
use crate::outcome::{Outcome, Stop, ensure, fail};
use crate::runner::{Context, Effort};

/// Nothing that can be set for one peer makes a handshake, and `wg` does not tell which PSK made
/// the session.
pub fn settings(context: &Context<'_>) -> Outcome {
    let capture = Capture::start(&context.arena.ours)?;
    let options = Options {
        psk: Some(generate_psk()?),
        ..Options::default()
    };
    let duo = Duo::start(context, Who::Subject, &options)?;
    duo.reach(Who::Subject)?;
    duo.reach(Who::Other)?;
    let settings = duo.subject.settings();
    let (v6, v4) = settings.peer_addresses;
    let endpoint = settings.endpoint.expect("the subject begins");
    let psk = generate_psk()?;
    let steps = [
        format!("preshared-key {}", wg::PSK_FILE),
        "persistent-keepalive 25".to_owned(),
        "persistent-keepalive 0".to_owned(),
        "persistent-keepalive 25".to_owned(),
        format!("endpoint {endpoint}"),
        format!("allowed-ips {v6}/128"),
        format!("allowed-ips {v6}/128,{v4}/32"),
    ];
    for step in &steps {
        let words = format!("peer {} {step}", settings.peer);
        wg::set(&duo.subject, Some(&psk), &words)?;
        duo.reach(Who::Subject)?;
        duo.reach(Who::Other)?;
    }
    run_with_config(&duo, "syncconf")?;
    duo.reach(Who::Subject)?;
    duo.reach(Who::Other)?;
    let made = duo.initiations(&capture)?;
    ensure(
        made == 1,
        format!("{made} initiations, but only the first session needs one"),
    )?;
    ensure(
        wg::show(&duo.subject)?.psk.as_deref() == Some(psk.as_str()),
        "wg shows another PSK than the one that was set last",
    )?;
    context.say(format!(
        "{} settings and wg syncconf in place: no handshake, no packet lost; wg shows the new PSK",
        steps.len()
    ));
    // Under other PSKs no new session can come, so a ping shows whether the old one lives.
    run_with_config(&duo, "setconf")?;
    let pings = duo
        .subject
        .place()
        .ping(duo.control(Who::Other), 3, "0.2")?;
    ensure(pings.answered == 0, "a session survived wg setconf")?;
    let made = duo.initiations(&capture)?;
    ensure(made > 1, "wg setconf did not make a handshake necessary")?;
    context.say("wg setconf with the same text: the session is gone");
    Ok(())
}

/// Feeds what `wg showconf` says to `wg syncconf` or `wg setconf`.
fn run_with_config(duo: &Duo, command: &str) -> Outcome {
    let script =
        "f=/tmp/$1.facts && wg showconf $1 >$f && wg $2 $1 $f; code=$?; rm -f $f; exit $code";
    let interface = duo.subject.interface();
    let place = duo.subject.place();
    place
        .run(&["sh", "-c", script, "sh", interface, command])
        .map(drop)
}

/// An initiator looks at its PSK when the response has come, not when it sends the initiation.
pub fn read_late(context: &Context<'_>) -> Outcome {
    let mut bench = Bench::start(context, &generate_psk()?, true)?;
    let peer = bench.subject.settings().peer.clone();
    let words = format!("peer {peer} persistent-keepalive 25");
    wg::set(&bench.subject, None, &words)?;
    let Some(initiation) = bench.probe.receive(Kind::Initiation, ANSWER)? else {
        return fail("a keepalive did not make an initiation");
    };
    let psk = generate_psk()?;
    wg::set_psk(&bench.subject, &psk)?;
    let session = bench.probe.accept(&initiation, &psk)?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "the session under the PSK that was set meanwhile does not work",
    )?;
    context.say("initiation, new PSK in place, response under the new PSK: accepted");
    Ok(())
}

/// When the first of the two sets its PSK: the age of the session.
const FIRST: Duration = Duration::from_secs(99);
/// How long traffic goes on after the second has set it.
const AFTER: Duration = Duration::from_secs(12);

struct Case {
    /// Who made the session, and so makes the next one.
    initiator: Who,
    /// Who sets the PSK first.
    first: Who,
    /// The age of the session at which the second sets it.
    second: Duration,
    /// Whether every packet must come through.
    lossless: bool,
}

/// Both sides set a new PSK, the second so late that handshakes fail in between.
pub fn apart(context: &Context<'_>) -> Outcome {
    let second = if context.effort == Effort::Quick {
        Duration::from_secs(128)
    } else {
        Duration::from_secs(159)
    };
    let mut cases = Vec::new();
    for initiator in [Who::Subject, Who::Other] {
        for first in [Who::Subject, Who::Other] {
            cases.push(Case {
                initiator,
                first,
                second,
                lossless: true,
            });
        }
    }
    if context.effort > Effort::Quick {
        // Beyond the limit: the session is dead at 180 s.
        cases.push(Case {
            initiator: Who::Subject,
            first: Who::Other,
            second: Duration::from_secs(190),
            lossless: false,
        });
    }
    let capture = Capture::start(&context.arena.ours)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .iter()
            .map(|case| scope.spawn(|| one_case(context, &capture, case)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Stop::Failed("a thread panicked".to_owned())))
        })
    })
}

fn one_case(context: &Context<'_>, capture: &Capture, case: &Case) -> Outcome {
    let options = Options {
        psk: Some(generate_psk()?),
        ..Options::default()
    };
    let duo = Duo::start(context, case.initiator, &options)?;
    duo.reach(case.initiator)?;
    let start = Instant::now();
    let total = case.second + AFTER;
    let (place, to) = (
        duo.side(case.initiator).place().clone(),
        duo.control(case.initiator.peer()),
    );
    // Without a session 128 packets wait; beyond the limit there must be more than that.
    let (each_second, interval) = if case.lossless {
        (4, "0.25")
    } else {
        (20, "0.05")
    };
    let count = total.as_secs() as u32 * each_second;
    let pinging = std::thread::spawn(move || place.ping(to, count, interval));
    let psk = generate_psk()?;
    let mut set_at = Duration::ZERO;
    for (who, age) in [(case.first, FIRST), (case.first.peer(), case.second)] {
        sleep((start + age).saturating_duration_since(Instant::now()));
        wg::set_psk(duo.side(who), &psk)?;
        set_at = SystemTime::now().duration_since(UNIX_EPOCH)?;
    }
    let pings = match pinging.join() {
        Ok(pings) => pings?,
        Err(_) => return fail("the pinging thread panicked"),
    };
    let lost = pings.sent - pings.answered;
    let seen = duo.seen(capture)?;
    let said = check(&duo, case, &seen, set_at)?;
    let what = format!(
        "{:?} made the session, {:?} sets at {} s, the other at {} s: {said}, {lost} of {} pings lost",
        case.initiator,
        case.first,
        FIRST.as_secs(),
        case.second.as_secs(),
        pings.sent
    );
    if case.lossless {
        ensure(lost == 0, &what)?;
    } else {
        ensure(lost > 0, format!("beyond the limit, but {what}"))?;
    }
    context.say(what);
    Ok(())
}

/// Checks that handshakes failed in between, and that one succeeded once both had the PSK.
fn check(duo: &Duo, case: &Case, seen: &[Seen], set_at: Duration) -> Outcome<String> {
    let from = |who, kind| {
        seen.iter()
            .filter(move |message| message.kind() == kind && duo.is_from(who, message))
    };
    let initiations: Vec<&Seen> = from(case.initiator, Kind::Initiation).collect();
    let foreign = from(case.initiator.peer(), Kind::Initiation).count();
    if case.lossless {
        ensure(foreign == 0, "the responder of the session initiated")?;
    }
    let failed: Vec<&&Seen> = initiations
        .iter()
        .skip(1)
        .filter(|message| message.at < set_at)
        .collect();
    let Some(begun) = failed.first() else {
        return fail("no handshake was tried between the two settings, so nothing was proven");
    };
    let answers = from(case.initiator.peer(), Kind::Response)
        .filter(|message| message.at > begun.at && message.at < set_at)
        .count();
    ensure(answers > 0, "nobody answered in between")?;
    let first_index = |message: &Seen| message.payload.get(4..8).map(<[u8]>::to_vec);
    // What the responder sends names the index of the initiation that made the session.
    let old = initiations.first().and_then(|message| first_index(message));
    let new = from(case.initiator.peer(), Kind::TransportData)
        .find(|message| message.at > begun.at && first_index(message) != old);
    let Some(new) = new else {
        return fail("no new session came into use");
    };
    if case.lossless {
        ensure(
            new.at > set_at - Duration::from_secs(2),
            "a new session came before both had the PSK",
        )?;
    }
    Ok(format!(
        "{} handshakes failed from age {:.0} s on, the first good one {:.1} s after both had it",
        failed.len(),
        (begun.at - initiations[0].at).as_secs_f32(),
        new.at.saturating_sub(set_at).as_secs_f32()
    ))
}
