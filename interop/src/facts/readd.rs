//! A peer that is removed and added again with one command.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::arena::{OUR_V4, OUR_V6};
use crate::capture::{Capture, Kind, kind_of};
use crate::facts::duo::{Duo, Options, Who};
use crate::facts::probe::{ANSWER, Bench, receive_from, socket_at};
use crate::facts::wg::{self, Readd};
use crate::keys::generate_psk;
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::runner::Context;

/// `wg set` sends both halves together, so there is no moment without the peer.
pub fn one_request(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let bench = Bench::start(context, &psk, false)?;
    let readd = Readd {
        psk: Some(psk),
        allowed_ips: bench.allowed_ips(),
        keepalive: Some(25),
        endpoint: Some(bench.probe_address),
    };
    let Some(requests) = readd.count_requests(&bench.subject)? else {
        context.say("not counted: strace is missing; apt-get install -y strace");
        return Ok(());
    };
    ensure(requests == 1, format!("wg set sent {requests} requests"))?;
    context.say("wg set peer K remove peer K ...: one request");
    let peer = &bench.subject.settings().peer;
    let nets: Vec<String> = (0..400_u32)
        .map(|n| format!("10.{}.{}.0/24", 1 + n / 256, n % 256))
        .collect();
    let words = format!(
        "peer {peer} remove peer {peer} allowed-ips {}",
        nets.join(",")
    );
    if let Some(requests) = wg::count_requests(&bench.subject, None, &words)? {
        context.say(format!(
            "the same with {} allowed IPs: {requests} request(s)",
            nets.len()
        ));
    }
    Ok(())
}

/// Sessions die, a keepalive handshakes at once, and an old initiation is new again.
pub fn kills(context: &Context<'_>) -> Outcome {
    let psk = generate_psk()?;
    let mut bench = Bench::start(context, &psk, false)?;
    let (old, pending) = bench.probe.initiation()?;
    bench.probe.send(&old)?;
    let session = bench.probe.finish(&pending, &psk)?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "the session does not work",
    )?;
    std::thread::sleep(Duration::from_millis(100));
    bench.probe.send(&old)?;
    let silence = Duration::from_secs(1);
    ensure(
        bench.probe.receive(Kind::Response, silence)?.is_none(),
        "a replayed initiation was answered",
    )?;
    let readd = Readd {
        psk: Some(psk.clone()),
        allowed_ips: bench.allowed_ips(),
        keepalive: None,
        endpoint: Some(bench.probe_address),
    };
    readd.run(&bench.subject)?;
    ensure(bench.probe.ask(session)?.is_none(), "the session survived")?;
    let peer = wg::show(&bench.subject)?;
    ensure(
        (peer.last_handshake, peer.rx_bytes, peer.tx_bytes) == (0, 0, 0),
        format!("counters survived: {peer:?}"),
    )?;
    context.say("removed and added: the session is dead, counters and last handshake are 0, nothing is sent");
    replay(context, &mut bench, &old, &psk)?;
    let readd = Readd {
        keepalive: Some(25),
        ..readd
    };
    bench.probe.forget_received()?;
    readd.run(&bench.subject)?;
    let begin = Instant::now();
    let Some(initiation) = bench.probe.receive(Kind::Initiation, ANSWER)? else {
        return fail("a keepalive made no initiation");
    };
    let after = begin.elapsed();
    ensure(
        after < Duration::from_secs(1),
        format!("only after {after:?}"),
    )?;
    let session = bench.probe.accept(&initiation, &psk)?;
    ensure(
        bench.probe.ask(session)? == Some(session),
        "the new session does not work",
    )?;
    context.say(format!(
        "with a keepalive: an initiation at once ({} ms after wg returned), a new session",
        after.as_millis()
    ));
    Ok(())
}

/// The old initiation from somewhere else: answered once, and the endpoint follows it.
fn replay(context: &Context<'_>, bench: &mut Bench, old: &[u8], psk: &str) -> Outcome {
    let elsewhere = SocketAddr::new(OUR_V4.parse()?, bench.probe_address.port() + 5000);
    let replayer = socket_at(&context.arena.ours, elsewhere)?;
    let to = bench.probe.subject_address();
    replayer.send_to(old, to)?;
    let Some((answer, _)) = receive_from(&replayer, ANSWER)? else {
        return fail("an old initiation was not answered after the peer was added again");
    };
    ensure(
        kind_of(&answer) == Kind::Response,
        "the answer is no response",
    )?;
    let flapped = wg::show(&bench.subject)?;
    ensure(
        flapped.endpoint == Some(elsewhere) && flapped.last_handshake == 0,
        format!("after the replay: {flapped:?}"),
    )?;
    replayer.send_to(old, to)?;
    ensure(
        receive_from(&replayer, Duration::from_secs(1))?.is_none(),
        "an old initiation was answered twice",
    )?;
    bench.probe.connect(psk)?;
    let mended = wg::show(&bench.subject)?;
    ensure(
        mended.endpoint == Some(bench.probe_address),
        format!("after a true handshake: {mended:?}"),
    )?;
    context.say(
        "an old initiation from another port: answered once, the endpoint follows until a true handshake",
    );
    Ok(())
}

/// The other side has moved; what `wg` shows of it is what the new handshake needs.
pub fn endpoint(context: &Context<'_>) -> Outcome {
    for outer_v6 in [false, true] {
        let capture = Capture::start(&context.arena.ours)?;
        let options = Options {
            outer_v6,
            psk: Some(generate_psk()?),
        };
        let duo = Duo::start(context, Who::Subject, &options)?;
        duo.reach(Who::Subject)?;
        let moved = duo.other.settings().listen_port + 5000;
        wg::set(&duo.other, None, &format!("listen-port {moved}"))?;
        duo.reach(Who::Other)?;
        let address = if outer_v6 { OUR_V6 } else { OUR_V4 };
        let expected = SocketAddr::new(address.parse()?, moved);
        let shown = wg::show(&duo.subject)?.endpoint;
        ensure(
            shown == Some(expected),
            format!("wg shows {shown:?}, not {expected}"),
        )?;
        let before = duo.seen(&capture)?.len();
        let (v6, v4) = duo.subject.settings().peer_addresses;
        let readd = Readd {
            psk: options.psk.clone(),
            allowed_ips: format!("{v6}/128,{v4}/32"),
            keepalive: Some(25),
            endpoint: None,
        };
        readd.run(&duo.subject)?;
        std::thread::sleep(Duration::from_secs(2));
        let port = duo.port();
        let sent = |seen: &[crate::capture::Seen]| {
            seen.iter().skip(before).find_map(|message| {
                (message.source.port() == port && message.kind() == Kind::Initiation)
                    .then_some(message.destination)
            })
        };
        let without = sent(&duo.seen(&capture)?);
        ensure(
            without.is_none(),
            format!("without an endpoint it initiated to {without:?}"),
        )?;
        Readd {
            endpoint: shown,
            ..readd
        }
        .run(&duo.subject)?;
        let limit = Duration::from_secs(5);
        let (to, _) = wait_for("the initiation", limit, || {
            duo.seen(&capture).ok().and_then(|seen| sent(&seen))
        })?;
        ensure(to == expected, format!("the initiation went to {to}"))?;
        duo.reach(Who::Subject)?;
        context.say(format!(
            "added again without an endpoint: silent; with {expected} as wg showed it: works"
        ));
    }
    Ok(())
}
