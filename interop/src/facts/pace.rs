//! How close two initiations to one peer may follow each other.

use std::time::{Duration, Instant};

use crate::capture::{Capture, Kind, Seen};
use crate::facts::duo::{Duo, Options, Who};
use crate::facts::probe::Bench;
use crate::facts::wg::{self, Readd};
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::runner::Context;

/// The timestamps of initiations are rounded down to a multiple of this, 16.8 ms.
const ROUNDED_TO: u32 = 1 << 24;

/// Fails unless the nanoseconds of a timestamp are rounded.
pub fn ensure_rounded(nanos: u32) -> Outcome {
    ensure(
        nanos.is_multiple_of(ROUNDED_TO),
        format!("a timestamp with {nanos} ns is not rounded"),
    )
}

/// How many initiations one series has.
const COUNT: usize = 20;
/// How often a series is tried at most: a busy machine bunches what was sent apart.
const TRIES: usize = 10;

/// Initiations of one peer at several distances, all with the right order of timestamps.
pub fn accepted(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, false)?;
    bench.probe.connect(&psk)?;
    for (distance, all) in [(100, true), (40, true), (15, false), (5, false)] {
        let mut answered = Vec::new();
        for _ in 0..TRIES {
            std::thread::sleep(Duration::from_millis(200));
            answered.push(series(&mut bench, Duration::from_millis(distance))?);
            if !all || answered.last() == Some(&COUNT) {
                break;
            }
        }
        let said = format!("{COUNT} initiations {distance} ms apart: answered {answered:?}");
        let best = answered.iter().copied().max().unwrap_or_default();
        ensure(best > 0, &said)?;
        ensure((best == COUNT) == all, &said)?;
        context.say(said);
    }
    Ok(())
}

fn series(bench: &mut Bench, distance: Duration) -> Outcome<usize> {
    let mut messages = Vec::new();
    for _ in 0..COUNT {
        messages.push(bench.probe.initiation()?.0);
    }
    bench.probe.forget_received()?;
    let start = Instant::now();
    for (number, message) in messages.iter().enumerate() {
        let due = start + distance * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        bench.probe.send(message)?;
    }
    let mut answered = 0;
    let silence = Duration::from_millis(700);
    while bench.probe.receive(Kind::Response, silence)?.is_some() {
        answered += 1;
    }
    Ok(answered)
}

/// Two times removed and added within some milliseconds: the second initiation is dropped, the
/// response to the first finds nobody, and the next initiation comes after 5 s.
pub fn twice(context: &Context<'_>) -> Outcome {
    for _ in 0..TRIES {
        let capture = Capture::start(&context.arena.ours)?;
        let duo = Duo::start(context, Who::Subject, &Options::default())?;
        duo.reach(Who::Subject)?;
        let before = duo.seen(&capture)?.len();
        let settings = duo.subject.settings();
        let (v6, v4) = settings.peer_addresses;
        let readd = Readd {
            psk: None,
            allowed_ips: format!("{v6}/128,{v4}/32"),
            keepalive: Some(25),
            endpoint: settings.endpoint,
        };
        let words = readd.words(&settings.peer);
        wg::set(&duo.subject, None, &format!("{words} {words}"))?;
        let limit = Duration::from_secs(12);
        wait_for("a handshake", limit, || {
            let peer = wg::show(&duo.subject).ok()?;
            (peer.last_handshake > 0).then_some(())
        })?;
        let seen = duo.seen(&capture)?;
        let rest = &seen[before..];
        let of = |who, kind| -> Vec<&Seen> {
            rest.iter()
                .filter(|message| message.kind() == kind && duo.is_from(who, message))
                .collect()
        };
        let initiations = of(Who::Subject, Kind::Initiation);
        let [first, second, ..] = initiations[..] else {
            return fail(format!("{} initiations", initiations.len()));
        };
        let gap = second.at - first.at;
        if gap > Duration::from_millis(15) {
            context.say(format!(
                "the two came {gap:?} apart, which is too far: again"
            ));
            continue;
        }
        let Some(third) = initiations.get(2) else {
            return fail("the second initiation was accepted");
        };
        let responses = of(Who::Other, Kind::Response).len();
        ensure(responses == 2, format!("{responses} responses"))?;
        let retry = third.at - second.at;
        ensure(
            (4.5..6.5).contains(&retry.as_secs_f32()),
            format!("the third initiation came after {retry:?}"),
        )?;
        context.say(format!(
            "two initiations {gap:?} apart: one response, the next initiation after {:.1} s",
            retry.as_secs_f32()
        ));
        return Ok(());
    }
    fail("the two initiations never came close enough")
}
