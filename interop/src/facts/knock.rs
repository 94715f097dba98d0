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
        Duration::from_secs(200)
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
        knocked(context, &duo, &seen[died_after..], grown)
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
    let (Some(initiation), Some(heard)) = (initiation, heard) else {
        return fail("a silent peer: the subject did not initiate");
    };
    let gap = initiation.at.saturating_sub(heard.at);
    ensure(
        (14.0..18.0).contains(&gap.as_secs_f32()),
        format!("a silent peer: the subject initiated after {gap:?}"),
    )?;
    context.say(format!(
        "a silent peer: the subject initiates after {:.1} s",
        gap.as_secs_f32()
    ));
    Ok(())
}

fn knocked(context: &Context<'_>, duo: &Duo, rest: &[Seen], grown: Option<u64>) -> Outcome {
    let knocks: Vec<&Seen> = rest
        .iter()
        .filter(|message| message.kind() == Kind::Initiation && duo.is_from(Who::Other, message))
        .collect();
    let [first, .., last] = knocks[..] else {
        return fail(format!("{} knocks", knocks.len()));
    };
    let own = |kind| {
        rest.iter()
            .filter(move |message| message.kind() == kind && duo.is_from(Who::Subject, message))
    };
    let data = own(Kind::TransportData)
        .filter(|message| message.at > first.at)
        .count();
    ensure(data > 0, "the subject stopped to send")?;
    let initiated = own(Kind::Initiation).next();
    let answers = own(Kind::Response).count();
    ensure(answers == knocks.len(), "a knock was not answered")?;
    let lasted = initiated.map(|message| message.at - first.at);
    if context.effort == Effort::Quick {
        ensure(
            lasted.is_none(),
            format!("the subject noticed after {lasted:?}"),
        )?;
        ensure(
            grown == Some(148 * knocks.len() as u64),
            format!("rx_bytes grew by {grown:?}"),
        )?;
    } else {
        let lasted = lasted.unwrap_or_default().as_secs_f32();
        ensure(
            (150.0..185.0).contains(&lasted),
            format!("the subject noticed after {lasted} s"),
        )?;
    }
    context.say(format!(
        "{} knocks in {:.0} s: {data} packets into the dead session, the subject initiates after {}; \
         rx_bytes grew by {grown:?}",
        knocks.len(),
        (last.at - first.at).as_secs_f32(),
        lasted.map_or("no time seen".to_owned(), |time| format!("{:.0} s", time.as_secs_f32())),
    ));
    Ok(())
}
