//! A knock: an initiation of a peer that then rejects the response because its PSK is another.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::capture::{Capture, Kind, Seen};
use crate::facts::duo::{Duo, Options, Who};
use crate::facts::probe::Bench;
use crate::facts::wg;
use crate::keys::generate_psk;
use crate::outcome::{Outcome, Stop, ensure, fail};
use crate::place::{Pings, Place};
use crate::runner::{Context, Effort};

/// What a knock leaves in the counters.
pub fn bytes(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, false)?;
    bench.probe.connect(&psk)?;
    let before = wg::show(&bench.subject)?;
    // The time of the last handshake has whole seconds.
    sleep(Duration::from_millis(1100));
    for count in 1..=3 {
        ensure(bench.probe.knock()?, "a knock was not answered")?;
        let after = wg::show(&bench.subject)?;
        let grown = (
            after.rx_bytes - before.rx_bytes,
            after.tx_bytes - before.tx_bytes,
        );
        ensure(
            grown == (148 * count, 92 * count),
            format!("{count} knocks: rx_bytes and tx_bytes grew by {grown:?}"),
        )?;
        ensure(
            after.last_handshake == before.last_handshake,
            "a knock counts as a handshake",
        )?;
    }
    context.say("each knock: rx_bytes + 148, tx_bytes + 92, the last handshake stays");
    bench.probe.connect(&psk)?;
    let after = wg::show(&bench.subject)?;
    ensure(
        after.last_handshake > before.last_handshake,
        "a whole handshake does not move the time of the last one",
    )
}

/// The other side dies. If it stays silent the subject notices after 15 s; if it comes back with
/// another PSK and knocks, the subject goes on sending into a dead session.
pub fn black_hole(context: &Context<'_>) -> Outcome {
    let watch = if context.effort == Effort::Quick {
        Duration::from_secs(45)
    } else {
        Duration::from_secs(240)
    };
    let capture = Capture::start(&context.arena.ours)?;
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| one_death(context, &capture, Duration::from_secs(30), false));
        let knocking = one_death(context, &capture, watch, true);
        let silent = silent
            .join()
            .unwrap_or_else(|_| Err(Stop::Failed("a thread panicked".to_owned())));
        silent.and(knocking)
    })
}

fn one_death(context: &Context<'_>, capture: &Capture, watch: Duration, knocks: bool) -> Outcome {
    let options = Options {
        psk: Some(generate_psk()?),
        ..Options::default()
    };
    let mut duo = Duo::start(context, Who::Other, &options)?;
    duo.reach(Who::Other)?;
    duo.reach(Who::Subject)?;
    let pinging = ping_along(&duo, Who::Subject, watch);
    let died = Instant::now();
    duo.other.stop();
    let died_after = duo.seen(capture)?.len();
    let before = wg::show(&duo.subject)?;
    let also = if knocks {
        let psk = generate_psk()?;
        duo.other
            .restart_with(|settings| settings.psk = Some(psk))?;
        Some(ping_along(&duo, Who::Other, watch))
    } else {
        None
    };
    sleep((died + watch).saturating_duration_since(Instant::now()));
    let pings = [Some(pinging), also].into_iter().flatten().map(|thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err(Stop::Failed("a pinging thread panicked".to_owned())))
    });
    let answered = pings.collect::<Outcome<Vec<Pings>>>()?;
    ensure(
        answered.iter().all(|pings| pings.answered <= 1),
        format!("pings were answered: {answered:?}"),
    )?;
    // So that no message comes between the capture and the counters.
    duo.other.stop();
    let seen = duo.seen(capture)?;
    let after = wg::show(&duo.subject)?;
    if knocks {
        let grown = after.rx_bytes.checked_sub(before.rx_bytes);
        ensure(
            after.last_handshake == before.last_handshake,
            "the knocks count as a handshake",
        )?;
        knocked(context, &duo, &seen, died_after, grown)
    } else {
        silent(context, &duo, &seen, died_after)
    }
}

fn ping_along(duo: &Duo, from: Who, watch: Duration) -> std::thread::JoinHandle<Outcome<Pings>> {
    let (place, to): (Place, IpAddr) = (duo.side(from).place().clone(), duo.control(from.peer()));
    std::thread::spawn(move || place.ping(to, watch.as_secs() as u32 * 2, "0.5"))
}

