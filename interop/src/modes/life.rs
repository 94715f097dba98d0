//! What happens to a node in its life, and what must go on.

use crate::keys::generate_psk;
use crate::modes::Mode;
use crate::modes::host::{HEALS, Host, PORT, Program, START, pair, pair_up};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use std::time::Duration;

fn say(mode: Mode, text: impl AsRef<str>) {
    println!("    {}: {}", mode.word(), text.as_ref());
}

/// Two nodes connect; a megabyte each way on a stream, byte by byte; pings both ways.
pub fn streams_and_pings(mode: Mode) -> Outcome {
    let [a, b] = pair_up(mode)?;
    let took = a.heals_with(&b)?;
    say(
        mode,
        format!("streams and pings both ways {took:?} after the start"),
    );
    for (one, other) in [(&a, &b), (&b, &a)] {
        one.streams(other, 1 << 20, 40)?;
        let level = one.status_of(other)?["level"].to_string();
        ensure(level.contains('2'), format!("the level is {level}"))?;
    }
    if mode != Mode::Rootless {
        ensure(a.host_pings(&b)?, "the host's own ping is not answered")?;
    }
    Ok(())
}

/// Either side is killed and comes back.
pub fn restarts(mode: Mode) -> Outcome {
    let mut nodes = pair_up(mode)?;
    nodes[0].heals_with(&nodes[1])?;
    for (who, mode_of_it) in [mode, Mode::Rootless].into_iter().enumerate() {
        nodes[who].start(mode_of_it)?;
        let took = nodes[0].heals_with(&nodes[1])?;
        let name = ["the node", "the other one"][who];
        say(
            mode,
            format!("{name} restarted: streams both ways after {took:?}"),
        );
    }
    Ok(())
}

/// `kill -9`: interface, filter table and UDP port are gone, and the next start works.
pub fn killed(mode: Mode) -> Outcome {
    let [mut a, b] = pair_up(mode)?;
    a.heals_with(&b)?;
    let with_interface = mode != Mode::Rootless;
    ensure(a.has_interface() == with_interface, "an interface or none")?;
    ensure(
        a.tables()?.is_empty() != with_interface,
        "a filter table or none",
    )?;
    a.kill_node();
    wait_for("everything of it to go", START, || is_clean(&a).ok())?;
    a.start(mode)?;
    a.heals_with(&b).map(drop)
}

/// Nothing of a node is left on its host.
fn is_clean(host: &Host) -> Outcome {
    ensure(!host.has_interface(), "an interface is left")?;
    let tables = host.tables()?;
    ensure(tables.is_empty(), format!("a table is left: {tables}"))?;
    let sockets = host.place.run(&["ss", "-Huan"])?;
    let port = format!(":{PORT} ");
    ensure(
        !sockets.contains(&port),
        format!("a port is left: {sockets}"),
    )
}

/// Either side gets another address under a live session.
pub fn moves(mode: Mode) -> Outcome {
    let [a, b] = pair_up(mode)?;
    a.heals_with(&b)?;
    for (one, other, new) in [(&a, &b, "192.0.2.101"), (&b, &a, "192.0.2.102")] {
        one.place.move_address(&one.address, new)?;
        let (_, took) = wait_for("data from the new address", HEALS, || {
            one.node_pings(other, 3).ok()?;
            one.streams(other, 1_000, 5).ok()
        })?;
        wait_for("the other one to follow", HEALS, || {
            let endpoint = other.status_of(one).ok()?["endpoint"].to_string();
            other.node_pings(one, 3).ok()?;
            endpoint.contains(new).then_some(())
        })?;
        other.streams(one, 1_000, 10)?;
        say(mode, format!("at {new}: streams after {took:?}"));
    }
    Ok(())
}

/// The configured PSK changes under a running node: what it agreed on goes on, and a peer that
/// comes anew needs the new one.
pub fn psk(mode: Mode) -> Outcome {
    let [a, mut b] = pair_up(mode)?;
    a.heals_with(&b)?;
    let id = b.keys.public.clone();
    let (psk, other) = (generate_psk()?, generate_psk()?);
    let set = |key: &str| a.ask(&format!("psk {id} {key}")).map(drop);
    set(&psk)?;
    a.streams(&b, 1_000, 5)?;
    b.knows_as(&a, false, Some(&psk));
    b.start(Mode::Rootless)?;
    let took = a.heals_with(&b)?;
    say(mode, format!("with the new PSK: streams after {took:?}"));
    set(&other)?;
    b.start(Mode::Rootless)?;
    for _ in 0..2 {
        let through = b.node_pings(&a, 3).is_ok() || a.node_pings(&b, 3).is_ok();
        ensure(!through, "a peer with another PSK got through")?;
    }
    set(&psk)?;
    let took = a.heals_with(&b)?;
    say(mode, format!("mended in place: streams after {took:?}"));
    Ok(())
}