fn silent(context: &Context<'_>, duo: &Duo, seen: &[Seen], died_after: usize) -> Outcome {
    let rest = &seen[died_after..];
    let initiation = rest
        .iter()
        .find(|message| message.kind() == Kind::Initiation && duo.is_from(Who::Subject, message));
    let heard = seen
        .iter()
        .rev()
        .find(|message| message.kind() == Kind::TransportData && duo.is_from(Who::Other, message));
    let heard = heard.map_or(Duration::ZERO, |message| message.at);
    let unanswered = seen.iter().find(|message| {
        message.kind() == Kind::TransportData
            && duo.is_from(Who::Subject, message)
            && message.at > heard
    });
    let (Some(initiation), Some(unanswered)) = (initiation, unanswered) else {
        return fail("a silent peer: the subject did not initiate");
    };
    let gap = initiation.at.saturating_sub(unanswered.at);
    ensure(
        (14.5..17.0).contains(&gap.as_secs_f32()),
        format!("a silent peer: the subject initiated after {gap:?}"),
    )?;
    context.say(format!(
        "a silent peer: the subject initiates {:.1} s after data that nothing answered",
        gap.as_secs_f32()
    ));
    Ok(())
}

fn knocked(
    context: &Context<'_>,
    duo: &Duo,
    seen: &[Seen],
    died_after: usize,
    grown: Option<u64>,
) -> Outcome {
    let (made, rest) = (seen[0].at, &seen[died_after..]);
    let from = |who, kind| {
        rest.iter()
            .filter(move |message| message.kind() == kind && duo.is_from(who, message))
    };
    let knocks: Vec<&Seen> = from(Who::Other, Kind::Initiation).collect();
    let [first, .., last] = knocks[..] else {
        return fail(format!("{} knocks", knocks.len()));
    };
    let answers = from(Who::Subject, Kind::Response).count();
    ensure(answers == knocks.len(), "a knock was not answered")?;
    ensure(
        grown == Some(148 * knocks.len() as u64),
        format!("{} knocks: rx_bytes grew by {grown:?}", knocks.len()),
    )?;
    let Some(data) = from(Who::Subject, Kind::TransportData).next_back() else {
        return fail("the subject stopped to send");
    };
    let age = |message: &Seen| (message.at - made).as_secs_f32();
    let initiated = from(Who::Subject, Kind::Initiation).next().map(age);
    let dead_at = 180.0;
    ensure(
        initiated.is_none_or(|age| age > dead_at - 2.0),
        format!("the subject initiated at age {initiated:?}"),
    )?;
    if context.effort > Effort::Quick {
        ensure(
            (dead_at - 3.0..dead_at + 1.0).contains(&age(data)),
            format!("the last data is of age {}", age(data)),
        )?;
    }
    context.say(format!(
        "{} knocks until age {:.0} s: data into the dead session until age {:.0} s, own initiation {}, \
         rx_bytes grew by 148 each",
        knocks.len(),
        age(last),
        age(data),
        initiated.map_or("never".to_owned(), |age| format!("at age {age:.0} s")),
    ));
    ensure(first.at > made, "a knock before the session")
}

/// A response counts as a handshake of one's own: no initiation follows it for 5 s, so that knocks
/// hold back the survivor even when it has no session at all.
pub fn hold_off(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, true)?;
    let capture = Capture::start(&context.arena.ours)?;
    ensure(bench.probe.knock()?, "a knock was not answered")?;
    let (place, to) = (
        bench.subject.place().clone(),
        bench.subject.settings().peer_addresses.1,
    );
    // Data that wants a session, all the time.
    let pinging = std::thread::spawn(move || place.ping(to.into(), 120, "0.2"));
    for _ in 0..4 {
        sleep(Duration::from_secs(4));
        ensure(bench.probe.knock()?, "a knock was not answered")?;
    }
    sleep(Duration::from_secs(7));
    match pinging.join() {
        Ok(pings) => pings?,
        Err(_) => return fail("the pinging thread panicked"),
    };
    let port = bench.subject.settings().listen_port;
    let seen = capture.seen_with_port(port)?;
    let own = |kind| {
        seen.iter()
            .filter(move |message| message.kind() == kind && message.source.port() == port)
    };
    let knocks = own(Kind::Response).count();
    let (Some(last), Some(initiation)) = (
        own(Kind::Response).next_back(),
        own(Kind::Initiation).next(),
    ) else {
        return fail("the subject never initiated");
    };
    let Some(gap) = initiation.at.checked_sub(last.at) else {
        return fail("an initiation came between knocks that were 4 s apart");
    };
    ensure(
        (4.9..6.5).contains(&gap.as_secs_f32()),
        format!("an initiation came {gap:?} after the last response"),
    )?;
    context.say(format!(
        "{knocks} knocks 4 s apart: no initiation though data waits; the first {:.1} s after the last response",
        gap.as_secs_f32()
    ));
    Ok(())
}