/// A peer is removed at run time: no byte goes through, and all is well when it is added again.
pub fn removed(mode: Mode) -> Outcome {
    let [a, b] = pair_up(mode)?;
    a.heals_with(&b)?;
    let removed = a.ask(&format!("remove {}", b.keys.public))?;
    ensure(removed == "true", removed)?;
    if mode == Mode::Kernel {
        // The kernel hears of it from the helper.
        std::thread::sleep(Duration::from_secs(1));
    }
    for _ in 0..2 {
        ensure(b.node_pings(&a, 2).is_err(), "it still gets an answer")?;
        ensure(b.streams(&a, 100, 2).is_err(), "it still has streams")?;
        ensure(a.node_pings(&b, 1).is_err(), "it is still reached")?;
    }
    if mode != Mode::Rootless {
        ensure(!a.host_pings(&b)?, "the host still reaches it")?;
    }
    a.ask(&format!("add {} {}:{PORT} own", b.keys.public, b.address))?;
    let took = a.heals_with(&b)?;
    say(mode, format!("added again: streams after {took:?}"));
    Ok(())
}

/// Another program has the UDP port: it is said, and nothing is left of the attempt.
pub fn port_taken(mode: Mode) -> Outcome {
    let [mut a, _b] = pair()?;
    if mode != Mode::Rootless {
        a.start_helper()?;
    }
    let holder = a.daemon("socat", &["-u", &format!("UDP4-RECV:{PORT}"), "STDOUT"])?;
    let port = PORT.to_string();
    wait_for("the port to be taken", START, || {
        let sockets = a.place.run(&["ss", "-Huan"]).ok()?;
        sockets.contains(&port).then_some(())
    })?;
    a.try_start(mode, Program::Library)?;
    let said = a.log();
    ensure(!a.is_running(), "it runs without its port")?;
    ensure(
        said.contains(&port),
        format!("the port is not named: {said}"),
    )?;
    holder.kill();
    is_clean(&a)?;
    a.start(mode)
}

/// There is an interface with the name: it is said with the remedy, it stays as it was, and nothing
/// is left of the attempt.
pub fn name_taken(mode: Mode) -> Outcome {
    let [mut a, b] = pair()?;
    a.start_helper()?;
    let words = [
        "ip", "link", "add", "wm0", "type", "veth", "peer", "name", "far0",
    ];
    a.place.run(&words)?;
    let before = a.place.run(&["ip", "-o", "link", "show", "wm0"])?;
    for program in [Program::Library, Program::Command] {
        a.try_start(mode, program)?;
        let said = a.log();
        ensure(!a.is_running(), format!("it runs: {said}"))?;
        ensure(
            said.contains("another name for the interface"),
            format!("no way out in: {said}"),
        )?;
        let after = a.place.run(&["ip", "-o", "link", "show", "wm0"])?;
        ensure(after == before, format!("{before} became {after}"))?;
    }
    a.place.run(&["ip", "link", "del", "wm0"])?;
    is_clean(&a)?;
    a.start(mode)?;
    let mut b = b;
    b.start(Mode::Rootless)?;
    a.heals_with(&b).map(drop)
}

/// The helper is killed: traffic goes on. It is started again: the node recovers by itself.
pub fn helper_killed(mode: Mode) -> Outcome {
    for program in [Program::Library, Program::Command] {
        let [mut a, mut b] = pair()?;
        a.start_as(mode, program)?;
        b.start(Mode::Rootless)?;
        let reached = |limit| wait_for("pings", limit, || a_reaches_b(&a, &b));
        reached(HEALS)?;
        a.kill_helper();
        ensure(a.host_pings(&b)?, "without the helper nothing goes on")?;
        ensure(a.has_interface(), "the interface went with the helper")?;
        a.start_helper()?;
        wait_for("the node to start anew", HEALS, || {
            let anew = match program {
                Program::Library => a.log().contains("the interface is lost"),
                Program::Command => a.log().contains("the node starts again"),
            };
            anew.then_some(())
        })
        .or_else(|_| fail(a.log()))?;
        let (_, took) = wait_for("pings", HEALS, || a_reaches_b(&a, &b))
            .or_else(|_| fail(format!("no pings: {}", a.log())))?;
        ensure(a.is_running(), "it ended")?;
        ensure(!a.tables()?.is_empty(), "no filter table")?;
        if program == Program::Library {
            a.heals_with(&b)?;
        }
        say(
            mode,
            format!("{program:?}: pings {took:?} after the helper's start"),
        );
    }
    Ok(())
}

fn a_reaches_b(a: &Host, b: &Host) -> Option<()> {
    let both = a.host_pings(b).ok()? && b.node_pings(a, 3).is_ok();
    both.then_some(())
}
